# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests stand in their order: each goes on with the cluster that the one before has left."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
import operations as lab

REPLACE = ("-e", lab.CONFIRM, "-e", "edge_nodes=server1")


def test_what_hurts_wants_to_be_confirmed() -> None:
    assert "edge_confirm=plant07" in lab.refused("replace_node", "-e", "edge_nodes=server1")
    assert "edge_nodes" in lab.refused("replace_node", "-e", lab.CONFIRM)


def test_the_first_server_joins_those_that_live() -> None:
    authority = lab.authorities()
    lab.lab("fault", "wipe", "server1")
    said = lab.play("replace_node", *REPLACE)
    assert lab.all_is_well("server2")
    assert lab.authorities() == authority
    assert lab.changes(said)["server2"] == lab.changes(said)["server3"] == 0


def test_it_is_a_server_like_the_others_afterwards() -> None:
    before = lab.started()
    assert set(lab.changes(lab.play("cluster")).values()) == {0}
    assert lab.started() == before


def test_a_server_that_lives_is_replaced_too() -> None:
    lab.play("replace_node", "-e", lab.CONFIRM, "-e", "edge_nodes=server2")
    assert lab.all_is_well()


def test_with_the_others_down_it_is_refused_and_nothing_is_founded() -> None:
    lab.lab("fault", "wipe", "server1")
    for name in ("server2", "server3"):
        lab.lab("fault", "power", name)
    said = lab.refused("replace_node", *REPLACE)
    assert "none of the servers server2, server3 answers" in said
    said = lab.refused("cluster")
    assert "server2" in said
    assert lab.ssh("server1", "ls /var/lib/rancher/k3s/server 2>/dev/null || true") == ""
    assert lab.ssh("server1", "systemctl is-active k3s", check=False) != "active"


def test_once_they_are_back_it_joins() -> None:
    for name in ("server2", "server3"):
        lab.lab("fault", "heal", name)
    lab.play("cluster")
    assert lab.all_is_well()
    assert len(lab.authorities()) == 1
