# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: cluster_table
short_description: Show the nodes of a cluster as a table
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Returns the lines of a table with one row for each node, and what to do when they run another version than
    the one that is wanted.
options:
  _input:
    description: Nodes as M(edgeha.iotedge.cluster_info) returns them.
    type: list
    elements: dict
    required: true
  name:
    description: Name of the cluster.
    type: str
    required: true
  api:
    description: URL of its API.
    type: str
    required: true
  wanted:
    description: Version that is wanted, empty when none is.
    type: str
    default: ""
"""

EXAMPLES = r"""
lines: "{{ look.cluster.nodes | edgeha.iotedge.cluster_table('plant07', 'https://10.7.0.10:6443') }}"
"""

RETURN = r"""
_value:
  description: The lines of the table.
  type: list
  elements: str
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import table

HEADERS = ("CLUSTER", "API", "NODE", "ROLES", "STATE", "VERSION")
ROLE_LABEL = "node-role.kubernetes.io/"


def cluster_table(nodes: Sequence[Mapping[str, Any]], name: str, api: str, wanted: str = "") -> list[str]:
    rows = []
    for node in sorted(nodes, key=lambda entry: str(entry["name"])):
        roles = sorted(key.removeprefix(ROLE_LABEL) for key in node["labels"] if key.startswith(ROLE_LABEL))
        state = "ready" if node["ready"] else "not ready"
        state += "" if node["schedulable"] else ", takes no pods"
        rows.append((name, api, node["name"], ", ".join(roles) or "-", state, node["version"]))
    lines = table.render(HEADERS, rows)
    others = sorted({str(node["version"]) for node in nodes} - {wanted}) if wanted else []
    if others:
        lines.append(
            f"{name} runs {', '.join(others)}, and {wanted} is wanted: run playbooks/upgrade.yml "
            "(edgeha.iotedge.upgrade)"
        )
    return lines


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"cluster_table": cluster_table}
