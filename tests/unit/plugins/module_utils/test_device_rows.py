# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import device_rows

ROW: dict[str, Any] = {
    "deviceId": "gw",
    "status": "disabled",
    "statusReason": "spare",
    "connectionState": "Connected",
    "lastActivityTime": "2026-01-31T08:15:00.1234567Z",
    "authenticationType": "sas",
    "capabilities": {"iotEdge": True},
    "deviceScope": "ms-azure-iot-edge://gw-1",
    "tags": {"site": "a"},
}


def test_query() -> None:
    assert device_rows.query_text(None, []).endswith("tags FROM devices")
    text = device_rows.query_text(" tags.site = 'a' ", ["reported"])
    assert text.endswith("tags, properties.reported FROM devices WHERE tags.site = 'a'")


def test_variables_and_groups() -> None:
    variables = device_rows.host_variables(ROW, [])
    assert all(name.startswith("iothub_") for name in variables)
    assert variables["iothub_tags"] == {"site": "a"}
    assert variables["iothub_connected"] is True
    assert variables["iothub_last_activity"].startswith("2026-01-31T08:15:00")
    assert "iothub_reported" not in variables
    assert device_rows.groups(variables) == ["iothub_edge", "iothub_connected", "iothub_disabled"]
    # As a device that never spoke looks, with what is not set left out.
    least = device_rows.host_variables({"deviceId": "d", "lastActivityTime": "0001-01-01T00:00:00Z"}, [])
    assert least["iothub_last_activity"] is None
    assert least["iothub_tags"] == {}
    assert device_rows.groups(least) == ["iothub_leaf", "iothub_disconnected", "iothub_enabled"]


def test_properties_under_either_name_and_without_the_hubs_members() -> None:
    properties = {"a": 1, "$version": 3, "$metadata": {}}
    for row in ({**ROW, "properties": {"desired": properties}}, {**ROW, "desired": properties}):
        variables = device_rows.host_variables(row, ["desired", "reported"])
        assert variables["iothub_desired"] == {"a": 1}
        assert variables["iothub_reported"] == {}
