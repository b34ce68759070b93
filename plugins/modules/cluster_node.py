#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_node
short_description: Cordon, drain, uncordon and delete a node of a k3s cluster
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Runs on a server of the cluster, for its own node or for that of a peer. Needs root there, and nothing but
    Python.
  - A drain ends at its limit and names the pods that stay and the disruption budgets that keep them.
  - A drain begins when a controller manager is seen at work, because nobody else takes the address of a pod
    that ends out of the Services. After the loss or the restart of the server that had that office, it is
    vacant for 15 seconds and more.
  - A cordon of ours is marked with the annotation C(edgeha.io/cordoned-by), so that only such a one is
    taken back.
options:
  name:
    description:
      - Name of the node.
    type: str
    required: true
  state:
    description:
      - V(cordoned) takes no more pods. V(drained) is cordoned and without pods that can run elsewhere.
      - V(uncordoned) takes back a cordon of ours and leaves that of others.
      - V(absent) deletes the node; of a server, k3s removes the member of etcd then. What k3s keeps of its
        password goes too, so that another machine may come under its name.
      - V(readmitted) only forgets the password, for a machine with new disks whose node is to stay.
      - V(spared) changes nothing, and fails when the O(peers) cannot carry the cluster without it.
    type: str
    choices: [cordoned, drained, uncordoned, absent, readmitted, spared]
    required: true
  reason:
    description:
      - What is written into the annotation.
    type: str
    default: edgeha
  peers:
    description:
      - Nodes that must be Ready, and voters of etcd where they are servers with etcd, before anything is
        changed.
    type: list
    elements: str
    default: []
  limit:
    description:
      - Seconds for draining, the wait for a controller manager included, or for the node to be gone.
    type: int
    default: 300
  leave:
    description:
      - Pods with these labels stay, such as V(longhorn.io/component=instance-manager). Commas join the labels
        of one entry.
    type: list
    elements: str
    default: []
  force:
    description:
      - Evict pods too that nobody would make again elsewhere.
    type: bool
    default: false
extends_documentation_fragment:
  - edgeha.iotedge.k3s
attributes:
  check_mode:
    support: full
    description: Asks the API in dry-run mode, and says what would be done.
  diff_mode:
    support: full
    description: Shows the state of the node before and after.
"""

EXAMPLES = r"""
- name: Empty a node, asking one of its peers
  edgeha.iotedge.cluster_node:
    name: gw2
    state: drained
    peers: [gw1, gw3]
    reason: upgrade
  delegate_to: gw1
"""

RETURN = r"""
node:
  description: The node as it is afterwards; empty when there is none.
  returned: success
  type: dict
evicted:
  description: Pods that were evicted, or would be in check mode, as C(namespace/name).
  returned: when O(state=drained)
  type: list
  elements: str
blocked:
  description: Pods that a budget keeps, with the budget.
  returned: when O(state=drained)
  type: list
  elements: str
seconds:
  description: How long it took.
  returned: success
  type: float
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_api, k3s_options, node_drain
from ansible_collections.edgeha.iotedge.plugins.module_utils.kube_api import KubeApi, KubeError, Patience

_ATTEMPTS = 5
_ANSWER_SECONDS = 10.0
# Its holder renews it every two seconds. A server that holds no elections, as a single one, has none.
_CONTROLLERS = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager"


class Refused(Exception):  # noqa: N818 - a state that the operator is told of
    """Nothing was changed, or no more is. The text is for the operator."""


