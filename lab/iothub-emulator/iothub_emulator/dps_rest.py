# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Device Provisioning Service over HTTPS: its service API.

Contract: the provisioning service's data plane, api-version 2021-10-01.
"""

import json
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from iothub_emulator import dps_records
from iothub_emulator.auth import Authenticator, Right, SasToken
from iothub_emulator.clock import HubClock, http_date
from iothub_emulator.dps_attestation import shown as shown_attestation
from iothub_emulator.dps_errors import DpsError, as_dps_error, bad_request
from iothub_emulator.dps_records import Kind, Page
from iothub_emulator.errors import HubError, UnauthorizedError
from iothub_emulator.logs import event
from iothub_emulator.store import Store

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
BearerCheck = Callable[[str], Awaitable[str]]
"""token -> who asks"""

API_VERSIONS = frozenset({"2019-03-31", "2021-06-01", "2021-10-01", "2026-04-01"})
_PREFIXES = {Kind.ENROLLMENT: "/enrollments", Kind.GROUP: "/enrollmentGroups"}


class DpsRest:
    """Request handlers; `application` is what a server runs. `hubs`: the names of the linked hub."""

    def __init__(
        self, authenticator: Authenticator, store: Store, clock: HubClock, hubs: Sequence[str]
    ) -> None:
        self._authenticator = authenticator
        self._store = store
        self._clock = clock
        self._hubs = hubs
        self._bearer: BearerCheck | None = None
        self.application = web.Application(middlewares=[self._envelope])
        for kind, prefix in _PREFIXES.items():
            self._add_service("POST", prefix, kind, self._bulk)
            # Before the record's own address: an id is never called query.
            self._add_service("POST", f"{prefix}/query", kind, self._query)
            self._add_service("GET", f"{prefix}/{{id}}", kind, self._get)
            self._add_service("PUT", f"{prefix}/{{id}}", kind, self._put)
            self._add_service("DELETE", f"{prefix}/{{id}}", kind, self._delete)
            self._add_service("POST", f"{prefix}/{{id}}/attestationmechanism", kind, self._attestation)
        self._add_service("POST", "/registrations/{id}/query", Kind.GROUP, self._query_registrations)
        self._add_service("GET", "/registrations/{id}", Kind.ENROLLMENT, self._get_registration)
        self._add_service("DELETE", "/registrations/{id}", Kind.ENROLLMENT, self._delete_registration)

    def accept_bearer(self, check: BearerCheck) -> None:
        """Let `check` judge Microsoft Entra tokens; it returns the caller's name or raises HubError."""
        self._bearer = check

    def add_route(self, method: str, path: str, handler: Handler) -> None:
        """Add a call that checks its caller itself."""

        async def checked(request: web.Request) -> web.StreamResponse:
            version = request.query.get("api-version")
            if version not in API_VERSIONS:
                raise DpsError(400002, f"The api-version {version!r} is not supported.")
            return await handler(request)

        self.application.router.add_route(method, path, checked)

    def _add_service(self, method: str, path: str, kind: Kind, handler: Handler) -> None:
        async def authorized(request: web.Request) -> web.StreamResponse:
            await self._authorize(request)
            request["kind"] = kind
            return await handler(request)

        self.add_route(method, path, authorized)

    async def _authorize(self, request: web.Request) -> None:
        header = request.headers.get("Authorization", "")
        if header.lower().startswith("bearer ") and self._bearer is not None:
            request["caller"] = await self._bearer(header[len("bearer ") :].strip())
            return
        token = SasToken.parse(header)
        path = request.path.strip("/").split("/")
        self._authenticator.check_validity(token, path, self._clock.now())
        request["caller"] = f"policy {self._authenticator.check_policy(token, Right.PROVISIONING)}"

    @web.middleware
    async def _envelope(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn errors into the service's form, stamp the time, log the request."""
        started = time.monotonic()
        reason: str | None = None
        try:
            response = await handler(request)
        except HubError as error:
            reason = error.reason if isinstance(error, UnauthorizedError) else error.text
            response = self._error(as_dps_error(error))
        except web.HTTPException as error:
            reason = error.reason
            response = self._error(as_dps_error(HubError(error.status, "", error.reason)))
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except Exception as error:
            event(
                "request-failed", level=logging.ERROR, error=error, method=request.method, path=request.path
            )
            response = self._error(DpsError(500001, "The emulator failed; its log says how."))
        response.headers["Date"] = http_date(self._clock.now())
        event(
            "dps-request",
            level=logging.WARNING if response.status >= 400 else logging.INFO,
            method=request.method,
            path=request.path,
            status=response.status,
            milliseconds=round(1000 * (time.monotonic() - started), 1),
            caller=request.get("caller"),
            reason=reason,
        )
        return response

    def _error(self, error: DpsError) -> web.Response:
        response = json_response(error.envelope(self._clock.now()), status=error.status)
        response.headers["x-ms-error-code"] = error.code
        return response

    async def _get(self, request: web.Request) -> web.Response:
        kind, record_id = request["kind"], request.match_info["id"]

        def operation(database: sqlite3.Connection) -> dict[str, Any]:
            record = dps_records.get(database, kind, record_id)
            return dps_records.shown_with_state(database, record)

        return _record(await self._store.run(operation))

    async def _put(self, request: web.Request) -> web.Response:
        kind, record_id = request["kind"], request.match_info["id"]
        if_match, body, now = request.headers.get("If-Match"), await read_json(request), self._clock.now()

        def operation(database: sqlite3.Connection) -> dict[str, Any]:
            record = dps_records.put(database, kind, record_id, body, if_match, self._hubs, now)
            return dps_records.shown_with_state(database, record)

        return _record(await self._store.run(operation))

    async def _delete(self, request: web.Request) -> web.Response:
        kind, record_id, if_match = request["kind"], request.match_info["id"], request.headers.get("If-Match")
        await self._store.run(lambda database: dps_records.delete(database, kind, record_id, if_match))
        return web.Response(status=204)

    async def _attestation(self, request: web.Request) -> web.Response:
        kind, record_id = request["kind"], request.match_info["id"]
        record = await self._store.run(lambda database: dps_records.get(database, kind, record_id))
        return json_response(shown_attestation(record.attestation, keys=True))

    async def _bulk(self, request: web.Request) -> web.Response:
        kind, body, now = request["kind"], await read_json(request), self._clock.now()
        return json_response(
            await self._store.run(
                lambda database: dps_records.run_bulk(database, kind, body, self._hubs, now)
            )
        )

    async def _query(self, request: web.Request) -> web.Response:
        kind, page = request["kind"], Page.from_headers(request.headers)
        dps_records.check_query(await read_json(request))
        item_type = "Enrollment" if kind is Kind.ENROLLMENT else "EnrollmentGroup"
        found = await self._store.run(lambda database: dps_records.query(database, kind, page))
        return _page(*found, item_type)

    async def _query_registrations(self, request: web.Request) -> web.Response:
        group_id, page = request.match_info["id"], Page.from_headers(request.headers)
        return _page(
            *await self._store.run(
                lambda database: dps_records.query_registrations(database, group_id, page)
            ),
            "DeviceRegistration",
        )

    async def _get_registration(self, request: web.Request) -> web.Response:
        registration_id = request.match_info["id"]
        registration = await self._store.run(
            lambda database: dps_records.get_registration(database, registration_id)
        )
        return json_response(registration.shown())

    async def _delete_registration(self, request: web.Request) -> web.Response:
        registration_id, if_match = request.match_info["id"], request.headers.get("If-Match")
        await self._store.run(
            lambda database: dps_records.delete_registration(database, registration_id, if_match)
        )
        return web.Response(status=204)


async def read_json(request: web.Request) -> object:
    try:
        return json.loads(await request.read())
    except ValueError:
        raise bad_request("the body is not JSON") from None


def json_response(body: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=json.dumps(body).encode(), status=status, content_type="application/json", charset="utf-8"
    )


def _record(document: dict[str, Any]) -> web.Response:
    response = json_response(document)
    response.headers["ETag"] = document["etag"]
    return response


def _page(items: list[dict[str, Any]], after: str | None, item_type: str) -> web.Response:
    response = json_response(items)
    response.headers["x-ms-item-type"] = item_type
    response.headers["x-ms-max-item-count"] = str(len(items))
    if after is not None:
        response.headers["x-ms-continuation"] = after
    return response
