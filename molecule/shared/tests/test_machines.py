# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for machines of k3s in every scenario, seen from outside of Ansible."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from testinfra.host import Host

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import machines
from machines import EPHEMERAL, machine

GROUPS = yaml.safe_load(machines.INVENTORY.read_text())["all"]["children"]
SERVERS = list(GROUPS["edge_servers"]["hosts"])
AGENTS = list(GROUPS["edge_agents"]["hosts"])
CONFIGURATION = "/etc/rancher/k3s"
# Tasks that a machine executes where all is as wanted, in all stages together.
MOST_EXECUTED = 20


@pytest.fixture(params=SERVERS + AGENTS)
def node(request: pytest.FixtureRequest) -> tuple[str, Host]:
    return request.param, machine(request.param)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Host:
    return machine(request.param)


def secret() -> str:
    """Return what must be nowhere: the secret part of the token."""
    return machine(SERVERS[0]).check_output("cat /var/lib/rancher/k3s/server/token").rpartition(":")[2]


def services(text: str) -> dict[str, tuple[str, str]]:
    """Return process and start of each service that runs, of what `systemctl show` says."""
    found = {}
    for block in text.strip().split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        if values.get("MainPID", "0") != "0":
            found[values["Id"]] = (values["MainPID"], values["ExecMainStartTimestampMonotonic"])
    return found


def test_the_service_runs_and_starts_with_the_machine(node: tuple[str, Host]) -> None:
    name, host = node
    unit = host.service("k3s" if name in SERVERS else "k3s-agent")
    assert unit.is_running
    assert unit.is_enabled


def test_nothing_was_restarted_by_the_second_run(node: tuple[str, Host]) -> None:
    name, host = node
    before = services((EPHEMERAL / f"{name}.services").read_text())
    properties = "Id,MainPID,ExecMainStartTimestampMonotonic"
    after = services(host.check_output(f"systemctl show --type=service --property={properties} '*.service'"))
    assert "k3s.service" in before or "k3s-agent.service" in before
    # Sessions of ssh come and go; what is lost otherwise was stopped.
    assert {name: after.get(name) for name in before} == before


def test_files_with_secrets_are_root_s_alone(node: tuple[str, Host]) -> None:
    _name, host = node
    for path in ("token", "config.yaml"):
        file = host.file(f"{CONFIGURATION}/{path}")
        assert (file.user, oct(file.mode)) == ("root", "0o600"), path


def test_founding_leaves_no_trace(server: Host) -> None:
    """Nobody stays the founder: a server that loses its disk must not found a second cluster."""
    files = server.check_output(
        f"cat {CONFIGURATION}/config.yaml {CONFIGURATION}/config.yaml.d/*.yaml || true"
    )
    assert ("cluster-init" in files) == (len(SERVERS) == 1 and "cluster-init" in files)
    assert len(SERVERS) == 1 or "server:" in files


def test_the_token_is_nowhere_else(node: tuple[str, Host], tmp_path: Path) -> None:
    _name, host = node
    own = host.check_output("cat /etc/rancher/k3s/token").rpartition(":")[2]
    assert machines.places_of(own, host, tmp_path) == []


def test_the_token_is_in_no_log_of_the_controller() -> None:
    logs = [*EPHEMERAL.glob("*.log")]
    assert logs
    for log in logs:
        assert secret() not in log.read_text(errors="replace"), log


def nodes() -> list[dict[str, Any]]:
    document = json.loads(machine(SERVERS[0]).check_output("k3s kubectl get nodes -o json"))
    found: list[dict[str, Any]] = document["items"]
    return found


def test_every_machine_is_one_ready_node_of_one_cluster() -> None:
    ready = {
        item["metadata"]["name"]: [c["status"] for c in item["status"]["conditions"] if c["type"] == "Ready"]
        for item in nodes()
    }
    assert ready == {name: ["True"] for name in SERVERS + AGENTS}
    authorities = {
        machine(name).file("/var/lib/rancher/k3s/server/tls/server-ca.crt").sha256sum for name in SERVERS
    }
    assert len(authorities) == 1


def test_check_mode_on_finished_machines_finds_nothing_to_change() -> None:
    done = machines.play("../shared/converge.yml", "--check", "--diff")
    rows = machines.nothing_to_change(done)
    assert "WARNING" not in done.stdout + done.stderr
    assert set(rows) >= set(SERVERS + AGENTS)
    for name in SERVERS + AGENTS:
        assert rows[name].executed <= MOST_EXECUTED, f"{name}: {done.stdout}"
