# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's edgeHub between a client and a hub of a few lines: what is acknowledged, to whom, and when."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

_LAB = Path(__file__).parents[3] / "lab"
sys.path += [str(_LAB / part) for part in ("images", "images/hub", "iothub-emulator")]

from edge_hub import upstream  # noqa: E402 - found on the path set above
from edge_hub.downstream import Session  # noqa: E402 - the same
from edge_hub.hub import EdgeHub  # noqa: E402 - the same
from edge_hub.scope import Key, Scope  # noqa: E402 - the same
from edge_hub.store import UPSTREAM, Message, Store  # noqa: E402 - the same
from edge_hub.upstream import Upstream, Way  # noqa: E402 - the same
from edge_hub.workload import Workload, WorkloadError  # noqa: E402 - the same
from iothub_emulator.mqtt_codec import (  # noqa: E402 - the same
    Connack,
    Connect,
    Decoder,
    Packet,
    Puback,
    Publish,
    Suback,
    Subscribe,
)

LIMIT = 60.0
EVENTS = "devices/gw/modules/m/messages/events/"
COMMANDS = "devices/leaf/messages/devicebound/"


class Peer:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._decoder = Decoder()
        self._ready: list[Packet] = []
        self.writer = writer

    async def next(self) -> Packet:
        async with asyncio.timeout(LIMIT):
            while not self._ready:
                data = await self._reader.read(65536)
                if not data:
                    raise EOFError
                self._ready.extend(self._decoder.feed(data))
        return self._ready.pop(0)

    async def expect(self, kind: type) -> Any:
        while True:
            packet = await self.next()
            if isinstance(packet, kind):
                return packet

    def send(self, *packets: Packet) -> None:
        self.writer.writelines(packet.encode() for packet in packets)


class Cloud:
    """Listens as a hub and hands out its connections, once they are let in."""

    def __init__(self) -> None:
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.port = 0

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        connect = await peer.expect(Connect)
        peer.send(Connack(0))
        if not connect.client_id.endswith("$edgeHub"):
            await self.peers.put(peer)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Cloud]:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def peer(self) -> Peer:
        async with asyncio.timeout(LIMIT):
            return await self.peers.get()

    def way(self) -> Way:
        async def token(_resource: str) -> str:
            return "token"

        return Way("127.0.0.1", self.port, "gw", None, token)  # type: ignore[arg-type]


class Everybody:
    """A scope that lets everybody in."""

    async def is_below(self, _device: str) -> bool:
        return False

    async def check(self, _key: Key, _password: bytes | None) -> float:
        return time.time() + 3600

    async def refresh(self) -> bool:
        return True


@pytest.fixture
async def cloud(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cloud]:
    """A hub without TLS, which one comes back to at once."""
    original = asyncio.open_connection

    async def plain(host: str, port: int, **_tls: object) -> Any:
        return await original(host, port)

    monkeypatch.setattr(asyncio, "open_connection", plain)
    monkeypatch.setattr(upstream, "_RETRY_SECONDS", (0.05,))
    async with Cloud().listening() as listening:
        yield listening


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = Store(tmp_path)
    yield made
    made.close()


