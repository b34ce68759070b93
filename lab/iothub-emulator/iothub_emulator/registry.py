# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The identity registry: devices, their modules, and the rules for writing them.

Every function is one operation on the store (see store.py) and raises HubError. Rules come from the
identity registry's documentation and from what real hubs were seen to do.
"""

import re
import secrets
import sqlite3
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from iothub_emulator.clock import NEVER
from iothub_emulator.errors import (
    HubError,
    argument_invalid,
    device_not_found,
    module_not_found,
    precondition_failed,
    unauthorized,
)
from iothub_emulator.identity import (
    IDENTITY_ROWS,
    Authentication,
    Identity,
    check_if_match,
    find,
    parse_authentication,
)
from iothub_emulator.twins import Twin

_ID = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@;$']{1,128}")
_MAX_STATUS_REASON = 128
_MAX_EDGE_DEPTH = 5
_MAX_LISTED = 1000
_SYSTEM_MODULES = ("$edgeAgent", "$edgeHub")
_DELETE_DEVICE = tuple(
    f"DELETE FROM {table} WHERE device_id = ?"  # noqa: S608 - no value of a client in it
    for table in ("identities", "twins", "mqtt_sessions")
)
_DELETE_MODULE = tuple(f"{statement} AND module_id = ?" for statement in _DELETE_DEVICE)
# .NET ticks at the start of 1970; a generation id is a tick count.
_EPOCH_TICKS = 621_355_968_000_000_000


def get_device(connection: sqlite3.Connection, device_id: str) -> Identity:
    device = find(connection, device_id)
    if device is None:
        raise device_not_found(device_id)
    return device


def get_module(connection: sqlite3.Connection, device_id: str, module_id: str) -> Identity:
    module = find(connection, device_id, module_id)
    if module is None:
        raise module_not_found(device_id, module_id)
    return module


def get_identity(connection: sqlite3.Connection, device_id: str, module_id: str) -> Identity:
    """A device ('' as module) or a module, each with its own error."""
    device = get_device(connection, device_id)
    return get_module(connection, device_id, module_id) if module_id else device


def list_devices(connection: sqlite3.Connection, top: int) -> list[Identity]:
    """Devices by id, at most `top`; a `top` outside 1..1000 means 1000."""
    limit = top if 1 <= top <= _MAX_LISTED else _MAX_LISTED
    rows = connection.execute(f"{IDENTITY_ROWS} WHERE module_id = '' ORDER BY device_id LIMIT ?", (limit,))
    return [Identity.from_row(row) for row in rows]


def list_modules(connection: sqlite3.Connection, device_id: str) -> list[Identity]:
    rows = connection.execute(
        f"{IDENTITY_ROWS} WHERE device_id = ? AND module_id <> '' ORDER BY module_id", (device_id,)
    )
    return [Identity.from_row(row) for row in rows]


def count_devices(connection: sqlite3.Connection) -> dict[str, int]:
    total, enabled = connection.execute(
        "SELECT count(*), coalesce(sum(status = 'enabled'), 0) FROM identities WHERE module_id = ''"
    ).fetchone()
    return {"totalDeviceCount": total, "enabledDeviceCount": enabled, "disabledDeviceCount": total - enabled}


def count_connected(connection: sqlite3.Connection) -> dict[str, int]:
    connected = connection.execute(
        "SELECT count(*) FROM identities WHERE module_id = '' AND connected = 1"
    ).fetchone()[0]
    return {"connectedDeviceCount": connected}


def require_enabled_device(connection: sqlite3.Connection, device_id: str) -> Identity:
    """The device whose modules are to be worked on.

    Under SAS a missing and a disabled device both answer 401 here, on real hubs too.
    """
    device = find(connection, device_id)
    if device is None:
        raise unauthorized(f"module call on the missing device {device_id!r}")
    if device.status != "enabled":
        raise unauthorized(f"module call on the disabled device {device_id!r}")
    return device


def put_device(
    connection: sqlite3.Connection, device_id: str, body: object, if_match: str | None, now: float
) -> Identity:
    """Create (no If-Match) or replace (If-Match) a device; what the body leaves out is reset."""
    document = _check_body(body, {"deviceId": device_id})
    _check_id(device_id, "device id")
    existing = _check_write(
        find(connection, device_id),
        if_match,
        exists=HubError(409, "DeviceAlreadyExists", f"A device with ID '{device_id}' is already registered."),
        missing=device_not_found(device_id),
    )
    status, reason = _check_status(document)
    authentication = parse_authentication(document.get("authentication"), module=False)
    edge = _check_edge(document)
    generation_id = existing.generation_id if existing else _new_generation(now)
    own_scope = f"ms-azure-iot-edge://{device_id}-{generation_id}"
    scope, parent = _check_scopes(connection, document, existing, edge, own_scope)
    device = Identity(
        device_id=device_id,
        module_id="",
        generation_id=generation_id,
        etag=new_etag(),
        status=status,
        status_reason=reason,
        status_updated=NEVER,
        connected=False,
        connection_updated=NEVER,
        last_activity=NEVER,
        authentication=authentication,
        edge=edge,
        device_scope=scope,
        parent_scope=parent,
        managed_by=None,
    )
    if existing:
        device.status_updated = existing.status_updated if existing.status == status else now
        device.connected = existing.connected
        device.connection_updated = existing.connection_updated
        device.last_activity = existing.last_activity
        device.waiting_messages = existing.waiting_messages
    device.save(connection)
    if not existing:
        Twin.create(connection, device_id, "", now)
    if edge and not (existing and existing.edge):
        for name in _SYSTEM_MODULES:
            _new_module(device_id, name, Authentication("none"), "iotEdge", now).save(connection)
            Twin.create(connection, device_id, name, now)
    if existing and existing.edge and not edge:
        for name in _SYSTEM_MODULES:
            _delete(connection, device_id, name)
    return device


def put_module(
    connection: sqlite3.Connection,
    device_id: str,
    module_id: str,
    body: object,
    if_match: str | None,
    now: float,
) -> Identity:
    """Create (no If-Match) or replace (If-Match) a module of a device that the caller has looked up."""
    document = _check_body(body, {"deviceId": device_id, "moduleId": module_id})
    _check_id(module_id, "module id")
    existing = _check_write(
        find(connection, device_id, module_id),
        if_match,
        exists=HubError(
            409,
            "ModuleAlreadyExistsOnDevice",
            f"A module with ID '{module_id}' already exists on device '{device_id}'.",
        ),
        missing=module_not_found(device_id, module_id),
    )
    if existing is None and module_id.startswith("$"):
        raise argument_invalid(f"the module id {module_id!r} begins with '$', which only the hub's own do")
    managed_by = document.get("managedBy")
    if managed_by is not None and not isinstance(managed_by, str):
        raise argument_invalid("managedBy is not a string")
    authentication = parse_authentication(document.get("authentication"), module=True)
    module = _new_module(device_id, module_id, authentication, managed_by or None, now)
    if existing:
        module.generation_id = existing.generation_id
        module.connected = existing.connected
        module.connection_updated = existing.connection_updated
        module.last_activity = existing.last_activity
    module.save(connection)
    if not existing:
        Twin.create(connection, device_id, module_id, now)
    return module


def delete_device(connection: sqlite3.Connection, device_id: str, if_match: str | None) -> None:
    """Remove a device with its modules and twins. If-Match is required."""
    _check_delete(find(connection, device_id), if_match, device_not_found(device_id))
    for statement in _DELETE_DEVICE:
        connection.execute(statement, (device_id,))


def delete_module(
    connection: sqlite3.Connection, device_id: str, module_id: str, if_match: str | None
) -> None:
    """Remove a module and its twin from a device that the caller has looked up. If-Match is required."""
    _check_delete(find(connection, device_id, module_id), if_match, module_not_found(device_id, module_id))
    if module_id in _SYSTEM_MODULES:
        raise argument_invalid(f"{module_id} belongs to the edge device and goes away with it")
    _delete(connection, device_id, module_id)


def mark_connected(connection: sqlite3.Connection, device_id: str, module_id: str, now: float) -> None:
    """Note that an identity's MQTT connection stands. Raises UnauthorizedError when it may not connect."""
    require_enabled_device(connection, device_id)
    changed = connection.execute(
        "UPDATE identities SET connected = 1, connection_updated = ?, last_activity = ? "
        "WHERE device_id = ? AND module_id = ?",
        (now, now, device_id, module_id),
    )
    if changed.rowcount == 0:
        raise unauthorized(f"the module {module_id!r} of {device_id!r} is not registered")


