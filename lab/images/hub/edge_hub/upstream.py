# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One identity's connection to the hub, which edgeHub makes for it with a token of its own."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile

import aiohttp
from iothub_emulator.mqtt_codec import (
    Connack,
    Connect,
    Decoder,
    MalformedPacketError,
    Packet,
    Pingreq,
    Puback,
    Publish,
    Subscribe,
)

from edge_hub.logs import say
from edge_hub.packets import Packets, next_id, until_one_ends
from edge_hub.store import UPSTREAM, Message, Store
from edge_hub.workload import TOKEN_SECONDS, WorkloadError

API_VERSION = "2021-04-12"
KEEP_ALIVE = 30
# Messages on their way at once; the hub acknowledges each once it is safe there.
WINDOW = 64
_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0)
_ANSWER_SECONDS = 20.0
# A new connection before the token ends, so that the hub never has to cut one.
_RENEW_SECONDS = TOKEN_SECONDS * 0.8
# In the topics of messages that the hub keeps for a device until it has acknowledged them.
_DEVICE_BOUND = "/messages/devicebound/"

Relay = Callable[[str, bytes, Callable[[], None]], bool]
"""(topic, payload, taken) -> whether somebody takes it; `taken` is called once it was."""


class LostError(Exception):
    """The connection ended, or cannot be made; the message says why."""


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
"""Of one connection."""


@dataclass(frozen=True)
class Way:
    """Where the hub is and how one comes in. `dial` makes connections where TCP with TLS is not the way.

    hub: what it is called where that is not `host`, the gateway above.
    """

    host: str
    port: int
    device: str
    tls: ssl.SSLContext
    token: Callable[[str], Awaitable[str]]
    dial: Callable[[], Awaitable[Streams]] | None = None
    hub: str = ""

    @property
    def hub_name(self) -> str:
        return self.hub or self.host

    async def connect(self) -> Streams:
        """A connection to the hub. Raises OSError, aiohttp.ClientError."""
        if self.dial is not None:
            return await self.dial()
        return await asyncio.open_connection(self.host, self.port, ssl=self.tls, server_hostname=self.host)


@dataclass
class _Owed:
    """A message for the client that is not acknowledged yet; `given`: its present connection has it."""

    packet: Publish
    taken: Callable[[], None]
    given: bool = False


