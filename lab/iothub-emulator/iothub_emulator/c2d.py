# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages from the cloud: a queue for each device that outlives the server, and their way to the device.

Rules: "Send cloud-to-device messages from an IoT hub" and "Communicate with your IoT hub using the MQTT
protocol". A message stays in the queue until the device has acknowledged it; what a connection left
unacknowledged is sent again on the next one. The table is in store.py, because identities and twins
show how many messages wait.
"""

import asyncio
import contextlib
import logging
import re
import sqlite3
import uuid
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

from aiohttp import web

from iothub_emulator import registry
from iothub_emulator.auth import Right
from iothub_emulator.clock import twin_time
from iothub_emulator.connections import Key, LiveConnection
from iothub_emulator.errors import HubError, argument_invalid, device_not_found
from iothub_emulator.feature import Context, Feature
from iothub_emulator.logs import event
from iothub_emulator.operations import OperationClass
from iothub_emulator.rest import json_response, read_json

_MAX_WAITING = 50
_MAX_BODY_BYTES = 64 * 1024
# A topic's length has two bytes; the longest device id and its words stand before the properties.
_MAX_BAG_CHARACTERS = 65_000
_IN_FLIGHT = 5
_SWEEP_SECONDS = 1.0
# The hub's defaultTtlAsIso8601 when nobody changed it, and the most that can be asked for.
_DEFAULT_EXPIRY_SECONDS = 3600
_MAX_EXPIRY_SECONDS = 2 * 86_400
_ACKS = ("none", "positive", "negative", "full")
_MESSAGE_ID = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@;$']{1,128}")


@dataclass(frozen=True)
class Message:
    """What is to be sent to a device."""

    body: bytes
    message_id: str
    correlation_id: str | None
    ack: str | None
    expiry_seconds: float | None
    properties: dict[str, str | None]

    @classmethod
    def parse(cls, document: object) -> "Message":
        """Read the body of a call. Raises HubError 400 or 413."""
        if not isinstance(document, dict):
            raise argument_invalid("the body is not a JSON object")
        body = _parse_body(document)
        if len(body) > _MAX_BODY_BYTES:
            raise HubError(
                413, "MessageTooLarge", f"A message of {len(body)} bytes; the limit is {_MAX_BODY_BYTES}."
            )
        ack = document.get("ack")
        if ack is not None and ack not in _ACKS:
            raise argument_invalid(f"ack is none of {', '.join(_ACKS)}")
        return cls(
            body,
            _parse_id(document, "messageId") or str(uuid.uuid4()),
            _parse_id(document, "correlationId"),
            ack,
            _parse_expiry(document.get("expirySeconds")),
            _parse_properties(document.get("properties")),
        )

    def bag(self, device_id: str, expires: float) -> str:
        """The properties as they stand in the topic. Raises HubError 413."""
        pairs = {"$.mid": self.message_id, "$.to": f"/devices/{device_id}/messages/devicebound"}
        if self.correlation_id is not None:
            pairs["$.cid"] = self.correlation_id
        if self.expiry_seconds is not None:
            pairs["$.exp"] = twin_time(expires)
        if self.ack not in (None, "none"):
            pairs["iothub-ack"] = str(self.ack)
        bag = "&".join(
            quote(key, safe="") if value is None else f"{quote(key, safe='')}={quote(value, safe='')}"
            for key, value in (pairs | self.properties).items()
        )
        if len(bag) > _MAX_BAG_CHARACTERS:
            raise HubError(413, "MessageTooLarge", "The properties do not fit in a topic.")
        return bag


def _parse_body(document: dict[str, Any]) -> bytes:
    text, encoded = document.get("body"), document.get("bodyBase64")
    if (text is None) == (encoded is None):
        raise argument_invalid("give either body or bodyBase64")
    if encoded is None:
        if not isinstance(text, str):
            raise argument_invalid("body is not a string")
        return text.encode()
    try:
        return b64decode(encoded, validate=True)
    except (TypeError, ValueError):
        raise argument_invalid("bodyBase64 is not base64") from None


def _parse_id(document: dict[str, Any], member: str) -> str | None:
    value = document.get(member)
    if value is not None and (not isinstance(value, str) or not _MESSAGE_ID.fullmatch(value)):
        raise argument_invalid(f"{member} is not 1 to 128 ASCII letters, digits and -:.+%_#*?!(),=@;$'")
    return value


def _parse_expiry(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= _MAX_EXPIRY_SECONDS:
        raise argument_invalid(f"expirySeconds is not above 0 and at most {_MAX_EXPIRY_SECONDS}")
    return value


def _parse_properties(value: object) -> dict[str, str | None]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise argument_invalid("properties is not a JSON object")
    for key, text in value.items():
        if not key or key.startswith("$") or key == "iothub-ack":
            raise argument_invalid(f"the property name {key!r} is the hub's own")
        if text is not None and not isinstance(text, str):
            raise argument_invalid(f"the property {key!r} is neither a string nor null")
    return value


def append(connection: sqlite3.Connection, device_id: str, message: Message, now: float) -> float:
    """Put a message at the end of a device's queue; returns when it expires. Raises HubError."""
    device = registry.get_device(connection, device_id)
    if device.status != "enabled":
        raise device_not_found(device_id)
    expire(connection, now)
    waiting = connection.execute(
        "SELECT count(*) FROM device_messages WHERE device_id = ?", (device_id,)
    ).fetchone()[0]
    if waiting >= _MAX_WAITING:
        raise HubError(
            403,
            "DeviceMaximumQueueDepthExceeded",
            f"{waiting} messages wait for the device {device_id}; the limit is {_MAX_WAITING}.",
        )
    seconds = _DEFAULT_EXPIRY_SECONDS if message.expiry_seconds is None else message.expiry_seconds
    expires = now + seconds
    connection.execute(
        "INSERT INTO device_messages (device_id, expires, bag, body) VALUES (?, ?, ?, ?)",
        (device_id, expires, message.bag(device_id, expires), message.body),
    )
    return expires


