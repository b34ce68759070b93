# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: gateways
short_description: Complete the entries of edge_gateways
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Returns the gateways of C(edge_gateways) with the defaults applied and with all keys that roles need.
positional: defaults, storage_class
options:
  _input:
    description: The list C(edge_gateways).
    type: list
    elements: dict
    required: true
  defaults:
    description: The mapping C(edge_gateway_defaults).
    type: dict
    default: {}
  storage_class:
    description: Storage class of gateways that name none, the variable C(edge_storage_class).
    type: str
    default: ''
"""

EXAMPLES = r"""
gateways: "{{ edge_gateways | edgeha.iotedge.gateways(edge_gateway_defaults | default({})) }}"
"""

RETURN = r"""
_value:
  description:
    - The gateways with all keys that an entry may have, C(namespace), and C(device), what the hub is to have.
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils.inventory_rules import normalise_gateways


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"gateways": normalise_gateways}