def mark_disconnected(connection: sqlite3.Connection, device_id: str, module_id: str, now: float) -> None:
    connection.execute(
        "UPDATE identities SET connected = 0, connection_updated = ? WHERE device_id = ? AND module_id = ?",
        (now, device_id, module_id),
    )


def mark_all_disconnected(connection: sqlite3.Connection, now: float) -> None:
    """At the start: whoever was connected to a server that died is not any more."""
    connection.execute(
        "UPDATE identities SET connected = 0, connection_updated = ? WHERE connected = 1", (now,)
    )


def mark_activity(connection: sqlite3.Connection, device_id: str, module_id: str, now: float) -> None:
    """Note that an identity sent something. Raises UnauthorizedError when it is no longer registered."""
    changed = connection.execute(
        "UPDATE identities SET last_activity = ? WHERE device_id = ? AND module_id = ?",
        (now, device_id, module_id),
    )
    if changed.rowcount == 0:
        raise unauthorized(f"{device_id!r} {module_id!r} is no longer registered")


def _check_body(body: object, expected: Mapping[str, str]) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise argument_invalid("the body is not a JSON object")
    for member, value in expected.items():
        if body.get(member, value) != value:
            raise argument_invalid(f"{member} in the body is not the one in the address")
    return body


def _check_id(value: str, what: str) -> None:
    if not _ID.fullmatch(value):
        raise argument_invalid(
            f"the {what} {value!r} is not 1 to 128 ASCII letters, digits and -:.+%_#*?!(),=@;$'"
        )


