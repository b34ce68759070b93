# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service API over HTTPS, as far as it is built; the rest answers 501.

Contract: the hub's service API 2021-04-12 (identities, modules, twins, statistics).
"""

import json
import logging
import math
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import unquote

from aiohttp import web

from iothub_emulator import registry
from iothub_emulator.auth import POLICY_RIGHTS, Authenticator, Right, SasToken
from iothub_emulator.client_tls import peer_certificates
from iothub_emulator.clock import HubClock, http_date
from iothub_emulator.connections import Connections
from iothub_emulator.errors import HubError, UnauthorizedError, argument_invalid, unauthorized
from iothub_emulator.identity import Identity
from iothub_emulator.logs import event
from iothub_emulator.operations import OperationClass
from iothub_emulator.store import Store
from iothub_emulator.trust import DeviceAuthorities, check_certificate
from iothub_emulator.twins import Document, Twin

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
BearerCheck = Callable[[str, Right], Awaitable[str]]
"""(token, right that the call needs) -> who asks"""
Way = Callable[[web.Request, OperationClass, Handler], Awaitable[web.StreamResponse]]

API_VERSIONS = frozenset(
    {
        "2017-11-08-preview",  # aziot-identityd
        "2018-06-30",
        "2019-10-01",
        "2020-05-31-preview",
        "2020-09-30",
        "2021-04-12",
        "2024-03-31",
    }
)
# A bulk call may carry the twins of 100 devices.
_MAX_BODY_BYTES = 8 * 1024 * 1024

_NOT_BUILT = (
    ("*", "/jobs"),
    ("*", "/jobs/{tail:.*}"),
    ("*", "/digitaltwins/{tail:.*}"),
    ("*", "/messages/{tail:.*}"),
    ("*", "/enrollments{tail:.*}"),
    ("*", "/enrollmentGroups{tail:.*}"),
)


class Cut(Exception):  # noqa: N818 - it is an end, not an error
    """The connection is to be cut without an answer."""


async def _straight(request: web.Request, _operation: OperationClass, handler: Handler) -> web.StreamResponse:
    return await handler(request)


class RestApi:
    """Request handlers; `application` is what a server runs."""

    def __init__(
        self,
        authenticator: Authenticator,
        store: Store,
        connections: Connections,
        clock: HubClock,
        authorities: DeviceAuthorities,
    ) -> None:
        self._authenticator = authenticator
        self._authorities = authorities
        self._store = store
        self._connections = connections
        self._clock = clock
        self._bearer: BearerCheck | None = None
        self._way: Way = _straight
        self.application = web.Application(middlewares=[self._envelope], client_max_size=_MAX_BODY_BYTES)
        read, write, service = Right.REGISTRY_READ, Right.REGISTRY_WRITE, Right.SERVICE_CONNECT
        identity = OperationClass.IDENTITY
        self.add_route("GET", "/devices", read, self._list_devices, operation=identity)
        self.add_route("GET", "/devices/{id}", read, self._get_device, operation=identity)
        self.add_route("PUT", "/devices/{id}", write, self._put_device, operation=identity)
        self.add_route("DELETE", "/devices/{id}", write, self._delete_device, operation=identity)
        self.add_route(
            "GET", "/devices/{id}/modules", read, self._list_modules, operation=identity, own_device=True
        )
        self.add_route(
            "GET", "/devices/{id}/modules/{mid}", read, self._get_module, operation=identity, own_device=True
        )
        self.add_route(
            "PUT", "/devices/{id}/modules/{mid}", write, self._put_module, operation=identity, own_device=True
        )
        self.add_route(
            "DELETE",
            "/devices/{id}/modules/{mid}",
            write,
            self._delete_module,
            operation=identity,
            own_device=True,
        )
        for path in ("/twins/{id}", "/twins/{id}/modules/{mid}"):
            self.add_route("GET", path, service, self._get_twin, operation=OperationClass.TWIN_READ)
            self.add_route("PATCH", path, service, self._write_twin, operation=OperationClass.TWIN_WRITE)
            self.add_route("PUT", path, service, self._write_twin, operation=OperationClass.TWIN_WRITE)
        self.add_route("GET", "/statistics/devices", read, self._count_devices)
        self.add_route("GET", "/statistics/service", read, self._count_connected)

    def complete(self) -> None:
        """Answer 501 for what nobody added. Call it last: the first route that fits is taken."""
        for method, path in _NOT_BUILT:
            self.application.router.add_route(method, path, _not_built)

    def accept_bearer(self, check: BearerCheck) -> None:
        """Let `check` judge Microsoft Entra tokens; it returns the caller's name or raises HubError."""
        self._bearer = check

    def add_route(
        self,
        method: str,
        path: str,
        right: Right,
        handler: Handler,
        *,
        operation: OperationClass = OperationClass.OTHER,
        own_device: bool = False,
    ) -> None:
        """Add a call of the service API for policies that hold `right`.

        `operation` is what it is metered as. With `own_device` also the device that the path names as
        `{id}` may call it.
        """

        async def checked(request: web.Request) -> web.StreamResponse:
            await self._authorize(request, right, own_device)
            version = request.query.get("api-version")
            if version not in API_VERSIONS:
                raise HubError(
                    400, "InvalidProtocolVersion", f"The api-version {version!r} is not supported."
                )
            return await self._way(request, operation, handler)

        self.application.router.add_route(method, path, checked)

    def add_emulator_route(self, method: str, path: str, handler: Handler) -> None:
        """Add a call that is the emulator's own, for the policy that holds every right."""

        async def checked(request: web.Request) -> web.StreamResponse:
            await self._authorize(request, POLICY_RIGHTS["iothubowner"], own_device=False)
            return await handler(request)

        self.application.router.add_route(method, path, checked)

    def set_way(self, way: Way) -> None:
        """Let `way` take every authorized call to its handler."""
        self._way = way

    async def _authorize(self, request: web.Request, right: Right, own_device: bool) -> None:
        """Raise UnauthorizedError unless a policy with `right`, or with `own_device` the device, asks."""
        header = request.headers.get("Authorization", "")
        if header.lower().startswith("bearer "):
            if self._bearer is None:
                raise HubError(
                    501, "NotImplemented", "The emulator does not know Microsoft Entra tokens yet."
                )
            request["caller"] = await self._bearer(header[len("bearer ") :].strip(), right)
            request["entra"] = True
            return
        chain = peer_certificates(request.transport)
        if not header and chain and own_device:
            device_id = request.match_info["id"]
            device = await self._store.run(
                lambda database: registry.require_enabled_device(database, device_id)
            )
            check_certificate(device.authentication, chain, device_id, self._authorities, self._clock.now())
            request["caller"] = f"device {device_id}"
            return
        token = SasToken.parse(header)
        path = [unquote(segment) for segment in request.rel_url.raw_path.strip("/").split("/")]
        self._authenticator.check_validity(token, path, self._clock.now())
        if token.policy is not None:
            request["caller"] = f"policy {self._authenticator.check_policy(token, right)}"
            return
        if not own_device:
            raise unauthorized("a device's token is good for its own modules only")
        device_id = request.match_info["id"]
        device = await self._store.run(lambda database: registry.require_enabled_device(database, device_id))
        if not token.signed_by([device.authentication.primary_key, device.authentication.secondary_key]):
            raise unauthorized(f"wrong key for the device {device_id!r}")
        request["caller"] = f"device {device_id}"

    @web.middleware
    async def _envelope(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn errors into the hub's form, stamp the hub's time, log the request."""
        started = time.monotonic()
        reason: str | None = None
        try:
            response = await handler(request)
        except HubError as error:
            reason = error.reason if isinstance(error, UnauthorizedError) else error.text
            response = self._error(error)
        except Cut:
            reason = "the connection is cut"
            if request.transport is not None:
                request.transport.abort()
            response = web.Response(status=500)
        except web.HTTPException as error:
            reason = error.reason
            response = self._error(HubError(error.status, error.reason.replace(" ", ""), error.reason))
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except Exception as error:
            event(
                "request-failed", level=logging.ERROR, error=error, method=request.method, path=request.path
            )
            response = self._error(HubError(500, "ServerError", "The emulator failed; its log says how."))
        response.headers["Date"] = http_date(self._clock.now())
        event(
            "request",
            level=logging.WARNING if response.status >= 400 else logging.INFO,
            method=request.method,
            path=request.path,
            status=response.status,
            milliseconds=round(1000 * (time.monotonic() - started), 1),
            caller=request.get("caller"),
            reason=reason,
        )
        return response

    def _error(self, error: HubError) -> web.Response:
        response = json_response(error.envelope(self._clock.now()), status=error.status)
        response.headers["iothub-errorcode"] = error.code
        response.headers.update(error.headers)
        if error.status == 429:
            response.force_close()
        return response

    async def _list_devices(self, request: web.Request) -> web.Response:
        try:
            top = int(request.query.get("top", "0"))
        except ValueError:
            raise argument_invalid("top is not a number") from None
        devices = await self._store.run(lambda database: registry.list_devices(database, top))
        return json_response([device.document() for device in devices])

    async def _get_device(self, request: web.Request) -> web.Response:
        device_id = request.match_info["id"]
        return _identity(await self._store.run(lambda database: registry.get_device(database, device_id)))

    async def _put_device(self, request: web.Request) -> web.Response:
        device_id, if_match = request.match_info["id"], request.headers.get("If-Match")
        body = await read_json(request)
        device = await self._store.run(
            lambda database: registry.put_device(database, device_id, body, if_match, self._clock.now())
        )
        if device.status == "disabled":
            self._connections.drop_device(device_id, "the device was disabled")
        return _identity(device)

    async def _delete_device(self, request: web.Request) -> web.Response:
        device_id, if_match = request.match_info["id"], request.headers.get("If-Match")
        await self._store.run(lambda database: registry.delete_device(database, device_id, if_match))
        self._connections.drop_device(device_id, "the device was deleted")
        return web.Response(status=204)

    async def _list_modules(self, request: web.Request) -> web.Response:
        device_id = request.match_info["id"]

        def operation(database: sqlite3.Connection) -> list[Identity]:
            _require_device(request, database)
            return registry.list_modules(database, device_id)

        return json_response([module.document() for module in await self._store.run(operation)])

    async def _get_module(self, request: web.Request) -> web.Response:
        device_id, module_id = request.match_info["id"], request.match_info["mid"]

        def operation(database: sqlite3.Connection) -> Identity:
            _require_device(request, database)
            return registry.get_module(database, device_id, module_id)

        return _identity(await self._store.run(operation))

    async def _put_module(self, request: web.Request) -> web.Response:
        device_id, module_id = request.match_info["id"], request.match_info["mid"]
        if_match = request.headers.get("If-Match")
        body = await read_json(request)

        def operation(database: sqlite3.Connection) -> Identity:
            _require_device(request, database)
            return registry.put_module(database, device_id, module_id, body, if_match, self._clock.now())

        return _identity(await self._store.run(operation))

    async def _delete_module(self, request: web.Request) -> web.Response:
        device_id, module_id = request.match_info["id"], request.match_info["mid"]
        if_match = request.headers.get("If-Match")

        def operation(database: sqlite3.Connection) -> None:
            _require_device(request, database)
            registry.delete_module(database, device_id, module_id, if_match)

        await self._store.run(operation)
        self._connections.drop((device_id, module_id), "the module was deleted")
        return web.Response(status=204)

    async def _get_twin(self, request: web.Request) -> web.Response:
        device_id, module_id = request.match_info["id"], request.match_info.get("mid", "")

        def operation(database: sqlite3.Connection) -> Document:
            identity = registry.get_identity(database, device_id, module_id)
            return Twin.load(database, identity).for_service(identity)

        return _twin(await self._store.run(operation))

    async def _write_twin(self, request: web.Request) -> web.Response:
        """PATCH merges, PUT replaces; a connected device is told of its desired properties."""
        device_id, module_id = request.match_info["id"], request.match_info.get("mid", "")
        if_match, replace = request.headers.get("If-Match"), request.method == "PUT"
        body = await read_json(request)

        def operation(database: sqlite3.Connection) -> tuple[Document, Document | None, int]:
            identity = registry.get_identity(database, device_id, module_id)
            twin = Twin.load(database, identity)
            notice = twin.write(body, replace=replace, if_match=if_match, now=self._clock.now())
            twin.save(database)
            return twin.for_service(identity), notice, twin.desired_version

        document, notice, version = await self._store.run(operation)
        if notice is not None:
            self._connections.push_desired((device_id, module_id), notice, version)
        return _twin(document)

    async def _count_devices(self, _request: web.Request) -> web.Response:
        return json_response(await self._store.run(registry.count_devices))

    async def _count_connected(self, _request: web.Request) -> web.Response:
        return json_response(await self._store.run(registry.count_connected))


def _require_device(request: web.Request, database: sqlite3.Connection) -> None:
    """Check the device whose modules a call is about; Entra says more of it than SAS."""
    require = registry.get_device if request.get("entra") else registry.require_enabled_device
    require(database, request.match_info["id"])


async def _not_built(request: web.Request) -> web.StreamResponse:
    raise HubError(501, "NotImplemented", f"The emulator does not have {request.method} {request.path} yet.")


async def read_json(request: web.Request) -> object:
    """The request's body. Raises HubError 400 unless it is JSON that can be stored and sent again."""
    raw = await request.read()
    try:
        body: object = json.loads(raw, parse_constant=_refuse_constant, parse_float=_finite)
        if b"\\u" in raw:
            # Half of a surrogate pair is no character and cannot be written.
            json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise argument_invalid("the body is not JSON") from None
    return body


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def json_response(body: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=json.dumps(body).encode(), status=status, content_type="application/json", charset="utf-8"
    )


def _identity(identity: Identity) -> web.Response:
    response = json_response(identity.document())
    response.headers["ETag"] = f'"{identity.etag}"'
    return response


def _twin(document: Document) -> web.Response:
    response = json_response(document)
    response.headers["ETag"] = f'"{document["etag"]}"'
    return response
