# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The device's own door to IoT Hub: module identities over HTTPS, with the device's own credential.

REST paths and the rule that `PUT` replaces the whole identity: "Azure IoT Hub service API, modules". Devices
may manage their own modules with their own credentials, as Azure's identity service does.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import json
import logging
import random
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from . import metrics
from .credential import Credential, quoted
from .hub_errors import HubError, HubUnavailableError
from .logs import fields
from .settings import Settings

API_VERSION = "2021-04-12"
ATTEMPTS = 4
# Where the hub answers and asks to come back later: some 30 s. A stock edgeAgent does not ask again for an
# identity that it could not have once, until its deployment or its modules change.
ATTEMPTS_ANSWERED = 7
REQUEST_TIMEOUT = 15.0
PARALLEL = 4
MAX_ANSWER = 256 * 1024
# A hub refuses tokens of a clock that is this far off; below it is not worth a word.
CLOCK_TOLERANCE = 120.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """A module identity as the hub holds it; keys in base64, empty when the hub shows none."""

    module_id: str
    generation_id: str
    primary_key: str
    secondary_key: str


class HubClient:
    """Module identities of one device. Every call makes at most `ATTEMPTS` requests with growing pauses, and
    `ATTEMPTS_ANSWERED` while the hub answers.

    The credential is looked at for each request, so a rotated Secret works without a restart.
    """

    def __init__(
        self,
        settings: Settings,
        credential: Credential,
        *,
        clock: Callable[[], float] = time.time,
        pause: float = 0.5,
    ) -> None:
        self._host = settings.iothub_hostname
        # A gateway above this one passes calls on; they are still signed for the hub.
        self._door = settings.parent_hostname or settings.iothub_hostname
        self._called = (
            f"parent gateway {self._door}" if settings.parent_hostname else f"hub {settings.iothub_hostname}"
        )
        self._device = settings.device_id
        self._credential = credential
        self._proxy = settings.proxy_for(self._door)
        self._clock = clock
        self._pause = pause
        # edgeAgent asks for all modules of a deployment at once, and waiting is none of the hub's time.
        self._slots = asyncio.Semaphore(PARALLEL)
        # A connection stands for the certificate that it was opened with, so a renewed one needs others.
        connector = (
            aiohttp.TCPConnector(ssl=credential.tls, limit=PARALLEL, force_close=True)
            if credential.is_certificate
            else aiohttp.TCPConnector(ssl=credential.tls, limit=PARALLEL, keepalive_timeout=30)
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, connect=REQUEST_TIMEOUT / 2),
            trust_env=False,  # the proxy comes from the settings, with their no_proxy rules
        )

    async def close(self) -> None:
        await self._session.close()

    async def get_module(self, module: str) -> Identity | None:
        """The identity at the hub, None when there is none."""
        status, body = await self._request("GET", module, accept=(200, 404))
        return None if status == 404 else self._identity(module, body)

    async def create_module(self, module: str) -> Identity:
        """Make the identity; the hub gives it keys and a generation. One that exists is read instead."""
        document = {"deviceId": self._device, "moduleId": module, "managedBy": "IotEdge"}
        status, body = await self._request("PUT", module, document, accept=(200, 201, 409))
        if status != 409:
            return self._identity(module, body)
        identity = await self.get_module(module)
        if identity is None:
            raise HubUnavailableError(
                f"{self._called}: module {module} exists and does not; asking again later"
            )
        return identity

    async def set_keys(self, module: str, primary: bytes, secondary: bytes) -> Identity:
        """Give an existing identity these keys (32 bytes each)."""
        document = {
            "deviceId": self._device,
            "moduleId": module,
            "managedBy": "IotEdge",
            "authentication": {
                "type": "sas",
                "symmetricKey": {
                    "primaryKey": base64.b64encode(primary).decode(),
                    "secondaryKey": base64.b64encode(secondary).decode(),
                },
            },
        }
        _status, body = await self._request("PUT", module, document, accept=(200, 201), if_match=True)
        return self._identity(module, body)

    async def delete_module(self, module: str) -> None:
        """Remove the identity; one that is gone already is fine."""
        await self._request("DELETE", module, accept=(200, 204, 404), if_match=True)

    def _identity(self, module: str, body: bytes) -> Identity:
        try:
            document: Mapping[str, Any] = json.loads(body)
            keys = (document.get("authentication") or {}).get("symmetricKey") or {}
            return Identity(
                module_id=str(document["moduleId"]),
                generation_id=str(document["generationId"]),
                primary_key=str(keys.get("primaryKey") or ""),
                secondary_key=str(keys.get("secondaryKey") or ""),
            )
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise HubError(
                f"{self._called} answered no module identity for {module}. Is this host an IoT Hub, or "
                "does a proxy answer in its place?"
            ) from error

    async def _request(
        self,
        method: str,
        module: str,
        document: Mapping[str, object] | None = None,
        *,
        accept: tuple[int, ...],
        if_match: bool = False,
    ) -> tuple[int, bytes]:
        if not module.strip("."):
            # In a path such a name is a step upwards: what is asked for would be the device itself.
            raise HubError(f"{module!r} is no module id")
        path = f"devices/{quoted(self._device)}/modules/{quoted(module)}"
        url = f"https://{self._door}/{path}?api-version={API_VERSION}"
        last, answered = "", False
        for attempt in range(ATTEMPTS_ANSWERED):
            if attempt >= ATTEMPTS and not answered:
                break
            if attempt:
                await asyncio.sleep(self._pause * 2 ** (attempt - 1) * random.uniform(0.7, 1.3))  # noqa: S311 - spreads retries, protects nothing
            headers = self._credential.headers(f"{self._host}/devices/{self._device}", self._clock())
            if if_match:
                headers["If-Match"] = '"*"'
            try:
                async with (
                    self._slots,
                    self._session.request(
                        method,
                        # Encoded already: a module id may hold characters that must not be decoded here.
                        URL(url, encoded=True),
                        json=document,
                        headers=headers,
                        proxy=self._proxy,
                        allow_redirects=False,
                    ) as response,
                ):
                    body = await whole(response)
                    metrics.HUB_REQUESTS.labels(method, response.status).inc()
                    if response.status in accept:
                        return response.status, body
                    reason = self._reason(response, body)
                    if response.status != 429 and response.status < 500:
                        raise HubError(reason)
                    last, answered = reason, True
            except aiohttp.ClientConnectorCertificateError as error:
                raise HubError(
                    f"{self._called}: its certificate is not trusted ({error.certificate_error}). Put the "
                    "CA into the trust bundle, or correct the host name"
                ) from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                metrics.HUB_REQUESTS.labels(method, "").inc()
                answered = False
                last = no_answer(self._called, self._proxy, error)
            _log.info("hub request failed", extra=fields(method=method, module=module, reason=last))
        raise HubUnavailableError(last)

    def _reason(self, response: aiohttp.ClientResponse, body: bytes) -> str:
        code = response.headers.get("iothub-errorcode", "")
        if not code:
            try:
                code = str(json.loads(body).get("Message", ""))[:200]
            except (ValueError, AttributeError):
                code = ""
        said = f"{self._called} answered {response.status} {code}".strip()
        if response.status == 401:
            return f"{said} for device {self._device}: {self._unauthorized(response)}"
        if response.status == 403:
            return f"{said}: quota used up, or the hub's tier or network rules do not allow this"
        if response.status == 404:
            return (
                f"{said}: device {self._device} does not exist at this hub. Register it, or correct the name"
            )
        return said

    def _unauthorized(self, response: aiohttp.ClientResponse) -> str:
        try:
            there = email.utils.parsedate_to_datetime(response.headers.get("Date", _EPOCH)).timestamp()
        except (ValueError, OverflowError):
            there = 0.0
        offset = self._clock() - there
        if there and abs(offset) > CLOCK_TOLERANCE:
            return f"the clock of this node is {offset:+.0f} s off the hub's. Correct the node's time"
        # The hub answers the same for a wrong key, a disabled device and one that does not exist.
        return f"{self._credential.doubts()}, or the device is disabled or missing at the hub"


