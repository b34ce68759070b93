# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices and modules over MQTT 3.1.1 and TLS.

Rules: "Communicate with your IoT hub using the MQTT protocol". A PUBACK goes out after the message
is on disk; answers of one connection keep the order of its requests.
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from OpenSSL import SSL

from iothub_emulator import messages, registry, sessions
from iothub_emulator.auth import Authenticator, Right, SasToken
from iothub_emulator.client_tls import serve_client_tls
from iothub_emulator.clock import HubClock
from iothub_emulator.connections import Connections, MethodAnswer
from iothub_emulator.edge_scope import ACTOR, actor_of, in_scope, require_actor
from iothub_emulator.errors import HubError, UnauthorizedError, argument_invalid, unauthorized
from iothub_emulator.identity import Identity, find
from iothub_emulator.logs import event
from iothub_emulator.mqtt_codec import (
    Connack,
    Connect,
    MalformedPacketError,
    Packet,
    Publish,
    UnsupportedProtocolError,
)
from iothub_emulator.mqtt_link import ACCEPTED, BAD_PROTOCOL, NOT_AUTHORIZED, EndedError, Link, Role
from iothub_emulator.store import Store
from iothub_emulator.trust import DeviceAuthorities, check_certificate
from iothub_emulator.twins import Twin

RoleFactory = Callable[[Link, Connect], Role | None]
"""Makes a role for the clients it is for, None for all others."""

_TWIN_GET = "$iothub/twin/GET/"
_TWIN_REPORT = "$iothub/twin/PATCH/properties/reported/"
_TWIN_RESULT = "$iothub/twin/res/"
_TWIN_DESIRED = "$iothub/twin/PATCH/properties/desired/"
_METHOD = "$iothub/methods/POST/"
_METHOD_RESULT = "$iothub/methods/res/"


