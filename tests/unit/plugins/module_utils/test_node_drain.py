# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which pods leave a node, and what is known of a node."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import node_drain


def pod(name: str, owner: str | None = "ReplicaSet", **more: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"namespace": "plant", "name": name, "labels": more.get("labels", {})}
    if owner:
        metadata["ownerReferences"] = [{"kind": owner, "controller": True}]
    if more.get("leaving"):
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    if more.get("mirror"):
        metadata["annotations"] = {"kubernetes.io/config.mirror": "x"}
    return {"metadata": metadata, "status": {"phase": more.get("phase", "Running")}}


def test_pods_that_belong_to_the_node_stay() -> None:
    plan = node_drain.plan(
        [pod("agent", "DaemonSet"), pod("static", "Node", mirror=True), pod("done", phase="Failed")]
    )
    assert plan == node_drain.Plan()


def test_pods_that_run_elsewhere_too_leave() -> None:
    plan = node_drain.plan([pod("web-2"), pod("web-1", "StatefulSet"), pod("old", leaving=True)])
    assert plan.evict == [("plant", "web-1"), ("plant", "web-2")]
    assert plan.leaving == ["plant/old"]


def test_a_pod_that_nobody_makes_again_is_told_unless_forced() -> None:
    assert node_drain.plan([pod("lonely", None)]).unmanaged == ["plant/lonely"]
    assert node_drain.plan([pod("lonely", None)], force=True).evict == [("plant", "lonely")]


def test_pods_that_are_to_be_left_alone() -> None:
    leave = node_drain.parse_leave(["app=store,tier=data"])
    pods = [pod("a", labels={"app": "store", "tier": "data", "x": "y"}), pod("b", labels={"app": "store"})]
    assert node_drain.plan(pods, leave).evict == [("plant", "b")]


@pytest.mark.parametrize("text", ["", "app", "app=", "=b", "app=b,"])
def test_labels_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="no list of labels"):
        node_drain.parse_leave([text])


def test_the_budget_that_blocks_is_named() -> None:
    message = "The disruption budget web needs 2 healthy pods and has 1 currently"
    status = {"details": {"causes": [{"reason": "DisruptionBudget", "message": message}]}}
    assert node_drain.blocked_by("Cannot evict", status) == message
    assert node_drain.blocked_by("Too many requests", {}) == "Too many requests"


def node(name: str, ready: bool = True, voter: str | None = None, **labels: str) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "Unknown"}]
    if voter:
        conditions.append({"type": "EtcdIsVoter", "status": voter})
    return {
        "metadata": {"name": name, "labels": {f"node-role.kubernetes.io/{k}": v for k, v in labels.items()}},
        "spec": {},
        "status": {"conditions": conditions, "nodeInfo": {"kubeletVersion": "v1.34.4+k3s1"}},
    }


def test_a_view_of_a_server_and_of_an_agent() -> None:
    seen = node_drain.view(node("gw1", voter="True", etcd="true"))
    assert (seen["ready"], seen["server"], seen["voter"], seen["version"]) == (
        True,
        True,
        True,
        "v1.34.4+k3s1",
    )
    assert node_drain.view(node("gw2", etcd="true"))["voter"] is False
    agent = node_drain.view(node("gw9"))
    assert (agent["server"], agent["voter"], agent["cordoned_by"]) == (False, None, "")


def test_what_keeps_peers_from_carrying_the_cluster() -> None:
    nodes = [
        node_drain.view(item)
        for item in (node("a", voter="True"), node("b", ready=False), node("c", voter="False"))
    ]
    assert node_drain.not_well(nodes, ["a"]) == []
    assert node_drain.not_well(nodes, ["a", "b", "c", "d"]) == [
        "b is not Ready",
        "c is no voter of etcd",
        "d is no node of the cluster",
    ]
