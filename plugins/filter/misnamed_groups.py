# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: misnamed_groups
short_description: Groups of an inventory whose names are nearly those of this collection
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Finds groups that hold hosts which are in no group of this collection, and whose names are nearly
    C(edge_clusters), C(edge_servers) or C(edge_agents).
options:
  _input:
    description: The hosts of each group, as the variable C(groups) has them.
    type: dict
    required: true
"""

EXAMPLES = r"""
hints: "{{ groups | edgeha.iotedge.misnamed_groups }}"
"""

RETURN = r"""
_value:
  description: A sentence for each, such as V(There is a group edge_server - did you mean edge_servers?).
  type: list
  elements: str
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import cluster_rules


def misnamed_groups(members: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"There is a group {group} - did you mean {meant}?"
        for group, (meant, _hosts) in cluster_rules.misnamed_groups(members).items()
    ]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"misnamed_groups": misnamed_groups}
