# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""POST /devices/keys/regenerate: new keys for up to 100 devices and modules, each on its own.

Shapes: BulkRegenerateKeyResult of the service API 2024-03-31. All done is 200, none is 400, anything between
is 207. That both keys of an identity are answered, not just the new one, is an assumption.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from iothub_emulator import registry
from iothub_emulator.auth import Right
from iothub_emulator.errors import HubError, argument_invalid
from iothub_emulator.feature import Context, Feature
from iothub_emulator.identity import Identity, parse_authentication
from iothub_emulator.operations import OperationClass
from iothub_emulator.rest import json_response, read_json
from iothub_emulator.twins import Document

_MAX_ENTRIES = 100
_CHOICES = {
    "primaryKey": {"primaryKey"},
    "secondaryKey": {"secondaryKey"},
    "both": {"primaryKey", "secondaryKey"},
}


def regenerate(connection: sqlite3.Connection, body: object, now: float) -> Document:
    """Make new keys for every entry; one that fails does not keep the others from theirs.

    Raises HubError 400 when the body is not of the form {policyKey, devices}.
    """
    members = body if isinstance(body, dict) else {}
    policy_key, entries = members.get("policyKey"), members.get("devices")
    if policy_key not in _CHOICES:
        raise HubError(400, "InvalidPolicyKey", f"policyKey is not one of {', '.join(_CHOICES)}.")
    if not isinstance(entries, list) or not 1 <= len(entries) <= _MAX_ENTRIES:
        raise argument_invalid(f"devices is not a list of 1 to {_MAX_ENTRIES} entries")
    result: dict[str, Any] = {"policyKey": policy_key, "rotatedKeys": [], "errors": []}
    for entry in entries:
        name = {
            key: entry.get(key) for key in ("id", "moduleId") if isinstance(entry, dict) and entry.get(key)
        }
        try:
            identity = _renew(connection, name, _CHOICES[policy_key], now)
        except HubError as error:
            result["errors"].append(name | {"errorCode": error.code, "errorStatus": error.text})
        else:
            result["rotatedKeys"].append(name | identity.authentication.document()["symmetricKey"])
    return result


def _renew(connection: sqlite3.Connection, name: Document, chosen: set[str], now: float) -> Identity:
    device_id, module_id = str(name.get("id") or ""), str(name.get("moduleId") or "")
    document = registry.get_identity(connection, device_id, module_id).document()
    if document["authentication"]["type"] != "sas":
        raise argument_invalid("the identity does not authenticate by symmetric keys")
    keys = document["authentication"]["symmetricKey"]
    made = parse_authentication(None, module=False).document()["symmetricKey"]
    document["authentication"]["symmetricKey"] = keys | {key: made[key] for key in chosen}
    if module_id:
        return registry.put_module(connection, device_id, module_id, document, "*", now)
    return registry.put_device(connection, device_id, document, "*", now)


@asynccontextmanager
async def _run(context: Context) -> AsyncIterator[None]:
    async def answer(request: web.Request) -> web.StreamResponse:
        body = await read_json(request)
        result = await context.store.run(lambda database: regenerate(database, body, context.clock.now()))
        failed = len(result["errors"])
        status = 200 if not failed else 207 if result["rotatedKeys"] else 400
        return json_response(result, status=status)

    context.rest.add_route(
        "POST", "/devices/keys/regenerate", Right.REGISTRY_WRITE, answer, operation=OperationClass.IDENTITY
    )
    yield


FEATURE = Feature(_run)
