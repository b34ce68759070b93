# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests stand in their order: each goes on with the cluster that the one before has left."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
import operations as lab

VERSION = f"edge_k3s_version={lab.NEW}"
STRICT = '{"spec": {"minAvailable": 4}}'
LOOSE = '{"spec": {"minAvailable": 2}}'


def versions() -> dict[str, str]:
    return {name: node["version"] for name, node in lab.nodes().items()}


def test_the_workload_runs() -> None:
    lab.deploy_workload()
    assert set(versions().values()) == {lab.OLD}


def test_check_mode_tells_what_it_would_do_and_does_nothing() -> None:
    before = lab.started()
    said = lab.play("upgrade", "-e", VERSION, "--check", "--diff")
    assert min(lab.changes(said).values()) > 0
    assert "server1: takes pods" in said
    assert "/usr/local/bin/k3s" in said
    assert lab.started() == before
    assert not any(node["cordoned"] for node in lab.nodes().values())
    assert set(versions().values()) == {lab.OLD}


def test_a_budget_that_blocks_is_named_and_the_node_goes_back_to_work() -> None:
    lab.kubectl(f"patch pdb web --type merge --patch '{STRICT}'")
    before = lab.started()
    run = lab.Playbook("upgrade", "-e", VERSION, "-e", "edge_drain_timeout=5")
    assert run.end() != 0
    said = " ".join(run.said().split())
    assert "is not empty after 5 s" in said
    assert "disruption budget web" in said
    assert not any(node["cordoned"] or node["marked"] for node in lab.nodes().values())
    assert lab.started() == before
    lab.kubectl(f"patch pdb web --type merge --patch '{LOOSE}'")
    lab.kubectl("rollout status deployment/web --timeout=60s")


def test_an_upgrade_that_is_killed_goes_on_and_nobody_misses_an_answer() -> None:
    with lab.watch() as watch:
        run = lab.Playbook("upgrade", "-e", VERSION)
        lab.wait(
            "the first server's new version", lambda: run.is_over() or lab.NEW in versions().values(), 300
        )
        assert not run.is_over(), run.said()[-4000:]
        run.kill()
        first = [name for name, version in versions().items() if version == lab.NEW]
        before = lab.started()
        lab.play("upgrade", "-e", VERSION)
    after = lab.started()
    assert [name for name in first if after[name] != before[name]] == []
    nodes = lab.nodes()
    assert {node["version"] for node in nodes.values()} == {lab.NEW}
    assert lab.all_is_well()
    lab.report("upgrade", watch.result())
    assert watch.result()["api_silent_s"] == 0
    assert watch.result()["workload_silent_s"] == 0


def test_a_snapshot_was_taken_before() -> None:
    found = [lab.ssh(name, "ls /var/lib/rancher/k3s/server/db/snapshots || true") for name in lab.servers()]
    assert any("before-upgrade-" in names for names in found), found


def test_a_second_upgrade_changes_nothing_and_restarts_nothing() -> None:
    before = lab.started()
    assert set(lab.changes(lab.play("upgrade", "-e", VERSION)).values()) == {0}
    assert lab.started() == before


def test_a_downgrade_is_refused() -> None:
    before = lab.started()
    assert "k3s cannot go back" in lab.refused("upgrade", "-e", f"edge_k3s_version={lab.OLD}")
    assert lab.started() == before


def test_a_limit_that_hides_a_server_is_refused() -> None:
    assert "--limit hides" in lab.refused("upgrade", "-e", VERSION, "--limit", "server1,server2,plant07")
