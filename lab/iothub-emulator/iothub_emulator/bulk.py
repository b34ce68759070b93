# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bulk calls: up to 100 identities and twins in one request, each entry on its own.

Rules: ExportImportDevice and BulkRegistryOperationResult of the service API.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from iothub_emulator import registry
from iothub_emulator.auth import Right
from iothub_emulator.connections import Connections, Key
from iothub_emulator.errors import HubError, argument_invalid
from iothub_emulator.feature import Context, Feature
from iothub_emulator.operations import OperationClass
from iothub_emulator.rest import json_response, read_json
from iothub_emulator.twins import Document, Twin

_MAX_ENTRIES = 100
_MODES = (
    "create",
    "update",
    "updateIfMatchETag",
    "delete",
    "deleteIfMatchETag",
    "updateTwin",
    "updateTwinIfMatchETag",
)


@dataclass
class BulkResult:
    """What a bulk call did, and what live connections have to hear of it."""

    errors: list[Document] = field(default_factory=list)
    ended: list[tuple[Key, str]] = field(default_factory=list)
    notices: list[tuple[Key, Document, int]] = field(default_factory=list)

    def document(self) -> Document:
        return {"isSuccessful": not self.errors, "errors": self.errors, "warnings": []}

    def tell(self, connections: Connections) -> None:
        for (device_id, module_id), reason in self.ended:
            if module_id:
                connections.drop((device_id, module_id), reason)
            else:
                connections.drop_device(device_id, reason)
        for key, notice, version in self.notices:
            connections.push_desired(key, notice, version)


def update_registry(connection: sqlite3.Connection, body: object, now: float) -> BulkResult:
    """Work through the entries in their order; one that fails undoes only itself.

    Raises HubError 400 when the body is no list of 1 to 100 entries. When an identity occurs twice
    nothing is done at all.
    """
    if not isinstance(body, list) or not body:
        raise argument_invalid("the body is not a JSON array with at least one entry")
    if len(body) > _MAX_ENTRIES:
        raise HubError(
            400, "TooManyDevices", f"{len(body)} entries in one call; the limit is {_MAX_ENTRIES}."
        )
    result = BulkResult()
    _find_repeated(body, result)
    if result.errors:
        return result
    for entry in body:
        done = BulkResult()
        connection.execute("SAVEPOINT entry")
        try:
            _run_entry(connection, entry, now, done)
        except HubError as error:
            connection.execute("ROLLBACK TO entry")
            result.errors.append(_error(entry, error))
        else:
            result.ended += done.ended
            result.notices += done.notices
        connection.execute("RELEASE entry")
    return result


def _find_repeated(entries: list[Any], result: BulkResult) -> None:
    seen: set[Key] = set()
    for entry in entries:
        key = _key(entry)
        if key in seen:
            what = f"The module {key[1]!r} of the device" if key[1] else "The device"
            error = HubError(
                400, "DeviceDefinedMultipleTimes", f"{what} {key[0]!r} occurs more than once in the call."
            )
            result.errors.append(_error(entry, error))
        seen.add(key)


def _key(entry: object) -> Key:
    members = entry if isinstance(entry, dict) else {}
    return str(members.get("id") or ""), str(members.get("moduleId") or "")


def _error(entry: object, error: HubError) -> Document:
    device_id, module_id = _key(entry)
    mode = entry.get("importMode") if isinstance(entry, dict) else None
    return {
        "deviceId": device_id,
        "moduleId": module_id,
        "errorCode": error.code,
        "errorStatus": error.text,
        "operation": mode if isinstance(mode, str) else "",
    }


def _run_entry(connection: sqlite3.Connection, entry: object, now: float, result: BulkResult) -> None:
    if not isinstance(entry, dict):
        raise argument_invalid("the entry is not a JSON object")
    device_id, module_id = entry.get("id"), entry.get("moduleId") or ""
    if not isinstance(device_id, str) or not device_id:
        raise argument_invalid("the entry has no id")
    if not isinstance(module_id, str):
        raise argument_invalid("moduleId is not a string")
    mode = entry.get("importMode") or "create"
    if mode not in _MODES:
        raise argument_invalid(f"the importMode {mode!r} is none of {', '.join(_MODES)}")
    if module_id:
        registry.get_device(connection, device_id)
    key = (device_id, module_id)
    match mode:
        case "create":
            _put(connection, key, entry, None, now, result)
            if entry.get("tags") is not None or entry.get("properties") is not None:
                _write_twin(connection, key, entry, None, now, result)
        case "update" | "updateIfMatchETag":
            _put(connection, key, entry, _if_match(entry, mode, "eTag"), now, result)
        case "delete" | "deleteIfMatchETag":
            _delete(connection, key, _if_match(entry, mode, "eTag"), result)
        case _:
            _write_twin(connection, key, entry, _if_match(entry, mode, "twinETag"), now, result)


def _if_match(entry: Document, mode: str, member: str) -> str:
    if not mode.endswith("IfMatchETag"):
        return "*"
    etag = entry.get(member)
    if not isinstance(etag, str) or not etag:
        raise argument_invalid(f"{mode} needs {member}")
    return etag


def _put(
    connection: sqlite3.Connection,
    key: Key,
    entry: Document,
    if_match: str | None,
    now: float,
    result: BulkResult,
) -> None:
    device_id, module_id = key
    if module_id:
        registry.put_module(connection, device_id, module_id, entry, if_match, now)
        return
    device = registry.put_device(connection, device_id, entry, if_match, now)
    if device.status == "disabled":
        result.ended.append((key, "the device was disabled"))


def _delete(connection: sqlite3.Connection, key: Key, if_match: str, result: BulkResult) -> None:
    device_id, module_id = key
    if module_id:
        registry.delete_module(connection, device_id, module_id, if_match)
        result.ended.append((key, "the module was deleted"))
    else:
        registry.delete_device(connection, device_id, if_match)
        result.ended.append((key, "the device was deleted"))


def _write_twin(
    connection: sqlite3.Connection,
    key: Key,
    entry: Document,
    if_match: str | None,
    now: float,
    result: BulkResult,
) -> None:
    """Merge the entry's tags and desired properties; reported ones are the device's own to write."""
    identity = registry.get_identity(connection, *key)
    twin = Twin.load(connection, identity)
    # A member that is null is one that was left out: clients write all members they know.
    patch = {member: entry[member] for member in ("tags", "properties") if entry.get(member) is not None}
    properties = patch.get("properties")
    if isinstance(properties, dict) and properties.get("desired") is None:
        patch["properties"] = {}
    notice = twin.write(patch, replace=False, if_match=if_match, now=now)
    twin.save(connection)
    if notice is not None:
        result.notices.append((key, notice, twin.desired_version))


def _handler(context: Context) -> Callable[[web.Request], Any]:
    async def handle(request: web.Request) -> web.Response:
        body = await read_json(request)
        result = await context.store.run(
            lambda database: update_registry(database, body, context.clock.now())
        )
        result.tell(context.connections)
        return json_response(result.document(), status=400 if result.errors else 200)

    return handle


@asynccontextmanager
async def _run(context: Context) -> AsyncIterator[None]:
    context.rest.add_route(
        "POST", "/devices", Right.REGISTRY_WRITE, _handler(context), operation=OperationClass.IDENTITY
    )
    yield


FEATURE = Feature(_run)
