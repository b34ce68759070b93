# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two machines that joined two clusters, seen from outside of Ansible."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
import machines
from machines import EPHEMERAL, LAB_HOME, STATE, machine

KUBEADM = json.loads((STATE / "join" / "kubeadm.json").read_text())
CLUSTERS = {"agent1": str(STATE / "join" / "plant07.kubeconfig"), "agent2": KUBEADM["kubeconfig"]}
UNITS = {"agent1": "k3s-agent.service", "agent2": "kubelet.service"}


def node(name: str) -> dict[str, Any]:
    words = [LAB_HOME / "cache" / "bin" / "kubectl", "--kubeconfig", CLUSTERS[name], "get", "node", name]
    done = subprocess.run(
        [*map(str, words), "--output", "json"], capture_output=True, text=True, timeout=60, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def token(name: str) -> str:
    """Return the part of the token that must be nowhere."""
    if name == "agent1":
        return (STATE / "join" / "k3s.token").read_text().strip().rpartition(":")[2]
    return str(KUBEADM["token"]).partition(".")[2]


@pytest.fixture(params=sorted(CLUSTERS))
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_the_node_is_ready_and_has_its_labels(name: str) -> None:
    found = node(name)
    ready = [row["status"] for row in found["status"]["conditions"] if row["type"] == "Ready"]
    assert ready == ["True"]
    assert found["metadata"]["labels"]["line"] == name.removeprefix("agent")
    taints = [taint for taint in found["spec"].get("taints", []) if taint["key"] == "line"]
    assert bool(taints) == (name == "agent1")


def test_the_worker_has_the_address_that_the_cluster_reaches() -> None:
    addresses = {row["address"] for row in node("agent2")["status"]["addresses"]}
    assert KUBEADM["address"] in addresses


def test_the_service_runs_and_starts_with_the_machine(name: str) -> None:
    unit = machine(name).service(UNITS[name])
    assert unit.is_running
    assert unit.is_enabled


def test_nothing_was_restarted_by_the_second_run(name: str) -> None:
    def started(text: str) -> str:
        (block,) = [part for part in text.split("\n\n") if f"Id={UNITS[name]}" in part.splitlines()]
        return "\n".join(sorted(block.split()))

    properties = "Id,MainPID,ExecMainStartTimestampMonotonic"
    now = machine(name).check_output(f"systemctl show --property={properties} {UNITS[name]}")
    assert started(now) == started((EPHEMERAL / f"{name}.services").read_text())


def test_the_token_is_nowhere_else(name: str, tmp_path: Path) -> None:
    secret = token(name)
    assert machines.places_of(secret, machine(name), tmp_path) == []
    for log in EPHEMERAL.glob("*.log"):
        assert secret not in log.read_text(errors="replace"), log


def test_nothing_of_the_join_is_left() -> None:
    host = machine("agent2")
    assert not host.file("/run/edgeha-join.json").exists
    assert host.check_output("ls /var/tmp") == ""


def test_check_mode_on_finished_machines_finds_nothing_to_change() -> None:
    done = machines.play("../shared/converge.yml", "--check", "--diff", limit=400)
    assert set(machines.nothing_to_change(done)) >= {"agent1", "agent2", "server1"}
