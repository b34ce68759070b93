# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A thin client for JSON services of Azure: one kept-alive TLS connection for each thread.

IoT Hub, DPS and Azure Resource Manager are spoken to with it. Only the standard library is used: importing
Microsoft's client costs a third of a second in every task, and it opens a new connection for every call.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlencode, urlsplit

from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_auth

# A throttled hub queues a call before it refuses it: 3.2 s was seen on a free hub, so be patient.
DEFAULT_TIMEOUT_SECONDS = 30.0
# The hub's 429 carries no Retry-After; its text says "wait 10 seconds".
THROTTLE_WAIT_SECONDS = 10.0
DEFAULT_RETRY_BUDGET_SECONDS = 180.0
# Answers that mean "ask again": throttled, and the hub's own transient errors.
RETRY_STATUS = frozenset({429, 500, 502, 503, 504})


class ServiceError(Exception):
    """Anything that kept a call from its answer. service: what is called and where, for people."""

    def __init__(self, service: str, fact: str) -> None:
        super().__init__(f"{service}: {fact}")
        self.service = service
        self.fact = fact


class ServiceUnreachable(ServiceError):  # noqa: N818 - named after the state an operator knows, not after "Error"
    """No connection: name not found, refused, no route, or no answer in time."""


class ServiceUntrusted(ServiceError):  # noqa: N818 - as above
    """The TLS handshake failed because the certificate is not trusted or names another host."""


