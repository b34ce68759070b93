# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Machines of a lab with a mirror of k3s releases: three servers, one agent (tools/k3s-contract)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from .machine import Machine, eventually

TOKEN = "contract-secret"


@pytest.fixture(scope="session")
def machines() -> dict[str, Machine]:
    inventory = os.environ.get("ANSIBLE_INVENTORY")
    if not inventory:
        pytest.skip("needs a lab with k3s releases: tools/k3s-contract starts one")
    document = yaml.safe_load(Path(inventory).read_text())["all"]
    values, found = document["vars"], {}
    for group, role in (("edge_servers", "server"), ("edge_agents", "agent")):
        for name, host in document["children"][group]["hosts"].items():
            found[name] = Machine(
                name,
                host["ansible_host"],
                values["ansible_ssh_private_key_file"],
                values["ansible_ssh_common_args"],
                values["edge_k3s_source"],
                role,
            )
    return found


@pytest.fixture(scope="session")
def versions() -> list[str]:
    """Versions on the mirror, oldest first."""
    values = yaml.safe_load(Path(os.environ["ANSIBLE_INVENTORY"]).read_text())["all"]["vars"]
    return sorted(yaml.safe_load(Path(values["edge_k3s_lock"]).read_text()))


@pytest.fixture(scope="session")
def vip(machines: dict[str, Machine]) -> str:
    """An address of the lab's network that no machine has."""
    return machines["server1"].address.rpartition(".")[0] + ".199"


@pytest.fixture(scope="session")
def settings(vip: str) -> dict[str, object]:
    return {
        "token": TOKEN,
        "tls_san": [vip],
        "secrets_encryption": True,
        "disable": ["traefik", "servicelb", "metrics-server", "local-storage"],
        "etcd_arg": ["heartbeat-interval=100", "election-timeout=1000"],
    }


@pytest.fixture(scope="session")
def cluster(
    machines: dict[str, Machine], versions: list[str], settings: dict[str, object]
) -> dict[str, Machine]:
    """Three servers with embedded etcd, of which two join at once, and one agent by the full token."""
    first, agent = machines["server1"], machines["agent1"]
    others = [machines["server2"], machines["server3"]]
    for machine in machines.values():
        machine.install(versions[0])
    first.configure(**settings, cluster_init=True)
    first.start()
    for machine in others:
        machine.configure(**settings, server=f"https://{first.address}:6443")
        machine.run("systemctl start --no-block k3s")
    agent.configure(
        server=f"https://{first.address}:6443",
        token=first.run("cat /var/lib/rancher/k3s/server/node-token").strip(),
        node_label=["edge=yes"],
        node_taint=["only=agents:PreferNoSchedule"],
    )
    agent.run("systemctl start --no-block k3s-agent")
    for machine in machines.values():
        eventually(f"{machine.name} to be Ready", lambda name=machine.name: first.is_ready(name), 180)
    return machines
