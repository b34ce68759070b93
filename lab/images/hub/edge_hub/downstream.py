# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients of the gateway over MQTT 3.1.1: modules and the devices behind it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import ssl
import time
from collections.abc import Callable
from typing import Protocol

from iothub_emulator.mqtt_codec import (
    Connack,
    Connect,
    Decoder,
    Disconnect,
    MalformedPacketError,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    UnsupportedProtocolError,
    topic_matches,
)

from edge_hub import below
from edge_hub.logs import say
from edge_hub.packets import Packets, next_id
from edge_hub.scope import Key, RefusedError
from edge_hub.upstream import Streams

_CONNECT_SECONDS = 20.0
# The hub's limit. It cuts the connection on which more comes, and nothing behind such a message would arrive.
_MAX_MESSAGE = 256 * 1024
_MAX_PACKET = _MAX_MESSAGE + 70_000  # a topic of full length on top
# Of a topic's 65,535; the topic of an input has longer words before the properties.
_MAX_TOPIC = 60_000
_BAD_PROTOCOL, _NOT_AUTHORIZED = 1, 5
_FAILED = 0x80


class Owner(Protocol):
    """What a session is served by."""

    async def way_for(self, key: Key) -> Streams | None:
        """A connection to the hub for a client of a gateway below; None for any other."""

    async def check(self, key: Key, password: bytes | None) -> float:
        """When the client's token ends. Raises RefusedError."""

    async def subscriptions(self, key: Key) -> dict[str, int]:
        """What the client subscribed to before."""

    async def opened(self, session: Session) -> None:
        """A client is in; the one before it with the same identity has to go."""

    def closed(self, session: Session) -> None:
        """It is gone."""

    async def telemetry(self, key: Key, bag: str, payload: bytes) -> None:
        """Keep a message; returns once it is safe."""

    def request(self, session: Session, topic: str, payload: bytes) -> None:
        """Something for the hub that is of use now or never."""

    async def subscribed(self, session: Session) -> None:
        """Its subscriptions changed."""


class EndedError(Exception):
    """The connection has to end; the message says why."""