class ServiceResponseError(ServiceError):
    """The service answered with an error.

    status:       HTTP status.
    code:         the service's name for the error, such as DeviceNotFound.
    clock_offset: see Response.
    retry_after:  seconds the service asks to wait, None when it does not say.
    body:         the parsed answer, None when it is no JSON.
    """

    def __init__(
        self,
        service: str,
        status: int,
        code: str,
        message: str,
        *,
        clock_offset: float | None = None,
        retry_after: float | None = None,
        body: Any = None,
    ) -> None:
        super().__init__(service, f"HTTP {status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.clock_offset = clock_offset
        self.retry_after = retry_after
        self.body = body


@dataclass(frozen=True)
class Response:
    """An answer with a status below 300. body: parsed JSON or None. headers: lower-case names.

    clock_offset: seconds the hub's clock is ahead of ours, None when the answer has no Date; the header has
    whole seconds, so half a second is the best it can tell.
    """

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    clock_offset: float | None = None


def quote_etag(etag: str) -> str:
    """Return the etag in double quotes, as If-Match wants it (configurations ignore an unquoted one).

    ``*`` means any version and stays as it is.
    """
    return etag if etag == "*" or (len(etag) > 1 and etag[0] == etag[-1] == '"') else f'"{etag}"'


def parse_error(status: int, headers: Mapping[str, str], raw: bytes) -> tuple[str, str]:
    """Return (code, message) of an error answer.

    The hub has two envelopes, ``{"Message": "ErrorCode:Name;text", "ExceptionMessage": ...}`` and
    ``{"errorCode": 404103, "message": ...}``, the second sometimes as text inside the first; Azure Resource
    Manager has ``{"error": {"code": ..., "message": ...}}``. The header
    ``iothub-errorcode`` is the most reliable source of the name.
    """
    code = headers.get("iothub-errorcode", "")
    try:
        body = json.loads(raw) if raw else {}
    except ValueError:
        body = {"message": raw.decode("utf-8", "replace")[:300]}
    if not isinstance(body, dict):
        body = {"message": str(body)[:300]}
    if isinstance(body.get("error"), dict):
        body = {"errorCode": body["error"].get("code"), "message": body["error"].get("message")}
    message = str(body.get("Message") or body.get("message") or "")
    if message.startswith("{"):
        try:
            inner = json.loads(message)
        except ValueError:
            inner = None
        if isinstance(inner, dict):
            body, message = inner, str(inner.get("message") or inner.get("Message") or message)
    if message.startswith("ErrorCode:"):
        name, _separator, rest = message.removeprefix("ErrorCode:").partition(";")
        code, message = code or name, rest
    if not code:
        code = str(body.get("errorCode") or http.client.responses.get(status, "error").replace(" ", ""))
    return code, message.strip() or "no message"


def clock_offset(headers: Mapping[str, str], sent: float, received: float) -> float | None:
    """Return how many seconds the hub's Date is ahead of the middle of the call, None without a Date."""
    try:
        hub = parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None
    # Date is cut to whole seconds: on average the hub's clock is half a second further.
    return hub + 0.5 - (sent + received) / 2


class Credential(Protocol):
    """What signs calls."""

    def authorization(self, hostname: str, now: float, /) -> tuple[str, float]:
        """Return the value of the header Authorization, and until when it is good.

        hostname: the service, with its port if any. now and the end: Unix time in seconds.
        Raises iothub_auth.CredentialError when there is none to be had.
        """


class RestClient:
    """Calls one service. Safe to use from several threads; every thread has its own connection.

    A subclass sets SERVICE, the name that stands in errors, and API_VERSION.

    hostname:     such as ``NAME.azure-devices.net``, or ``HOST:PORT``.
    credential:   what signs the calls.
    ca_file:      PEM file trusted in addition to the system's authorities.
    timeout:      seconds for a connection and for an answer.
    retry_budget: seconds that one call may spend on waiting for a throttled or failing hub.
    Environment variables https_proxy and no_proxy are honoured.
    Raises ServiceUntrusted when ca_file cannot be loaded.
    """

    SERVICE = "service"
    API_VERSION = ""

    def __init__(
        self,
        hostname: str,
        credential: Credential,
        *,
        ca_file: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        retry_budget: float = DEFAULT_RETRY_BUDGET_SECONDS,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.hostname = hostname
        self.service = f"{self.SERVICE} {hostname}"
        self._credential = credential
        self._timeout = timeout
        self.retry_budget = retry_budget
        self._now = now
        self.sleep = sleep
        self._local = threading.local()
        self._token_lock = threading.Lock()
        self._token = ""
        self._token_expiry = 0.0
        # Seconds the service's clock is ahead of ours, as of the last answer of any kind.
        self.clock_offset: float | None = None
        try:
            self._context = ssl.create_default_context()
            if ca_file:
                self._context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ServiceUntrusted(self.service, f"cannot load the CA file {ca_file}: {error}") from error

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        if_match: str | None = None,
    ) -> Response:
        """Send one call and return its answer.

        path: already encoded, see `segment`. if_match: an etag (quoted here) or ``*``.
        query may name another api-version than the client's own.
        A throttled call (429) and a transient server error are repeated with growing, jittered waits until
        retry_budget seconds are spent. Raises ServiceUnreachable, ServiceUntrusted or ServiceResponseError.
        """
        url = f"{path}?{urlencode({'api-version': self.API_VERSION, **(query or {})})}"
        payload = None if body is None else json.dumps(body).encode()
        send = {"Accept": "application/json", "User-Agent": "edgeha.iotedge", **(headers or {})}
        if payload is not None:
            send["Content-Type"] = "application/json; charset=utf-8"
        if if_match is not None:
            send["If-Match"] = quote_etag(if_match)

        waited, attempt = 0.0, 0
        while True:
            try:
                return self._once(method, url, payload, send)
            except ServiceResponseError as error:
                if error.status not in RETRY_STATUS:
                    raise
                pause = self.pause(error.status, attempt, error.retry_after)
                if waited + pause > self.retry_budget:
                    raise
                self.sleep(pause)
                waited += pause
                attempt += 1

    @staticmethod
    def pause(status: int, attempt: int, retry_after: float | None = None) -> float:
        """Return how many seconds to wait before a call is repeated for the attempt-th time (from 0)."""
        base = THROTTLE_WAIT_SECONDS if status == 429 else min(2.0**attempt, THROTTLE_WAIT_SECONDS)
        # Jitter only adds: a client that comes back too early is counted against its limit again.
        return (base if retry_after is None else retry_after) * (1 + random.random() / 2)  # noqa: S311 - not a secret

    def _once(self, method: str, url: str, payload: bytes | None, headers: Mapping[str, str]) -> Response:
        signed = {**headers, "Authorization": self._authorization()}
        for last_try in (False, True):
            connection, fresh = self._connection()
            sent = self._now()
            try:
                connection.request(method, url, body=payload, headers=signed)
                answer = connection.getresponse()
                raw = answer.read()
            except (http.client.HTTPException, OSError) as error:
                self.close()
                # A kept connection may have been closed by the hub meanwhile; only then is a repeat harmless
                # (a PUT that did arrive is recognised by its etag, or by 409 on creation).
                if not fresh and not last_try and isinstance(error, ConnectionError):
                    continue
                raise self._connection_error(error) from error
            names = {name.lower(): value for name, value in answer.getheaders()}
            offset = clock_offset(names, sent, self._now())
            if offset is not None:
                self.clock_offset = offset
            if answer.will_close:
                self.close()
            if answer.status < 300:
                return Response(answer.status, self._json(raw, answer.status), names, offset)
            raise ServiceResponseError(
                self.service,
                answer.status,
                *parse_error(answer.status, names, raw),
                clock_offset=offset,
                retry_after=_seconds(names.get("retry-after")),
                body=_json_or_none(raw),
            )
        raise AssertionError("unreachable: the second try either answers or raises")

    def _json(self, raw: bytes, status: int) -> Any:
        if not raw:
            return None
        try:
            return json.loads(raw)
        except ValueError as error:
            raise ServiceUnreachable(
                self.service, f"the answer (HTTP {status}) is not JSON: something else answers there"
            ) from error

    def _connection_error(self, error: Exception) -> ServiceError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return ServiceUntrusted(
                self.service, f"its TLS certificate is not trusted: {error.verify_message}"
            )
        if isinstance(error, ssl.SSLError):
            return ServiceUntrusted(self.service, f"the TLS handshake failed: {error.reason or error}")
        if isinstance(error, socket.gaierror):
            return ServiceUnreachable(self.service, "the name cannot be resolved")
        if isinstance(error, TimeoutError):
            return ServiceUnreachable(self.service, f"no answer within {self._timeout:g} s")
        return ServiceUnreachable(self.service, f"no connection: {error}")

    def _authorization(self) -> str:
        with self._token_lock:
            now = self._now()
            if now > self._token_expiry - iothub_auth.RENEW_BEFORE_SECONDS:
                self._token, self._token_expiry = self._credential.authorization(self.hostname, now)
            return self._token

    def _connection(self) -> tuple[http.client.HTTPSConnection, bool]:
        kept: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if kept is not None:
            return kept, False
        split = urlsplit(f"//{self.hostname}")
        host, port = split.hostname or self.hostname, split.port or 443
        proxy = urllib.request.getproxies().get("https")
        if proxy and not urllib.request.proxy_bypass(host):
            via = urlsplit(proxy if "//" in proxy else f"//{proxy}")
            connection = http.client.HTTPSConnection(
                via.hostname or "", via.port or 8080, timeout=self._timeout, context=self._context
            )
            login = None
            if via.username:
                text = f"{unquote(via.username)}:{unquote(via.password or '')}"
                login = {"Proxy-Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}
            connection.set_tunnel(host, port, headers=login)
        else:
            connection = http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._context)
        self._local.connection = connection
        return connection, True

    def close(self) -> None:
        """Close this thread's connection; the next call opens a new one."""
        kept: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if kept is not None:
            kept.close()
            self._local.connection = None


def segment(text: str) -> str:
    """Return text as one segment of a URL path (device ids may hold ``#``, ``%``, ``?``...)."""
    return quote(text, safe="")


def _json_or_none(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def as_object(body: Any) -> dict[str, Any]:
    """Return a parsed answer that should be an object; empty when it is none."""
    return dict(body) if isinstance(body, dict) else {}


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None
