# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the two APIs of IoT Edge share: versions, who calls, bodies, and the ErrorResponse of every error."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from aiohttp.typedefs import Middleware

from . import metrics
from .callers import Caller, CallerRefusedError, Callers, ReviewUnavailableError, log_refusal

# What stock clients send; a newer version of the contracts keeps the routes of the older ones.
API_VERSIONS = frozenset(
    (
        "2018-06-28",
        "2018-12-30",
        "2019-01-30",
        "2019-10-22",
        "2019-11-05",
        "2020-02-21",
        "2020-07-07",
        "2020-07-22",
        "2020-10-10",
        "2021-12-07",
        "2022-08-03",
    )
)
# A twin in base64, which is the largest that edgeHub encrypts, several times.
MAX_BODY = 1024 * 1024
BODY_SECONDS = 10.0

CALLER = web.RequestKey("caller", Caller)
_BODY_SECONDS = web.AppKey("body_seconds", float)

_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiError(Exception):
    """An answer of the contract other than success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def refused(request: web.Request, caller: Caller, status: int, reason: str) -> ApiError:
    """Log who was refused what, and return the error to raise."""
    log_refusal(status, reason, path=request.raw_path, peer=request.remote, caller=caller)
    return ApiError(status, reason)


def error_response(status: int, message: str) -> web.Response:
    """The contract's ErrorResponse."""
    return web.json_response({"message": message}, status=status)


def application(
    api: str,
    callers: Callers,
    allow: Callable[[web.Request, Caller], None],
    *,
    body_seconds: float = BODY_SECONDS,
) -> web.Application:
    """An application without routes; its handlers are called for known callers that `allow` does not refuse.

    `api` names it in messages. `allow` raises ApiError; what it says and all else that is raised become the
    contract's ErrorResponse. `body_seconds`: how long a body may take to arrive.
    """
    app = web.Application(
        client_max_size=MAX_BODY,
        middlewares=[_measured(api), _errors(api), _authenticate(callers, allow)],
    )
    app[_BODY_SECONDS] = body_seconds
    return app


def _measured(api: str) -> Middleware:
    seconds = metrics.REQUEST_SECONDS.labels(api)

    @web.middleware
    async def middleware(request: web.Request, handler: _Handler) -> web.StreamResponse:
        started = time.perf_counter()
        response = await handler(request)
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "none"
        metrics.REQUESTS.labels(api, route, response.status).inc()
        if not response.prepared:
            seconds.observe(time.perf_counter() - started)
        return response

    return middleware


def _errors(api: str) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ApiError as error:
            return error_response(error.status, str(error))
        except web.HTTPRequestEntityTooLarge:
            return error_response(413, f"the body is larger than {MAX_BODY} bytes")
        except web.HTTPNotFound:
            return error_response(404, f"no route {request.path} in the {api} API")
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

    return middleware


def _authenticate(callers: Callers, allow: Callable[[web.Request, Caller], None]) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            caller = await callers.identify(request.headers.get("Authorization"), request.remote or "")
        except CallerRefusedError as error:
            log_refusal(
                error.status, str(error), path=request.raw_path, peer=request.remote, caller=error.caller
            )
            raise ApiError(error.status, str(error)) from None
        except ReviewUnavailableError as error:
            log_refusal(503, str(error), path=request.raw_path, peer=request.remote)
            raise ApiError(503, "the cluster's API cannot be asked who calls; try again") from None
        if request.match_info.http_exception is None:
            version = request.query.get("api-version")
            if version not in API_VERSIONS:
                asked = "missing" if version is None else f"{version[:32]!r} is not known"
                raise ApiError(400, f"api-version {asked}; use {max(API_VERSIONS)}")
            allow(request, caller)
        request[CALLER] = caller
        return await handler(request)

    return middleware


async def json_body(request: web.Request) -> dict[str, object]:
    """The body as a JSON object. Raises ApiError 400, or 408 when it does not arrive in time."""
    limit = request.app[_BODY_SECONDS]
    try:
        async with asyncio.timeout(limit):
            raw = await request.read()
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {limit:g} s") from None
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON") from None
    if not isinstance(document, dict):
        raise ApiError(400, "the body is not a JSON object")
    return document


def text(document: Mapping[str, object], name: str) -> str:
    """A text of a body. Raises ApiError 400."""
    value = document.get(name)
    if not isinstance(value, str):
        raise ApiError(400, f"{name} is missing or not a string")
    return value
