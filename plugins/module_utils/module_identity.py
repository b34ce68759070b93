# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wanted and actual module identities: what differs, and the body that puts it right. Pure.

The hub's rules that shape this file: a PUT replaces the whole identity, and leaving out ``authentication`` or
``managedBy`` resets it; without If-Match it only creates, with it it only updates; names that begin with
``$`` are the hub's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_device, item_list
from ansible_collections.edgeha.iotedge.plugins.module_utils.authentication import Authentication
from ansible_collections.edgeha.iotedge.plugins.module_utils.item_list import Plan

OPTION = "modules"


@dataclass(frozen=True)
class DesiredModule:
    """A module as the operator wants it; None means "leave as it is", an empty managed_by "nobody"."""

    device_id: str
    module_id: str
    present: bool = True
    managed_by: str | None = None
    authentication: Authentication | None = None
    replace_authentication: bool = False

    @property
    def label(self) -> str:
        return label(self.device_id, self.module_id)


def label(device_id: str, module_id: str | None = None) -> str:
    """Return the name of a device or of one of its modules, as shown: ``DEVICE`` or ``DEVICE/MODULE``."""
    return f"{device_id}/{module_id}" if module_id else device_id


def module_id_error(module_id: object) -> str | None:
    """Return what is wrong with the name of a module, None when it is valid; rules as for devices."""
    error = iothub_device.device_id_error(module_id)
    return error.replace("device id", "module id") if error else None


def id_errors(device_id: str, module_id: str | None) -> list[str]:
    """Return what is wrong with the names of an identity. module_id: None for the device itself."""
    found = [iothub_device.device_id_error(device_id)]
    if module_id is not None:
        found.append(module_id_error(module_id))
    return [error for error in found if error]


def list_errors(modules: Sequence[DesiredModule]) -> list[str]:
    """Return every error of a list of modules, each naming the item by its index (from 0)."""

    def errors(module: DesiredModule) -> list[str]:
        found = id_errors(module.device_id, module.module_id)
        if module.module_id.startswith("$"):
            found.append(
                f"the module {module.module_id!r} is the hub's own: it comes and goes with the edge device"
            )
        return found + (module.authentication.errors() if module.authentication else [])

    return item_list.by_item(OPTION, map(errors, modules)) + item_list.repeated(
        OPTION,
        ((module.device_id, module.module_id) for module in modules),
        (f"the module {module.label!r}" for module in modules),
    )


def public_view(identity: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what may be shown of an identity: no keys. ``{}`` for a module that does not exist."""
    if not identity:
        return {}
    return {
        "device_id": identity.get("deviceId"),
        "module_id": identity.get("moduleId"),
        "managed_by": identity.get("managedBy") or None,
        "authentication": Authentication.from_body(identity.get("authentication")).view(),
    }


def plan(actual: Mapping[str, Any] | None, desired: DesiredModule) -> Plan:
    """Return what to do so that the module is as wanted. actual: the identity with its keys, or None."""
    before = public_view(actual)
    if not desired.present:
        return Plan("delete", etag=str(actual.get("etag") or "*"), before=before) if actual else Plan("none")

    wanted = desired.authentication
    body: dict[str, Any] = {"deviceId": desired.device_id, "moduleId": desired.module_id}
    if not actual:
        body["authentication"] = (wanted or Authentication()).body()
        if desired.managed_by:
            body["managedBy"] = desired.managed_by
        return Plan("create", body=body, after=public_view(body))

    there = Authentication.from_body(actual.get("authentication"))
    change = wanted is not None and wanted.differs(there)
    if wanted and wanted.type != there.type and not desired.replace_authentication:
        raise item_list.Refused(
            f"it authenticates by {there.type} and the list wants {wanted.type}: a change cuts it off until "
            "it has the new credentials; set replace_authentication: true if that is meant"
        )
    body["authentication"] = wanted.body() if wanted and change else actual.get("authentication")
    managed_by = actual.get("managedBy") if desired.managed_by is None else desired.managed_by
    if managed_by:
        body["managedBy"] = managed_by
    after = public_view(body)
    if not change and before == after:
        return Plan("none", before=before, after=after)
    if wanted and change and before["authentication"] == after["authentication"]:
        # Only the keys differ, and no diff may hold those.
        before["keys"], after["keys"] = "others", "as given"
    etag = str(actual.get("etag") or "*")
    return Plan("update", body={**body, "etag": etag}, etag=etag, before=before, after=after)
