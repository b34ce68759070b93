# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices as a query of the hub finds them, and what an inventory tells of each. Pure.

Source: "IoT Hub query language for device and module twins" (Microsoft Learn). Twins hold no keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import activity

_MEMBERS = (
    "deviceId",
    "status",
    "statusReason",
    "connectionState",
    "lastActivityTime",
    "authenticationType",
    "capabilities",
    "deviceScope",
    "parentScopes",
    "tags",
)
SECTIONS = ("desired", "reported")


def query_text(condition: str | None, sections: Iterable[str]) -> str:
    """Return the query for the devices that fulfil a condition (without WHERE), None for all.

    sections: which of SECTIONS to read too.
    """
    members = [*_MEMBERS, *(f"properties.{section}" for section in sections)]
    # The condition is the operator's own, run with the operator's own rights.
    text = f"SELECT {', '.join(members)} FROM devices"  # noqa: S608
    return f"{text} WHERE {condition.strip()}" if condition and condition.strip() else text


def host_variables(row: Mapping[str, Any], sections: Iterable[str]) -> dict[str, Any]:
    """Return the variables of one device, each beginning with ``iothub_``."""
    variables: dict[str, Any] = {
        "iothub_device_id": row["deviceId"],
        "iothub_edge": bool((row.get("capabilities") or {}).get("iotEdge")),
        "iothub_status": row.get("status"),
        "iothub_status_reason": row.get("statusReason"),
        "iothub_connected": row.get("connectionState") == "Connected",
        "iothub_last_activity": activity.format_time(activity.parse_time(row.get("lastActivityTime"))),
        "iothub_authentication": row.get("authenticationType"),
        "iothub_device_scope": row.get("deviceScope"),
        "iothub_parent_scopes": list(row.get("parentScopes") or []),
        "iothub_tags": row.get("tags") or {},
    }
    for section in sections:
        # A projection may come under its whole name or under its last part.
        found = row.get(section) or (row.get("properties") or {}).get(section) or {}
        variables[f"iothub_{section}"] = {
            key: value for key, value in found.items() if not key.startswith("$")
        }
    return variables


def groups(variables: Mapping[str, Any]) -> list[str]:
    """Return the names of the groups that a device belongs to without anybody asking."""
    return [
        "iothub_edge" if variables["iothub_edge"] else "iothub_leaf",
        "iothub_connected" if variables["iothub_connected"] else "iothub_disconnected",
        f"iothub_{variables['iothub_status'] or 'enabled'}",
    ]
