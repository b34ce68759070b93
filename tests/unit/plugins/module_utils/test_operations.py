# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is refused before an operation on a cluster begins."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.filter.operation_plan import operation_plan

CLUSTERS = ["plant07", "plant08"]


def machines(*down: str, hidden: str = "", servers: int = 3) -> list[dict[str, Any]]:
    """Servers gw1 to gw3 and the agent box1; those in ``down`` do not answer, though they hold data."""
    hosts = [f"gw{n}" for n in range(1, servers + 1)] + ["box1"]
    nodes = [
        {"name": host, "ready": host not in down, "voter": (host not in down) if host != "box1" else None}
        for host in hosts
    ]
    return [
        {
            "host": host,
            "server": host != "box1",
            "in_run": host != hidden,
            "state": {
                "api": {"readyz": host != "box1" and host not in down},
                "data": {"server": host != "box1"},
                "nodes": nodes if host != "box1" and host not in down else [],
            },
        }
        for host in hosts
    ]


def plan(
    operation: str, found: list[dict[str, Any]], confirm: str = "plant07", nodes: Any = ""
) -> dict[str, Any]:
    return operation_plan(found, operation, "plant07", clusters=CLUSTERS, confirm=confirm, nodes=nodes)


def facts(*args: Any, **more: Any) -> list[str]:
    return [problem["fact"] for problem in plan(*args, **more)["problems"]]


@pytest.mark.parametrize("operation", ["restore", "reset", "replace_node", "rotate_keys"])
def test_what_hurts_wants_the_name_of_the_cluster(operation: str) -> None:
    assert facts(operation, machines(), confirm="", nodes="gw1")[0] == "it is not given"
    assert (
        facts(operation, machines(), confirm="plant7", nodes="gw1")[0]
        == "it is 'plant7', which is no cluster"
    )
    assert facts(operation, machines(), nodes="gw1") == []


def test_the_confirmation_of_one_cluster_leaves_out_the_others() -> None:
    found = plan("reset", machines(), confirm="plant08")
    assert (found["selected"], found["targets"]) == (False, [])


@pytest.mark.parametrize("operation", ["upgrade", "restore", "reset", "replace_node", "rotate_keys"])
def test_a_limit_that_hides_a_machine_is_refused(operation: str) -> None:
    assert facts(operation, machines(hidden="gw2"), nodes="gw1") == ["--limit hides gw2"]


def test_a_backup_needs_one_server_only() -> None:
    found = plan("backup", machines("gw1", hidden="gw3"), confirm="")
    assert (found["problems"], found["keeper"]) == ([], "gw2")


def test_nodes_are_named_and_known() -> None:
    assert facts("replace_node", machines()) == ["it is not given"]
    assert facts("replace_node", machines(), nodes="gw9") == ["gw9 is no machine of the cluster"]
    assert plan("replace_node", machines(), nodes="gw1, box1")["targets"] == ["gw1", "box1"]
    assert plan("replace_node", machines(), nodes=["gw1"])["keeper"] == "gw2"


def test_a_server_is_not_replaced_when_nobody_else_answers() -> None:
    (problem,) = plan("replace_node", machines("gw1", "gw2", "gw3"), nodes="gw1")["problems"]
    assert (
        problem["fact"] == "none of the servers gw2, gw3 answers for the cluster, and gw2, gw3 hold its data"
    )
    assert "site.yml" in problem["fix"]


def test_a_majority_of_etcd_must_be_left() -> None:
    assert facts("reset", machines("gw2"), nodes="gw1") == [
        "only 1 of the 2 servers that would be left are well"
    ]
    assert facts("reset", machines("gw2"), nodes="gw2") == []


def test_the_last_server_is_not_replaced() -> None:
    assert "no server would be left" in facts("replace_node", machines(servers=1), nodes="gw1")[0]


def test_a_whole_cluster_is_reset_though_nobody_answers() -> None:
    found = plan("reset", machines("gw1", "gw2", "gw3"))
    assert (found["problems"], found["all"], found["keeper"]) == ([], True, "")
    assert found["targets"] == ["gw1", "gw2", "gw3", "box1"]


def test_a_cluster_that_is_down_is_restored_and_not_upgraded() -> None:
    down = machines("gw1", "gw2", "gw3")
    assert facts("restore", down) == []
    assert "none of the servers" in facts("upgrade", down)[0]


def test_a_cluster_without_machines() -> None:
    assert facts("upgrade", []) == ["it has no machines in the groups edge_servers and edge_agents"]


@pytest.mark.parametrize("operation", ["upgrade", "rotate_keys", "reset"])
def test_a_machine_that_does_not_answer_keeps_the_whole_cluster(operation: str) -> None:
    found = machines()
    found[3]["state"] = None
    (problem,) = plan(operation, found)["problems"]
    assert (problem["host"], problem["fact"]) == ("box1", "it does not answer")
    assert facts("restore", found) == []
    found[1]["state"] = None
    assert [problem["host"] for problem in plan("restore", found)["problems"]] == ["gw2"]


def test_a_machine_that_does_not_answer_is_replaced() -> None:
    found = machines()
    found[0]["state"] = None
    assert plan("replace_node", found, nodes="gw1")["keeper"] == "gw2"
    assert facts("reset", found, nodes="gw1") == []


def with_versions(*versions: str) -> list[dict[str, Any]]:
    found = machines()
    for entry, version in zip(found, versions, strict=False):
        entry["state"]["binary"] = {"version": version}
    return found


def test_what_installs_anew_does_not_go_back() -> None:
    found = with_versions("v1.34.4+k3s1", "v1.34.5+k3s1")
    for operation in ("replace_node", "restore"):
        asked = operation_plan(
            found,
            operation,
            "plant07",
            clusters=CLUSTERS,
            confirm="plant07",
            nodes="gw3",
            version="v1.34.4+k3s1",
        )
        (problem,) = asked["problems"]
        assert problem["fact"] == "is v1.34.4+k3s1, and gw2 has v1.34.5+k3s1: going back is refused"
        assert problem["fix"].startswith("set edge_k3s_version: v1.34.5+k3s1")
        free = plan(operation, found, nodes="gw3")
        assert (free["problems"], free["version"]) == ([], "v1.34.5+k3s1")
    other = operation_plan(
        found, "reset", "plant07", clusters=CLUSTERS, confirm="plant07", version="v1.34.4+k3s1"
    )
    assert other["problems"] == []


def test_a_program_without_data_decides_no_version() -> None:
    found = with_versions("v1.34.5+k3s1")
    found[0]["state"]["data"] = {}
    assert plan("restore", found)["version"] == ""
