# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role decides for machines that are folders of this one, and how it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.plugins.playbook import run_play

SERVERS = ["gw1", "gw2", "gw3"]
# The probe tells who may not see all of a machine.
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the probe needs root")


def run(place: Path, *options: str, **variables: Any) -> tuple[int, str, dict[str, Any]]:
    """Run the role for three servers and an agent; return the exit code, the output and the plans."""
    hosts = {name: {"cluster_state_data_dir": str(place / name)} for name in [*SERVERS, "ag1"]}
    role = {
        "cluster_state_cluster": "plant07",
        "cluster_state_servers": SERVERS,
        "cluster_state_agents": ["ag1"],
        "cluster_state_addresses": {name: f"10.7.0.{10 + int(name[2:])}" for name in SERVERS},
        **variables,
    }
    tasks: list[dict[str, Any]] = [
        {
            "name": "Decide",
            "ansible.builtin.import_role": {"name": "edgeha.iotedge.cluster_state"},
            "vars": role,
        },
        {
            "name": "Write the plan",
            "ansible.builtin.copy": {
                "dest": f"{place}/{{{{ inventory_hostname }}}}.json",
                "content": "{{ __cluster_state_plan | to_json }}",
            },
        },
    ]
    done = run_play(place, hosts, tasks, *options)
    plans = {file.stem: json.loads(file.read_text()) for file in sorted(place.glob("*[0-9].json"))}
    return done.returncode, done.stdout + done.stderr, plans


def hold_etcd(place: Path, name: str) -> None:
    etcd = place / name / "server" / "db" / "etcd"
    (etcd / "member" / "wal").mkdir(parents=True)
    (etcd / "name").write_text(f"{name}-1a2b3c4d")


def test_bare_machines_and_those_of_a_power_cut(tmp_path: Path) -> None:
    code, output, plans = run(tmp_path)
    assert code == 0, output[-3000:]
    assert {name: (plan["action"], plan["wave"], plan["via"]) for name, plan in plans.items()} == {
        "gw1": ("found", 0, ""),
        "gw2": ("join", 1, "10.7.0.11"),
        "gw3": ("join", 2, "10.7.0.11"),
        "ag1": ("join", 0, ""),
    }
    hold_etcd(tmp_path, "gw2")
    hold_etcd(tmp_path, "gw3")
    # An agent may be left out.
    code, output, plans = run(tmp_path, "--limit", "gw1,gw2,gw3")
    assert [(plans[name]["action"], plans[name]["cold"]) for name in SERVERS] == [
        ("join", False),
        ("start", True),
        ("start", True),
    ]


def test_every_problem_of_a_cluster_is_told_once_and_all_of_its_machines_fail(tmp_path: Path) -> None:
    hold_etcd(tmp_path, "ag1")
    code, output, plans = run(tmp_path, "--limit", "gw2,gw3,ag1", cluster_state_server_count=5)
    assert (code, plans) == (2, {})
    assert output.count("failed=1") == 3
    for fact in ("is left out of this run by", "stands in edge_agents and is a server", "is 5,"):
        # Once where the error is told and once in the result of the machine.
        assert output.count(fact) == 2, output[-3000:]
    assert "Cluster plant07 is left as it is: see gw2" in output
