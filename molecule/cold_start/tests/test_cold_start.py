# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests stand in their order: each goes on with the cluster that the one before has left."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
import operations as lab


def everybody(action: str) -> None:
    for name in lab.addresses():
        lab.lab("fault", action, name)


def ready() -> set[str]:
    return {name for name, node in lab.nodes().items() if node["ready"]}


def test_after_a_power_cut_of_all_machines_the_next_run_finds_the_same_cluster() -> None:
    lab.kubectl("create configmap before --from-literal=a=1")
    authority = lab.authorities()
    everybody("power")
    everybody("heal")
    lab.play("cluster")
    assert lab.all_is_well()
    assert lab.authorities() == authority
    assert "before" in lab.kubectl("get configmap before -o name")


def test_servers_that_nobody_started_are_started_together() -> None:
    """Each alone waits for a majority: one after the other, the first would wait for ever."""
    authority = lab.authorities()
    for name in lab.servers():
        lab.ssh(name, "systemctl stop k3s")
    said = lab.play("cluster")
    assert {name for name, number in lab.changes(said).items() if number} == set(lab.servers())
    assert lab.all_is_well()
    assert lab.authorities() == authority
    assert "before" in lab.kubectl("get configmap before -o name")


def test_one_that_stays_dark_is_told_of_and_keeps_nobody() -> None:
    """Two of three are a majority; nothing is founded anew for the third, nor without it."""
    authority = lab.authorities()
    everybody("power")
    for name in set(lab.addresses()) - {"server3"}:
        lab.lab("fault", "heal", name)
    run = lab.Playbook("cluster")
    assert run.end() != 0
    assert "server3" in run.said()
    lab.wait("two servers", lambda: {"server1", "server2"} <= ready())
    lab.lab("fault", "heal", "server3")
    lab.play("cluster")
    lab.wait("all servers to vote", lab.all_is_well)
    assert lab.authorities() == authority


def test_a_second_run_changes_nothing() -> None:
    before = lab.started()
    assert set(lab.changes(lab.play("cluster")).values()) == {0}
    assert lab.started() == before