@contextlib.asynccontextmanager
async def running(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Gateway:
    """An edgeHub and a way to it."""

    def __init__(self, hub: EdgeHub) -> None:
        self.hub = hub
        self.ends: list[Peer] = []

    async def client(self, *packets: Packet, name: str = "gw/m", clean: bool = True) -> Peer:
        """Connect a client, which sends `packets` besides."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Session(self.hub, reader, writer).serve()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        server.close()
        peer = Peer(reader, writer)
        self.ends.append(peer)
        peer.send(Connect(name, clean, 60, f"hub/{name}/?api-version=1", b"x"), *packets)
        assert (await peer.expect(Connack)).return_code == 0
        return peer


@pytest.fixture
async def gateway(cloud: Cloud, store: Store) -> AsyncIterator[Gateway]:
    made = Gateway(EdgeHub(store, Everybody(), cloud.way()))  # type: ignore[arg-type]
    ready = asyncio.Event()
    async with running(made.hub.run(ready.set)):
        await asyncio.wait_for(ready.wait(), LIMIT)
        yield made
        for end in made.ends:
            end.writer.close()


async def eventually(what: Callable[[], Any]) -> None:
    async with asyncio.timeout(LIMIT):
        while not what():
            await asyncio.sleep(0.01)


async def test_a_message_is_not_acknowledged_on_another_connection(cloud: Cloud, store: Store) -> None:
    given: list[Callable[[], None]] = []

    def relay(_topic: str, _payload: bytes, taken: Callable[[], None]) -> bool:
        given.append(taken)
        return True

    async with running(Upstream(cloud.way(), ("leaf", ""), store, relay).run()):
        first = await cloud.peer()
        first.send(Publish(COMMANDS, b"one", 1, 1))
        await eventually(lambda: len(given) == 1)
        first.writer.close()
        second = await cloud.peer()
        second.send(Publish(COMMANDS, b"two", 1, 1), Publish(COMMANDS, b"three", 1, 2))
        await eventually(lambda: len(given) == 3)
        given[0]()
        given[2]()
        assert await second.next() == Puback(2)
        second.writer.close()


async def test_what_was_acknowledged_is_not_sent_again_although_the_rest_is_late(
    cloud: Cloud, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "_ANSWER_SECONDS", 1.0)
    await store.append(Message(UPSTREAM, "gw", "m", "", text.encode(), 1.0) for text in "abcd")
    async with running(Upstream(cloud.way(), ("gw", "m"), store, lambda *_: False).run()):
        first = await cloud.peer()
        sent = [await first.expect(Publish) for _ in range(4)]
        assert [packet.topic for packet in sent] == [EVENTS] * 4
        # The third is missing, and so the fourth counts for nothing: it would come before the third.
        first.send(*(Puback(sent[index].packet_id) for index in (0, 1, 3)))
        second = await cloud.peer()
        assert [(await second.expect(Publish)).payload for _ in range(2)] == [b"c", b"d"]
        first.writer.close()
        second.writer.close()


async def test_a_message_from_the_cloud_waits_for_its_device(cloud: Cloud, gateway: Gateway) -> None:
    subscribe = Subscribe(1, ((f"{COMMANDS}#", 1),))
    leaf = await gateway.client(subscribe, name="leaf", clean=False)
    peer = await cloud.peer()
    peer.send(Suback((await peer.expect(Subscribe)).packet_id, (1,)), Publish(COMMANDS, b"one", 1, 1))
    assert (await leaf.expect(Publish)).payload == b"one"
    # It goes without an acknowledgement, and another message comes while it is away.
    leaf.writer.close()
    await eventually(lambda: not gateway.hub._sessions)
    peer.send(Publish(COMMANDS, b"two", 1, 2))
    await asyncio.sleep(0.05)
    leaf = await gateway.client(name="leaf", clean=False)
    found = [await leaf.expect(Publish) for _ in range(2)]
    assert [packet.payload for packet in found] == [b"one", b"two"]
    leaf.send(*(Puback(packet.packet_id) for packet in found))
    assert [await peer.expect(Puback) for _ in range(2)] == [Puback(1), Puback(2)]
    peer.writer.close()


async def test_a_connection_whose_place_is_taken_ends_however_much_it_says(gateway: Gateway) -> None:
    flood = [Publish(EVENTS, b"x" * 1000, 1, number) for number in range(1, 2001)]
    first = await gateway.client(*flood)
    await first.expect(Puback)
    await gateway.client()
    acknowledged = 1
    with contextlib.suppress(EOFError, ConnectionError):
        while acknowledged < len(flood):
            await first.expect(Puback)
            acknowledged += 1
    assert acknowledged < len(flood)


async def test_what_cannot_be_stored_is_not_acknowledged_and_the_next_is(
    gateway: Gateway, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def full(_messages: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "append", full)
        client = await gateway.client(Publish(EVENTS, b"lost?", 1, 1))
        with pytest.raises(EOFError):
            await client.expect(Puback)
    gone = [line for line in capsys.readouterr().out.splitlines() if '"client-gone"' in line]
    assert "disk is full" in json.loads(gone[0])["reason"]
    client = await gateway.client(Publish(EVENTS, b"again", 1, 1))
    assert await client.expect(Puback) == Puback(1)
    assert await store.count() == 1


@pytest.mark.parametrize(
    ("bag", "size", "reason"),
    [("x=" + "y" * 65_000, 1, "properties of more than"), ("", 256 * 1024 + 1, "the limit is 262144")],
)
async def test_a_message_that_could_not_go_on_is_not_acknowledged(
    gateway: Gateway, store: Store, capsys: pytest.CaptureFixture[str], bag: str, size: int, reason: str
) -> None:
    """Neither the hub nor an input would take it, and what comes after it would wait for ever."""
    client = await gateway.client(Publish(EVENTS + bag, b"x" * size, 1, 1))
    with pytest.raises((EOFError, ConnectionError)):
        await client.expect(Puback)
    assert await store.count() == 0
    assert reason in capsys.readouterr().out
    client = await gateway.client(Publish(EVENTS, b"x" * 256 * 1024, 1, 1))
    await client.expect(Puback)


async def test_an_ended_connection_leaves_nothing_behind(gateway: Gateway) -> None:
    client = await gateway.client()
    (session,) = gateway.hub._sessions.values()
    assert session._expires is not None
    client.writer.close()
    await eventually(lambda: not gateway.hub._sessions)
    assert session._expires.cancelled(), "else it is kept until its token ends"
    assert session.ended.done()


async def test_an_input_is_served_at_once_by_the_next_connection(gateway: Gateway, cloud: Cloud) -> None:
    gateway.hub._take_desired(
        {"$version": 2, "routes": {"in": 'FROM /* INTO BrokeredEndpoint("/modules/m/inputs/in")'}}
    )
    subscribe = Subscribe(1, (("devices/gw/modules/m/inputs/#", 1),))
    client = await gateway.client(subscribe, Publish(EVENTS, b"hello", 1, 1), clean=False)
    assert (await client.expect(Publish)).payload == b"hello"
    client.writer.close()
    client = await gateway.client(clean=False)
    # Not after the 20 s that the first had for its acknowledgement.
    assert (await client.expect(Publish)).payload == b"hello"


@pytest.mark.parametrize(
    "desired",
    [
        {"routes": ["FROM /* INTO $upstream"]},
        {"routes": {"hot": "FROM /* WHERE temperature > 5 INTO $upstream"}},
        {"routes": "none", "storeAndForwardConfiguration": "long"},
    ],
)
async def test_routes_that_are_not_known_drop_nothing_and_do_not_stop_it(
    gateway: Gateway, store: Store, desired: dict[str, Any]
) -> None:
    hub = gateway.hub
    hub._own_twin("$iothub/twin/res/200/?$rid=own", json.dumps({"desired": desired}).encode())
    assert hub._problems
    client = await gateway.client(Publish(EVENTS, b"hello", 1, 1))
    await client.expect(Puback)
    assert await store.count() == 1
    assert await store.kept("desired") is None, "the next start would begin with it"


async def test_messages_are_kept_for_ever_where_the_twin_wants_it(gateway: Gateway, store: Store) -> None:
    gateway.hub._take_desired({"storeAndForwardConfiguration": {"timeToLiveSecs": -1}})
    await store.append([Message(UPSTREAM, "gw", "away", "", b"old", 1.0)])
    assert await store.expire(time.time() - gateway.hub._ttl) == 0


async def test_the_twin_is_read_again_after_each_connection(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = gateway.hub._upstream(("gw", "$edgeHub"))
    asked: list[int] = []

    def publish(_topic: str, _payload: bytes) -> bool:
        asked.append(own.connections)
        return True

    monkeypatch.setattr(own, "publish", publish)
    await eventually(own.connected.is_set)
    # The first time may have been before anybody listened here.
    for _again in range(2):
        own.connections += 1  # as after a renewal, which takes no time
        await eventually(lambda: own.connections in asked)


class Away:
    """A daemon that is away."""

    async def seal(self, _text: str) -> str:
        raise WorkloadError("no answer of use")


async def test_a_scope_that_cannot_be_sealed_or_asked_for_ends_nothing(store: Store) -> None:
    told = {"devices": [{"deviceId": "leaf", "status": "enabled"}], "modules": [], "continuationLink": ""}

    async def ask(_token: str) -> dict[str, Any]:
        return told

    async def refused(_token: str) -> dict[str, Any]:
        raise WorkloadError("500: no")

    workload: Any = Away()
    scope = Scope(store, workload, ask)
    assert await scope.refresh()
    assert ("leaf", "") in scope._children
    workload.seal = _sealed
    assert await scope.refresh()
    assert await store.kept("scope") == "sealed", "it is kept as soon as it can be"
    assert not await Scope(store, workload, refused).refresh()


async def _sealed(_text: str) -> str:
    return "sealed"


async def test_a_daemon_that_hangs_up_is_a_daemon_that_refuses() -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    workload = Workload(f"http://127.0.0.1:{port}", "$edgeHub", "1", "2020-07-07")
    with pytest.raises(WorkloadError) as caught:
        await workload.token("hub/devices/gw")
    assert isinstance(caught.value.__cause__, aiohttp.ClientError)
    await workload.close()
    server.close()
