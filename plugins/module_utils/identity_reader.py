# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads module identities, and finds out what an answer about them means.

For the modules of a missing and of a disabled device a hub answers a shared access policy with 401, just as
it does when the policy lacks the right. Only the device itself tells which of these it is.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_client, item_list, rest_client


class DeviceMissing(item_list.Refused):
    """The device of the module is not registered."""


def read_module(client: iothub_client.HubClient, device_id: str, module_id: str) -> dict[str, Any] | None:
    """Return the module identity (with its keys), None when the device has none of that name.

    Raises DeviceMissing, item_list.Refused for a disabled device, or ServiceError.
    """
    try:
        return client.get_module(device_id, module_id)
    except rest_client.ServiceResponseError as error:
        if error.status not in (401, 404):
            raise
        device = client.get_device(device_id)
        if device is None:
            raise DeviceMissing(
                f"the device {device_id!r} is not registered: register it first (iothub_devices)"
            ) from error
        if device.get("status") == "disabled":
            raise item_list.Refused(
                f"the device {device_id!r} is disabled, and a hub gives no shared access policy the modules "
                "of a disabled device: enable it first, or use another auth than sas"
            ) from error
        raise
