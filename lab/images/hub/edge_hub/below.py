# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gateways below this one: their calls and connections go on to the hub as they are.

They sign for the hub themselves, which checks them. Nothing of theirs is kept here: their own edgeHub
keeps it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
from aiohttp import web
from iothub_emulator.mqtt_codec import Connect, Packet
from yarl import URL

from edge_hub.logs import say
from edge_hub.packets import until_one_ends
from edge_hub.upstream import Streams

# Of one connection to the next only, and those that the client library sets by itself.
_OWN_HEADERS = frozenset(
    ("connection", "content-encoding", "content-length", "host", "keep-alive", "transfer-encoding")
)


async def connection(
    name: str, connect: Connect, packets: AsyncIterator[Packet], writer: asyncio.StreamWriter, way: Streams
) -> None:
    """Carry an MQTT connection on, until either side ends it. Raises what reading and writing does."""
    reader, hub = way
    say("below", identity=name)

    async def up() -> None:
        hub.write(connect.encode())
        async for packet in packets:
            hub.write(packet.encode())
            await hub.drain()

    async def down() -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    try:
        await until_one_ends(up(), down())
    finally:
        hub.close()
        with contextlib.suppress(OSError):
            await hub.wait_closed()


def calls(
    session: aiohttp.ClientSession, door: str, is_below: Callable[[str], Awaitable[bool]]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler of `/devices/DEVICE...` and `/twins/DEVICE...` that asks the hub at `door`."""

    async def call(request: web.Request) -> web.Response:
        if not await is_below(request.match_info["device"]):
            return web.json_response({"message": "no gateway below this one"}, status=401)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN_HEADERS}
        # Encoded as it came: names of modules hold $.
        url = URL(f"https://{door}{request.raw_path}", encoded=True)
        try:
            async with session.request(
                request.method, url, data=await request.read(), headers=headers, allow_redirects=False
            ) as answer:
                kept = {
                    name: value for name, value in answer.headers.items() if name.lower() not in _OWN_HEADERS
                }
                return web.Response(status=answer.status, headers=kept, body=await answer.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            say("below-not-answered", reason=f"{type(error).__name__}: {error}")
            return web.json_response({"message": "the hub does not answer"}, status=503)

    return call