class Upstream:
    """Keeps a connection to the hub for one identity, and sends what waits in the store.

    `relay` takes what the hub publishes. `run` never returns.
    """

    def __init__(self, way: Way, key: tuple[str, str], store: Store, relay: Relay) -> None:
        self._way = way
        self._key = key
        self._store = store
        self._relay = relay
        self._topics: set[str] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._next_id = 0
        self._more = asyncio.Event()
        self._sent_up_to = 0
        self._owed: dict[int, _Owed] = {}
        self.connected = asyncio.Event()
        self.connections = 0

    @property
    def name(self) -> str:
        """The identity as the hub's client id."""
        return "/".join(part for part in self._key if part)

    def wake(self) -> None:
        """There are new messages in the store."""
        self._more.set()

    def subscribe(self, topics: Iterable[str]) -> None:
        """Have these topics of the hub relayed, now and after each new connection."""
        new = set(topics) - self._topics
        self._topics |= new
        if new and self.connected.is_set():
            self._write(Subscribe(self._take_id(), tuple((topic, 1) for topic in sorted(new))))

    def publish(self, topic: str, payload: bytes) -> bool:
        """Hand something to the hub that is of use now or never. Answers whether there is a connection."""
        if not self.connected.is_set():
            return False
        self._write(Publish(topic, payload, qos=1, packet_id=self._take_id()))
        return True

    def client_is_new(self) -> None:
        """The client has another connection, and on it nothing that it did not acknowledge on the last."""
        for owed in self._owed.values():
            owed.given = False

    def offer(self) -> None:
        """Relay what the client does not have, in order: on one connection the hub sends nothing twice."""
        for owed in list(self._owed.values()):
            if not owed.given:
                owed.given = self._relay(owed.packet.topic, owed.packet.payload, owed.taken)
                if not owed.given:
                    return

    async def run(self) -> None:
        """Connect, serve, and connect again."""
        failures = 0
        while True:
            try:
                await self._serve()
                failures = 0
            except (
                LostError,
                OSError,
                TimeoutError,
                aiohttp.ClientError,
                MalformedPacketError,
                WorkloadError,
            ) as error:
                if self.connected.is_set():
                    failures = 0
                pause = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                say(
                    "upstream-lost",
                    identity=self.name,
                    reason=f"{type(error).__name__}: {error}",
                    retry=pause,
                )
                self._end()
                await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311 - spreads, protects nothing
            finally:
                self._end()

    def _end(self) -> None:
        self.connected.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(LostError("the connection ended"))
                future.exception()  # nobody may be waiting any more
        self._waiting.clear()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _serve(self) -> None:
        """One connection, from CONNECT until it is time for a new token."""
        token = await self._way.token(f"{self._way.hub_name}/devices/{self._way.device}/modules/$edgeHub")
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await self._way.connect()
        self._writer = writer
        user = f"{self._way.hub_name}/{self.name}/?api-version={API_VERSION}"
        # A session of its own each time: what was not acknowledged is sent again from the store.
        self._write(Connect(self.name, True, KEEP_ALIVE, user, token.encode()))
        # The hub answers a ping at least twice in this time.
        closed = LostError("the hub closed the connection")
        packets = Packets(reader, Decoder(), closed, patience=KEEP_ALIVE * 1.5)
        async with asyncio.timeout(_ANSWER_SECONDS):
            first = await anext(packets)
        if not isinstance(first, Connack) or first.return_code:
            code = first.return_code if isinstance(first, Connack) else "nothing of use"
            raise LostError(f"the hub answered CONNECT with {code}")
        self._next_id, self._sent_up_to = 0, 0
        self._owed = {}
        self.connections += 1
        if self._topics:
            self._write(Subscribe(self._take_id(), tuple((topic, 1) for topic in sorted(self._topics))))
        self.connected.set()
        say("upstream", identity=self.name)
        await until_one_ends(
            self._receive(packets), self._send_waiting(), self._keep_alive(), timeout=_RENEW_SECONDS
        )

    async def _receive(self, packets: Packets) -> None:
        async for packet in packets:
            if isinstance(packet, Puback):
                future = self._waiting.pop(packet.packet_id, None)
                if future is not None and not future.done():
                    future.set_result(None)
            elif isinstance(packet, Publish):
                taken = self._acknowledging(packet)
                if packet.packet_id is not None and _DEVICE_BOUND in packet.topic:
                    self._owed[packet.packet_id] = _Owed(packet, taken)
                    self.offer()
                else:
                    self._relay(packet.topic, packet.payload, taken)

    def _acknowledging(self, packet: Publish) -> Callable[[], None]:
        connection = self.connections

        def taken() -> None:
            # Only on its own connection: on the next one the number is that of another message.
            if packet.packet_id is not None and self.connected.is_set() and connection == self.connections:
                self._owed.pop(packet.packet_id, None)
                self._write(Puback(packet.packet_id))

        return taken

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(KEEP_ALIVE / 2)
            self._write(Pingreq())

    async def _send_waiting(self) -> None:
        """Send what waits in the store, in order; forget what the hub acknowledged."""
        while True:
            self._more.clear()
            batch = await self._store.waiting(UPSTREAM, *self._key, self._sent_up_to, WINDOW)
            if not batch:
                await self._more.wait()
                continue
            futures = [self._send(message) for message in batch]
            assert self._writer is not None
            try:
                await self._writer.drain()
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await asyncio.gather(*futures)
            finally:
                # Also when the rest is late: a slow hub would be sent the same messages for ever.
                safe = [
                    message.seq
                    for message, _future in takewhile(
                        lambda sent: _acknowledged(sent[1]), zip(batch, futures, strict=True)
                    )
                ]
                if safe:
                    self._sent_up_to = safe[-1]
                    await self._store.delete(safe)

    def _send(self, message: Message) -> asyncio.Future[None]:
        module = f"/modules/{message.module}" if message.module else ""
        topic = f"devices/{message.device}{module}/messages/events/{message.bag}"
        number = self._take_id()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._write(Publish(topic, message.payload, qos=1, packet_id=number))
        return future

    def _take_id(self) -> int:
        self._next_id = next_id(self._next_id, self._waiting)
        return self._next_id

    def _write(self, packet: Packet) -> None:
        if self._writer is None:
            raise LostError("no connection")
        self._writer.write(packet.encode())


def _acknowledged(sent: asyncio.Future[None]) -> bool:
    return sent.done() and not sent.cancelled() and sent.exception() is None