def _check_write(
    existing: Identity | None, if_match: str | None, *, exists: HubError, missing: HubError
) -> Identity | None:
    """Without If-Match a PUT only creates, with it a PUT only updates."""
    if if_match is None:
        if existing:
            raise exists
        return None
    if existing is None:
        raise missing
    check_if_match(if_match, existing.etag)
    return existing


def _check_delete(existing: Identity | None, if_match: str | None, missing: HubError) -> None:
    if if_match is None:
        raise precondition_failed("Precondition failed: DELETE needs If-Match with an etag or *.")
    if existing is None:
        raise missing
    check_if_match(if_match, existing.etag)


def _check_status(document: Mapping[str, Any]) -> tuple[str, str | None]:
    status = document.get("status") or "enabled"
    if status not in ("enabled", "disabled"):
        raise argument_invalid("status is neither enabled nor disabled")
    reason = document.get("statusReason")
    if reason is not None and (not isinstance(reason, str) or len(reason) > _MAX_STATUS_REASON):
        raise argument_invalid(f"statusReason is not a string of at most {_MAX_STATUS_REASON} characters")
    return status, reason


def _check_edge(document: Mapping[str, Any]) -> bool:
    capabilities = document.get("capabilities")
    if capabilities is None:
        return False
    edge = capabilities.get("iotEdge", False) if isinstance(capabilities, dict) else None
    if not isinstance(edge, bool):
        raise argument_invalid("capabilities is not of the form {iotEdge: true or false}")
    return edge


def _check_scopes(
    connection: sqlite3.Connection,
    document: Mapping[str, Any],
    existing: Identity | None,
    edge: bool,
    own_scope: str,
) -> tuple[str | None, str | None]:
    """Returns deviceScope and the one parent scope to store."""
    given = document.get("deviceScope") or ""
    parents = document.get("parentScopes") or []
    if not isinstance(given, str):
        raise argument_invalid("deviceScope is not a string")
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise argument_invalid("parentScopes is not a list of strings")
    if edge:
        # An edge device's scope is the hub's to make: absent at first, the same ever after.
        if given != (own_scope if existing and existing.edge else ""):
            raise argument_invalid("Device scope is immutable for an edge device; send the one it has")
        if len(parents) > 1:
            raise argument_invalid("a device has one parent only")
        parent = parents[0] if parents else None
        if parent:
            _check_parent(connection, parent, own_scope)
        return own_scope, parent
    if existing and existing.edge:
        if given not in ("", own_scope):
            raise argument_invalid(
                "attach the device to its parent in a second write, once it is no edge device"
            )
        return None, None
    if not given:
        # A parentScopes alone says nothing for a leaf.
        return None, None
    _check_parent(connection, given, None)
    return given, given


def _check_parent(connection: sqlite3.Connection, parent: str, own_scope: str | None) -> None:
    """Raise HubError 400 unless `parent` is an edge device's scope; for an edge device of `own_scope`
    also when it would be below itself or too deep."""
    ancestors = 0
    scope: str | None = parent
    while scope:
        row = connection.execute(
            "SELECT parent_scope FROM identities WHERE edge = 1 AND device_scope = ?", (scope,)
        ).fetchone()
        if row is None:
            # Higher up it means that an ancestor was deleted, which is not this device's fault.
            if ancestors == 0:
                raise argument_invalid(f"no edge device has the scope {parent!r}")
            return
        ancestors += 1
        if scope == own_scope:
            raise argument_invalid("a device cannot be below itself")
        if own_scope and ancestors >= _MAX_EDGE_DEPTH:
            raise argument_invalid(f"edge devices nest at most {_MAX_EDGE_DEPTH} deep")
        scope = row["parent_scope"]


def _new_module(
    device_id: str, module_id: str, authentication: Authentication, managed_by: str | None, now: float
) -> Identity:
    return Identity(
        device_id=device_id,
        module_id=module_id,
        generation_id=_new_generation(now),
        etag=new_etag(),
        status="enabled",
        status_reason=None,
        status_updated=NEVER,
        connected=False,
        connection_updated=NEVER,
        last_activity=NEVER,
        authentication=authentication,
        edge=False,
        device_scope=None,
        parent_scope=None,
        managed_by=managed_by,
    )


def _delete(connection: sqlite3.Connection, device_id: str, module_id: str) -> None:
    for statement in _DELETE_MODULE:
        connection.execute(statement, (device_id, module_id))


def new_etag() -> str:
    return b64encode(str(secrets.randbelow(10**12)).encode()).decode()


def _new_generation(now: float) -> str:
    """Different for each identity ever made, also when one is made again under its old name."""
    return str(ticks(now) + secrets.randbelow(1000))


def ticks(seconds: float) -> int:
    return _EPOCH_TICKS + int(seconds * 10**7)
