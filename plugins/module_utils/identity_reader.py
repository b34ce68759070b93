# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads identities and twins, and finds out what an answer about those of modules means.

For the modules of a missing and of a disabled device a hub answers a shared access policy with 401, just as
it does when the policy lacks the right. Only the device itself tells which of these it is.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_client, item_list, rest_client


class IdentityMissing(item_list.Refused):
    """The device or module that something is to be done with is not registered."""


def read_module(client: iothub_client.HubClient, device_id: str, module_id: str) -> dict[str, Any] | None:
    """Return the module identity (with its keys), None when the device has none of that name.

    Raises IdentityMissing for a missing and item_list.Refused for a disabled device, or ServiceError.
    """
    try:
        return client.get_module(device_id, module_id)
    except rest_client.ServiceResponseError as error:
        raise _cause(client, device_id, error) from error


class ModuleReader:
    """Reads modules as `read_module` does, with one call for all modules of a device that are asked for.

    A hub allows a hundred registry calls a minute, and a list of modules is one. device_ids: of every module
    that will be read, repeated. Safe to use from several threads.
    """

    def __init__(self, client: iothub_client.HubClient, device_ids: Iterable[str]) -> None:
        self._client = client
        self._shared = {device_id for device_id, count in Counter(device_ids).items() if count > 1}
        self._lists: dict[str, Future[dict[str, dict[str, Any]]]] = {}
        self._lock = threading.Lock()

    def read(self, device_id: str, module_id: str) -> dict[str, Any] | None:
        """Return the module identity, see `read_module`."""
        if device_id not in self._shared:
            return read_module(self._client, device_id, module_id)
        return self._list(device_id).get(module_id)

    def _list(self, device_id: str) -> dict[str, dict[str, Any]]:
        with self._lock:
            known = self._lists.get(device_id)
            mine = known or self._lists.setdefault(device_id, Future())
        if known is None:
            # Who comes first asks, the others wait for the answer or its error.
            try:
                found = self._client.list_modules(device_id)
            except rest_client.ServiceResponseError as error:
                mine.set_exception(_cause(self._client, device_id, error))
            except Exception as error:
                mine.set_exception(error)
            else:
                mine.set_result({str(entry.get("moduleId")): entry for entry in found})
        return mine.result()


def read_identity(client: iothub_client.HubClient, device_id: str, module_id: str | None) -> dict[str, Any]:
    """Return the identity (with its keys) of a device, or of a module of it; raises as `read_module`."""
    found = read_module(client, device_id, module_id) if module_id else client.get_device(device_id)
    if found is None:
        raise _missing(device_id, module_id)
    return found


def read_twin(client: iothub_client.HubClient, device_id: str, module_id: str | None) -> dict[str, Any]:
    """Return the twin of a device, or of a module of it; raises as `read_module`."""
    try:
        found = client.get_twin(device_id, module_id or "")
    except rest_client.ServiceResponseError as error:
        if not module_id:
            raise
        raise _cause(client, device_id, error) from error
    if found is None:
        raise _missing(device_id, module_id)
    return found


def _missing(device_id: str, module_id: str | None) -> IdentityMissing:
    if module_id:
        return IdentityMissing(
            f"the device {device_id!r} has no module {module_id!r}: register it first (iothub_modules)"
        )
    return IdentityMissing(f"the device {device_id!r} is not registered: register it first (iothub_devices)")


def _cause(
    client: iothub_client.HubClient, device_id: str, error: rest_client.ServiceResponseError
) -> Exception:
    """Return the error that names the cause of an answer about a module."""
    if error.status not in (401, 404):
        return error
    try:
        device = client.get_device(device_id)
    except rest_client.ServiceResponseError:
        # Whoever may not read the device cannot tell.
        return error
    if device is None:
        return _missing(device_id, None)
    if device.get("status") == "disabled":
        return item_list.Refused(
            f"the device {device_id!r} is disabled, and a hub gives no shared access policy the modules of "
            "a disabled device: enable it first, or use another auth than sas"
        )
    return error
