# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: operation_plan
short_description: Whether an operation on a running cluster may begin, and on which machines
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Refuses what would hurt a cluster that nobody confirmed, one of which a machine is hidden, or one that
    would lose its majority. Chooses a server that can be asked for its peers.
positional: operation, cluster
options:
  _input:
    description:
      - Machines of one cluster with C(host), C(server), C(node), C(in_run) (whether it is in this run) and
        C(state), which M(edgeha.iotedge.k3s_probe) returned as C(k3s), or nothing when it did not answer.
    type: list
    elements: dict
    required: true
  operation:
    description: What is to be done.
    type: str
    choices: [backup, upgrade, rotate_keys, replace_node, reset, restore]
    required: true
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  clusters:
    description: Names of all clusters of the inventory.
    type: list
    elements: str
    required: true
  confirm:
    description: The cluster that the operator named.
    type: str
    default: ""
  nodes:
    description: Machines that are meant, as a list or as text with commas between them.
    type: raw
    default: []
  version:
    description: Version of k3s that is asked for. Empty for none.
    type: str
    default: ""
"""

EXAMPLES = r"""
plan: "{{ machines | edgeha.iotedge.operation_plan('reset', 'gw', clusters=['gw'], confirm='gw') }}"
"""

RETURN = r"""
_value:
  description:
    - C(selected), C(problems), C(targets) (the machines that are acted on), C(keeper) (a server that answers
      and is no target), C(all) (whether the whole cluster is the target) and C(version) (the newest k3s that
      a machine of the cluster has).
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import operations


def operation_plan(
    machines: list[Mapping[str, Any]],
    operation: str,
    cluster: str,
    *,
    clusters: list[str],
    confirm: str = "",
    nodes: Any = (),
    version: str = "",
) -> dict[str, Any]:
    request = operations.Request(
        operation, cluster, list(clusters), str(confirm or ""), operations.names(nodes), str(version or "")
    )
    return operations.decide(
        request,
        [
            operations.Machine(
                str(entry["host"]),
                bool(entry["server"]),
                str(entry.get("node") or entry["host"]),
                bool(entry["in_run"]),
                entry.get("state") or None,
            )
            for entry in machines
        ],
    )


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"operation_plan": operation_plan}
