# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in for edgeHub: MQTT over TLS on 8883 and HTTPS on 443 for modules and devices, store and forward.

A part of the lab, not of the product. Of the gateway it uses the workload API alone, of the hub what edgeHub
uses: identities in scope, and connections for them with a token of its own. The stock image takes its place
by its name.

Environment: the contract's (IOTEDGE_*, EdgeDeviceHostName), `storageFolder` (default /tmp/edgeHub),
`UpstreamProtocol` (Mqtt or MqttWs; AMQP is refused), `https_proxy` and `no_proxy` (of HTTPS and MqttWs); for
tests LISTEN_ADDRESS, MQTT_PORT, HTTPS_PORT, METRICS_PORT, UPSTREAM_MQTT_PORT. Exit code 1: no certificate, no
such protocol, the store is broken or used by another hub. The kubelet starts it anew, and with it the
certificate.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import ssl
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from iothub_emulator import websocket_stream
from upstream_protocol import ProtocolError, over_websockets

from edge_hub import below, downstream
from edge_hub.hub import HUB_MODULE, EdgeHub
from edge_hub.logs import say
from edge_hub.scope import Scope
from edge_hub.store import Store, StoreBusyError
from edge_hub.upstream import Streams, Way
from edge_hub.web import application, metrics
from edge_hub.workload import Workload, WorkloadError

_SERVICE_VERSION = "2021-04-12"
_TRIES = 3  # as edgeHub: then it exits, and is started anew
# A certificate is renewed by a start, this long before it ends.
_RENEW_SECONDS = 3600.0


async def _server_tls(workload: Workload, host: str) -> tuple[ssl.SSLContext, datetime]:
    """The context for clients. Key and chain pass through a file that only its owner reads."""
    for attempt in range(_TRIES):
        try:
            chain, key, ends = await workload.server_certificate(host)
            break
        except (WorkloadError, aiohttp.ClientError, TimeoutError) as error:
            say("no-certificate", reason=f"{type(error).__name__}: {error}", attempt=attempt + 1)
            if attempt + 1 == _TRIES:
                raise
            await asyncio.sleep(1.0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(f"{key}\n{chain}")
        file.flush()
        context.load_cert_chain(file.name)
    return context, ends


async def _serve(stop: asyncio.Event) -> None:
    environ = os.environ
    device, hub_host = environ["IOTEDGE_DEVICEID"], environ["IOTEDGE_IOTHUBHOSTNAME"]
    name = environ["EdgeDeviceHostName"]
    # Of a gateway below another one: that one's name, which is the way to the hub.
    parent = environ.get("IOTEDGE_GATEWAYHOSTNAME", "")
    nested = parent not in ("", name, hub_host)
    door = f"{parent}:{environ.get('UPSTREAM_HTTPS_PORT', '443')}" if nested else hub_host
    listen = environ.get("LISTEN_ADDRESS", "")
    websockets = over_websockets(environ.get("UpstreamProtocol", ""))
    # The default of edgeHub itself; in a container of its own nobody else can lay a trap in /tmp.
    store = Store(Path(environ.get("storageFolder", "/tmp/edgeHub")))  # noqa: S108 - said above
    workload = Workload(
        environ["IOTEDGE_WORKLOADURI"],
        environ["IOTEDGE_MODULEID"],
        environ["IOTEDGE_MODULEGENERATIONID"],
        environ["IOTEDGE_APIVERSION"],
    )
    tls, ends = await _server_tls(workload, name)
    bundle = await workload.trust_bundle()
    to_hub = ssl.create_default_context()
    if bundle:
        to_hub.load_verify_locations(cadata=bundle)
    # Each identity may have a WebSocket here.
    connector = aiohttp.TCPConnector(ssl=to_hub, limit=0)
    session = aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=20), trust_env=True
    )

    async def ask(token: str) -> dict[str, Any]:
        url = f"https://{door}/devices/{device}/modules/%24edgeHub/devicesAndModulesInTargetDeviceScope"
        signature = await workload.token(f"{hub_host}/devices/{device}/modules/{HUB_MODULE}")
        body = {"authChain": device, "pageSize": 100, "continuationToken": token}
        async with session.post(
            url,
            params={"api-version": _SERVICE_VERSION},
            json=body,
            headers={"Authorization": signature},
            raise_for_status=True,
        ) as answer:
            found: dict[str, Any] = await answer.json()
            return found

    host = urlsplit(f"//{door}").hostname or door

    async def dial() -> Streams:
        return await websocket_stream.connect(session, f"https://{door}{websocket_stream.PATH}")

    mqtt_port = int(environ.get("UPSTREAM_MQTT_PORT", "8883"))
    hub_name = urlsplit(f"//{hub_host}").hostname or hub_host
    way = Way(host, mqtt_port, device, to_hub, workload.token, dial if websockets else None, hub_name)
    scope = Scope(store, workload, ask)
    await scope.load()
    hub = EdgeHub(store, scope, way)
    opened = asyncio.Event()
    work = asyncio.create_task(hub.run(opened.set))
    runner = web.AppRunner(
        application(hub, below.calls(session, door, scope.is_below)), access_log=None, handle_signals=False
    )
    told = web.AppRunner(metrics(store), access_log=None, handle_signals=False)
    server = None
    try:
        await asyncio.wait((work, asyncio.create_task(opened.wait())), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
        server = await downstream.listen(hub, listen, int(environ.get("MQTT_PORT", "8883")), tls)
        await runner.setup()
        port = int(environ.get("HTTPS_PORT", "443"))
        await web.TCPSite(runner, listen or None, port, ssl_context=tls).start()
        await told.setup()
        await web.TCPSite(told, listen or None, int(environ.get("METRICS_PORT", "9600"))).start()
        upstream = "MqttWs" if websockets else "Mqtt"
        say("serving", device=device, name=name, upstream=upstream, waiting=await store.count())
        left = (ends - datetime.now(UTC)).total_seconds() - _RENEW_SECONDS
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait((work, stopped), timeout=max(60.0, left), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        if server is not None:
            server.close()
        await runner.cleanup()
        await told.cleanup()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await session.close()
        await workload.close()
        store.close()


async def _main() -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await _serve(stop)
    except (
        ProtocolError,
        StoreBusyError,
        WorkloadError,
        aiohttp.ClientError,
        OSError,
        sqlite3.Error,
    ) as error:
        say("ended", reason=f"{type(error).__name__}: {error}")
        return 1
    except ExceptionGroup as errors:
        broken, others = errors.split(sqlite3.Error)
        if broken is None or others is not None:
            raise
        say("ended", reason=f"{type(broken.exceptions[0]).__name__}: {broken.exceptions[0]}")
        return 1
    say("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
