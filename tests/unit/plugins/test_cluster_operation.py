# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How an operation is refused, for machines that are folders of this one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.plugins.playbook import run_play

CLUSTERS = {"plant07": ["gw1", "gw2", "box1"], "plant08": ["gw8"]}
# The probe tells who may not see all of a machine.
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the probe needs root")


def run(
    place: Path, name: str, *options: str, confirm: str = "", nodes: Any = ""
) -> tuple[int, str, list[str]]:
    """Run the role for two clusters; return the exit code, the output, and the machines that may go on."""
    hosts: dict[str, Any] = {}
    for cluster, machines in CLUSTERS.items():
        for machine in machines:
            hosts[machine] = {
                "cluster_operation_cluster": cluster,
                "cluster_operation_servers": [host for host in machines if host.startswith("gw")],
                "cluster_operation_agents": [host for host in machines if host.startswith("box")],
                "cluster_operation_data_dir": str(place / machine),
            }
    # Nobody listens there: this machine answers, and that one does not.
    hosts["gw2"] |= {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    variables = {
        "cluster_operation_name": name,
        "cluster_operation_clusters": list(CLUSTERS),
        "cluster_operation_confirm": confirm,
        "cluster_operation_nodes": nodes,
    }
    tasks = [
        {"name": "Refuse", "ansible.builtin.import_role": {"name": "edgeha.iotedge.cluster_operation"}},
        {
            "name": "Go on",
            "ansible.builtin.debug": {
                "msg": "{{ inventory_hostname }} goes on: {{ __cluster_operation_plan.targets | join(',') }}"
            },
        },
    ]
    done = run_play(place, hosts, tasks, *options, variables=variables)
    output = done.stdout + done.stderr
    return done.returncode, output, [line for line in output.splitlines() if "goes on" in line]


def test_what_nobody_confirmed_stops_all_and_is_told_once_for_each_cluster(tmp_path: Path) -> None:
    code, output, onwards = run(tmp_path, "restore")
    assert (code, onwards) == (2, [])
    for cluster in CLUSTERS:
        assert f"add -e edge_confirm={cluster}" in output
    assert "Cluster plant07 is left as it is: see gw1" in output


def test_only_the_cluster_that_was_confirmed_is_acted_on(tmp_path: Path) -> None:
    """A machine that does not answer is no failure by itself; for all of its cluster it is one here."""
    code, output, onwards = run(tmp_path, "reset", confirm="plant08")
    assert code == 0, output[-3000:]
    assert [line.strip() for line in onwards] == ["msg: 'gw8 goes on: gw8'"]
    code, output, onwards = run(tmp_path, "reset", confirm="plant07")
    assert (code, onwards) == (2, [])
    assert "it does not answer" in output


def test_a_limit_that_hides_a_machine(tmp_path: Path) -> None:
    code, output, onwards = run(tmp_path, "reset", "--limit", "gw1", confirm="plant07")
    assert (code, onwards) == (2, [])
    assert "--limit hides gw2, box1" in output
