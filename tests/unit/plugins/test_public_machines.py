# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the inventories to copy become for each machine: every variable of the roles that make clusters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mapping import mapping

ROOT = Path(__file__).resolve().parents[3]
ROLES = ("node_prepare_", "cluster_state_", "k3s_artifacts_")
PLAYBOOK = """
- hosts: "{{ ['edge_servers', 'edge_agents'] | intersect(groups) }}"
  gather_facts: false
  connection: local
  vars: {ansible_python_interpreter: "{{ ansible_playbook_python }}", vault_iothub_policy_key: a2V5}
  roles: [edgeha.iotedge.public_variables]
  tasks:
    - ansible.builtin.set_fact:
        __kept_fleet: "{{ __fleet }}"
      run_once: true
    - ansible.builtin.copy:
        content: "{{ dict(names | zip(query('ansible.builtin.vars', *names))) | to_json }}"
        dest: FOLDER/{{ inventory_hostname }}.json
        mode: "0600"
      vars:
        role: "{{ 'k3s_server_' if inventory_hostname in __cluster_servers else 'k3s_agent_' }}"
        names: "{{ all_names | select('match', '(' ~ (ROLES + [role]) | join('|') ~ ')') }}"
"""


def mapped(inventory: str, folder: Path, **more: Any) -> dict[str, dict[str, Any]]:
    names = [name for name in mapping() if not name.startswith("__")]
    playbook = folder / "playbook.yml"
    text = PLAYBOOK.replace("FOLDER", str(folder))
    playbook.write_text(text.replace("ROLES", str(list(ROLES))))
    hosts = ROOT / "inventories" / inventory / "hosts.yml"
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "--inventory", hosts, playbook,
         "--extra-vars", json.dumps({"all_names": names, **more})],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "WARNING" not in done.stdout + done.stderr
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return mapped("fleet", tmp_path_factory.mktemp("fleet"))


def test_three_machines_and_an_address(tmp_path: Path) -> None:
    machines = mapped("ha", tmp_path)
    assert set(machines) == {"gw1", "gw2", "gw3"}
    second = machines["gw2"]
    assert second["k3s_server_peers"] == ["10.7.0.10", "10.7.0.13", "10.7.0.11"]
    assert second["k3s_server_node_ip"] == "10.7.0.12"
    assert second["k3s_server_etcd"] is True
    assert "10.7.0.10" in second["k3s_server_tls_san"]
    assert second["cluster_state_datastore"] == "etcd"
    entries = {entry["address"]: entry["names"] for entry in second["node_prepare_host_entries"]}
    assert entries == {f"10.7.0.1{n}": [f"gw{n}"] for n in (1, 2, 3)}


def test_servers_of_a_datastore_elsewhere_get_what_opens_it(tmp_path: Path) -> None:
    given = {name: f"<{name}>" for name in ("endpoint", "ca", "certificate", "key")}
    more = {f"edge_k3s_datastore_{name}": value for name, value in given.items()}
    machine = mapped("ha", tmp_path, edge_k3s_datastore="endpoint", **more)["gw2"]
    assert {name: machine[f"k3s_server_datastore_{name}"] for name in given} == given
    assert machine["k3s_server_etcd"] is False
    assert machine["cluster_state_datastore"] == "external"


def test_machines_of_a_fleet_know_their_own_site_only(fleet: dict[str, dict[str, Any]]) -> None:
    assert len(fleet) == 7
    first = fleet["plant01-gw1"]
    assert first["cluster_state_servers"] == ["plant01-gw1", "plant01-gw2", "plant01-gw3"]
    assert first["cluster_state_agents"] == []
    assert "10.2." not in json.dumps(first)


def test_an_agent_joins_by_the_address_of_its_site(fleet: dict[str, dict[str, Any]]) -> None:
    agent = fleet["plant02-line1"]
    assert agent["k3s_agent_servers"] == ["10.2.0.10"]
    assert agent["k3s_agent_labels"] == ["line=1"]
    assert agent["k3s_agent_taints"] == ["line=1:NoSchedule"]


@pytest.mark.parametrize(
    ("more", "version"),
    [
        ({}, ""),
        # None is asked for: what the servers run, but in an upgrade, which takes the newest of the lock.
        ({"__cluster_state_plan": {"version": "v1.34.4+k3s1"}}, "v1.34.4+k3s1"),
        ({"__cluster_join_takes": "v1.34.4+k3s1"}, "v1.34.4+k3s1"),
        ({"__cluster_operation_plan": {"version": "v1.34.4+k3s1"}}, "v1.34.4+k3s1"),
        ({"__cluster_state_plan": {"version": "v1.34.4+k3s1"}, "cluster_operation_name": "upgrade"}, ""),
        (
            {"__cluster_state_plan": {"version": "v1.34.4+k3s1"}, "edge_k3s_version": "v1.34.5+k3s1"},
            "v1.34.5+k3s1",
        ),
    ],
)
def test_version_of_what_is_installed(tmp_path: Path, more: dict[str, Any], version: str) -> None:
    machine = mapped("ha", tmp_path, **more)["gw1"]
    assert machine["k3s_artifacts_version"] == version
    assert machine["cluster_state_version"] == more.get("edge_k3s_version", "")
    assert machine["node_prepare_ca_file"] == ""
