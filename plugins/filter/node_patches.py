# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: node_patches
short_description: What differs between wanted labels and taints and those of nodes
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Returns a patch for each node whose labels or taints are not as wanted. Those of others are left alone.
positional: wanted
options:
  _input:
    description: Nodes as M(edgeha.iotedge.cluster_info) returns them.
    type: list
    elements: dict
    required: true
  wanted:
    description: Name, labels and taints as in M(edgeha.iotedge.cluster_nodes).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
differ: "{{ cluster.nodes | edgeha.iotedge.node_patches([{'name': 'gw1', 'labels': ['a=b']}]) }}"
"""

RETURN = r"""
_value:
  description:
    - C(name), C(patch) (a JSON merge patch) and C(diff) (lines for people) of each node that differs.
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.edgeha.iotedge.plugins.module_utils import node_patches


def patches(nodes: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    try:
        return node_patches.node_patches(nodes, wanted)
    except ValueError as error:
        raise AnsibleFilterError(f"edge_node_labels or edge_node_taints: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"node_patches": patches}
