# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One running hub: lock, store, both listeners, and an orderly end."""

import asyncio
import os
import signal
import sqlite3
from contextlib import AsyncExitStack

from aiohttp import web

from iothub_emulator import registry, tls
from iothub_emulator.auth import Authenticator
from iothub_emulator.client_tls import client_tls_context, serve_client_tls
from iothub_emulator.clock import HubClock
from iothub_emulator.connections import Connections
from iothub_emulator.feature import Context
from iothub_emulator.features import FEATURES
from iothub_emulator.logs import event
from iothub_emulator.mqtt_server import MqttServer
from iothub_emulator.options import ServeOptions
from iothub_emulator.rest import RestApi
from iothub_emulator.state import State, StateError, write_private
from iothub_emulator.store import Store
from iothub_emulator.trust import DeviceAuthorities


def serve(state: State, options: ServeOptions) -> None:
    """Serve until SIGTERM or SIGINT. Raises StateError when it cannot start."""
    os.umask(0o077)
    names = state.names()
    if not names or not state.server_certificate.exists():
        raise StateError(
            f"{state.directory} is not set up; run init --state {state.directory} --name NAME first"
        )
    with state.server_lock():
        asyncio.run(_serve(state, names, options))


async def _serve(state: State, names: list[str], options: ServeOptions) -> None:
    listen, clock = options.listen, HubClock(options.clock_offset)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    client_tls = client_tls_context(state)
    authenticator = Authenticator(names, state.policies())
    try:
        store = Store(state.database, [part for feature in FEATURES for part in feature.schema])
    except sqlite3.Error as error:
        raise StateError(f"{state.database} cannot be opened: {error}") from error
    connections = Connections()
    authorities = DeviceAuthorities(state.device_ca)
    mqtt = MqttServer(authenticator, store, connections, clock, authorities)
    rest = RestApi(authenticator, store, connections, clock, authorities)
    context = Context(state, options, authenticator, store, connections, clock, rest, mqtt)
    runner = web.AppRunner(rest.application, access_log=None, shutdown_timeout=2)
    features = AsyncExitStack()
    https: asyncio.Server | None = None
    try:
        await store.run(lambda database: registry.mark_all_disconnected(database, clock.now()))
        for feature in FEATURES:
            await features.enter_async_context(feature.run(context))
        rest.complete()
        await runner.setup()
        if runner.server is None:
            raise RuntimeError("the application has no server")
        # Devices may come with a certificate, also to the REST calls that are theirs.
        start = serve_client_tls(runner.server, listen, options.https_port, client_tls)
        https = await tls.listen(start, listen, options.https_port)
        await tls.listen(mqtt.start(listen, options.mqtt_port, client_tls), listen, options.mqtt_port)
        write_private(state.pid_file, f"{os.getpid()}\n".encode())
        event(
            "listening",
            address=listen,
            https=options.https_port,
            mqtt=options.mqtt_port,
            names=names,
            offset=clock.offset,
        )
        await stop.wait()
        event("stopping")
    finally:
        await mqtt.stop()
        if https is not None:
            https.close()
        await runner.cleanup()
        await features.aclose()
        await store.close()
        state.pid_file.unlink(missing_ok=True)
    event("stopped")
