# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registration over MQTT, on the port of the hub: the user name tells which of the two is meant."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote

from iothub_emulator.auth import SasToken
from iothub_emulator.clock import HubClock
from iothub_emulator.dps_errors import DpsError, as_dps_error, bad_request
from iothub_emulator.dps_registration import RETRY_SECONDS, Proof, Registrar
from iothub_emulator.errors import HubError, UnauthorizedError, unauthorized
from iothub_emulator.logs import event
from iothub_emulator.mqtt_codec import (
    Connack,
    Connect,
    MalformedPacketError,
    Packet,
    Publish,
    UnsupportedProtocolError,
)
from iothub_emulator.mqtt_link import ACCEPTED, EndedError, Link, Role
from iothub_emulator.mqtt_server import RoleFactory, topic_value
from iothub_emulator.store import Store

_REGISTER = "$dps/registrations/PUT/iotdps-register/"
_OPERATION = "$dps/registrations/GET/iotdps-get-operationstatus/"
_RESULT = "$dps/registrations/res/"

Answer = tuple[int, dict[str, Any]]


def role_factory(registrar: Registrar, store: Store, clock: HubClock) -> RoleFactory:
    """Roles for clients whose user name begins with the service's scope."""

    def make(link: Link, connect: Connect) -> Role | None:
        scope, *rest = (connect.username or "").split("/")
        if scope != registrar.id_scope or not rest or rest[0] != "registrations":
            return None
        return _Registering(registrar, store, clock, link, connect)

    return make


class _Registering(Role):
    """A device that registers itself."""

    def __init__(
        self, registrar: Registrar, store: Store, clock: HubClock, link: Link, connect: Connect
    ) -> None:
        self._registrar = registrar
        self._store = store
        self._clock = clock
        self._link = link
        self._connect = connect
        _scope, _registrations, *rest = (connect.username or "").split("/", 3)
        self._registration_id = rest[0] if rest else ""
        self._query = rest[1] if len(rest) > 1 else ""
        self._proof = Proof(None, link.certificates)

    @property
    def who(self) -> dict[str, Any]:
        return {"device": None, "module": None, "registrationId": self._registration_id or None}

    async def run(self, early: Sequence[Packet]) -> None:
        if topic_value(self._query, "api-version") is None:
            raise unauthorized("the user name is not <idScope>/registrations/<id>/api-version=...")
        if self._connect.client_id != self._registration_id:
            raise unauthorized(f"the client id {self._connect.client_id!r} is not that of the user name")
        if self._connect.password:
            try:
                self._proof = Proof(SasToken.parse(self._connect.password.decode()), ())
            except UnicodeDecodeError:
                raise unauthorized("no shared access signature") from None
        try:
            await self._store.run(
                lambda database: self._registrar.check(database, self._registration_id, self._proof)
            )
        except DpsError as error:
            # CONNACK has no better word for it.
            raise unauthorized(error.text) from None
        expiry = None
        if self._proof.token is not None:
            expiry = asyncio.get_running_loop().call_later(
                max(0.0, self._proof.token.expiry - self._clock.now()), self._link.close, "the token expired"
            )
        try:
            async with self._link.answering(self.who):
                self._link.send(Connack(ACCEPTED, False).encode())
                await self._link.serve(self, self._connect.keep_alive, early)
        except (EndedError, MalformedPacketError, UnsupportedProtocolError, OSError) as error:
            self._link.end_reason = self._link.end_reason or str(error)
        finally:
            if expiry is not None:
                expiry.cancel()
            event("registration-disconnected", **self.who, reason=self._link.end_reason)

    def may_subscribe(self, topic_filter: str) -> bool:
        return topic_filter == f"{_RESULT}#"

    async def handle_publish(self, packet: Publish) -> None:
        topic = packet.topic
        if topic.startswith(_REGISTER):
            await self._request(
                packet, topic[len(_REGISTER) :], lambda database: self._register(database, packet.payload)
            )
        elif topic.startswith(_OPERATION):
            query = topic[len(_OPERATION) :]
            operation_id = unquote(topic_value(query, "operationId") or "")
            await self._request(packet, query, lambda database: self._look_up(database, operation_id))
        else:
            raise EndedError(f"the client published to {topic!r}, which is no topic of registration")

    async def _request(
        self, packet: Publish, query: str, operation: Callable[[sqlite3.Connection], Answer]
    ) -> None:
        request_id = topic_value(query, "$rid")
        if request_id is None:
            raise EndedError("a registration request without $rid")

        def run(database: sqlite3.Connection) -> Answer:
            try:
                return operation(database)
            except UnauthorizedError:
                raise
            except HubError as error:
                return error.status, dict(as_dps_error(error).envelope(self._clock.now()))

        def answer(result: Answer) -> None:
            status, body = result
            retry = f"&retry-after={RETRY_SECONDS}" if status == 202 else ""
            self._link.acknowledge(packet)
            self._link.publish(f"{_RESULT}{status}/?$rid={request_id}{retry}", json.dumps(body).encode())

        await self._link.answer_after(run, answer)

    def _register(self, database: sqlite3.Connection, payload: bytes) -> Answer:
        try:
            body = json.loads(payload)
        except ValueError:
            raise bad_request("the registration is not JSON") from None
        enrolled = self._registrar.check(database, self._registration_id, self._proof)
        return self._registrar.first_answer(database, enrolled, self._proof, body)

    def _look_up(self, database: sqlite3.Connection, operation_id: str) -> Answer:
        enrolled = self._registrar.check(database, self._registration_id, self._proof)
        return self._registrar.last_answer(database, enrolled, self._proof, operation_id)
