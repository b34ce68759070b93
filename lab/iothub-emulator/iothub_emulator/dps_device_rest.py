# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registration over HTTPS."""

import sqlite3
from collections.abc import Callable
from typing import Any

from aiohttp import web

from iothub_emulator import dps_records
from iothub_emulator.auth import SasToken
from iothub_emulator.client_tls import peer_certificates
from iothub_emulator.dps_registration import RETRY_SECONDS, Enrolled, Proof, Registrar
from iothub_emulator.dps_rest import DpsRest, json_response, read_json
from iothub_emulator.errors import unauthorized
from iothub_emulator.store import Store

Answer = tuple[int, dict[str, Any]]


def add_device_routes(rest: DpsRest, registrar: Registrar, store: Store) -> None:
    """Let devices register themselves at `rest`."""
    device = "/{scope}/registrations/{id}"

    async def serve(
        request: web.Request,
        operation: Callable[[sqlite3.Connection, Enrolled, Proof], Answer],
    ) -> web.Response:
        registration_id = request.match_info["id"]
        if request.match_info["scope"] != registrar.id_scope:
            raise unauthorized(f"the scope {request.match_info['scope']!r} is not this service's")
        header = request.headers.get("Authorization")
        proof = (
            Proof(SasToken.parse(header), ()) if header else Proof(None, peer_certificates(request.transport))
        )

        def run(database: sqlite3.Connection) -> Answer:
            return operation(database, registrar.check(database, registration_id, proof), proof)

        request["caller"] = f"registration {registration_id}"
        status, body = await store.run(run)
        response = json_response(body, status=status)
        if status == 202:
            response.headers["Retry-After"] = str(RETRY_SECONDS)
        return response

    async def register(request: web.Request) -> web.Response:
        body = await read_json(request)
        return await serve(
            request,
            lambda database, enrolled, proof: registrar.first_answer(database, enrolled, proof, body),
        )

    async def look_up(request: web.Request) -> web.Response:
        operation_id = request.match_info["operation"]
        return await serve(
            request,
            lambda database, enrolled, proof: registrar.last_answer(database, enrolled, proof, operation_id),
        )

    async def show(request: web.Request) -> web.Response:
        def operation(database: sqlite3.Connection, enrolled: Enrolled, proof: Proof) -> Answer:
            registration = dps_records.get_registration(database, enrolled.registration_id)
            return 200, enrolled.result(registration, proof.certificates)

        return await serve(request, operation)

    rest.add_route("PUT", f"{device}/register", register)
    rest.add_route("GET", f"{device}/operations/{{operation}}", look_up)
    rest.add_route("POST", device, show)
