# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Device Provisioning Service beside the hub, on a port of its own, linked to this one hub."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from iothub_emulator import dps_records, tls
from iothub_emulator.auth import Authenticator
from iothub_emulator.client_tls import client_tls_context, serve_client_tls
from iothub_emulator.dps_device_rest import add_device_routes
from iothub_emulator.dps_mqtt import role_factory
from iothub_emulator.dps_registration import Registrar
from iothub_emulator.dps_rest import DpsRest
from iothub_emulator.entra import DPS_AUDIENCE, Entra
from iothub_emulator.feature import Context, Feature
from iothub_emulator.logs import event
from iothub_emulator.trust import DeviceAuthorities


@asynccontextmanager
async def _run(context: Context) -> AsyncIterator[None]:
    port = context.options.dps_port
    if port is None:
        yield
        return
    state, listen = context.state, context.options.listen
    names, id_scope = state.names(), state.id_scope()
    authenticator = Authenticator(names, state.dps_policies())
    rest = DpsRest(authenticator, context.store, context.clock, names)
    if context.options.azure_port is not None:
        entra, clock = Entra.load(state), context.clock

        async def check(token: str) -> str:
            return entra.check(token, {DPS_AUDIENCE}, clock.now())

        rest.accept_bearer(check)
    registrar = Registrar(id_scope, names, context.clock, DeviceAuthorities(state.device_ca))
    add_device_routes(rest, registrar, context.store)
    context.mqtt.add_role(role_factory(registrar, context.store, context.clock))
    runner = web.AppRunner(rest.application, access_log=None, shutdown_timeout=2)
    server: asyncio.Server | None = None
    try:
        await runner.setup()
        if runner.server is None:
            raise RuntimeError("the application has no server")
        # Devices may come with a certificate here as well.
        start = serve_client_tls(runner.server, listen, port, client_tls_context(state))
        server = await tls.listen(start, listen, port)
        event("dps-listening", address=listen, https=port, idScope=id_scope)
        yield
    finally:
        if server is not None:
            server.close()
        await runner.cleanup()


FEATURE = Feature(_run, (dps_records.SCHEMA,))
