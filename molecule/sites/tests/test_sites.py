# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site that is broken stops itself and no other one."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
from machines import EPHEMERAL, STATE, machine, play, recap

LOG = EPHEMERAL / "sites.log"


def ready(name: str) -> list[str]:
    nodes = json.loads(machine(name).check_output("k3s kubectl get nodes -o json"))["items"]
    return [
        item["metadata"]["name"]
        for item in nodes
        for condition in item["status"]["conditions"]
        if condition["type"] == "Ready" and condition["status"] == "True"
    ]


@pytest.mark.parametrize("name", ["server1", "server3"])
def test_the_others_are_there(name: str) -> None:
    assert ready(name) == [name]


def test_the_broken_one_is_as_it_was() -> None:
    assert not machine("server2").file("/usr/local/bin/k3s").exists
    assert not machine("server2").file("/etc/rancher/k3s/config.yaml").exists


def test_the_report_says_which_and_why() -> None:
    text = LOG.read_text()
    assert re.search(r"has the SHA-256 [0-9a-f]{64}, expected is f{64}", text)
    assert "The cluster site2-cluster is not as wanted: server2 is not done" in " ".join(text.split())
    failed = {name for name, row in recap(text).items() if row.failed}
    assert failed == {"server2", "site2-cluster"}


def test_once_it_is_repaired_the_next_run_brings_it_up_and_leaves_the_others_alone() -> None:
    before = {
        name: machine(name).check_output("systemctl show -p MainPID k3s") for name in ("server1", "server3")
    }
    options = ("--extra-vars", f"edge_k3s_lock={STATE}/k3s-lock.yml")
    done = play("../shared/converge.yml", *options, limit=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert ready("server2") == ["server2"]
    rows = recap(done.stdout)
    assert rows["server1"][1:] == rows["server3"][1:] == (0, 0)
    for name, process in before.items():
        assert machine(name).check_output("systemctl show -p MainPID k3s") == process
