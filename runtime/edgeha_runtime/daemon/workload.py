# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workload API 2020-07-07 of IoT Edge, for modules in other pods.

Contract: Azure/iotedge, edgelet/api, workloadVersion_2020_07_07. Answered are `sign` and `trust-bundle`; the
other routes of the contract answer 501. Every error has the contract's ErrorResponse body.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, Protocol

from aiohttp import web

from .callers import Caller, CallerRefusedError, Callers, ReviewUnavailableError, log_refusal
from .trust import TrustBundle

# What stock clients send; a newer version of the contract keeps these routes.
API_VERSIONS = frozenset(
    (
        "2018-06-28",
        "2019-01-30",
        "2019-10-22",
        "2019-11-05",
        "2020-07-07",
        "2020-10-10",
        "2021-12-07",
        "2022-08-03",
    )
)
MAX_BODY = 64 * 1024
BODY_TIMEOUT = 10.0

_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Keys(Protocol):
    """The part of the key store that signing needs."""

    @property
    def identities(self) -> Mapping[str, str]: ...

    def module_key(self, module: str, generation: str, which: Literal["primary", "secondary"]) -> bytes: ...


class ApiError(Exception):
    """An answer of the contract other than success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def error_response(status: int, message: str) -> web.Response:
    """The contract's ErrorResponse."""
    return web.json_response({"message": message}, status=status)


@web.middleware
async def _errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Turn everything that is raised into the contract's ErrorResponse."""
    try:
        return await handler(request)
    except ApiError as error:
        return error_response(error.status, str(error))
    except web.HTTPRequestEntityTooLarge:
        return error_response(413, f"the body is larger than {MAX_BODY} bytes")
    except web.HTTPNotFound:
        return error_response(404, f"no route {request.path} in the workload API")
    except web.HTTPMethodNotAllowed as error:
        return error_response(
            405, f"{request.method} is not allowed, {', '.join(sorted(error.allowed_methods))} is"
        )
    except web.HTTPException as error:
        return error_response(error.status, error.reason)
    except Exception:
        # The daemon stays up whatever a caller sends; the line below is the bug report.
        _log.exception("request failed")
        return error_response(500, "internal error, see the daemon's log")


class WorkloadApi:
    """The routes, for the callers that `callers` knows."""

    def __init__(self, callers: Callers, keys: Keys, trust: TrustBundle) -> None:
        self._callers = callers
        self._keys = keys
        self._trust = trust

    def application(self) -> web.Application:
        """The aiohttp application with all routes of the contract."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_errors, self._authenticate])
        module, generation = "/modules/{name}", "/modules/{name}/genid/{genid}"
        app.add_routes(
            [
                web.post(f"{generation}/sign", self._sign),
                web.get("/trust-bundle", self._trust_bundle, allow_head=False),
                web.get("/modules", self._not_implemented, allow_head=False),
                web.get("/manifest-trust-bundle", self._not_implemented, allow_head=False),
                web.post(f"{generation}/encrypt", self._not_implemented),
                web.post(f"{generation}/decrypt", self._not_implemented),
                web.post(f"{module}/certificate/identity", self._not_implemented),
                web.post(f"{generation}/certificate/server", self._not_implemented),
            ]
        )
        return app

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            caller = await self._callers.identify(request.headers.get("Authorization"))
        except CallerRefusedError as error:
            log_refusal(error.status, str(error), path=request.raw_path, peer=request.remote)
            raise ApiError(error.status, str(error)) from None
        except ReviewUnavailableError as error:
            log_refusal(503, str(error), path=request.raw_path, peer=request.remote)
            raise ApiError(503, "the cluster's API cannot be asked who calls; try again") from None
        if request.match_info.http_exception is None:
            version = request.query.get("api-version")
            if version not in API_VERSIONS:
                asked = "missing" if version is None else f"{version[:32]!r} is not known"
                raise ApiError(400, f"api-version {asked}; use 2020-07-07")
            self._own_only(request, caller)
        return await handler(request)

    def _own_only(self, request: web.Request, caller: Caller) -> None:
        """A module reaches its own name and generation; all else is refused without saying what exists."""
        name, generation = request.match_info.get("name"), request.match_info.get("genid")
        wrong = name is not None and name != caller.module
        if not wrong and generation is not None:
            wrong = generation != self._keys.identities.get(caller.module)
        if wrong:
            reason = f"module {caller.module} may use its own name and generation only"
            log_refusal(403, reason, path=request.raw_path, peer=request.remote, caller=caller)
            raise ApiError(403, reason)

    async def _sign(self, request: web.Request) -> web.Response:
        document = await _json_body(request)
        for name in ("keyId", "algo", "data"):
            if not isinstance(document.get(name), str):
                raise ApiError(400, f"{name} is missing or not a string")
        if document["algo"] != "HMACSHA256":
            raise ApiError(400, "algo must be HMACSHA256")
        try:
            data = base64.b64decode(str(document["data"]), validate=True)
        except (binascii.Error, ValueError):
            raise ApiError(400, "data is not base64") from None
        # Stock daemons sign with the module's one key whatever keyId says; clients send "primary".
        name, generation = request.match_info["name"], request.match_info["genid"]
        key = self._keys.module_key(name, generation, "primary")
        digest = base64.b64encode(hmac.digest(key, data, "sha256")).decode()
        return web.json_response({"digest": digest})

    async def _trust_bundle(self, _request: web.Request) -> web.Response:
        # The contract calls it base64 of PEM; stock daemons send the PEM text and clients load it as such.
        return web.json_response({"certificate": self._trust.pem})

    async def _not_implemented(self, request: web.Request) -> web.Response:
        raise ApiError(501, f"{request.method} {request.path} is not implemented by this daemon yet")


async def _json_body(request: web.Request) -> dict[str, object]:
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            raw = await request.read()
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {BODY_TIMEOUT:g} s") from None
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON") from None
    if not isinstance(document, dict):
        raise ApiError(400, "the body is not a JSON object")
    return document
