#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_nodes
short_description: Keep labels and taints of nodes as wanted
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Sets the labels and taints that are wanted at the API, for all nodes in one run. What was set before and
    is no longer wanted is removed; labels and taints of others are left alone.
  - Which ones are ours stands in annotations of the node.
  - A machine that is no node of the cluster yet is told of with a warning.
options:
  nodes:
    description:
      - What is wanted, for each node.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the node.
        type: str
        required: true
      labels:
        description:
          - Labels as V(key=value).
        type: list
        elements: str
        default: []
      taints:
        description:
          - Taints as V(key=value:Effect).
        type: list
        elements: str
        default: []
extends_documentation_fragment:
  - edgeha.iotedge.cluster
  - edgeha.iotedge.cluster.attributes
attributes:
  check_mode:
    description: Tells what it would change.
    support: full
  diff_mode:
    description: Shows labels and taints that change.
    support: full
"""

EXAMPLES = r"""
- name: Mark the machine with the camera
  edgeha.iotedge.cluster_nodes:
    kubeconfig: /etc/edge/plant07.kubeconfig
    nodes:
      - name: gw1
        labels: [plant07.example/camera=top]
        taints: [plant07.example/camera=top:NoSchedule]
"""

RETURN = r"""
nodes:
  description: Names of the nodes that were changed.
  returned: always
  type: list
  elements: str
absent:
  description: Names that are no nodes of the cluster.
  returned: always
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    cluster_client,
    cluster_facts,
    gateway_objects,
    node_patches,
)

_ATTEMPTS = 4
_CONFLICT = 409


def write(client: Any, node: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Bring one node to what is wanted, from what it is at the moment of the write.

    node: the Node object that was read. The patch carries its version, because it replaces all taints.
    """
    resource = client.resources.get(api_version="v1", kind="Node")
    name = wanted["name"]
    for attempt in range(_ATTEMPTS):
        changes = node_patches.node_patches([cluster_facts.node_view(node)], [wanted])
        if not changes:
            return
        body = dict(changes[0]["patch"])
        body["metadata"] = {
            **(body.get("metadata") or {}),
            "resourceVersion": node["metadata"]["resourceVersion"],
        }
        try:
            resource.patch(name=name, body=body, content_type="application/merge-patch+json")
        except Exception as error:
            # The library makes a class for each status. A kubelet writes its node all the time.
            if getattr(error, "status", None) != _CONFLICT or attempt == _ATTEMPTS - 1:
                raise
            node = resource.get(name=name).to_dict()
        else:
            return


def run(module: AnsibleModule, client: Any) -> dict[str, Any]:
    wanted = module.params["nodes"]
    found = {node["metadata"]["name"]: node for node in gateway_objects.list_objects(client, "v1", "Node")}
    views = [cluster_facts.node_view(node) for node in found.values()]
    changes = node_patches.node_patches(views, [entry for entry in wanted if entry["name"] in found])
    absent = [entry["name"] for entry in wanted if entry["name"] not in found]
    if absent:
        module.warn(f"no nodes of the cluster, so without labels and taints: {', '.join(absent)}")
    by_name = {entry["name"]: entry for entry in wanted}
    if not module.check_mode:
        for change in changes:
            write(client, found[change["name"]], by_name[change["name"]])
    return {
        "changed": bool(changes),
        "nodes": [change["name"] for change in changes],
        "absent": absent,
        "diff": [{"prepared": "\n".join(change["diff"]) + "\n"} for change in changes],
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **cluster_client.argument_spec(),
            "nodes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "labels": {"type": "list", "elements": "str", "default": []},
                    "taints": {"type": "list", "elements": "str", "default": []},
                },
            },
        },
        supports_check_mode=True,
    )
    try:
        with cluster_client.opened(module) as client:
            result = run(module, client)
    except (cluster_client.ClusterError, ValueError) as error:
        module.fail_json(msg=f"Labels and taints cannot be set. {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
