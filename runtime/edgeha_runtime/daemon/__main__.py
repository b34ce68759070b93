# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon's process: health first, then lock, store, the two APIs, and the modules."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence

from aiohttp import web

from edgeha_runtime import __version__

from . import kube, logs, manifests, metrics, provisioning, settings, transport, trust
from .authority import EdgeCa
from .callers import Callers
from .connections import listen
from .credential import Credential
from .hub import HubClient
from .hub_errors import HubError
from .keystore import KeyStore, Owner, StoreError, StoreLock, StoreLockedError
from .kube import ERRORS, Cluster, ClusterError, TokenReviewer, describe
from .logs import fields
from .management import ManagementApi
from .modules import Modules
from .settings import Dps, Settings, SettingsError
from .trust import TrustError
from .workload import WorkloadApi

EXIT_TRY_AGAIN = 75  # EX_TEMPFAIL
EXIT_REFUSED = 78  # EX_CONFIG: a person must act

_log = logging.getLogger("edgeha_runtime.daemon")


class Health:
    """Answers the kubelet: `/healthz` while the event loop runs, `/readyz` once nothing is missing.

    And Prometheus: `/metrics`.
    """

    def __init__(self) -> None:
        self.not_ready: Callable[[], Sequence[str]] = lambda: ["starting: waiting for the store's lock"]
        self.gateway: metrics.GatewayCollector | None = None

    def application(self) -> web.Application:
        """The routes, for a port that only looks."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        return app

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        reasons = self.not_ready()
        text = "".join(f"{reason}\n" for reason in reasons) or "ok\n"
        return web.Response(text=text, status=503 if reasons else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        if self.gateway is not None:
            await self.gateway.look()
        return await metrics.answer(request)


async def serve(config: Settings, stop: asyncio.Event) -> None:
    """Run the daemon until `stop` is set.

    Raises StoreError, TrustError, ClusterError or HubError for what a person has to put right.
    """
    health = Health()
    bundle = trust.load(config.trust_bundle_file)
    credential = Credential(config, bundle.context())
    manifest_trust = trust.load_manifest(config.manifest_trust_file)
    lock = StoreLock(config.state_dir, pod=config.pod_name, node=config.node_name)
    # Each on all addresses of the pod, IPv4 and IPv6: it has a network of its own.
    runners = [await listen(health.application(), config.health_port)]
    try:
        await _or_stop(lock.acquire(config.lock_timeout), stop)
        if stop.is_set():
            return
        if config.dps is not None:
            config = await _provisioned(config, config.dps, credential, health, stop)
            if stop.is_set():
                return
        owner = Owner(config.device_id, config.iothub_hostname)
        store = await asyncio.to_thread(KeyStore.open, config.state_dir, owner)
        client = kube.connect(config.namespace)
        hub = HubClient(config, credential)
        try:
            cluster = Cluster(client, config.namespace)
            modules = Modules(config, store, hub, cluster)
            callers = Callers(
                TokenReviewer(client),
                place=cluster.place if config.check_caller_address else None,
                namespace=config.namespace,
                audience=config.audience,
                modules=lambda: modules.accounts,
            )
            edge_ca = EdgeCa(
                store,
                device_id=config.device_id,
                iothub_hostname=config.iothub_hostname,
                certificate_file=config.edge_ca_certificate_file,
                key_file=config.edge_ca_key_file,
            )
            api = WorkloadApi(callers, store, bundle, edge_ca, manifest_trust)
            dps = config.dps
            management = ManagementApi(
                callers,
                modules,
                cluster,
                state=config.state_dir,
                provisioning=credential.kind,
                reprovision=None
                if dps is None
                else functools.partial(provisioning.again, config, credential, dps),
            )
            health.gateway = metrics.GatewayCollector(
                config.device_id,
                config.iothub_hostname,
                modules,
                lambda: edge_ca.expires,
                lambda: credential.expires,
                config.state_dir,
            )
            metrics.REGISTRY.register(health.gateway)
            tls = transport.server_context(*store.transport())
            runners.append(await listen(api.application(), config.workload_port, tls))
            runners.append(await listen(management.application(), config.management_port, tls))
            health.not_ready = lambda: [
                *modules.not_ready(),
                *edge_ca.not_ready(),
                *credential.not_ready(),
            ]
            _log.info(
                "serving",
                extra=fields(version=__version__, device=config.device_id, hub=config.iothub_hostname),
            )
            await _or_stop(_together(modules.run(), edge_ca.follow(), _alone(cluster, config)), stop)
        finally:
            # Those that are being answered need both.
            while len(runners) > 1:
                await runners.pop().cleanup()
            await hub.close()
            await client.close()
    finally:
        for runner in reversed(runners):
            await runner.cleanup()
        # A write that was cut off goes on in its thread; nobody else may have the store before it ended.
        await asyncio.get_running_loop().shutdown_default_executor()
        lock.release()


async def _provisioned(
    config: Settings, dps: Dps, credential: Credential, health: Health, stop: asyncio.Event
) -> Settings:
    """The settings with the device and the hub that the provisioning service gives; as they are at a stop."""
    health.not_ready = lambda: [f"waiting for the provisioning service {dps.endpoint}"]

    def waits(reason: str) -> None:
        health.not_ready = lambda: [reason]

    found: list[provisioning.Assignment] = []

    async def ask() -> None:
        found.append(await provisioning.first(config, credential, dps, waits))

    await _or_stop(ask(), stop)
    return config.assigned(found[0].device_id, found[0].iothub_hostname) if found else config


async def _alone(cluster: Cluster, config: Settings) -> None:
    """Take daemons that go and do not end out of this slot: the one that serves has the store's lock."""
    slot = {**manifests.labels(config.release, "daemon"), manifests.SLOT_LABEL: config.slot}
    for pause in itertools.chain(kube.RETRY_SECONDS, itertools.repeat(kube.RETRY_SECONDS[-1])):
        try:
            for name in await cluster.going(slot):
                await cluster.give_up(name)
                _log.warning("pod of another daemon given up", extra=fields(pod=name))
        except ERRORS as error:
            _log.debug("looking for other daemons again", extra=fields(reason=describe(error)))
            await asyncio.sleep(pause)
        else:
            return


async def _together(*work: Coroutine[None, None, None]) -> None:
    """Run all of `work`; the first one that fails ends the others."""
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)


async def _or_stop(work: object, stop: asyncio.Event) -> None:
    """Wait for `work` (a coroutine) or for `stop`, whichever comes first; raise what `work` raised."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        task.cancel()
        stopped.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)


async def _main() -> int:
    try:
        config = settings.from_environment(os.environ)
    except SettingsError as error:
        logs.configure()
        _log.error(str(error))
        return EXIT_REFUSED
    logs.configure(config.log_level)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await serve(config, stop)
    except StoreLockedError as error:
        _log.error(str(error))
        return EXIT_TRY_AGAIN
    except (StoreError, TrustError, ClusterError, HubError) as error:
        _log.error(str(error))
        return EXIT_REFUSED
    except OSError as error:
        _log.error("cannot start: %s", error)
        return EXIT_REFUSED
    except Exception:
        # The kubelet starts the daemon anew; the line says what for.
        _log.exception("unexpected end")
        return 1
    _log.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
