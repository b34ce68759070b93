# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Device-to-cloud messages: from the MQTT topic to the log of arrivals."""

import json
import sqlite3
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from iothub_emulator import registry
from iothub_emulator.clock import HubClock, message_time

# Names of system properties in the topic's property bag, and as the hub shows them.
_SYSTEM_PROPERTIES = {
    "$.mid": "message-id",
    "$.cid": "correlation-id",
    "$.uid": "user-id",
    "$.ct": "content-type",
    "$.ce": "content-encoding",
    "$.exp": "absolute-expiry-time",
    "$.on": "output-name",
    "$.ifid": "interface-id",
}


@dataclass(frozen=True)
class Telemetry:
    """A message as received. Property values are None when the bag holds a key without '='."""

    device_id: str
    module_id: str
    body: bytes
    system: dict[str, str | None]
    properties: dict[str, str | None]


def events_topic(device_id: str, module_id: str) -> str:
    """The topic that an identity publishes to, without slash and property bag at its end."""
    module = f"/modules/{module_id}" if module_id else ""
    return f"devices/{device_id}{module}/messages/events"


def parse_property_bag(bag: str) -> tuple[dict[str, str | None], dict[str, str | None]]:
    """Split `a=1&%24.mid=x` into (system, application) properties, percent-decoded.

    '+' stays '+': the bag is no HTML form.
    """
    system: dict[str, str | None] = {}
    properties: dict[str, str | None] = {}
    for pair in bag.split("&"):
        if not pair:
            continue
        key, separator, value = pair.partition("=")
        key = unquote(key)
        decoded = unquote(value) if separator else None
        if key in _SYSTEM_PROPERTIES:
            system[_SYSTEM_PROPERTIES[key]] = decoded
        else:
            properties[key] = decoded
    return system, properties


def append(connection: sqlite3.Connection, message: Telemetry, clock: HubClock) -> int:
    """Store a message of a registered identity and note its activity; returns its number.

    The time is taken here, so that time and number grow together.
    """
    now = clock.now()
    registry.mark_activity(connection, message.device_id, message.module_id, now)
    cursor = connection.execute(
        "INSERT INTO messages (enqueued_ms, device_id, module_id, message_id, body, system, properties) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            int(now * 1000),
            message.device_id,
            message.module_id,
            message.system.get("message-id"),
            message.body,
            json.dumps(message.system),
            json.dumps(message.properties),
        ),
    )
    return int(cursor.lastrowid or 0)


def read(
    connection: sqlite3.Connection, *, after: int = 0, device_id: str | None = None
) -> Iterator[dict[str, Any]]:
    """Messages in order of arrival with a number above `after`, of one device or all.

    Shape: {"seq", "enqueued", "device", "module" or None, "messageId" or None, "body", "system",
    "properties"}; a body that is no UTF-8 is None and stands in "bodyBase64".
    """
    rows = connection.execute(
        "SELECT * FROM messages WHERE seq > ? AND (? IS NULL OR device_id = ?) ORDER BY seq",
        (after, device_id, device_id),
    )
    for row in rows:
        message: dict[str, Any] = {
            "seq": row["seq"],
            "enqueued": message_time(row["enqueued_ms"]),
            "device": row["device_id"],
            "module": row["module_id"] or None,
            "messageId": row["message_id"],
            "body": None,
            "system": json.loads(row["system"]),
            "properties": json.loads(row["properties"]),
        }
        try:
            message["body"] = row["body"].decode()
        except UnicodeDecodeError:
            message["bodyBase64"] = b64encode(row["body"]).decode()
        yield message


def as_line(message: dict[str, Any]) -> str:
    """One message for people: number, time, identity, message id, body, properties."""
    identity = message["device"] + (f"/{message['module']}" if message["module"] else "")
    body = message["body"] if message["body"] is not None else f"base64:{message['bodyBase64']}"
    properties = " ".join(
        f"{key}={value}" if value is not None else key for key, value in message["properties"].items()
    )
    # A line break in a body would look like the next message.
    body = body.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")
    fields = [
        str(message["seq"]),
        message["enqueued"],
        identity,
        message["messageId"] or "-",
        body,
        properties,
    ]
    return "  ".join(field for field in fields if field)
