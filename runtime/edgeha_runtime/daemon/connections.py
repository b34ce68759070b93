# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon's ports: what one peer may take of them, and how long a slow one is waited for."""

from __future__ import annotations

import asyncio
import logging
import ssl
from asyncio.sslproto import SSLProtocol
from collections import Counter
from dataclasses import dataclass

from aiohttp import web

from .logs import fields

_log = logging.getLogger(__name__)

# asyncio keeps a buffer for what each connection by TLS receives, 256 KiB if nobody says otherwise and all of
# it resident, and makes one as large for each read: 5 MiB for the sidecars of 20 modules. Four records do.
TLS_BUFFER = 64 * 1024
SSLProtocol.max_size = TLS_BUFFER


@dataclass(frozen=True)
class Limits:
    """Limits of a port, in seconds and connections.

    `idle`: for a whole header from the connection or the answer before it on; a sidecar gives an idle
    connection up after 5 s. `stalled`: for a full buffer of an answer to be read. `handshake`: of TLS.
    `per_address`: connections of one peer, which may be all modules of a node, 32 connections each, or of a
    cluster that rewrites addresses.
    """

    idle: float = 15.0
    stalled: float = 30.0
    handshake: float = 10.0
    per_address: int = 512


LIMITS = Limits()


async def listen(
    app: web.Application,
    port: int,
    tls: ssl.SSLContext | None = None,
    *,
    host: str | None = None,
    limits: Limits = LIMITS,
) -> web.AppRunner:
    """Serve `app` on a port of all addresses (of `host` where given) until the runner is cleaned up."""
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=2.0,
        # Counts from the connection on too, and while a header is only half there.
        keepalive_timeout=limits.idle,
        lingering_time=limits.idle,
    )
    await runner.setup()
    await _Site(runner, host, port, tls, limits).start()
    return runner


class _Site(web.BaseSite):
    """As web.TCPSite, with connections that are limited."""

    def __init__(
        self, runner: web.AppRunner, host: str | None, port: int, tls: ssl.SSLContext | None, limits: Limits
    ) -> None:
        super().__init__(runner, ssl_context=tls)
        self._host = host
        self._port = port
        self._limits = limits
        self._open: Counter[str] = Counter()

    @property
    def name(self) -> str:
        return f"port {self._port}"

    async def start(self) -> None:
        await super().start()
        self._server = await asyncio.get_running_loop().create_server(
            self._connection,
            self._host,
            self._port,
            ssl=self._ssl_context,
            ssl_handshake_timeout=self._limits.handshake if self._ssl_context else None,
            backlog=self._backlog,
        )

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None:
            raise RuntimeError("the runner was cleaned up")
        return _Connection(server(), self._limits, self._open)


class _Connection(asyncio.Protocol):
    """A connection of aiohttp's, which is ended where its peer has too many, or does not read."""

    def __init__(self, inner: asyncio.Protocol, limits: Limits, opened: Counter[str]) -> None:
        self._inner = inner
        self._limits = limits
        self._opened = opened
        self._peer = ""
        self._refused = False
        self._transport: asyncio.BaseTransport | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._peer = str((transport.get_extra_info("peername") or ("",))[0])
        self._opened[self._peer] += 1
        if self._opened[self._peer] > self._limits.per_address:
            self._refused = True
            self._end(f"it has {self._limits.per_address} connections already")
        else:
            self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._opened[self._peer] -= 1
        if not self._opened[self._peer]:
            del self._opened[self._peer]
        if self._stalled is not None:
            self._stalled.cancel()
        if not self._refused:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._refused else self._inner.eof_received()

    def pause_writing(self) -> None:
        limit = self._limits.stalled
        reason = f"it read nothing for {limit:g} s"
        self._stalled = asyncio.get_running_loop().call_later(limit, self._end, reason)
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
        self._inner.resume_writing()

    def _end(self, reason: str) -> None:
        _log.warning("connection ended", extra=fields(peer=self._peer, reason=reason))
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()
