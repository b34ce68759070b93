# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an upgrade does, by what runs now."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils.node_drain import CORDON_ANNOTATION
from ansible_collections.edgeha.iotedge.plugins.module_utils.upgrade_plan import (
    Version,
    machines_from,
    peers_of,
    plan,
)

OLD, NEW = "v1.34.4+k3s1", "v1.34.5+k3s1"


class Cluster:
    """Three servers and some agents of one version, to be bent by a test."""

    def __init__(self, version: str = OLD, servers: int = 3, agents: int = 1) -> None:
        hosts = [f"gw{n}" for n in range(1, servers + 1)] + [f"box{n}" for n in range(1, agents + 1)]
        self.nodes = {host: {"name": host, "kubelet": version, "annotations": {}} for host in hosts}
        self.machines = {
            host: {
                "host": host,
                "server": host.startswith("gw"),
                "node": host,
                "state": {
                    "role": "server" if host.startswith("gw") else "agent",
                    "binary": {"version": version},
                    "unit": {"active": "active", "exe_version": version},
                    "api": {"readyz": host.startswith("gw")},
                    "data": {"datastore": "etcd" if host.startswith("gw") else "none"},
                    "stale": [],
                },
            }
            for host in hosts
        }

    def run(self, host: str, version: str) -> None:
        self.install(host, version)
        self.machines[host]["state"]["unit"]["exe_version"] = version
        self.machines[host]["state"]["stale"] = []
        self.nodes[host]["kubelet"] = version

    def install(self, host: str, version: str) -> None:
        self.machines[host]["state"]["binary"]["version"] = version
        self.machines[host]["state"]["stale"] = ["binary"]

    def cordon(self, host: str) -> None:
        self.nodes[host]["annotations"] = {CORDON_ANNOTATION: "upgrade"}

    def plan(self, wanted: str = NEW, batch: int = 0) -> dict[str, Any]:
        for machine in self.machines.values():
            if machine["state"]:
                machine["state"]["nodes"] = list(self.nodes.values())
        return plan(machines_from(list(self.machines.values())), wanted, batch)

    def facts(self, wanted: str = NEW, batch: int = 0) -> list[str]:
        found = self.plan(wanted, batch)
        assert not found["problems"] or not found["hosts"]
        return [f"{problem['host']}: {problem['fact']}" for problem in found["problems"]]


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [(OLD, NEW), (OLD, "v1.34.4+k3s2"), ("v1.9.0+k3s1", "v1.10.0+k3s1"), ("v1.34.4-rc1+k3s1", OLD)],
)
def test_versions_are_compared_as_numbers(smaller: str, larger: str) -> None:
    low, high = Version.parse(smaller), Version.parse(larger)
    assert low
    assert high
    assert low < high


@pytest.mark.parametrize("text", ["", "latest", "v1.34", "v1.34.4+k3s1x", "v1.34.4.1"])
def test_what_is_no_version(text: str) -> None:
    assert Version.parse(text) is None
    assert len(Cluster().facts(text)) == 1


def test_servers_go_one_by_one_and_a_snapshot_comes_first() -> None:
    found = Cluster(agents=2).plan()
    assert found["problems"] == []
    assert found["snapshot"]
    assert [found["hosts"][host] for host in ("gw1", "gw2", "gw3")] == [
        {"action": "upgrade", "wave": wave} for wave in range(3)
    ]
    assert [found["hosts"][host]["wave"] for host in ("box1", "box2")] == [0, 1]


def test_a_datastore_that_is_elsewhere_is_not_ours_to_save() -> None:
    cluster = Cluster()
    for machine in cluster.machines.values():
        machine["state"]["data"] = {"datastore": "external"}
    assert not cluster.plan()["snapshot"]


def test_nothing_is_done_to_a_cluster_that_has_the_version() -> None:
    found = Cluster(NEW).plan()
    assert {entry["action"] for entry in found["hosts"].values()} == {"keep"}
    assert not found["snapshot"]
    assert len(found["lines"]) == 1
    assert found["lines"][0].endswith(f": run {NEW} already")


def test_an_upgrade_goes_on_where_it_was_interrupted() -> None:
    cluster = Cluster()
    cluster.run("gw1", NEW)
    cluster.cordon("gw1")
    cluster.install("gw3", NEW)
    cluster.cordon("gw3")
    found = cluster.plan()
    assert found["hosts"]["gw1"] == {"action": "release", "wave": 0}
    assert f"gw1: has {NEW}, and takes pods again" in found["lines"]
    assert f"gw2: {OLD} -> {NEW}" in found["lines"]
    assert found["hosts"]["gw3"] == {"action": "upgrade", "wave": 1}
    assert found["hosts"]["gw2"] == {"action": "upgrade", "wave": 2}
    assert not found["snapshot"]


def test_a_new_program_whose_old_one_still_runs_is_no_end() -> None:
    cluster = Cluster(NEW)
    cluster.machines["gw2"]["state"]["unit"]["exe_version"] = OLD
    assert cluster.plan()["hosts"]["gw2"]["action"] == "upgrade"


def test_the_version_that_the_api_reports_counts() -> None:
    cluster = Cluster(NEW)
    cluster.nodes["gw2"]["kubelet"] = OLD
    assert cluster.plan()["hosts"]["gw2"]["action"] == "upgrade"


def test_a_downgrade_is_refused() -> None:
    facts = Cluster(NEW).facts(OLD)
    assert facts[0] == f"gw1: {NEW} runs, which is newer than {OLD}"
    assert len(facts) == 4


def test_a_step_over_a_minor_version_is_refused_with_the_next_one() -> None:
    found = Cluster("v1.32.9+k3s1", agents=0).plan()
    assert {problem["fix"] for problem in found["problems"]} == {"upgrade to the newest v1.33 first"}


def test_a_kubelet_that_would_be_too_old_is_refused() -> None:
    cluster = Cluster("v1.33.1+k3s1")
    cluster.nodes["box1"]["kubelet"] = "v1.30.1+k3s1"
    assert cluster.facts() == [f"box1: its kubelet v1.30.1+k3s1 is too old for an API of {NEW}"]


def test_machines_that_cannot_take_part_are_named() -> None:
    cluster = Cluster(agents=2)
    cluster.machines["gw1"]["state"] = None
    cluster.machines["gw2"]["state"]["role"] = "none"
    cluster.machines["box1"]["state"]["role"] = "server"
    assert cluster.facts() == [
        "gw1: it does not answer",
        "gw2: it is not installed here",
        "box1: it runs as server and stands in the inventory as agent",
    ]


def test_a_cluster_that_is_down_is_refused() -> None:
    cluster = Cluster()
    for machine in cluster.machines.values():
        machine["state"]["api"] = {"readyz": False}
    assert cluster.facts() == ["gw1: no server answers for the cluster"]


def test_agents_go_in_batches() -> None:
    found = Cluster(agents=25).plan()
    waves = [found["hosts"][f"box{n}"]["wave"] for n in range(1, 26)]
    assert waves == sorted(waves)
    assert max(waves) == 8
    assert Cluster(agents=25).facts(batch=2) == ["gw1: 25 agents in batches of 2 are more than 10 batches"]
    assert Cluster(agents=25).facts(batch=3) == []


def test_peers_are_servers_that_answer() -> None:
    cluster = Cluster()
    cluster.machines["gw2"]["state"]["api"] = {"readyz": False}
    assert peers_of(machines_from(list(cluster.machines.values())), "gw1") == ["gw3"]
