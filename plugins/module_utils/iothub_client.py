# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The service side of Azure IoT Hub: the calls that the modules need.

The contract is the hub's service API, api-version 2021-04-12.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import rest_client


class HubClient(rest_client.RestClient):
    """Calls one hub; see RestClient."""

    SERVICE = "IoT Hub"
    API_VERSION = "2021-04-12"

    def get_device(self, device_id: str) -> dict[str, Any] | None:
        """Return the device identity (with its keys), or None when the hub has none of that id."""
        return self._get_or_none(f"/devices/{rest_client.segment(device_id)}", "DeviceNotFound")

    def put_device(self, body: Mapping[str, Any], etag: str | None) -> dict[str, Any]:
        """Create (etag None) or replace (etag of the version that was read) a device identity."""
        path = f"/devices/{rest_client.segment(str(body['deviceId']))}"
        return rest_client.as_object(self.request("PUT", path, body=dict(body), if_match=etag).body)

    def delete_device(self, device_id: str, etag: str) -> None:
        """Delete a device identity, its modules and its twin."""
        self.request("DELETE", f"/devices/{rest_client.segment(device_id)}", if_match=etag)

    def list_modules(self, device_id: str) -> list[dict[str, Any]]:
        """Return the module identities of a device (with their keys)."""
        body = self.request("GET", f"/devices/{rest_client.segment(device_id)}/modules").body
        return [dict(entry) for entry in body] if isinstance(body, list) else []

    def get_twin(self, device_id: str) -> dict[str, Any] | None:
        """Return the device twin, or None when there is no such device."""
        return self._get_or_none(f"/twins/{rest_client.segment(device_id)}", "DeviceNotFound")

    def patch_twin(self, device_id: str, patch: Mapping[str, Any], etag: str) -> dict[str, Any]:
        """Merge a patch (JSON merge patch: null removes) into the device twin."""
        path = f"/twins/{rest_client.segment(device_id)}"
        return rest_client.as_object(self.request("PATCH", path, body=dict(patch), if_match=etag).body)

    def _get_or_none(self, path: str, absent: str) -> dict[str, Any] | None:
        try:
            return rest_client.as_object(self.request("GET", path).body)
        except rest_client.ServiceResponseError as error:
            # 404 alone is not enough: a proxy or a wrong host says it too, and "absent" leads to a creation.
            if error.status == 404 and error.code.startswith((absent, "404001")):
                return None
            raise