def no_answer(called: str, proxy: str | None, error: Exception) -> str:
    """Why `called` gave no answer: itself, or the proxy (URL) on the way, with what to do about that."""
    reason = str(error) or type(error).__name__
    if proxy is None:
        return f"{called} does not answer: {reason}"
    name = _without_password(proxy)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        fix = "Have the proxy let this gateway through"
        if error.status == 407:
            fix += " without a login, which the daemon has none for"
        return (
            f"{called}: proxy {name} refuses the way there with {error.status} {error.message}. {fix}, or "
            "name another one in network.httpsProxy, or the host in network.noProxy"
        )
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return (
            f"{called}: proxy {name} cannot be reached: {error.strerror or reason}. Start it, or correct "
            "network.httpsProxy, or name the host in network.noProxy"
        )
    return f"{called} through proxy {name} does not answer: {reason}"


async def whole(answer: aiohttp.ClientResponse) -> bytes:
    """The body of an answer, the first MAX_ANSWER bytes of it; one read gives what came so far."""
    found = bytearray()
    while len(found) < MAX_ANSWER and (part := await answer.content.read(MAX_ANSWER - len(found))):
        found += part
    return bytes(found)


_EPOCH = "Thu, 01 Jan 1970 00:00:00 GMT"


def _without_password(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
