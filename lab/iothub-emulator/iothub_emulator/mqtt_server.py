# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices and modules over MQTT 3.1.1 and TLS.

Rules: "Communicate with your IoT hub using the MQTT protocol". A PUBACK goes out after the message
is on disk; answers of one connection keep the order of its requests.
"""

import asyncio
import contextlib
import json
import logging
import sqlite3
import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qs

from iothub_emulator import messages, registry, sessions
from iothub_emulator.auth import Authenticator, Right, SasToken
from iothub_emulator.clock import HubClock
from iothub_emulator.connections import Connections
from iothub_emulator.errors import HubError, UnauthorizedError, argument_invalid, unauthorized
from iothub_emulator.identity import find
from iothub_emulator.logs import event
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
from iothub_emulator.store import Store
from iothub_emulator.twins import Twin

T = TypeVar("T")

_CONNECT_SECONDS = 10.0
# The hub's longest keep alive; it also stands for "none".
_MAX_KEEP_ALIVE_SECONDS = 1767
_MAX_MESSAGE_BYTES = 256 * 1024
_MAX_PACKET_BYTES = _MAX_MESSAGE_BYTES + 70_000  # a topic of full length on top
_MAX_UNANSWERED = 128
_MAX_UNSENT_BYTES = 4 * 1024 * 1024

_TWIN_GET = "$iothub/twin/GET/"
_TWIN_REPORT = "$iothub/twin/PATCH/properties/reported/"
_TWIN_RESULT = "$iothub/twin/res/"
_TWIN_DESIRED = "$iothub/twin/PATCH/properties/desired/"

_ACCEPTED, _BAD_PROTOCOL, _NOT_AUTHORIZED, _SUBSCRIPTION_FAILED = 0, 1, 5, 0x80


class _EndedError(Exception):
    """The connection has to end; the text says why."""


class MqttServer:
    """Listens for devices."""

    def __init__(
        self, authenticator: Authenticator, store: Store, connections: Connections, clock: HubClock
    ) -> None:
        self.authenticator = authenticator
        self.store = store
        self.connections = connections
        self.clock = clock
        self._server: asyncio.Server | None = None
        self._open: dict[_Connection, asyncio.Task[None]] = {}

    async def start(self, host: str, port: int, tls: ssl.SSLContext) -> None:
        """Listen. Raises OSError."""
        self._server = await asyncio.start_server(
            self._serve, host, port, ssl=tls, ssl_handshake_timeout=_CONNECT_SECONDS, ssl_shutdown_timeout=2
        )

    async def stop(self) -> None:
        """Stop listening, end all connections and wait until their end is recorded."""
        if self._server:
            self._server.close()
        for connection in list(self._open):
            connection.close("the hub stops")
        if self._open:
            await asyncio.wait(self._open.values(), timeout=10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer)
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is served outside of a task")
        self._open[connection] = task
        try:
            await connection.run()
        finally:
            del self._open[connection]


class _Connection:
    """One device's or module's connection, from CONNECT to its end."""

    def __init__(
        self, server: MqttServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._hub = server
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder(_MAX_PACKET_BYTES)
        self._device_id = ""
        self._module_id = ""
        self._clean_session = True
        self._subscriptions: dict[str, int] = {}
        self._next_packet_id = 1
        self._unacknowledged: set[int] = set()
        self._end_reason: str | None = None
        # Requests whose operation is under way, in order: (result to wait for, what to send then).
        self._answers: asyncio.Queue[tuple[asyncio.Future[Any], Callable[[Any], None]] | None] = (
            asyncio.Queue(_MAX_UNANSWERED)
        )

    async def run(self) -> None:
        """Serve until either side ends it. Never raises for what a client does."""
        try:
            packets = await self._first_packets()
            await self._accept(packets[0], packets[1:])
        except UnsupportedProtocolError as error:
            self._log_refused(str(error))
            self._send(Connack(_BAD_PROTOCOL).encode())
        except UnauthorizedError as error:
            self._log_refused(error.reason)
            self._send(Connack(_NOT_AUTHORIZED).encode())
        except (_EndedError, MalformedPacketError, TimeoutError, OSError) as error:
            self._log_refused(str(error) or "no CONNECT in time")
        except Exception as error:
            event("connection-failed", level=logging.ERROR, error=error, device=self._device_id or None)
        finally:
            self._writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                await self._writer.wait_closed()

    def close(self, reason: str) -> None:
        self._end_reason = self._end_reason or reason
        self._writer.transport.abort()

    def push_desired(self, patch: Mapping[str, Any], version: int) -> None:
        self._publish(f"{_TWIN_DESIRED}?$version={version}", json.dumps(patch).encode())

    async def _first_packets(self) -> list[Packet]:
        packets: list[Packet] = []
        async with asyncio.timeout(_CONNECT_SECONDS):
            while not packets:
                packets = list(self._decoder.feed(await self._read()))
        return packets

    async def _read(self) -> bytes:
        data = await self._reader.read(65536)
        if not data:
            raise _EndedError("the client broke off")
        return data

    async def _accept(self, connect: Packet, early: list[Packet]) -> None:
        """Check the client, then serve it. `early`: packets that came together with CONNECT."""
        if not isinstance(connect, Connect):
            raise _EndedError("the first packet is no CONNECT")
        self._clean_session = connect.clean_session
        token = self._read_client(connect)
        device_id, module_id, hub = self._device_id, self._module_id, self._hub
        await hub.store.run(lambda database: self._authenticate(database, token))
        # Only now, with the client proven, may it take the place of the connection before it. And it
        # takes it before it is marked, so that the old one's end cannot overwrite the mark.
        key = (device_id, module_id)
        hub.connections.replace(key, self)
        expiry = asyncio.get_running_loop().call_later(
            max(0.0, token.expiry - hub.clock.now()), self.close, "the token expired"
        )
        answering = asyncio.create_task(self._send_answers())
        try:
            present, self._subscriptions = await hub.store.run(self._mark_connected)
            self._send(Connack(_ACCEPTED, present).encode())
            event("device-connected", device=device_id, module=module_id or None)
            if connect.will:
                event(
                    "last-will-unsupported", level=logging.WARNING, device=device_id, module=module_id or None
                )
            await self._serve_packets(connect.keep_alive, early)
        except UnauthorizedError as error:
            self._send(Connack(_NOT_AUTHORIZED).encode())
            self._end_reason = self._end_reason or error.reason
        except (_EndedError, MalformedPacketError, UnsupportedProtocolError, OSError) as error:
            self._end_reason = self._end_reason or str(error)
        finally:
            expiry.cancel()
            await self._answers.put(None)
            await answering
            if hub.connections.remove(key, self):
                await hub.store.run(
                    lambda database: registry.mark_disconnected(
                        database, device_id, module_id, hub.clock.now()
                    )
                )
            event("device-disconnected", device=device_id, module=module_id or None, reason=self._end_reason)

    def _read_client(self, connect: Connect) -> SasToken:
        """Take the identity from user name and client id. Raises UnauthorizedError."""
        address, separator, query = (connect.username or "").rpartition("/?")
        host, *ids = address.split("/")
        if not separator or not 1 <= len(ids) <= 2 or not all(ids):
            raise unauthorized("the user name is not <host>/<device>[/<module>]/?api-version=...")
        self._device_id, self._module_id = ids[0], ids[1] if len(ids) == 2 else ""
        if not parse_qs(query).get("api-version"):
            raise unauthorized("the user name has no api-version")
        if not self._hub.authenticator.is_own_name(host):
            raise unauthorized(f"the user name is for the host {host!r}, which is not a name of this hub")
        if connect.client_id != "/".join(ids):
            raise unauthorized(f"the client id {connect.client_id!r} is not that of the user name")
        try:
            return SasToken.parse((connect.password or b"").decode())
        except UnicodeDecodeError:
            raise unauthorized("no shared access signature") from None

    def _authenticate(self, database: sqlite3.Connection, token: SasToken) -> None:
        authenticator = self._hub.authenticator
        path = ["devices", self._device_id]
        if self._module_id:
            path += ["modules", self._module_id]
        authenticator.check_validity(token, path, self._hub.clock.now())
        device = registry.require_enabled_device(database, self._device_id)
        identity = find(database, self._device_id, self._module_id) if self._module_id else device
        if identity is None:
            raise unauthorized(f"the module {self._module_id!r} of {self._device_id!r} is not registered")
        if token.policy is not None:
            authenticator.check_policy(token, Right.DEVICE_CONNECT)
        elif identity.authentication.type != "sas":
            raise unauthorized(f"{identity.authentication.type} authentication cannot connect here, only sas")
        elif not token.signed_by(
            [identity.authentication.primary_key, identity.authentication.secondary_key]
        ):
            raise unauthorized("wrong key")

    def _mark_connected(self, database: sqlite3.Connection) -> tuple[bool, dict[str, int]]:
        registry.mark_connected(database, self._device_id, self._module_id, self._hub.clock.now())
        return sessions.open_session(database, self._device_id, self._module_id, clean=self._clean_session)

    async def _serve_packets(self, keep_alive: int, packets: list[Packet]) -> None:
        # [3.1.2.10] one and a half times the keep alive without a packet ends the connection.
        patience = 1.5 * min(keep_alive or _MAX_KEEP_ALIVE_SECONDS, _MAX_KEEP_ALIVE_SECONDS)
        while True:
            for packet in packets:
                if isinstance(packet, Disconnect):
                    raise _EndedError("the client disconnected")
                await self._handle(packet)
            try:
                async with asyncio.timeout(patience):
                    data = await self._read()
            except TimeoutError:
                raise _EndedError("nothing came within the keep alive") from None
            packets = list(self._decoder.feed(data))

    async def _handle(self, packet: Packet) -> None:
        match packet:
            case Publish():
                await self._handle_publish(packet)
            case Puback():
                self._unacknowledged.discard(packet.packet_id)
            case Subscribe():
                await self._subscribe(packet)
            case Unsubscribe():
                for topic_filter in packet.topics:
                    self._subscriptions.pop(topic_filter, None)
                await self._keep_subscriptions(Unsuback(packet.packet_id).encode())
            case Pingreq():
                self._send(Pingresp().encode())
            case _:
                raise _EndedError(f"the client sent {type(packet).__name__.upper()}")

    async def _handle_publish(self, packet: Publish) -> None:
        if packet.qos == 2:
            raise _EndedError("the client published with QoS 2")
        if len(packet.payload) > _MAX_MESSAGE_BYTES:
            raise _EndedError(f"a message of {len(packet.payload)} bytes; the limit is {_MAX_MESSAGE_BYTES}")
        topic = packet.topic
        events = messages.events_topic(self._device_id, self._module_id)
        if topic == events or topic.startswith(f"{events}/"):
            await self._store_telemetry(packet, topic[len(events) + 1 :])
        elif topic.startswith(_TWIN_GET):
            await self._twin_request(packet, topic[len(_TWIN_GET) :], self._get_twin)
        elif topic.startswith(_TWIN_REPORT):
            await self._twin_request(
                packet,
                topic[len(_TWIN_REPORT) :],
                lambda database: self._report(database, packet.payload),
            )
        else:
            raise _EndedError(f"the client published to {topic!r}, which is not a topic of its own")

    async def _store_telemetry(self, packet: Publish, bag: str) -> None:
        system, properties = messages.parse_property_bag(bag)
        if packet.retain:
            # The hub keeps no retained messages; it passes the wish on.
            properties["mqtt-retain"] = "true"
        message = messages.Telemetry(self._device_id, self._module_id, packet.payload, system, properties)
        clock = self._hub.clock
        await self._answer_after(
            lambda database: messages.append(database, message, clock), lambda _seq: self._acknowledge(packet)
        )

    async def _twin_request(
        self, packet: Publish, query: str, operation: Callable[[sqlite3.Connection], tuple[int, str, bytes]]
    ) -> None:
        """Answer a twin request; `operation` returns (status, further query of the topic, body)."""
        request_id = next(
            (pair[5:] for pair in query.removeprefix("?").split("&") if pair.startswith("$rid=")), None
        )
        if request_id is None:
            raise _EndedError("a twin request without $rid")
        hub = self._hub

        def run(database: sqlite3.Connection) -> tuple[int, str, bytes]:
            try:
                return operation(database)
            except UnauthorizedError:
                raise
            except HubError as error:
                return error.status, "", json.dumps(error.envelope(hub.clock.now())).encode()

        def answer(result: tuple[int, str, bytes]) -> None:
            status, more, body = result
            self._acknowledge(packet)
            self._publish(f"{_TWIN_RESULT}{status}/?$rid={request_id}{more}", body)

        await self._answer_after(run, answer)

    def _get_twin(self, database: sqlite3.Connection) -> tuple[int, str, bytes]:
        twin = self._load_twin(database)
        return 200, "", json.dumps(twin.for_device()).encode()

    def _report(self, database: sqlite3.Connection, payload: bytes) -> tuple[int, str, bytes]:
        try:
            body = json.loads(payload)
        except ValueError:
            raise argument_invalid("the reported properties are not JSON") from None
        twin = self._load_twin(database)
        now = self._hub.clock.now()
        version = twin.report(body, now)
        twin.save(database)
        registry.mark_activity(database, self._device_id, self._module_id, now)
        return 204, f"&$version={version}", b""

    def _load_twin(self, database: sqlite3.Connection) -> Twin:
        identity = find(database, self._device_id, self._module_id)
        if identity is None:
            raise unauthorized("the identity is no longer registered")
        return Twin.load(database, identity)

    async def _subscribe(self, packet: Subscribe) -> None:
        codes = []
        for topic_filter, qos in packet.topics:
            if self._may_subscribe(topic_filter):
                # The hub grants QoS 1 at most.
                self._subscriptions[topic_filter] = min(qos, 1)
                codes.append(min(qos, 1))
            else:
                codes.append(_SUBSCRIPTION_FAILED)
        await self._keep_subscriptions(Suback(packet.packet_id, tuple(codes)).encode())

    def _may_subscribe(self, topic_filter: str) -> bool:
        own = f"devices/{self._device_id}/"
        if self._module_id:
            own += f"modules/{self._module_id}/"
        device_bound = f"{own}messages/devicebound/#"
        return (
            topic_filter in (f"{_TWIN_RESULT}#", f"{_TWIN_DESIRED}#", "$iothub/methods/POST/#", device_bound)
            # Inputs exist behind edgeHub only, but its clients subscribe to them here too.
            or bool(self._module_id and topic_filter in (f"{own}#", f"{own}inputs/#"))
        )

    async def _keep_subscriptions(self, answer: bytes) -> None:
        kept = dict(self._subscriptions)

        def operation(database: sqlite3.Connection) -> None:
            if not self._clean_session:
                sessions.keep_subscriptions(database, self._device_id, self._module_id, kept)

        await self._answer_after(operation, lambda _none: self._send(answer))

    async def _answer_after(
        self, operation: Callable[[sqlite3.Connection], T], answer: Callable[[T], None]
    ) -> None:
        """Queue an operation on the store; `answer` runs after its commit, in the order of requests.

        Reading goes on meanwhile, so that the messages of one burst share a commit.
        """
        await self._answers.put((self._hub.store.submit(operation), answer))

    async def _send_answers(self) -> None:
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
                event("request-failed", level=logging.ERROR, error=error, device=self._device_id)
                self.close("the hub failed to store a request")

    def _acknowledge(self, packet: Publish) -> None:
        if packet.packet_id is not None:
            self._send(Puback(packet.packet_id).encode())

    def _publish(self, topic: str, body: bytes) -> None:
        """Send to the device when a subscription covers the topic, with the QoS granted to it."""
        granted = [qos for wanted, qos in self._subscriptions.items() if topic_matches(wanted, topic)]
        if not granted:
            return
        packet_id = self._take_packet_id() if max(granted) else None
        self._send(Publish(topic, body, max(granted), packet_id).encode())

    def _take_packet_id(self) -> int:
        # Not sent again on the next connection: a device reads its whole twin then.
        for _attempt in range(0xFFFF):
            packet_id = self._next_packet_id
            self._next_packet_id = packet_id % 0xFFFF + 1
            if packet_id not in self._unacknowledged:
                break
        self._unacknowledged.add(packet_id)
        return packet_id

    def _send(self, data: bytes) -> None:
        if self._writer.transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            self.close("the client does not read")
            return
        self._writer.write(data)

    def _log_refused(self, reason: str) -> None:
        event(
            "device-refused",
            level=logging.WARNING,
            device=self._device_id or None,
            module=self._module_id or None,
            reason=reason,
        )
