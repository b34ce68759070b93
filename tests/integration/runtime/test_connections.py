# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Peers that are slow, or too many: each is waited for within limits, and takes nothing from the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from edgeha_runtime.daemon import transport
from edgeha_runtime.daemon.callers import Callers, Place, Review
from edgeha_runtime.daemon.connections import TLS_BUFFER, Limits, listen
from edgeha_runtime.daemon.http_api import application, json_body

from tests.integration.runtime.parts import LIMIT, knowing

KEY, CERTIFICATE = transport.derive(b"m" * 32)
SHORT = Limits(idle=0.2, stalled=0.2, handshake=0.2, per_address=2)


@dataclass(frozen=True)
class Port:
    """A port of the daemon."""

    number: int

    async def open(self, *, tls: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = knowing(CERTIFICATE) if tls else None
        return await asyncio.open_connection("127.0.0.1", self.number, ssl=context)


Serve = Callable[[web.Application, Limits], Coroutine[Any, Any, Port]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves applications by TLS, as the daemon does."""
    runners: list[web.AppRunner] = []

    async def start(app: web.Application, limits: Limits) -> Port:
        tls = transport.server_context(KEY, CERTIFICATE)
        runners.append(await listen(app, 0, tls, host="127.0.0.1", limits=limits))
        return Port(runners[-1].addresses[0][1])

    yield start
    for runner in runners:
        await runner.cleanup()


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


def greeting() -> web.Application:
    app = web.Application()
    app.router.add_get("/", hello)
    return app


async def to_the_end(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the other side ends the connection."""
    found = b""
    async with asyncio.timeout(LIMIT):
        with contextlib.suppress(ConnectionResetError):
            while part := await reader.read(65536):
                found += part
    return found


WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", WHOLE[:-2], WHOLE + WHOLE[:-2]])
async def test_half_a_header_is_cut(serve: Serve, sent: bytes) -> None:
    port = await serve(greeting(), SHORT)
    reader, writer = await port.open()
    writer.write(sent)
    assert (await to_the_end(reader)).count(b"hello") == sent.count(WHOLE)
    writer.close()


async def test_half_a_handshake_is_cut(serve: Serve) -> None:
    port = await serve(greeting(), SHORT)
    reader, writer = await port.open(tls=False)
    writer.write(b"\x16\x03\x01")
    assert await to_the_end(reader) == b""
    writer.close()


async def test_half_a_body_is_told_408() -> None:
    async def review(_token: str, _audience: str) -> Review:
        return Review(True, "system:serviceaccount:edge-gw:gw-m", ("edgeha-gw",), "gw-m-1", "uid")

    async def place(_pod: str) -> Place:
        return Place("uid", frozenset({"127.0.0.1"}))

    async def echo(request: web.Request) -> web.Response:
        return web.json_response(await json_body(request))

    callers = Callers(
        review, place=place, namespace="edge-gw", audience="edgeha-gw", modules=lambda: {"gw-m": "m"}
    )
    app = application("workload", callers, lambda _request, _caller: None, body_seconds=0.2)
    app.router.add_post("/echo", echo)
    runner = await listen(app, 0, host="127.0.0.1", limits=Limits(idle=0.5))
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
        writer.write(
            b"POST /echo?api-version=2020-07-07 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t\r\n"
            b'Content-Length: 100\r\n\r\n{"half":'
        )
        head, _, body = (await to_the_end(reader)).partition(b"\r\n\r\n")
        writer.close()
    finally:
        await runner.cleanup()
    assert head.startswith(b"HTTP/1.1 408")
    assert json.loads(body) == {"message": "the body did not arrive within 0.2 s"}


async def test_a_reader_that_stops_is_given_up(serve: Serve) -> None:
    ended = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"line\n" * 10_000)
        finally:
            ended.set()

    app = web.Application()
    app.router.add_get("/", endless)
    port = await serve(app, SHORT)

    def ask() -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", port.number))
        reader = knowing(CERTIFICATE).wrap_socket(plain)
        reader.sendall(WHOLE)
        return reader

    with contextlib.closing(await asyncio.to_thread(ask)):
        await asyncio.wait_for(ended.wait(), LIMIT)


async def test_a_reader_that_goes_on_gets_all(serve: Serve) -> None:
    size = 20 * 1024 * 1024

    async def large(_request: web.Request) -> web.Response:
        return web.Response(body=bytes(size))

    app = web.Application()
    app.router.add_get("/", large)
    port = await serve(app, Limits(idle=0.2, stalled=LIMIT))
    reader, writer = await port.open()
    writer.write(WHOLE)
    assert len((await to_the_end(reader)).partition(b"\r\n\r\n")[2]) == size
    writer.close()


async def test_one_peer_cannot_have_all_connections(serve: Serve) -> None:
    port = await serve(greeting(), Limits(idle=10 * LIMIT, per_address=2))
    held = [await port.open() for _ in range(2)]
    reader, writer = await port.open()
    assert await to_the_end(reader) == b""
    writer.close()
    # Of another address, as another pod is.
    context = knowing(CERTIFICATE)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port.number, ssl=context, local_addr=("127.0.0.2", 0)
    )
    writer.write(WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert b"hello" in await to_the_end(reader)
    for _reader, writer in held:
        writer.close()
        await writer.wait_closed()
    async with asyncio.timeout(LIMIT):
        while True:
            reader, writer = await port.open()
            writer.write(WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            if b"hello" in await to_the_end(reader):
                break


async def test_a_connection_keeps_a_small_buffer(serve: Serve) -> None:
    kept: list[int] = []

    async def look(request: web.Request) -> web.Response:
        # No public way leads there; asyncio's own name for it is what is checked.
        kept.append(len(request.transport._ssl_protocol._ssl_buffer))  # type: ignore[union-attr]
        return web.Response()

    app = web.Application()
    app.router.add_get("/", look)
    port = await serve(app, Limits())
    reader, writer = await port.open()
    writer.write(b"GET / HTTP/1.1\r\nHost: daemon\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    assert kept == [TLS_BUFFER]
