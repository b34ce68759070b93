# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: status_table
short_description: How gateways do, as the lines of a table
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Makes a table of what the filter P(edgeha.iotedge.gateway_status#filter) returns.
options:
  _input:
    description: Records of the filter P(edgeha.iotedge.gateway_status#filter).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
lines: "{{ status | edgeha.iotedge.status_table }}"
"""

RETURN = r"""
_value:
  description: The lines of the table.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import gateway_status


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"status_table": gateway_status.lines}
