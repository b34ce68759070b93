# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One MQTT connection without its meaning: packets in and out, subscriptions, answers in order."""

import asyncio
import contextlib
import logging
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from cryptography import x509

from iothub_emulator.client_tls import peer_certificates
from iothub_emulator.errors import UnauthorizedError
from iothub_emulator.logs import event
from iothub_emulator.mqtt_codec import (
    Connect,
    Decoder,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    topic_matches,
)
from iothub_emulator.store import Store

T = TypeVar("T")

CONNECT_SECONDS = 10.0
MAX_MESSAGE_BYTES = 256 * 1024
# The hub's longest keep alive; it also stands for "none".
_MAX_KEEP_ALIVE_SECONDS = 1767
_MAX_PACKET_BYTES = MAX_MESSAGE_BYTES + 70_000  # a topic of full length on top
_MAX_UNANSWERED = 128
_MAX_UNSENT_BYTES = 4 * 1024 * 1024

ACCEPTED, BAD_PROTOCOL, NOT_AUTHORIZED, SUBSCRIPTION_FAILED = 0, 1, 5, 0x80


def _nothing() -> None:
    """What most acknowledgements lead to."""


class EndedError(Exception):
    """The connection has to end; the text says why."""


class Role(ABC):
    """What a connection is for. Its methods raise EndedError when a client breaks the rules."""

    @property
    @abstractmethod
    def who(self) -> dict[str, Any]:
        """Whom log entries name."""

    @abstractmethod
    async def run(self, early: Sequence[Packet]) -> None:
        """Check the client and serve it to its end. `early`: packets that came together with CONNECT."""

    @abstractmethod
    async def handle_publish(self, packet: Publish) -> None:
        """Work on a message of at most MAX_MESSAGE_BYTES with QoS 0 or 1."""

    @abstractmethod
    def may_subscribe(self, topic_filter: str) -> bool:
        """Whether the client gets this subscription."""

    async def keep_subscriptions(self, send: Callable[[], None]) -> None:
        """Note a change of the link's subscriptions, then `send` the answer."""
        send()


