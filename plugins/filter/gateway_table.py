# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: gateway_table
short_description: Show gateways as a table
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Returns the lines of a table with one row for each gateway.
options:
  _input:
    description: Gateways as the filter P(edgeha.iotedge.gateways#filter) returns them.
    type: list
    elements: dict
    required: true
  hub:
    description: Host name of the hub.
    type: str
    required: true
  running:
    description: What M(edgeha.iotedge.edge_gateways_info) returned as C(gateways).
    type: list
    elements: dict
    required: true
  modules:
    description: What M(edgeha.iotedge.iothub_wait) returned as C(modules).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
lines: "{{ gateways | edgeha.iotedge.gateway_table(iothub_hostname, running=pods, modules=states) }}"
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

HEADERS = ("GATEWAY", "DEVICE", "HUB", "NAMESPACE", "NODE", "MODULES", "CONNECTED", "LAST ACTIVITY")


def gateway_table(
    gateways: Sequence[Mapping[str, Any]],
    hub: str,
    running: Sequence[Mapping[str, Any]],
    modules: Sequence[Mapping[str, Any]],
) -> list[str]:
    nodes = {entry["name"]: entry["node"] for entry in running}
    rows = []
    for gateway in gateways:
        own = [module for module in modules if module["device_id"] == gateway["device_id"]]
        connected = sum(1 for module in own if module["connected"])
        activity = sorted(filter(None, (module["last_activity"] for module in own)))
        rows.append(
            (
                gateway["name"],
                gateway["device_id"],
                hub,
                gateway["namespace"],
                nodes.get(gateway["name"]) or "-",
                ", ".join(module["module_id"] for module in own) or "-",
                f"{connected} of {len(own)}",
                activity[-1] if activity else "never",
            )
        )
    return table.render(HEADERS, rows)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"gateway_table": gateway_table}
