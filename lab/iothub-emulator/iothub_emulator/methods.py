# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Direct methods: a call of the service API that a connected device answers.

Rules: "Understand and invoke direct methods from IoT Hub". A device is online for methods while it is
connected and subscribed to them.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from iothub_emulator import registry
from iothub_emulator.auth import Right
from iothub_emulator.clock import twin_time
from iothub_emulator.connections import Key, MethodAnswer
from iothub_emulator.errors import HubError, argument_invalid
from iothub_emulator.feature import Context, Feature
from iothub_emulator.operations import OperationClass
from iothub_emulator.rest import json_response, read_json

_CONNECT_SECONDS = range(301)
_RESPONSE_SECONDS = range(5, 301)
_MAX_PAYLOAD_BYTES = 128 * 1024


class MethodError(HubError):
    """An error of a method call: its numbered form stands as a string inside the hub's usual one."""

    def __init__(self, number: int, code: str, text: str, seconds: int | None = None) -> None:
        super().__init__(number // 1000, code, text)
        self._number = number
        self._info = {} if seconds is None else {"timeout": f"00:{seconds // 60:02}:{seconds % 60:02}"}

    def envelope(self, now: float) -> dict[str, str]:
        numbered = {
            "errorCode": self._number,
            "trackingId": secrets.token_hex(16),
            "message": self.text,
            "info": self._info,
            "timestampUtc": twin_time(now),
        }
        return {"Message": json.dumps(numbered), "ExceptionMessage": ""}


@dataclass(frozen=True)
class MethodCall:
    """What is asked of a device."""

    name: str
    payload: bytes
    connect_seconds: int
    response_seconds: int

    @classmethod
    def parse(cls, body: object) -> "MethodCall":
        """Read the body of a call. Raises HubError 400."""
        if not isinstance(body, dict):
            raise argument_invalid("the body is not a JSON object")
        name = body.get("methodName")
        if not isinstance(name, str) or not name or len(name) > 100:
            raise argument_invalid("methodName is not a string of 1 to 100 characters")
        payload = json.dumps(body.get("payload")).encode()
        if len(payload) > _MAX_PAYLOAD_BYTES:
            raise argument_invalid(f"payload is larger than {_MAX_PAYLOAD_BYTES} bytes")
        return cls(
            name,
            payload,
            _seconds(body, "connectTimeoutInSeconds", _CONNECT_SECONDS, 0),
            _seconds(body, "responseTimeoutInSeconds", _RESPONSE_SECONDS, 30),
        )


def _seconds(body: Mapping[str, Any], member: str, allowed: range, default: int) -> int:
    value = body.get(member)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
        raise argument_invalid(f"{member} is not within {allowed[0]} and {allowed[-1]}")
    return value


@asynccontextmanager
async def _run(context: Context) -> AsyncIterator[None]:
    async def invoke(request: web.Request) -> web.Response:
        key = request.match_info["id"], request.match_info.get("mid", "")
        call = MethodCall.parse(await read_json(request))
        await context.store.run(lambda database: registry.get_identity(database, *key))
        answer = await call_device(context, key, call)
        try:
            payload = json.loads(answer.payload) if answer.payload.strip() else None
        except ValueError:
            raise MethodError(
                502000, "BadDeviceResponse", "The payload that the device answered is not JSON."
            ) from None
        return json_response({"status": answer.status, "payload": payload})

    for path in ("/twins/{id}/methods", "/twins/{id}/modules/{mid}/methods"):
        context.rest.add_route("POST", path, Right.SERVICE_CONNECT, invoke, operation=OperationClass.METHOD)
    yield


async def call_device(context: Context, key: Key, call: MethodCall) -> MethodAnswer:
    """Call a registered identity. Raises MethodError."""
    offline = MethodError(
        404103, "DeviceNotOnline", "Timed out waiting for device to connect.", call.connect_seconds
    )
    answer = await context.connections.call_method(key, call.name, call.payload, call.connect_seconds)
    if answer is None:
        raise offline
    try:
        async with asyncio.timeout(call.response_seconds):
            return await answer
    except ConnectionError:
        raise offline from None
    except TimeoutError:
        raise MethodError(
            504101,
            "GatewayTimeout",
            "Timed out waiting for the response from device.",
            call.response_seconds,
        ) from None


FEATURE = Feature(_run)
