# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A client for the API of a cluster; who asks, and where, is said by `k3s_api`.

It is for modules that run on a machine, which has Python and nothing else: only the standard library is used.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

_MERGE_PATCH = "application/merge-patch+json"


class KubeError(Exception):
    """A call without the answer that was wanted.

    status:  HTTP status; 0 when there was no answer at all.
    reason:  the API's word for it, such as NotFound or Conflict.
    message: for people.
    body:    the Status object, empty when there is none.
    text:    the whole answer; message is cut.
    """

    def __init__(
        self, status: int, reason: str, message: str, body: Mapping[str, Any] | None = None, text: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.body: Mapping[str, Any] = body or {}
        self.text = text


class KubeApi:
    """One kept-alive connection. timeout: seconds that a call may take."""

    def __init__(self, context: ssl.SSLContext, address: str, port: int, timeout: float = 10.0) -> None:
        self._context = context
        self._place = (address, port)
        self._timeout = timeout
        self._connection: http.client.HTTPSConnection | None = None

    def get(self, path: str, **query: str) -> dict[str, Any]:
        return self.call("GET", path, query=query)

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Return all objects of a list, page by page."""
        found: list[dict[str, Any]] = []
        proceed = ""
        while True:
            page = self.get(path, limit="500", **query, **({"continue": proceed} if proceed else {}))
            found += page.get("items") or []
            proceed = (page.get("metadata") or {}).get("continue") or ""
            if not proceed:
                return found

    def patch(self, path: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """Send a JSON merge patch: a null deletes."""
        return self.call("PATCH", path, change, _MERGE_PATCH)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self.call("POST", path, body)

    def delete(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self.call("DELETE", path, body)

    def find(self, path: str) -> dict[str, Any] | None:
        """Return the object, or None when there is none."""
        try:
            return self.get(path)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    def text(self, path: str) -> str:
        """Return an answer that is no JSON, as that of /readyz."""
        return self.send("GET", path, None, {})[1].decode("utf-8", "replace")

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        if query:
            path = f"{path}?{urlencode(query)}"
        raw = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json"}
        if raw is not None:
            headers["Content-Type"] = content_type
        return _parsed(*self.send(method, path, raw, headers))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def send(
        self, method: str, path: str, raw: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Return status and answer as they come; raises KubeError for an answer that is an error."""
        fresh = self._connection is None
        try:
            status, answer = self._once(method, path, raw, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            # A kept connection may have been closed meanwhile. What only reads can be asked again.
            if fresh or method != "GET":
                raise KubeError(0, "Unreachable", self._unreachable(error)) from error
            return self.send(method, path, raw, headers)
        if status >= 400:
            raise error_of(status, answer)
        return status, answer

    def _once(
        self, method: str, path: str, raw: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(
                *self._place, timeout=self._timeout, context=self._context
            )
        self._connection.request(method, path, body=raw, headers=dict(headers))
        response = self._connection.getresponse()
        return response.status, response.read()

    def _unreachable(self, error: BaseException) -> str:
        address, port = self._place
        return f"the API at {address}:{port} does not answer: {error or type(error).__name__}"


def _parsed(status: int, answer: bytes) -> dict[str, Any]:
    try:
        body = json.loads(answer)
    except ValueError as error:
        raise KubeError(status, "NoJSON", f"the API answered {answer[:200]!r}") from error
    return body if isinstance(body, dict) else {"items": body}


def error_of(status: int, answer: bytes) -> KubeError:
    """Return the error that an answer tells of; the API sends a Status, what stands before it any text."""
    try:
        body = json.loads(answer)
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    text = answer.decode("utf-8", "replace")
    message = str(body.get("message") or text[:200].strip())
    return KubeError(status, str(body.get("reason") or ""), f"HTTP {status}: {message}", body, text)


class Patience:
    """A limit in seconds, and short pauses until it is reached."""

    def __init__(self, limit: float, pause: float = 1.0) -> None:
        self._start = time.monotonic()
        self._limit = limit
        self._pause = pause

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def is_left(self) -> bool:
        return self.elapsed < self._limit

    def pause(self) -> None:
        time.sleep(max(0.0, min(self._pause, self._limit - self.elapsed)))
