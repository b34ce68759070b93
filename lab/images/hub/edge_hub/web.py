# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What edgeHub offers over HTTPS: direct methods of modules and devices behind the gateway."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from aiohttp import web

from edge_hub.hub import EdgeHub, NotConnectedError
from edge_hub.scope import Key, RefusedError
from edge_hub.store import UPSTREAM, Store

_SECONDS = 30.0
Handler = Callable[[web.Request], Awaitable[web.Response]]


def application(hub: EdgeHub, below: Handler) -> web.Application:
    """The routes `POST /twins/DEVICE[/modules/MODULE]/methods`, for callers with a token of their own.

    All other calls are for `below`, see `below.calls`.
    """

    async def call(request: web.Request) -> web.Response:
        caller = _caller(request.headers.get("Authorization", ""))
        try:
            await hub.check(caller, request.headers.get("Authorization", "").encode())
        except RefusedError as error:
            return web.json_response({"message": str(error)}, status=401)
        try:
            asked = await request.json()
            name = str(asked["methodName"])
            payload = json.dumps(asked.get("payload")).encode()
            seconds = float(asked.get("responseTimeoutInSeconds") or _SECONDS)
        except (ValueError, KeyError, TypeError, AttributeError):
            return web.json_response({"message": "no call of a method"}, status=400)
        key = request.match_info["device"], request.match_info.get("module", "")
        try:
            status, answer = await hub.call(key, name, payload, min(seconds, 300.0))
        except NotConnectedError as error:
            return web.json_response({"message": str(error)}, status=404)
        except TimeoutError:
            return web.json_response({"message": f"no answer within {seconds:g} s"}, status=504)
        return web.json_response({"status": status, "payload": json.loads(answer or b"null")})

    app = web.Application(client_max_size=256 * 1024)
    for path in ("/twins/{device}/methods", "/twins/{device}/modules/{module}/methods"):
        app.router.add_post(path, call)
    for kind in ("devices", "twins"):
        app.router.add_route("*", f"/{kind}/{{device}}{{rest:.*}}", below)
    return app


def metrics(store: Store) -> web.Application:
    """What edgeHub tells Prometheus, as far as this stand-in knows it: the messages that wait."""

    async def tell(_request: web.Request) -> web.Response:
        lengths = {UPSTREAM: 0} | await store.lengths()
        found = "".join(
            f'edgehub_queue_length{{endpoint="{endpoint}"}} {length}\n'
            for endpoint, length in sorted(lengths.items())
        )
        return web.Response(text=f"# TYPE edgehub_queue_length gauge\n{found}")

    app = web.Application()
    app.router.add_get("/metrics", tell)
    return app


def _caller(header: str) -> Key:
    """Whose token it claims to be; the check proves it."""
    for part in header.partition(" ")[2].split("&"):
        name, _equals, value = part.partition("=")
        if name == "sr":
            segments = [unquote(piece) for piece in unquote(value).split("/")[1:]]
            if len(segments) in (2, 4):
                return segments[1], segments[3] if len(segments) == 4 else ""
    return "", ""
