# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""edgeHub reads who is in its gateway's scope, keys included (devicesAndModulesInTargetDeviceScope)."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from iothub_emulator.auth import SasToken
from iothub_emulator.edge_scope import ACTOR, children, require_actor
from iothub_emulator.errors import argument_invalid
from iothub_emulator.feature import Context, Feature
from iothub_emulator.rest import json_response, read_json

_PAGE = range(1, 1001)


@asynccontextmanager
async def _run(context: Context) -> AsyncIterator[None]:
    async def look(request: web.Request) -> web.Response:
        edge_id = request.match_info["id"]
        token = SasToken.parse(request.headers.get("Authorization", ""))
        path = ["devices", edge_id, "modules", ACTOR]
        context.authenticator.check_validity(token, path, context.clock.now())
        body = await read_json(request)
        if not isinstance(body, dict) or body.get("authChain") != edge_id:
            raise argument_invalid("authChain is not the edge device: one link is known here")
        size = body.get("pageSize") or _PAGE[-1]
        start = body.get("continuationToken") or "0"
        if size not in _PAGE or not str(start).isdecimal():
            raise argument_invalid("pageSize is not within 1 and 1000, or continuationToken is none of ours")

        def read(database: sqlite3.Connection) -> dict[str, Any]:
            edge = require_actor(database, edge_id, token)
            devices, modules = children(database, edge)
            found = [("devices", entry) for entry in devices] + [("modules", entry) for entry in modules]
            end = int(start) + size
            page: dict[str, Any] = {"devices": [], "modules": [], "continuationLink": ""}
            for kind, entry in found[int(start) : end]:
                page[kind].append(entry.document())
            if end < len(found):
                page["continuationLink"] = f"?continuationToken={end}"
            return page

        request["caller"] = f"edgeHub of {edge_id}"
        return json_response(await context.store.run(read))

    context.rest.application.router.add_post(
        "/devices/{id}/modules/$edgeHub/devicesAndModulesInTargetDeviceScope", look
    )
    yield


FEATURE = Feature(_run)
