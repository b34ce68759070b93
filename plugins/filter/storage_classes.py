# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: storage_classes
short_description: Storage classes that gateways ask for
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Returns the storage classes of gateways with the access modes that are asked of each, as
    M(edgeha.iotedge.cluster_info) takes them.
options:
  _input:
    description: Gateways as the filter P(edgeha.iotedge.gateways#filter) returns them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
classes: "{{ gateways | edgeha.iotedge.storage_classes }}"
"""

RETURN = r"""
_value:
  description: The classes with C(name) and C(access_modes).
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import inventory_rules


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"storage_classes": inventory_rules.storage_classes}
