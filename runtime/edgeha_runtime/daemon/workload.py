# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workload API 2020-07-07 of IoT Edge, for modules in other pods.

Contract: Azure/iotedge, edgelet/api, workloadVersion_2020_07_07. Every error has its ErrorResponse body.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, Protocol

from aiohttp import web

from . import sealing
from .authority import AuthorityError, EdgeCa, Issued, NameRefusedError
from .callers import Caller, Callers
from .http_api import CALLER, ApiError, application, json_body, refused, text
from .trust import TrustBundle


class Keys(Protocol):
    """The part of the key store that signing and encrypting need."""

    @property
    def identities(self) -> Mapping[str, str]: ...

    def module_key(self, module: str, generation: str, which: Literal["primary", "secondary"]) -> bytes: ...

    def encryption_key(self, module: str, generation: str) -> bytes: ...


class WorkloadApi:
    """The routes, for the callers that `callers` knows.

    `manifest_trust`: certificates (PEM) by which signed deployments are checked, empty where there are none.
    """

    def __init__(
        self, callers: Callers, keys: Keys, trust: TrustBundle, edge_ca: EdgeCa, manifest_trust: str = ""
    ) -> None:
        self._callers = callers
        self._keys = keys
        self._trust = trust
        self._edge_ca = edge_ca
        self._manifest_trust = manifest_trust

    def application(self) -> web.Application:
        """The aiohttp application with all routes of the contract."""
        app = application("workload", self._callers, self._own_only)
        module, generation = "/modules/{name}", "/modules/{name}/genid/{genid}"
        app.add_routes(
            [
                web.post(f"{generation}/sign", self._sign),
                web.get("/trust-bundle", self._trust_bundle, allow_head=False),
                web.get("/manifest-trust-bundle", self._manifest_trust_bundle, allow_head=False),
                web.get("/modules", self._list, allow_head=False),
                web.post(f"{generation}/encrypt", self._encrypt),
                web.post(f"{generation}/decrypt", self._decrypt),
                web.post(f"{module}/certificate/identity", self._identity_certificate),
                web.post(f"{generation}/certificate/server", self._server_certificate),
            ]
        )
        return app

    def _own_only(self, request: web.Request, caller: Caller) -> None:
        """A module reaches its own name and generation; all else is refused without saying what exists."""
        name, generation = request.match_info.get("name"), request.match_info.get("genid")
        wrong = name is not None and name != caller.module
        if not wrong and generation is not None:
            wrong = generation != self._keys.identities.get(caller.module)
        if wrong:
            reason = f"module {caller.module} may use its own name and generation only"
            raise refused(request, caller, 403, reason)

    async def _sign(self, request: web.Request) -> web.Response:
        document = await json_body(request)
        text(document, "keyId")
        if text(document, "algo") != "HMACSHA256":
            raise ApiError(400, "algo must be HMACSHA256")
        data = _bytes(document, "data")
        # Stock daemons sign with the module's one key whatever keyId says; clients send "primary".
        name, generation = request.match_info["name"], request.match_info["genid"]
        key = self._keys.module_key(name, generation, "primary")
        digest = base64.b64encode(hmac.digest(key, data, "sha256")).decode()
        return web.json_response({"digest": digest})

    async def _encrypt(self, request: web.Request) -> web.Response:
        document = await json_body(request)
        plaintext, vector = _bytes(document, "plaintext"), _vector(document)
        sealed = sealing.seal(self._encryption_key(request), plaintext, vector)
        return web.json_response({"ciphertext": base64.b64encode(sealed).decode()})

    async def _decrypt(self, request: web.Request) -> web.Response:
        document = await json_body(request)
        ciphertext, vector = _bytes(document, "ciphertext"), _vector(document)
        try:
            plaintext = sealing.unseal(self._encryption_key(request), ciphertext, vector)
        except sealing.SealError as error:
            raise ApiError(400, f"the ciphertext cannot be decrypted: {error}") from None
        return web.json_response({"plaintext": base64.b64encode(plaintext).decode()})

    def _encryption_key(self, request: web.Request) -> bytes:
        return self._keys.encryption_key(request.match_info["name"], request.match_info["genid"])

    async def _server_certificate(self, request: web.Request) -> web.Response:
        document = await json_body(request)
        common_name = text(document, "commonName")
        until = _expiration(document, required=True)
        try:
            issued = await self._edge_ca.server(request.match_info["name"], common_name, until)
        except NameRefusedError as error:
            raise ApiError(400, str(error)) from None
        except AuthorityError as error:
            raise ApiError(503, str(error)) from None
        return _certificate(issued)

    async def _identity_certificate(self, request: web.Request) -> web.Response:
        # Clients of some languages send no body where nothing in it is required.
        document = await json_body(request) if request.body_exists else {}
        until = _expiration(document, required=False)
        try:
            issued = await self._edge_ca.identity(request.match_info["name"], until)
        except AuthorityError as error:
            raise ApiError(503, str(error)) from None
        return _certificate(issued)

    async def _trust_bundle(self, _request: web.Request) -> web.Response:
        try:
            roots = await self._edge_ca.roots()
        except AuthorityError as error:
            raise ApiError(503, str(error)) from None
        # The contract calls it base64 of PEM; stock daemons send the PEM text and clients load it as such.
        return web.json_response({"certificate": self._trust.pem + roots})

    async def _manifest_trust_bundle(self, _request: web.Request) -> web.Response:
        # As stock daemons do, an empty text where there is none: edgeAgent then checks no signatures.
        return web.json_response({"certificate": self._manifest_trust})

    async def _list(self, request: web.Request) -> web.Response:
        # A module sees itself and no other. Its settings are the management API's to tell.
        name = request[CALLER].module
        module = {
            "id": name,
            "name": name,
            "type": "docker",
            "config": {"settings": {}},
            "status": {"runtimeStatus": {"status": "running"}},
        }
        return web.json_response({"modules": [module]})


def _certificate(issued: Issued) -> web.Response:
    document = {
        "privateKey": {"type": "key", "bytes": issued.key},
        "certificate": issued.chain,
        "expiration": issued.expiration.isoformat(),
    }
    return web.json_response(document, status=201)


def _bytes(document: Mapping[str, object], name: str) -> bytes:
    try:
        return base64.b64decode(text(document, name), validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, f"{name} is not base64") from None


def _vector(document: Mapping[str, object]) -> bytes:
    vector = _bytes(document, "initializationVector")
    if not vector:
        raise ApiError(400, "initializationVector is empty")
    return vector


def _expiration(document: Mapping[str, object], *, required: bool) -> datetime | None:
    """Until when a certificate is wanted; a time without a zone is UTC, as clients of .NET write it."""
    if not required and document.get("expiration") is None:
        return None
    try:
        found = datetime.fromisoformat(text(document, "expiration"))
        found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ApiError(400, "expiration is not a date and time of ISO 8601") from None
    if found <= datetime.now(UTC):
        raise ApiError(400, "expiration is in the past")
    return found
