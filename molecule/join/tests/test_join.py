# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two machines that joined two clusters, seen from outside of Ansible."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

PROJECT = Path(__file__).resolve().parents[3]
SCENARIO = Path(__file__).resolve().parents[1]
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
LAB_HOME = Path(os.environ.get("EDGEHA_LAB_HOME") or Path.home() / ".cache" / "edgeha-lab")
STATE = LAB_HOME / "run" / os.environ["EDGEHA_LAB_NAME"]
INVENTORY = STATE / "inventory" / "hosts.yml"
KUBEADM = json.loads((STATE / "join" / "kubeadm.json").read_text())
CLUSTERS = {"agent1": str(STATE / "join" / "plant07.kubeconfig"), "agent2": KUBEADM["kubeconfig"]}
UNITS = {"agent1": "k3s-agent.service", "agent2": "kubelet.service"}


def machine(name: str) -> Host:
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}")


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
    host, secret = machine(name), token(name)
    assert len(secret) >= 16
    # It goes from file to file, so that the search is not what is found.
    (tmp_path / "secret").write_text(f"{secret}\n")
    host.ansible("copy", f"src={tmp_path}/secret dest=/run/secret mode=0600", check=False)
    assert host.file("/run/secret").size == len(secret) + 1
    secret_in = "grep -l -s -r -F -f /run/secret"
    try:
        assert host.run("journalctl --no-pager --quiet | grep -F -f /run/secret").stdout == ""
        assert host.run(f"{secret_in} /proc/[0-9]*/cmdline /proc/[0-9]*/environ").stdout == ""
        assert host.run(f"{secret_in} /etc/systemd /run/systemd /var/log /tmp /var/tmp").stdout == ""
        wide = "find /etc /root /run -xdev -type f -size -2048k -perm /077"
        assert host.run(f"{wide} -exec grep -l -s -F -f /run/secret {{}} +").stdout == ""
    finally:
        host.run("rm -f /run/secret")
    for log in EPHEMERAL.glob("*.log"):
        assert secret not in log.read_text(errors="replace"), log


def test_nothing_of_the_join_is_left() -> None:
    host = machine("agent2")
    assert not host.file("/run/edgeha-join.json").exists
    assert host.check_output("ls /var/tmp") == ""


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ansible-playbook", "--inventory", f"{EPHEMERAL}/inventory", *options, "../shared/converge.yml"],
        cwd=SCENARIO, capture_output=True, text=True, timeout=400, check=False,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": f"{PROJECT}/.collections", "ANSIBLE_FORCE_COLOR": "0"},
    )  # fmt: skip


def test_check_mode_on_finished_machines_finds_nothing_to_change() -> None:
    """Molecule's own check step stays green whatever it finds, so its recap is read here."""
    done = run("--check", "--diff")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    recap = re.findall(r"^(\S+)\s*: ok=\d+\s+changed=(\d+) .*failed=(\d+)", done.stdout, re.MULTILINE)
    assert {name for name, *_ in recap} >= {"agent1", "agent2", "server1"}
    assert all(changed == failed == "0" for _, changed, failed in recap), done.stdout[-4000:]
