# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The service side of Azure IoT Hub: the calls that the modules need.

The contract is the hub's service API, api-version 2021-04-12.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import rest_client

# "Import and export IoT Hub device identities": entries of one bulk call.
MAX_BULK = 100
# "IoT Hub query language": rows of one page.
MAX_PAGE = 1000
# The one call that the client's own version does not have.
_REGENERATE_API_VERSION = "2024-03-31"


class HubClient(rest_client.RestClient):
    """Calls one hub; see RestClient."""

    SERVICE = "IoT Hub"
    API_VERSION = "2021-04-12"

    def get_device(self, device_id: str) -> dict[str, Any] | None:
        """Return the device identity (with its keys), or None when the hub has none of that id."""
        return self._get_or_none(f"/devices/{rest_client.segment(device_id)}", "DeviceNotFound", "404001")

    def put_device(self, body: Mapping[str, Any], etag: str | None) -> dict[str, Any]:
        """Create (etag None) or replace (etag of the version that was read) a device identity."""
        path = f"/devices/{rest_client.segment(str(body['deviceId']))}"
        return rest_client.as_object(self.request("PUT", path, body=dict(body), if_match=etag).body)

    def delete_device(self, device_id: str, etag: str) -> None:
        """Delete a device identity, its modules and its twin."""
        self.request("DELETE", f"/devices/{rest_client.segment(device_id)}", if_match=etag)

    def bulk(self, entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Write up to MAX_BULK identities and twins in one call; return the errors by device id.

        entries: each with ``id`` and ``importMode``, each device once. They are independent of each other:
        those without an error are done. Entries that the hub throttles are sent again, within retry_budget.
        """
        failed: dict[str, str] = {}
        left, waited, attempt = list(entries), 0.0, 0
        while left:
            try:
                answer = self.request("POST", "/devices", body=[dict(entry) for entry in left]).body
            except rest_client.ServiceResponseError as error:
                # With any error in it the same result comes as 400.
                if error.status != 400 or "isSuccessful" not in rest_client.as_object(error.body):
                    raise
                answer = error.body
            errors = {str(error.get("deviceId")): error for error in answer.get("errors") or []}
            if not errors and not answer.get("isSuccessful"):
                errors = {str(entry["id"]): {"errorCode": "no reason given"} for entry in left}
            throttled = {name for name, error in errors.items() if "Throttl" in str(error.get("errorCode"))}
            pause = self.pause(429, attempt)
            if waited + pause > self.retry_budget:
                throttled = set()
            failed |= {
                name: f"{error.get('errorCode')}: {error.get('errorStatus') or 'no message'}"
                for name, error in errors.items()
                if name not in throttled
            }
            left = [entry for entry in left if entry["id"] in throttled]
            if left:
                self.sleep(pause)
                waited, attempt = waited + pause, attempt + 1
        return failed

    def query(self, text: str, page_size: int = MAX_PAGE) -> Iterator[dict[str, Any]]:
        """Return the rows of a query of the hub's query language, page by page.

        What a query finds is late by a second or two, and a deleted device may be found for half an hour.
        """
        token: str | None = None
        while True:
            headers = {"x-ms-max-item-count": str(page_size)}
            if token:
                headers["x-ms-continuation"] = token
            answer = self.request("POST", "/devices/query", body={"query": text}, headers=headers)
            yield from answer.body or []
            token = answer.headers.get("x-ms-continuation")
            if not token:
                return

    def count_devices(self) -> int:
        """Return about how many devices the hub has; the number is late like a query."""
        body = rest_client.as_object(self.request("GET", "/statistics/devices").body)
        return int(body.get("totalDeviceCount") or 0)

    def list_modules(self, device_id: str) -> list[dict[str, Any]]:
        """Return the module identities of a device (with their keys)."""
        body = self.request("GET", f"/devices/{rest_client.segment(device_id)}/modules").body
        return [dict(entry) for entry in body] if isinstance(body, list) else []

    def get_module(self, device_id: str, module_id: str) -> dict[str, Any] | None:
        """Return the module identity (with its keys), or None when the device has none of that name.

        Under a shared access policy a hub answers 401 for the modules of a missing or a disabled device.
        """
        return self._get_or_none(_module_path("devices", device_id, module_id), "ModuleNotFound", "404010")

    def put_module(self, body: Mapping[str, Any], etag: str | None) -> dict[str, Any]:
        """Create (etag None) or replace (etag of the version that was read) a module identity."""
        path = _module_path("devices", str(body["deviceId"]), str(body["moduleId"]))
        return rest_client.as_object(self.request("PUT", path, body=dict(body), if_match=etag).body)

    def delete_module(self, device_id: str, module_id: str, etag: str) -> None:
        """Delete a module identity and its twin."""
        self.request("DELETE", _module_path("devices", device_id, module_id), if_match=etag)

    def get_twin(self, device_id: str, module_id: str = "") -> dict[str, Any] | None:
        """Return the twin of a device, or of one of its modules; None when there is no such one."""
        if module_id:
            path = _module_path("twins", device_id, module_id)
            return self._get_or_none(path, "ModuleNotFound", "404010", "DeviceNotFound", "404001")
        return self._get_or_none(f"/twins/{rest_client.segment(device_id)}", "DeviceNotFound", "404001")

    def module_twins(self, device_id: str, modules: Iterable[str]) -> list[dict[str, Any]]:
        """Return the twins of those modules of a device that exist."""
        twins = (self.get_twin(device_id, module_id) for module_id in modules)
        return [twin for twin in twins if twin is not None]

    def patch_twin(
        self, device_id: str, patch: Mapping[str, Any], etag: str, module_id: str = ""
    ) -> dict[str, Any]:
        """Merge a patch (JSON merge patch: null removes) into the twin of a device or of its module."""
        device = f"/twins/{rest_client.segment(device_id)}"
        path = _module_path("twins", device_id, module_id) if module_id else device
        return rest_client.as_object(self.request("PATCH", path, body=dict(patch), if_match=etag).body)

    def regenerate_keys(self, which: str, identities: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Let the hub make new keys; return ``{"policyKey", "errors": [..], "rotatedKeys": [..]}``.

        which: ``primaryKey``, ``secondaryKey`` or ``both``. identities: ids of at most MAX_BULK of them.
        Some may fail while the others are done: that is an answer (207, or 400 when all failed) and no error.
        """
        try:
            answer = self.request(
                "POST",
                "/devices/keys/regenerate",
                body={"policyKey": which, "devices": [dict(identity) for identity in identities]},
                query={"api-version": _REGENERATE_API_VERSION},
            ).body
        except rest_client.ServiceResponseError as error:
            if error.status != 400 or "errors" not in rest_client.as_object(error.body):
                raise
            answer = error.body
        return rest_client.as_object(answer)

    def _get_or_none(self, path: str, *absent: str) -> dict[str, Any] | None:
        try:
            return rest_client.as_object(self.request("GET", path).body)
        except rest_client.ServiceResponseError as error:
            # 404 alone is not enough: a proxy or a wrong host says it too, and "absent" leads to a creation.
            if error.status == 404 and error.code.startswith(absent):
                return None
            raise


def _module_path(kind: str, device_id: str, module_id: str) -> str:
    return f"/{kind}/{rest_client.segment(device_id)}/modules/{rest_client.segment(module_id)}"
