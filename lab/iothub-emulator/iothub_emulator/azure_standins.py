# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Microsoft Entra and Azure Resource Manager on a port of their own, and their tokens at the hub."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from iothub_emulator import arm, tls
from iothub_emulator.arm import Place
from iothub_emulator.arm_rest import ArmRest
from iothub_emulator.auth import Right
from iothub_emulator.entra import HUB_AUDIENCE, Entra
from iothub_emulator.entra_rest import EntraRest
from iothub_emulator.feature import Context, Feature
from iothub_emulator.logs import event
from iothub_emulator.rest import json_response

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def _run(context: Context) -> AsyncIterator[None]:
    options = context.options
    if options.azure_port is None:
        yield
        return
    state, clock = context.state, context.clock
    entra = Entra.load(state)

    async def check(token: str, _right: Right) -> str:
        return entra.check(token, {HUB_AUDIENCE}, clock.now())

    context.rest.accept_bearer(check)
    name = state.names()[0]
    place = Place(
        name=name,
        hub_host=_host(name, options.https_port),
        hub_keys=state.policies(),
        dps_host=_host(name, options.dps_port) if options.dps_port else None,
        dps_keys=state.dps_policies(),
        id_scope=state.id_scope(),
    )
    subscription, dps = entra.credentials.subscriptionId, options.dps_port is not None
    await context.store.run(lambda database: arm.seed(database, subscription, dps=dps))
    application = web.Application(middlewares=[_logged])
    EntraRest(entra, clock).add_to(application)
    ArmRest(entra, context.store, clock, place).add_to(application)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=2)
    try:
        await runner.setup()
        site = web.TCPSite(runner, options.listen, options.azure_port, ssl_context=tls.server_context(state))
        await tls.listen(site.start(), options.listen, options.azure_port)
        event("azure-listening", address=options.listen, https=options.azure_port, subscription=subscription)
        yield
    finally:
        await runner.cleanup()


@web.middleware
async def _logged(request: web.Request, handler: Handler) -> web.StreamResponse:
    started = time.monotonic()
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = json_response(
            {"error": {"code": error.reason.replace(" ", ""), "message": error.reason}}, status=error.status
        )
    except Exception as error:
        event("request-failed", level=logging.ERROR, error=error, method=request.method, path=request.path)
        response = json_response(
            {"error": {"code": "InternalServerError", "message": "The emulator failed; its log says how."}},
            status=500,
        )
    event(
        "azure-request",
        level=logging.WARNING if response.status >= 400 else logging.INFO,
        method=request.method,
        path=request.path,
        status=response.status,
        milliseconds=round(1000 * (time.monotonic() - started), 1),
        caller=request.get("caller"),
        reason=request.get("refused") or request.get("reason"),
    )
    return response


def _host(name: str, port: int) -> str:
    return name if port == 443 else f"{name}:{port}"


FEATURE = Feature(_run, (arm.SCHEMA,))