class Session:
    """One client's connection."""

    def __init__(self, owner: Owner, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._owner = owner
        self._reader = reader
        self._writer = writer
        self._unacknowledged: dict[int, Callable[[], None]] = {}
        self._next_id = 0
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._expires: asyncio.TimerHandle | None = None
        self.key: Key = ("", "")
        self.persistent = False
        self.subscriptions: dict[str, int] = {}

    @property
    def name(self) -> str:
        """The identity as its client id."""
        return "/".join(part for part in self.key if part)

    def close(self, reason: str) -> None:
        """End the connection."""
        if not self._end.done():
            self._end.set_result(reason)

    @property
    def ended(self) -> asyncio.Future[str]:
        """Done once the connection is to end, or has."""
        return self._end

    def publish(self, topic: str, payload: bytes, taken: Callable[[], None] | None = None) -> bool:
        """Send the client something it subscribed to; `taken` is called once it acknowledged."""
        granted = [qos for wanted, qos in self.subscriptions.items() if topic_matches(wanted, topic)]
        if not granted or self._end.done():
            return False
        if max(granted) == 0 or taken is None:
            self._send(Publish(topic, payload))
            if taken is not None:
                taken()
            return True
        number = self._take_id()
        self._unacknowledged[number] = taken
        self._send(Publish(topic, payload, qos=1, packet_id=number))
        return True

    async def serve(self) -> None:
        """Serve until either side ends it. Never raises for what a client does."""
        reason = "?"
        try:
            packets = Packets(
                self._reader, Decoder(_MAX_PACKET), EndedError("the client closed the connection")
            )
            connect = await self._connect(packets)
            if connect is None:
                return
            try:
                reason = await self._work(packets, connect.keep_alive)
            finally:
                say("client-gone", identity=self.name, reason=reason)
        except (EndedError, MalformedPacketError, TimeoutError, OSError, sqlite3.Error) as error:
            say("client-refused", identity=self.name, reason=f"{type(error).__name__}: {error}")
        finally:
            self._owner.closed(self)
            self.close(reason)
            if self._expires is not None:
                self._expires.cancel()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(2):
                    await self._writer.drain()
            self._writer.close()

    async def _connect(self, packets: Packets) -> Connect | None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                connect = await anext(packets)
        except UnsupportedProtocolError:
            self._send(Connack(_BAD_PROTOCOL))
            return None
        if not isinstance(connect, Connect):
            raise EndedError("the first packet is no CONNECT")
        address, _separator, _query = (connect.username or "").rpartition("/?")
        ids = address.split("/")[1:]
        self.key = (ids[0], "".join(ids[1:])) if 1 <= len(ids) <= 2 and all(ids) else ("", "")
        if not self.key[0] or connect.client_id != "/".join(ids):
            self._send(Connack(_NOT_AUTHORIZED))
            raise EndedError("user name and client id do not name one identity")
        way = await self._owner.way_for(self.key)
        if way is not None:
            name, self.key = self.name, ("", "")  # no client of this gateway's own
            await below.connection(name, connect, packets, self._writer, way)
            return None
        try:
            ends = await self._owner.check(self.key, connect.password)
        except RefusedError as error:
            say("client-refused", identity=connect.client_id[:256], reason=error)
            self._send(Connack(_NOT_AUTHORIZED))
            return None
        self.persistent = not connect.clean_session
        before = await self._owner.subscriptions(self.key) if self.persistent else {}
        self.subscriptions = dict(before)
        await self._owner.opened(self)
        self._send(Connack(0, session_present=bool(before)))
        await self._owner.subscribed(self)
        self._expires = asyncio.get_running_loop().call_later(
            max(0.0, ends - time.time()), self.close, "its token has expired"
        )
        say("client", identity=self.name, subscriptions=len(before))
        return connect

    async def _work(self, packets: Packets, keep_alive: int) -> str:
        limit = keep_alive * 1.5 if keep_alive else None
        while True:
            read = asyncio.ensure_future(anext(packets))
            done, _pending = await asyncio.wait(
                (read, self._end), timeout=limit, return_when=asyncio.FIRST_COMPLETED
            )
            # The end comes first, however much the client has yet to say: none of it is acknowledged.
            if self._end.done() or read not in done:
                read.cancel()
                await asyncio.gather(read, return_exceptions=True)
                return self._end.result() if self._end.done() else "silent for too long"
            try:
                if await self._handle(read.result()):
                    return "it said goodbye"
            except (EndedError, MalformedPacketError, OSError, sqlite3.Error) as error:
                return f"{type(error).__name__}: {error}"
            await self._writer.drain()

    async def _handle(self, packet: Packet) -> bool:
        """Do what a packet asks; answers whether it was the last one."""
        if isinstance(packet, Publish):
            await self._published(packet)
        elif isinstance(packet, Puback):
            taken = self._unacknowledged.pop(packet.packet_id, None)
            if taken is not None:
                taken()
        elif isinstance(packet, Subscribe):
            own = f"devices/{self.key[0]}/"
            answers = []
            for topic, qos in packet.topics:
                allowed = topic.startswith((own, "$iothub/"))
                if allowed:
                    self.subscriptions[topic] = min(qos, 1)
                answers.append(min(qos, 1) if allowed else _FAILED)
            await self._owner.subscribed(self)
            self._send(Suback(packet.packet_id, tuple(answers)))
        elif isinstance(packet, Unsubscribe):
            for topic in packet.topics:
                self.subscriptions.pop(topic, None)
            await self._owner.subscribed(self)
            self._send(Unsuback(packet.packet_id))
        elif isinstance(packet, Pingreq):
            self._send(Pingresp())
        elif isinstance(packet, Disconnect):
            return True
        else:
            raise EndedError(f"{type(packet).__name__} is not for a hub")
        return False

    async def _published(self, packet: Publish) -> None:
        module = f"/modules/{self.key[1]}" if self.key[1] else ""
        events = f"devices/{self.key[0]}{module}/messages/events"
        if packet.qos > 1:
            raise EndedError("QoS 2 is not known")
        if len(packet.payload) > _MAX_MESSAGE:
            raise EndedError(f"a message of {len(packet.payload)} bytes; the limit is {_MAX_MESSAGE}")
        if packet.topic == events or packet.topic.startswith(f"{events}/"):
            if len(packet.topic.encode()) > _MAX_TOPIC:
                raise EndedError(f"properties of more than {_MAX_TOPIC} bytes")
            await self._owner.telemetry(self.key, packet.topic[len(events) + 1 :], packet.payload)
        elif packet.topic.startswith("$iothub/"):
            self._owner.request(self, packet.topic, packet.payload)
        else:
            raise EndedError(f"{packet.topic!r} is no topic of its own")
        if packet.packet_id is not None:
            # A message is safe by now.
            self._send(Puback(packet.packet_id))

    def _take_id(self) -> int:
        self._next_id = next_id(self._next_id, self._unacknowledged)
        return self._next_id

    def _send(self, packet: Packet) -> None:
        self._writer.write(packet.encode())


async def listen(owner: Owner, host: str, port: int, tls: ssl.SSLContext) -> asyncio.Server:
    """Serve clients on a port. Raises OSError."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Session(owner, reader, writer).serve()

    return await asyncio.start_server(client, host or None, port, ssl=tls, ssl_handshake_timeout=10)
