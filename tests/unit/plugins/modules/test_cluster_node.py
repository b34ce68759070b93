# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What cluster_node asks of the API, with an API of the test's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import kube_api, node_drain
from ansible_collections.edgeha.iotedge.plugins.module_utils.kube_api import KubeError
from ansible_collections.edgeha.iotedge.plugins.modules import cluster_node

BUDGET = {
    "details": {"causes": [{"reason": "DisruptionBudget", "message": "budget web needs 1 healthy pod"}]}
}


class Api:
    """A cluster of one node with pods; an eviction takes effect at once unless a budget refuses it."""

    def __init__(self, *pods: str, unschedulable: bool = False, mark: str = "", budget: bool = False) -> None:
        self.node: dict[str, Any] | None = {
            "metadata": {"name": "gw1", "resourceVersion": "7", "annotations": {}},
            "spec": {"unschedulable": unschedulable},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
        if mark:
            self.node["metadata"]["annotations"] = {node_drain.CORDON_ANNOTATION: mark}
        self.pods = list(pods)
        self.budget = budget
        self.conflicts = 0
        self.password = True
        self.leases: list[tuple[str, str]] = []
        self.written: list[str] = []

    def find(self, path: str) -> dict[str, Any] | None:
        if path.endswith("node-password.k3s"):
            return {"kind": "Secret"} if self.password else None
        if path.endswith("leases/kube-controller-manager"):
            return self.lease()
        return self.node

    def lease(self) -> dict[str, Any] | None:
        """Return the next of the leases, and the last one from then on."""
        if not self.leases:
            return None
        holder, renewed = self.leases.pop(0) if len(self.leases) > 1 else self.leases[0]
        return {"spec": {"holderIdentity": holder, "renewTime": renewed}}

    def items(self, path: str, **_: str) -> list[dict[str, Any]]:
        if path == "/api/v1/nodes":
            assert self.node
            return [self.node]
        owner = [{"kind": "ReplicaSet", "controller": True}]
        return [
            {"metadata": {"namespace": "plant", "name": name, "ownerReferences": owner}, "status": {}}
            for name in self.pods
        ]

    def patch(self, _: str, change: dict[str, Any]) -> None:
        assert change["metadata"]["resourceVersion"] == "7"
        if self.conflicts:
            self.conflicts -= 1
            raise KubeError(409, "Conflict", "changed meanwhile")
        assert self.node
        self.written.append("patch")
        self.node["spec"] = dict(change["spec"])
        for key, value in change["metadata"]["annotations"].items():
            if value is None:
                self.node["metadata"]["annotations"].pop(key, None)
            else:
                self.node["metadata"]["annotations"][key] = value

    def post(self, path: str, body: dict[str, Any]) -> None:
        if self.budget:
            raise KubeError(429, "TooManyRequests", "Cannot evict", BUDGET)
        if "deleteOptions" not in body:
            self.written.append(path)
            self.pods.remove(path.split("/")[-2])

    def delete(self, path: str) -> None:
        self.written.append("delete " + path.rsplit("/", 1)[1])
        if path.endswith("k3s"):
            self.password = False
        else:
            self.node = None


def node(api: Api, check: bool = False, **params: Any) -> cluster_node.Node:
    given = {
        "name": "gw1",
        "reason": "upgrade",
        "peers": [],
        "limit": 0,
        "leave": [],
        "force": False,
        **params,
    }
    return cluster_node.Node(SimpleNamespace(params=given, check_mode=check), api)  # type: ignore[arg-type]


def test_a_cordon_of_ours_is_marked_and_taken_back() -> None:
    api = Api()
    assert node(api).cordon()
    assert node_drain.view(api.node or {})["cordoned_by"] == "upgrade"
    assert not node(api).cordon()
    assert node(api).uncordon()
    assert not node_drain.view(api.node or {})["unschedulable"]
    assert not node(api).uncordon()


def test_a_cordon_of_somebody_else_stays() -> None:
    api = Api(unschedulable=True)
    assert not node(api).cordon()
    assert not node(api).uncordon()
    assert api.written == []


def test_a_change_that_came_first_is_looked_at_again() -> None:
    api = Api()
    api.conflicts = 2
    assert node(api).cordon()


def test_a_drain_evicts_and_ends() -> None:
    api = Api("web-1", "web-2")
    task = node(api, limit=5)
    assert task.drain()
    assert (api.pods, task.evicted) == ([], ["plant/web-1", "plant/web-2"])
    assert not node(api).drain()


def test_a_drain_names_pod_and_budget_when_it_may_wait_no_longer() -> None:
    api = Api("web-1", budget=True)
    with pytest.raises(cluster_node.Refused, match="plant/web-1: budget web needs 1 healthy pod"):
        node(api).drain()


def test_a_drain_begins_when_who_leads_the_controllers_has_renewed_its_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api = Api("web-1")
    api.leases = [("gw2", "1"), ("gw2", "1"), ("gw3", "17"), ("gw3", "17"), ("gw3", "19")]
    left: list[tuple[int, list[str]]] = []
    monkeypatch.setattr(kube_api.time, "sleep", lambda _: left.append((len(api.leases), list(api.written))))
    assert node(api, limit=60).drain()
    assert left[:4] == [(4, []), (3, []), (2, []), (1, [])], "nothing is written while nobody leads"
    assert api.pods == []


def test_a_drain_says_that_no_controller_manager_is_at_work_and_changes_nothing() -> None:
    api = Api("web-1")
    api.leases = [("gw2_1f", "2026-11-28T00:06:27Z")]
    with pytest.raises(cluster_node.Refused, match="gw2_1f holds it, last renewed 2026-11-28T00:06:27Z"):
        node(api).drain()
    assert api.written == []
    assert node(api, check=True).drain(), "check mode waits for nobody"


def test_check_mode_asks_and_writes_nothing() -> None:
    api = Api("web-1")
    task = node(api, check=True)
    assert task.drain()
    assert (task.evicted, api.written) == (["plant/web-1"], [])


def test_a_cluster_that_cannot_spare_the_node_keeps_it() -> None:
    with pytest.raises(cluster_node.Refused, match="gw2 is no node of the cluster"):
        node(Api(), peers=["gw1", "gw2"]).require_peers()


def test_deleting_forgets_the_password_too() -> None:
    api = Api()
    assert node(api, limit=5).delete()
    assert api.written == ["delete gw1", "delete gw1.node-password.k3s"]
    assert not node(api).delete()


def test_a_node_that_is_not_there_is_told() -> None:
    api = Api()
    api.node = None
    with pytest.raises(cluster_node.Refused, match="no node gw1"):
        node(api).cordon()