class Node:
    def __init__(self, module: AnsibleModule, api: KubeApi) -> None:
        self._params = module.params
        self._check: bool = module.check_mode
        self._api = api
        self._name: str = module.params["name"]
        self._path = f"/api/v1/nodes/{quote(self._name)}"
        self._patience = Patience(module.params["limit"])
        self.evicted: list[str] = []
        self.blocked: dict[str, str] = {}

    @property
    def seconds(self) -> float:
        return round(self._patience.elapsed, 1)

    def look(self) -> dict[str, Any]:
        node = self._api.find(self._path)
        return {} if node is None else node_drain.view(node)

    def require_peers(self) -> None:
        if not self._params["peers"]:
            return
        nodes = [node_drain.view(node) for node in self._api.items("/api/v1/nodes")]
        missing = node_drain.not_well(nodes, self._params["peers"])
        if missing:
            raise Refused(
                f"{self._name} stays as it is, because the cluster cannot spare it: {'; '.join(missing)}. "
                f"Repair that first"
            )

    def cordon(self) -> bool:
        """Cordon with our mark; whether that changed anything. A cordon of somebody else stays his."""
        for attempt in range(_ATTEMPTS):
            node = self._there()
            if (node.get("spec") or {}).get("unschedulable"):
                return False
            change = {
                "metadata": {
                    "resourceVersion": node["metadata"]["resourceVersion"],
                    "annotations": {node_drain.CORDON_ANNOTATION: self._params["reason"]},
                },
                "spec": {"unschedulable": True},
            }
            if self._changed(change, attempt):
                return True
        return False

    def uncordon(self) -> bool:
        for attempt in range(_ATTEMPTS):
            node = self._api.find(self._path)
            if node is None or not node_drain.view(node)["cordoned_by"]:
                return False
            change = {
                "metadata": {
                    "resourceVersion": node["metadata"]["resourceVersion"],
                    "annotations": {node_drain.CORDON_ANNOTATION: None},
                },
                "spec": {"unschedulable": None},
            }
            if self._changed(change, attempt):
                return True
        return False

    def drain(self) -> bool:
        self._await_controllers()
        changed = self.cordon()
        leave = node_drain.parse_leave(self._params["leave"])
        plan = self._plan(leave)
        if plan.unmanaged:
            raise Refused(
                f"{self._name}: nobody would make {', '.join(plan.unmanaged)} again elsewhere. Delete them, "
                f"or allow it with force"
            )
        if self._check:
            self._evict_all(plan)
            return changed or bool(self.evicted or plan.leaving)
        while plan.evict or plan.leaving:
            self._evict_all(plan)
            if not self._patience.is_left():
                raise Refused(self._stuck(plan))
            self._patience.pause()
            plan = self._plan(leave)
        self.blocked.clear()
        return changed or bool(self.evicted)

    def delete(self) -> bool:
        there = self._api.find(self._path) is not None
        if there and not self._check:
            self._ignore_missing(self._path)
            while self._api.find(self._path) is not None:
                if not self._patience.is_left():
                    raise Refused(
                        f"the node {self._name} is still there {self._params['limit']} s after it was "
                        f"deleted: look at its finalizers"
                    )
                self._patience.pause()
        return self.readmit() or there

    def readmit(self) -> bool:
        path = f"/api/v1/namespaces/kube-system/secrets/{quote(self._name)}.node-password.k3s"
        if self._api.find(path) is None:
            return False
        if not self._check:
            self._ignore_missing(path)
        return True

    def _await_controllers(self) -> None:
        """Wait until who leads the controllers has renewed the lease once since then."""
        seen: dict[str, Any] | None = None
        while not self._check and (lease := self._api.find(_CONTROLLERS)) is not None:
            now = lease.get("spec") or {}
            if seen is None or now.get("holderIdentity") != seen.get("holderIdentity"):
                seen = now
            elif now.get("renewTime") != seen.get("renewTime"):
                return
            if not self._patience.is_left():
                holder, renewed = now.get("holderIdentity") or "nobody", now.get("renewTime") or "never"
                raise Refused(
                    f"{self._name} is not drained: no controller manager is at work, so Services would go on "
                    f"leading to pods that end. The lease kube-system/kube-controller-manager was not "
                    f"renewed within {self._params['limit']} s; {holder} holds it, last renewed {renewed}. "
                    f"Look at the log of k3s on the servers"
                )
            self._patience.pause()

    def _there(self) -> dict[str, Any]:
        node = self._api.find(self._path)
        if node is None:
            raise Refused(f"the cluster has no node {self._name}: check edge_node_name")
        return node

    def _changed(self, change: dict[str, Any], attempt: int) -> bool:
        """Whether a change took place; another one that came first is looked at again."""
        if self._check:
            return True
        try:
            self._api.patch(self._path, change)
        except KubeError as error:
            if error.status != 409 or attempt == _ATTEMPTS - 1:
                raise
            return False
        return True

    def _ignore_missing(self, path: str) -> None:
        try:
            self._api.delete(path)
        except KubeError as error:
            if error.status != 404:
                raise

    def _plan(self, leave: list[dict[str, str]]) -> node_drain.Plan:
        pods = self._api.items("/api/v1/pods", fieldSelector=f"spec.nodeName={self._name}")
        return node_drain.plan(pods, leave, self._params["force"])

    def _evict_all(self, plan: node_drain.Plan) -> None:
        self.blocked = {}
        for namespace, name in plan.evict:
            path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(name)}/eviction"
            body: dict[str, Any] = {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"namespace": namespace, "name": name},
            }
            if self._check:
                body["deleteOptions"] = {"dryRun": ["All"]}
            text = f"{namespace}/{name}"
            try:
                self._api.post(path, body)
            except KubeError as error:
                if error.status == 429:
                    self.blocked[text] = node_drain.blocked_by(error.message, error.body)
                elif error.status != 404:
                    raise
                continue
            if text not in self.evicted:
                self.evicted.append(text)

    def _stuck(self, plan: node_drain.Plan) -> str:
        reasons = [f"{pod}: {budget}" for pod, budget in sorted(self.blocked.items())]
        reasons += [f"{pod} was told to end and has not ended" for pod in plan.leaving]
        reasons += [
            f"{namespace}/{name} came back"
            for namespace, name in plan.evict
            if f"{namespace}/{name}" not in self.blocked
        ]
        return (
            f"{self._name} is not empty after {self._params['limit']} s: {'; '.join(reasons)}. Give them "
            f"room elsewhere, change the budget, or allow more time"
        )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "required": True,
                "choices": ["cordoned", "drained", "uncordoned", "absent", "readmitted", "spared"],
            },
            "reason": {"type": "str", "default": "edgeha"},
            "peers": {"type": "list", "elements": "str", "default": []},
            "limit": {"type": "int", "default": 300},
            "leave": {"type": "list", "elements": "str", "default": []},
            "force": {"type": "bool", "default": False},
            **k3s_options.DATA_DIR,
        },
        supports_check_mode=True,
    )
    state: str = module.params["state"]
    try:
        node_drain.parse_leave(module.params["leave"])
        api = k3s_api.connect(k3s_api.of_data_dir(module.params["data_dir"]), _ANSWER_SECONDS)
        node = Node(module, api)
    except (KubeError, ValueError) as error:
        module.fail_json(msg=f"{module.params['name']}: {error}")
    try:
        before = node.look()
        if state in ("cordoned", "drained", "spared"):
            node.require_peers()
        acts: dict[str, Callable[[], bool]] = {
            "cordoned": node.cordon,
            "drained": node.drain,
            "uncordoned": node.uncordon,
            "absent": node.delete,
            "readmitted": node.readmit,
            "spared": lambda: False,
        }
        changed = acts[state]()
        after = node.look() if not module.check_mode else expected(before, state, changed)
    except Refused as error:
        module.fail_json(msg=str(error), **drained(node, state))
    except KubeError as error:
        module.fail_json(msg=f"{module.params['name']}: {error.message}", **drained(node, state))
    module.exit_json(
        changed=changed,
        node=after,
        seconds=node.seconds,
        diff={"before": text(before, state, True), "after": text(after, state, not changed)},
        **drained(node, state),
    )


def expected(before: dict[str, Any], state: str, changed: bool) -> dict[str, Any]:
    """Return what a node would be like after a change that check mode did not make."""
    if state == "absent":
        return {}
    if not changed or state in ("readmitted", "spared"):
        return before
    return {**before, "unschedulable": state != "uncordoned"}


def text(node: dict[str, Any], state: str, password: bool) -> str:
    if not node:
        return "no such node\n"
    if state == "readmitted":
        return f"{node['name']}: password {'kept' if password else 'forgotten'}\n"
    return f"{node['name']}: {'cordoned' if node['unschedulable'] else 'takes pods'}\n"


def drained(node: Node, state: str) -> dict[str, Any]:
    if state != "drained":
        return {}
    blocked = [f"{pod}: {budget}" for pod, budget in sorted(node.blocked.items())]
    return {"evicted": node.evicted, "blocked": blocked}


if __name__ == "__main__":
    main()
