# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MQTT over WebSockets on the hub's HTTPS port, for clients whose network lets nothing else out.

Rules: "Communicate with your IoT hub using the MQTT protocol", ports 8883 and 443.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from iothub_emulator.errors import HubError
from iothub_emulator.feature import Context, Feature
from iothub_emulator.websocket_stream import PATH, SUBPROTOCOL, WebsocketTransport

# How long a client may take to say goodbye.
_CLOSE_SECONDS = 2.0


@asynccontextmanager
async def _run(context: Context) -> AsyncIterator[None]:
    async def serve(request: web.Request) -> web.StreamResponse:
        """Who it is and what it may do is said by CONNECT, and not by the request."""
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        if SUBPROTOCOL not in (part.strip() for part in offered.split(",")):
            raise HubError(400, "ProtocolNotSupported", f"The subprotocol is not {SUBPROTOCOL}: {offered!r}.")
        socket = web.WebSocketResponse(protocols=(SUBPROTOCOL,), timeout=_CLOSE_SECONDS)
        await socket.prepare(request)
        await WebsocketTransport(socket, context.mqtt.protocol(), request.transport).run()
        return socket

    context.rest.application.router.add_get(PATH, serve, allow_head=False)
    yield


FEATURE = Feature(_run)
