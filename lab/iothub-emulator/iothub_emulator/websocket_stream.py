# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A WebSocket as a stream of bytes, for what speaks MQTT on either side of one.

Rules: MQTT 3.1.1, chapter 6: binary frames whose bounds mean nothing, subprotocol `mqtt`.
"""

import asyncio
import contextlib
from collections import deque
from typing import Any

import aiohttp
from aiohttp import web

# Where hubs and gateways serve it.
PATH = "/$iothub/websocket"
SUBPROTOCOL = "mqtt"
# As many bytes may wait before the writer is asked to; half of them, and it may go on.
_HIGH_WATER = 64 * 1024


class WebsocketTransport(asyncio.Transport):
    """What a stream protocol writes to; `run` carries the bytes of both ways.

    `below` is the transport under the WebSocket where that is known: an abort cuts it.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
        protocol: asyncio.Protocol,
        below: asyncio.BaseTransport | None = None,
    ) -> None:
        super().__init__()
        self._socket = socket
        self._protocol = protocol
        self._below = below
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._wake = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._aborted = asyncio.Event()
        self._closing = False
        self._paused = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Carry bytes from now on, beside what the caller does."""
        self._task = asyncio.create_task(self.run())

    async def run(self) -> None:
        """Carry bytes until either side ends it. Never raises for what the peer does."""
        self._protocol.connection_made(self)
        tasks = [asyncio.create_task(work()) for work in (self._receive, self._send, self._aborted.wait)]
        try:
            await asyncio.wait(tasks[1:], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._closing = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._aborted.is_set() and isinstance(self._below, asyncio.Transport):
                self._below.abort()
            else:
                with contextlib.suppress(OSError):
                    await self._socket.close()
            self._protocol.connection_lost(None)

    async def _receive(self) -> None:
        try:
            while True:
                await self._may_read.wait()
                message = await self._socket.receive()
                if message.type is not aiohttp.WSMsgType.BINARY:
                    # Its end, or text, which MQTT does not have.
                    break
                self._protocol.data_received(message.data)
        finally:
            # Who reads then sees the end, and closes.
            self._protocol.eof_received()

    async def _send(self) -> None:
        with contextlib.suppress(OSError):
            while self._waiting or not self._closing:
                if not self._waiting:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                data = self._waiting.popleft()
                await self._socket.send_bytes(data)
                self._size -= len(data)
                if self._paused and self._size <= _HIGH_WATER // 2:
                    self._paused = False
                    self._protocol.resume_writing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not data:
            return
        self._waiting.append(bytes(data))
        self._size += len(data)
        self._wake.set()
        if not self._paused and self._size > _HIGH_WATER:
            self._paused = True
            self._protocol.pause_writing()

    def close(self) -> None:
        self._closing = True
        self._wake.set()

    def abort(self) -> None:
        self._closing = True
        self._aborted.set()

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self._size

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default if self._below is None else self._below.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._may_read.clear()

    def resume_reading(self) -> None:
        self._may_read.set()


async def connect(
    session: aiohttp.ClientSession, url: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a WebSocket for MQTT as `asyncio.open_connection` opens a connection.

    `session` knows proxies and authorities. Raises aiohttp.ClientError, OSError.
    """
    socket = await session.ws_connect(url, protocols=(SUBPROTOCOL,))
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport = WebsocketTransport(socket, protocol)
    transport.start()
    return reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
