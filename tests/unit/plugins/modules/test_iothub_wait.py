# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a wait makes of a disabled device: the end of it, or a look as good as another."""

from __future__ import annotations

from typing import Any, cast

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_client
from ansible_collections.edgeha.iotedge.plugins.modules import iothub_wait


class Hub:
    """Stands in for a client: one device is disabled, and of its modules the hub says nothing."""

    clock_offset = 0.0

    def get_twin(self, device_id: str, _module: str | None = None) -> dict[str, Any]:
        off = {"status": "disabled", "statusReason": "moved"}
        return {"deviceId": device_id} | (off if device_id == "off" else {})

    def module_twins(self, device_id: str, modules: list[str]) -> list[dict[str, Any]]:
        assert device_id != "off", "a policy of the hub is refused with 401"
        now = "2126-01-01T00:00:00Z"
        return [
            {"moduleId": name, "connectionState": "Connected", "lastActivityTime": now} for name in modules
        ]


def wait(once: bool) -> list[iothub_wait.Seen]:
    devices = [
        {"device_id": name, "modules": ["m"], "connected": [], "edge_agent": False} for name in ("on", "off")
    ]
    devices[1]["edge_agent"] = True
    params = {
        "devices": devices,
        "active_after": None,
        "active_within": 1,
        "wait_timeout": 60,
        "poll_interval": 1,
    }
    return iothub_wait.wait(cast(iothub_client.HubClient, Hub()), params, once)[0]


def test_a_wait_for_a_disabled_device_ends_at_once() -> None:
    with pytest.raises(iothub_wait.DeviceDisabledError, match=r"off is disabled at the hub \(moved\)"):
        wait(once=False)


def test_a_look_at_a_disabled_device_tells_of_the_others_too() -> None:
    on, off = wait(once=True)
    assert [state.connected for state in on.modules + off.modules] == [True, False]
    assert (on.disabled, off.agent) == ("", None)
    assert "enable it" in off.disabled
