# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon's workload API, as far as edgeHub uses it."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import aiohttp

TOKEN_SECONDS = 3600
CERTIFICATE_DAYS = 30
# The one vector of edgeHub: the daemon's cipher takes no harm by that.
_VECTOR = base64.b64encode(b"edgeHub").decode()


class WorkloadError(Exception):
    """The daemon refused, and the message is its own; or it did not answer."""


class Workload:
    """Signs, seals and gets certificates for one module."""

    def __init__(self, uri: str, module: str, generation: str, version: str) -> None:
        self._module = f"/modules/{quote(module, safe='')}/genid/{quote(generation, safe='')}"
        self._uri = uri.rstrip("/")
        self._query = {"api-version": version}
        # On this pod's loopback, whatever the environment says of proxies.
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=20), trust_env=False, raise_for_status=False
        )

    async def close(self) -> None:
        await self._session.close()

    async def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        url = f"{self._uri}{path}"
        try:
            async with self._session.request(method, url, params=self._query, json=body) as answer:
                document: dict[str, Any] = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise WorkloadError(f"no answer of use: {type(error).__name__}: {error}") from error
        if answer.status >= 400:
            raise WorkloadError(f"{answer.status}: {document.get('message')}")
        return document

    async def token(self, resource: str) -> str:
        """A shared access signature of this module for `resource`."""
        encoded, expiry = quote(resource, safe=""), int(time.time()) + TOKEN_SECONDS
        data = base64.b64encode(f"{encoded}\n{expiry}".encode()).decode()
        body = {"keyId": "primary", "algo": "HMACSHA256", "data": data}
        digest = (await self._call("POST", f"{self._module}/sign", body))["digest"]
        return f"SharedAccessSignature sr={encoded}&sig={quote(digest, safe='')}&se={expiry}"

    async def server_certificate(self, host: str) -> tuple[str, str, datetime]:
        """Chain and key (PEM) of a certificate for `host`, and when it ends."""
        until = (datetime.now(UTC) + timedelta(days=CERTIFICATE_DAYS)).isoformat()
        body = {"commonName": host, "expiration": until}
        found = await self._call("POST", f"{self._module}/certificate/server", body)
        key = found["privateKey"]["bytes"]
        return found["certificate"], key, datetime.fromisoformat(found["expiration"])

    async def trust_bundle(self) -> str:
        """Certificates (PEM) of the authorities to trust; empty for those of the system."""
        return str((await self._call("GET", "/trust-bundle"))["certificate"])

    async def seal(self, text: str) -> str:
        """Encrypt a text, so that only this module on this gateway reads it again."""
        plaintext = base64.b64encode(text.encode()).decode()
        body = {"plaintext": plaintext, "initializationVector": _VECTOR}
        return str((await self._call("POST", f"{self._module}/encrypt", body))["ciphertext"])

    async def unseal(self, sealed: str) -> str:
        """Decrypt what `seal` made. Raises WorkloadError for anything else."""
        body = {"ciphertext": sealed, "initializationVector": _VECTOR}
        plaintext = (await self._call("POST", f"{self._module}/decrypt", body))["plaintext"]
        return base64.b64decode(plaintext).decode()
