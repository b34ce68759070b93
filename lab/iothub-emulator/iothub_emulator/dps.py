# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Device Provisioning Service beside the hub, on a port of its own, linked to this one hub."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from iothub_emulator import dps_records, tls
from iothub_emulator.auth import Authenticator
from iothub_emulator.dps_rest import DpsRest
from iothub_emulator.feature import Context, Feature
from iothub_emulator.logs import event


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
    runner = web.AppRunner(rest.application, access_log=None, shutdown_timeout=2)
    try:
        await runner.setup()
        site = web.TCPSite(runner, listen, port, ssl_context=tls.server_context(state))
        await tls.listen(site.start(), listen, port)
        event("dps-listening", address=listen, https=port, idScope=id_scope)
        yield
    finally:
        await runner.cleanup()


FEATURE = Feature(_run, (dps_records.SCHEMA,))