def expire(connection: sqlite3.Connection, now: float) -> None:
    """Drop what nobody wants any more."""
    # Asked for first, because a DELETE takes the write lock also when it finds nothing.
    if connection.execute("SELECT 1 FROM device_messages WHERE expires <= ? LIMIT 1", (now,)).fetchone():
        connection.execute("DELETE FROM device_messages WHERE expires <= ?", (now,))


def purge(connection: sqlite3.Connection, device_id: str) -> int:
    """Empty a device's queue; returns how many messages it held. Raises HubError 404."""
    registry.get_device(connection, device_id)
    return connection.execute("DELETE FROM device_messages WHERE device_id = ?", (device_id,)).rowcount


def next_messages(
    connection: sqlite3.Connection, device_id: str, after: int, limit: int, now: float
) -> list[sqlite3.Row]:
    """The messages behind number `after`."""
    expire(connection, now)
    return connection.execute(
        "SELECT seq, bag, body FROM device_messages WHERE device_id = ? AND seq > ? ORDER BY seq LIMIT ?",
        (device_id, after, limit),
    ).fetchall()


def remove(connection: sqlite3.Connection, seq: int) -> None:
    connection.execute("DELETE FROM device_messages WHERE seq = ?", (seq,))


@dataclass
class _Sent:
    """What went out on one connection: the number of the last message, and those not yet acknowledged."""

    last: int = 0
    in_flight: set[int] = field(default_factory=set)


class _Deliveries:
    """Brings messages from the queues to the devices that are subscribed."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sent: WeakKeyDictionary[LiveConnection, _Sent] = WeakKeyDictionary()
        # Devices that are looked after just now; True: look once more.
        self._busy: dict[str, bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def wake(self, key: Key) -> None:
        """Send what waits for a device, if it takes messages and has not enough in flight."""
        device_id, module_id = key
        connection = self._context.connections.live(key)
        if module_id or connection is None or not connection.takes_messages():
            return
        if device_id not in self._busy:
            task = asyncio.create_task(self._look_after(device_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._busy[device_id] = True

    async def _look_after(self, device_id: str) -> None:
        try:
            while self._busy[device_id]:
                self._busy[device_id] = False
                await self._send_some(device_id)
        except Exception as error:
            event("delivery-failed", level=logging.ERROR, error=error, device=device_id, module=None)
        finally:
            del self._busy[device_id]

    async def _send_some(self, device_id: str) -> None:
        key = (device_id, "")
        connection = self._context.connections.live(key)
        if connection is None:
            return
        sent = self._sent.setdefault(connection, _Sent())
        room = _IN_FLIGHT - len(sent.in_flight)
        if room <= 0:
            return
        now = self._context.clock.now()
        rows = await self._context.store.run(
            lambda database: next_messages(database, device_id, sent.last, room, now)
        )
        # The device may have come anew meanwhile: then it was woken again.
        if self._context.connections.live(key) is not connection:
            return
        for row in rows:
            seq = row["seq"]
            sent.in_flight.add(seq)
            if not connection.send_message(row["bag"], row["body"], partial(self._done, key, sent, seq)):
                sent.in_flight.discard(seq)
                return
            sent.last = seq

    def _done(self, key: Key, sent: _Sent, seq: int) -> None:
        sent.in_flight.discard(seq)
        removed = self._context.store.submit(lambda database: remove(database, seq))
        removed.add_done_callback(partial(_log_failure, key))
        self.wake(key)

    async def sweep_for_ever(self) -> None:
        """Drop expired messages of devices that never come, so that nobody counts them."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = self._context.clock.now()
            try:
                await self._context.store.run(partial(expire, now=now))
            except sqlite3.Error as error:
                event("sweep-failed", level=logging.ERROR, error=error)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _log_failure(key: Key, removed: "asyncio.Future[None]") -> None:
    if not removed.cancelled() and (error := removed.exception()):
        event("delivery-failed", level=logging.ERROR, error=error, device=key[0], module=None)


@asynccontextmanager
async def _run(context: Context) -> AsyncIterator[None]:
    deliveries = _Deliveries(context)

    async def send(request: web.Request) -> web.Response:
        device_id = request.match_info["id"]
        message = Message.parse(await read_json(request))
        expires = await context.store.run(
            lambda database: append(database, device_id, message, context.clock.now())
        )
        deliveries.wake((device_id, ""))
        return json_response(
            {"deviceId": device_id, "messageId": message.message_id, "expiryTimeUtc": twin_time(expires)}
        )

    async def purge_queue(request: web.Request) -> web.Response:
        device_id = request.match_info["id"]
        count = await context.store.run(lambda database: purge(database, device_id))
        return json_response({"deviceId": device_id, "totalMessagesPurged": count, "moduleId": None})

    context.rest.add_emulator_route("POST", "/$emulator/devices/{id}/messages", send)
    context.rest.add_route(
        "DELETE",
        "/devices/{id}/commands",
        Right.SERVICE_CONNECT,
        purge_queue,
        operation=OperationClass.CLOUD_TO_DEVICE,
    )
    context.connections.watch_ready(deliveries.wake)
    sweep = asyncio.create_task(deliveries.sweep_for_ever())
    try:
        yield
    finally:
        sweep.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sweep
        await deliveries.stop()


FEATURE = Feature(_run)
