# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""POST /devices/keys/regenerate: the hub makes new keys for many identities, each on its own.

Part of the api-version 2024-03-31 only.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from aiohttp import web

from iothub_emulator import registry
from iothub_emulator.auth import Right
from iothub_emulator.errors import HubError, argument_invalid
from iothub_emulator.feature import Context, Feature
from iothub_emulator.identity import new_key
from iothub_emulator.operations import OperationClass
from iothub_emulator.rest import json_response, read_json
from iothub_emulator.twins import Document

_API_VERSION = "2024-03-31"
_MAX_ENTRIES = 100
_POLICY_KEYS = {
    "primaryKey": ("primaryKey",),
    "secondaryKey": ("secondaryKey",),
    "both": ("primaryKey", "secondaryKey"),
}
_FIELDS = {"primaryKey": "primary_key", "secondaryKey": "secondary_key"}


def regenerate(connection: sqlite3.Connection, body: object) -> tuple[int, Document]:
    """Make the keys; returns the HTTP status (200 all done, 207 some, 400 none) and the answer.

    Raises HubError 400 when the call as a whole is wrong.
    """
    if not isinstance(body, dict):
        raise argument_invalid("the body is not a JSON object")
    which = body.get("policyKey")
    if not isinstance(which, str) or which not in _POLICY_KEYS:
        raise argument_invalid(f"policyKey is none of {', '.join(_POLICY_KEYS)}")
    entries = body.get("devices")
    if not isinstance(entries, list) or not 1 <= len(entries) <= _MAX_ENTRIES:
        raise argument_invalid(f"devices is not a JSON array of 1 to {_MAX_ENTRIES} entries")
    errors: list[Document] = []
    rotated: list[Document] = []
    for entry in entries:
        names = {
            member: entry[member]
            for member in ("id", "moduleId")
            if isinstance(entry, dict) and isinstance(entry.get(member), str)
        }
        try:
            rotated.append(names | _rotate(connection, names, _POLICY_KEYS[which]))
        except HubError as error:
            errors.append(names | {"errorCode": error.code, "errorStatus": error.text})
    status = 200 if not errors else 207 if rotated else 400
    return status, {"policyKey": which, "errors": errors, "rotatedKeys": rotated}


def _rotate(connection: sqlite3.Connection, names: dict[str, str], keys: tuple[str, ...]) -> Document:
    if not names.get("id"):
        raise argument_invalid("the entry has no id")
    identity = registry.get_identity(connection, names["id"], names.get("moduleId", ""))
    if identity.authentication.type != "sas":
        raise HubError(
            400,
            "InvalidOperation",
            f"{identity.authentication.type} authentication has no keys to make anew.",
        )
    made = {key: new_key() for key in keys}
    fields = {_FIELDS[key]: value for key, value in made.items()}
    identity.authentication = replace(identity.authentication, **fields)
    identity.etag = registry.new_etag()
    identity.save(connection)
    return made


def _handler(context: Context) -> Callable[[web.Request], Any]:
    async def handle(request: web.Request) -> web.Response:
        if request.query.get("api-version") != _API_VERSION:
            raise HubError(400, "InvalidProtocolVersion", f"The call needs the api-version {_API_VERSION}.")
        body = await read_json(request)
        status, answer = await context.store.run(lambda database: regenerate(database, body))
        return json_response(answer, status=status)

    return handle


@asynccontextmanager
async def _run(context: Context) -> AsyncIterator[None]:
    context.rest.add_route(
        "POST",
        "/devices/keys/regenerate",
        Right.REGISTRY_WRITE,
        _handler(context),
        operation=OperationClass.IDENTITY,
    )
    yield


FEATURE = Feature(_run)