class MqttServer:
    """Listens for devices."""

    def __init__(
        self,
        authenticator: Authenticator,
        store: Store,
        connections: Connections,
        clock: HubClock,
        authorities: DeviceAuthorities,
    ) -> None:
        self.authenticator = authenticator
        self.store = store
        self.connections = connections
        self.clock = clock
        self.authorities = authorities
        self._roles: list[RoleFactory] = []
        self._server: asyncio.Server | None = None
        self._open: dict[Link, asyncio.Task[None]] = {}

    def add_role(self, factory: RoleFactory) -> None:
        """Serve other clients than devices and modules, too."""
        self._roles.append(factory)

    async def start(self, host: str, port: int, tls: SSL.Context) -> None:
        """Listen. Raises OSError."""
        self._server = await serve_client_tls(self.protocol, host, port, tls)

    def protocol(self) -> asyncio.StreamReaderProtocol:
        """What serves one client on whatever transport brings its bytes."""
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._serve)

    async def stop(self) -> None:
        """Stop listening, end all connections and wait until their end is recorded."""
        if self._server:
            self._server.close()
        for link in list(self._open):
            link.close("the hub stops")
        if self._open:
            await asyncio.wait(self._open.values(), timeout=10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(reader, writer, self.store)
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a connection is served outside of a task")
        self._open[link] = task
        try:
            await self._run(link)
        finally:
            del self._open[link]

    async def _run(self, link: Link) -> None:
        """Serve until either side ends it. Never raises for what a client does."""
        who: dict[str, Any] = {"device": None, "module": None}
        try:
            connect, early = await link.connect()
            made = (factory(link, connect) for factory in self._roles)
            role = next((role for role in made if role), None) or _Device(self, link, connect)
            who = role.who
            await role.run(early)
        except UnsupportedProtocolError as error:
            _log_refused(who, str(error))
            link.send(Connack(BAD_PROTOCOL).encode())
        except UnauthorizedError as error:
            _log_refused(who, error.reason)
            link.send(Connack(NOT_AUTHORIZED).encode())
        except (EndedError, MalformedPacketError, TimeoutError, OSError) as error:
            _log_refused(who, str(error) or "no CONNECT in time")
        except Exception as error:
            event("connection-failed", level=logging.ERROR, error=error, **who)
        finally:
            await link.finish()


class _Device(Role):
    """One device's or module's connection, from CONNECT to its end."""

    def __init__(self, server: MqttServer, link: Link, connect: Connect) -> None:
        self._hub = server
        self._link = link
        self._connect = connect
        self._device_id = ""
        self._module_id = ""
        # Direct methods under way, by request id.
        self._calls: dict[str, asyncio.Future[MethodAnswer]] = {}
        self._next_call = 1
        # What the user name claims, for the log also when it is refused.
        ids = (connect.username or "").rpartition("/?")[0].split("/")[1:]
        if 1 <= len(ids) <= 2:
            self._device_id, self._module_id = ids[0], "".join(ids[1:])

    @property
    def who(self) -> dict[str, Any]:
        return {"device": self._device_id or None, "module": self._module_id or None}

    def close(self, reason: str) -> None:
        self._link.close(reason)

    def push_desired(self, patch: Mapping[str, Any], version: int) -> None:
        self._link.publish(f"{_TWIN_DESIRED}?$version={version}", json.dumps(patch).encode())

    def call_method(self, name: str, payload: bytes) -> "asyncio.Future[MethodAnswer] | None":
        request_id = f"{self._next_call:x}"
        if not self._link.publish(f"{_METHOD}{name}/?$rid={request_id}", payload):
            return None
        self._next_call += 1
        answer: asyncio.Future[MethodAnswer] = asyncio.get_running_loop().create_future()
        self._calls[request_id] = answer
        answer.add_done_callback(lambda _answer: self._calls.pop(request_id, None))
        return answer

    def takes_messages(self) -> bool:
        return f"{self._messages_topic}#" in self._link.subscriptions

    def send_message(self, bag: str, body: bytes, delivered: Callable[[], None]) -> bool:
        return self._link.publish(f"{self._messages_topic}{bag}", body, delivered)

    @property
    def _messages_topic(self) -> str:
        module = f"/modules/{self._module_id}" if self._module_id else ""
        return f"devices/{self._device_id}{module}/messages/devicebound/"

    async def run(self, early: Sequence[Packet]) -> None:
        self._check_names()
        token = self._read_token()
        device_id, module_id, hub, link = self._device_id, self._module_id, self._hub, self._link
        await hub.store.run(lambda database: self._authenticate(database, token))
        # Only now, with the client proven, may it take the place of the connection before it. And it
        # takes it before it is marked, so that the old one's end cannot overwrite the mark.
        key = (device_id, module_id)
        hub.connections.replace(key, self)
        expiry = None
        if token is not None:
            expiry = asyncio.get_running_loop().call_later(
                max(0.0, token.expiry - hub.clock.now()), self.close, "the token expired"
            )
        try:
            async with link.answering(self.who):
                present, link.subscriptions = await hub.store.run(self._mark_connected)
                link.send(Connack(ACCEPTED, present).encode())
                event("device-connected", **self.who)
                hub.connections.note_ready(key)
                if self._connect.will:
                    event("last-will-unsupported", level=logging.WARNING, **self.who)
                await link.serve(self, self._connect.keep_alive, early)
        except UnauthorizedError as error:
            link.send(Connack(NOT_AUTHORIZED).encode())
            link.end_reason = link.end_reason or error.reason
        except (EndedError, MalformedPacketError, UnsupportedProtocolError, OSError) as error:
            link.end_reason = link.end_reason or str(error)
        finally:
            if expiry is not None:
                expiry.cancel()
            for call in list(self._calls.values()):
                if not call.done():
                    call.set_exception(ConnectionError(link.end_reason))
            if hub.connections.remove(key, self):
                await hub.store.run(
                    lambda database: registry.mark_disconnected(
                        database, device_id, module_id, hub.clock.now()
                    )
                )
            event("device-disconnected", **self.who, reason=link.end_reason)

    def _check_names(self) -> None:
        """Check user name and client id. Raises UnauthorizedError."""
        address, separator, query = (self._connect.username or "").rpartition("/?")
        host, *ids = address.split("/")
        if not separator or not 1 <= len(ids) <= 2 or not all(ids):
            raise unauthorized("the user name is not <host>/<device>[/<module>]/?api-version=...")
        if not parse_qs(query).get("api-version"):
            raise unauthorized("the user name has no api-version")
        if not self._hub.authenticator.is_own_name(host):
            raise unauthorized(f"the user name is for the host {host!r}, which is not a name of this hub")
        if self._connect.client_id != "/".join(ids):
            raise unauthorized(f"the client id {self._connect.client_id!r} is not that of the user name")

    def _read_token(self) -> SasToken | None:
        """The token in the password, None when a certificate has to prove the client."""
        password = self._connect.password
        if not password and self._link.certificates:
            return None
        try:
            return SasToken.parse((password or b"").decode())
        except UnicodeDecodeError:
            raise unauthorized("no shared access signature") from None

    def _authenticate(self, database: sqlite3.Connection, token: SasToken | None) -> None:
        authenticator = self._hub.authenticator
        path = ["devices", self._device_id]
        if self._module_id:
            path += ["modules", self._module_id]
        edge_id = actor_of(token) if token is not None else None
        if token is not None:
            actor = ["devices", edge_id, "modules", ACTOR] if edge_id else path
            authenticator.check_validity(token, actor, self._hub.clock.now())
        device = registry.require_enabled_device(database, self._device_id)
        identity = find(database, self._device_id, self._module_id) if self._module_id else device
        if identity is None:
            raise unauthorized(f"the module {self._module_id!r} of {self._device_id!r} is not registered")
        if token is None:
            self._check_certificate(identity)
        elif edge_id is not None:
            if not in_scope(require_actor(database, edge_id, token), device):
                raise unauthorized(f"{self._device_id!r} is not in the scope of {edge_id!r}")
        elif token.policy is not None:
            authenticator.check_policy(token, Right.DEVICE_CONNECT)
        elif identity.authentication.type != "sas":
            raise unauthorized(f"{identity.authentication.type} authentication cannot connect with a token")
        elif not token.signed_by(
            [identity.authentication.primary_key, identity.authentication.secondary_key]
        ):
            raise unauthorized("wrong key")

    def _check_certificate(self, identity: Identity) -> None:
        name = f"{self._device_id}/{self._module_id}" if self._module_id else self._device_id
        check_certificate(
            identity.authentication,
            self._link.certificates,
            name,
            self._hub.authorities,
            self._hub.clock.now(),
        )

    def _mark_connected(self, database: sqlite3.Connection) -> tuple[bool, dict[str, int]]:
        registry.mark_connected(database, self._device_id, self._module_id, self._hub.clock.now())
        return sessions.open_session(
            database, self._device_id, self._module_id, clean=self._connect.clean_session
        )

    async def handle_publish(self, packet: Publish) -> None:
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
        elif topic.startswith(_METHOD_RESULT):
            await self._method_result(packet, topic[len(_METHOD_RESULT) :])
        else:
            raise EndedError(f"the client published to {topic!r}, which is not a topic of its own")

    async def _store_telemetry(self, packet: Publish, bag: str) -> None:
        system, properties = messages.parse_property_bag(bag)
        if packet.retain:
            # The hub keeps no retained messages; it passes the wish on.
            properties["mqtt-retain"] = "true"
        message = messages.Telemetry(self._device_id, self._module_id, packet.payload, system, properties)
        clock = self._hub.clock
        await self._link.answer_after(
            lambda database: messages.append(database, message, clock),
            lambda _seq: self._link.acknowledge(packet),
        )

    async def _twin_request(
        self, packet: Publish, query: str, operation: Callable[[sqlite3.Connection], tuple[int, str, bytes]]
    ) -> None:
        """Answer a twin request; `operation` returns (status, further query of the topic, body)."""
        request_id = topic_value(query, "$rid")
        if request_id is None:
            raise EndedError("a twin request without $rid")
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
            self._link.acknowledge(packet)
            self._link.publish(f"{_TWIN_RESULT}{status}/?$rid={request_id}{more}", body)

        await self._link.answer_after(run, answer)

    async def _method_result(self, packet: Publish, rest: str) -> None:
        status, _separator, query = rest.partition("/")
        request_id = topic_value(query, "$rid")
        if request_id is None or not status.lstrip("-").isdecimal():
            raise EndedError("a method's result without status and $rid")
        call = self._calls.get(request_id)
        # One that came too late has nobody left who waits.
        if call is not None and not call.done():
            call.set_result(MethodAnswer(int(status), packet.payload))
        await self._link.answer_in_order(lambda: self._link.acknowledge(packet))

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

    def may_subscribe(self, topic_filter: str) -> bool:
        own = f"devices/{self._device_id}/"
        if self._module_id:
            own += f"modules/{self._module_id}/"
        device_bound = f"{self._messages_topic}#"
        return (
            topic_filter in (f"{_TWIN_RESULT}#", f"{_TWIN_DESIRED}#", f"{_METHOD}#", device_bound)
            # Inputs exist behind edgeHub only, but its clients subscribe to them here too.
            or bool(self._module_id and topic_filter in (f"{own}#", f"{own}inputs/#"))
        )

    async def keep_subscriptions(self, send: Callable[[], None]) -> None:
        kept = dict(self._link.subscriptions)

        def operation(database: sqlite3.Connection) -> None:
            if not self._connect.clean_session:
                sessions.keep_subscriptions(database, self._device_id, self._module_id, kept)

        def answer(_none: None) -> None:
            send()
            self._hub.connections.note_ready((self._device_id, self._module_id))

        await self._link.answer_after(operation, answer)


def topic_value(query: str, name: str) -> str | None:
    """The value of `name` in the query at the end of a topic, as it stands there."""
    pairs = (pair.partition("=") for pair in query.removeprefix("?").split("&"))
    return next((value for key, separator, value in pairs if separator and key == name), None)


def _log_refused(who: Mapping[str, Any], reason: str) -> None:
    event("device-refused", level=logging.WARNING, **who, reason=reason)