class Link:
    """The connection itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, store: Store) -> None:
        self._reader = reader
        self._writer = writer
        self._store = store
        self._decoder = Decoder(_MAX_PACKET_BYTES)
        self._next_packet_id = 1
        # What to do when the client acknowledges, by packet id.
        self._unacknowledged: dict[int, Callable[[], None]] = {}
        self.subscriptions: dict[str, int] = {}
        self.end_reason: str | None = None
        # Requests whose operation is under way, in order: (result to wait for, what to send then).
        self._answers: asyncio.Queue[tuple[asyncio.Future[Any], Callable[[Any], None]] | None] = (
            asyncio.Queue(_MAX_UNANSWERED)
        )

    @property
    def certificates(self) -> Sequence[x509.Certificate]:
        """The client's certificate and those above it; empty when it sent none."""
        return peer_certificates(self._writer.transport)

    def close(self, reason: str) -> None:
        """End it now."""
        self.end_reason = self.end_reason or reason
        self._writer.transport.abort()

    async def finish(self) -> None:
        """Send what is left and wait for the end."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await self._writer.wait_closed()

    async def connect(self) -> tuple[Connect, Sequence[Packet]]:
        """The client's CONNECT and what came together with it."""
        packets: list[Packet] = []
        async with asyncio.timeout(CONNECT_SECONDS):
            while not packets:
                packets = list(self._decoder.feed(await self._read()))
        connect, *early = packets
        if not isinstance(connect, Connect):
            raise EndedError("the first packet is no CONNECT")
        return connect, early

    async def _read(self) -> bytes:
        data = await self._reader.read(65536)
        if not data:
            raise EndedError("the client broke off")
        return data

    @asynccontextmanager
    async def answering(self, who: dict[str, Any]) -> AsyncIterator[None]:
        """Answer requests meanwhile; those that are under way at the end still get their answer."""
        task = asyncio.create_task(self._send_answers(who))
        try:
            yield
        finally:
            await self._answers.put(None)
            await task

    async def serve(self, role: Role, keep_alive: int, packets: Sequence[Packet]) -> None:
        """Hand packets to `role`, `packets` first. Always ends with an error."""
        # [3.1.2.10] one and a half times the keep alive without a packet ends the connection.
        patience = 1.5 * min(keep_alive or _MAX_KEEP_ALIVE_SECONDS, _MAX_KEEP_ALIVE_SECONDS)
        while True:
            for packet in packets:
                if isinstance(packet, Disconnect):
                    raise EndedError("the client disconnected")
                await self._handle(role, packet)
            try:
                async with asyncio.timeout(patience):
                    data = await self._read()
            except TimeoutError:
                raise EndedError("nothing came within the keep alive") from None
            packets = list(self._decoder.feed(data))

    async def _handle(self, role: Role, packet: Packet) -> None:
        match packet:
            case Publish():
                if packet.qos == 2:
                    raise EndedError("the client published with QoS 2")
                if len(packet.payload) > MAX_MESSAGE_BYTES:
                    raise EndedError(
                        f"a message of {len(packet.payload)} bytes; the limit is {MAX_MESSAGE_BYTES}"
                    )
                await role.handle_publish(packet)
            case Puback():
                self._unacknowledged.pop(packet.packet_id, _nothing)()
            case Subscribe():
                await self._subscribe(role, packet)
            case Unsubscribe():
                for topic_filter in packet.topics:
                    self.subscriptions.pop(topic_filter, None)
                done = Unsuback(packet.packet_id).encode()
                await role.keep_subscriptions(lambda: self.send(done))
            case Pingreq():
                self.send(Pingresp().encode())
            case _:
                raise EndedError(f"the client sent {type(packet).__name__.upper()}")

    async def _subscribe(self, role: Role, packet: Subscribe) -> None:
        codes = []
        for topic_filter, qos in packet.topics:
            if role.may_subscribe(topic_filter):
                # The hub grants QoS 1 at most.
                self.subscriptions[topic_filter] = min(qos, 1)
                codes.append(min(qos, 1))
            else:
                codes.append(SUBSCRIPTION_FAILED)
        granted = Suback(packet.packet_id, tuple(codes)).encode()
        await role.keep_subscriptions(lambda: self.send(granted))

    async def answer_after(
        self, operation: Callable[[sqlite3.Connection], T], answer: Callable[[T], None]
    ) -> None:
        """Queue an operation on the store; `answer` runs after its commit, in the order of requests.

        Reading goes on meanwhile, so that the messages of one burst share a commit.
        """
        await self._answers.put((self._store.submit(operation), answer))

    async def answer_in_order(self, answer: Callable[[], None]) -> None:
        """Answer without work, after the requests that came before."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        await self._answers.put((done, lambda _none: answer()))

    async def _send_answers(self, who: dict[str, Any]) -> None:
        while (item := await self._answers.get()) is not None:
            future, answer = item
            try:
                answer(await future)
                await self._writer.drain()
            except UnauthorizedError as error:
                self.close(error.reason)
            except OSError:
                self.close("the client broke off")
            except Exception as error:
                event("request-failed", level=logging.ERROR, error=error, **who)
                self.close("the hub failed to store a request")

    def acknowledge(self, packet: Publish) -> None:
        if packet.packet_id is not None:
            self.send(Puback(packet.packet_id).encode())

    def publish(self, topic: str, body: bytes, delivered: Callable[[], None] = _nothing) -> bool:
        """Send to the client with the QoS granted to it; False when no subscription covers the topic.

        `delivered` is called when the client has acknowledged it, with QoS 0 at once.
        """
        granted = [qos for wanted, qos in self.subscriptions.items() if topic_matches(wanted, topic)]
        if not granted:
            return False
        packet_id = self._take_packet_id(delivered) if max(granted) else None
        self.send(Publish(topic, body, max(granted), packet_id).encode())
        if packet_id is None:
            delivered()
        return True

    def _take_packet_id(self, delivered: Callable[[], None]) -> int:
        # Nothing is sent again on the next connection by itself: a device reads its whole twin then, and
        # what has to reach it waits in a queue.
        for _attempt in range(0xFFFF):
            packet_id = self._next_packet_id
            self._next_packet_id = packet_id % 0xFFFF + 1
            if packet_id not in self._unacknowledged:
                break
        self._unacknowledged[packet_id] = delivered
        return packet_id

    def send(self, data: bytes) -> None:
        if self._writer.transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            self.close("the client does not read")
            return
        self._writer.write(data)
