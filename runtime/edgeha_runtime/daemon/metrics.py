# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the daemon tells Prometheus.

Names and units follow Prometheus' own rules (base units, `_total` for counters). No label holds anything that
a caller may choose freely: routes stand as the contract writes them, modules as the deployment calls them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from edgeha_runtime import __version__

LOOK_SECONDS = 1.0
STATES = ("running", "stopped", "failed", "unknown")

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
REQUESTS = Counter(
    "edgeha_daemon_requests",
    "Requests to the two APIs of IoT Edge.",
    ("api", "route", "code"),
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "edgeha_daemon_request_duration_seconds",
    "Time from a request to its answer; logs that are followed are left out.",
    ("api",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
    registry=REGISTRY,
)
REVIEWS = Counter(
    "edgeha_daemon_token_reviews",
    "Questions to the cluster's API whose a token is, by the answer.",
    ("result",),
    registry=REGISTRY,
)
HUB_REQUESTS = Counter(
    "edgeha_daemon_hub_requests",
    "Requests to IoT Hub; code is empty where there was no answer.",
    ("method", "code"),
    registry=REGISTRY,
)


class Modules(Protocol):
    """What is told of the modules."""

    def states(self) -> dict[str, str]:
        """State of each desired module, in the contract's words."""

    def elsewhere(self) -> dict[str, str]:
        """For each module that shall run: why it is not on the daemon's machine, empty where it is."""

    def not_ready(self) -> list[str]:
        """What keeps the gateway from running its module set."""


class GatewayCollector(Collector):
    """The gateway's state as it is when Prometheus asks."""

    def __init__(
        self,
        device: str,
        hub: str,
        modules: Modules,
        ca_expires: Callable[[], datetime | None],
        certificate_expires: Callable[[], datetime | None],
        state_dir: Path,
    ) -> None:
        self._device = device
        self._hub = hub
        self._modules = modules
        self._ca_expires = ca_expires
        self._certificate_expires = certificate_expires
        self._state_dir = state_dir
        self._size: os.statvfs_result | None = None
        self._looking: asyncio.Future[os.statvfs_result] | None = None

    def collect(self) -> Iterator[Metric]:
        """The metrics, each read now."""
        yield InfoMetricFamily(
            "edgeha_gateway",
            "The gateway, and the version of its daemon.",
            {"device": self._device, "hub": self._hub, "version": __version__},
        )
        yield GaugeMetricFamily(
            "edgeha_gateway_not_ready_reasons",
            "Reasons for which the gateway is not ready; /readyz tells them.",
            len(self._modules.not_ready()),
        )
        states = GaugeMetricFamily(
            "edgeha_module_state", "1 for the state that a module is in.", labels=("module", "state")
        )
        for module, state in sorted(self._modules.states().items()):
            for one in STATES:
                states.add_metric((module, one), float(state == one))
        yield states
        elsewhere = GaugeMetricFamily(
            "edgeha_module_elsewhere",
            "1 for a module that is not, or cannot be, on the machine of its slot's daemon.",
            labels=("module",),
        )
        for module, reason in sorted(self._modules.elsewhere().items()):
            elsewhere.add_metric((module,), float(bool(reason)))
        yield elsewhere
        for name, meaning, expires in (
            (
                "edgeha_edge_ca_not_after_timestamp_seconds",
                "When the CA of the modules' certificates ends, as it was last used.",
                self._ca_expires(),
            ),
            (
                "edgeha_device_certificate_not_after_timestamp_seconds",
                "When the certificate ends by which the device proves itself.",
                self._certificate_expires(),
            ),
        ):
            if expires is not None:
                yield GaugeMetricFamily(name, meaning, expires.timestamp())
        size = self._size
        if size is not None:
            yield GaugeMetricFamily(
                "edgeha_state_size_bytes", "Size of the volume with the state.", size.f_blocks * size.f_frsize
            )
            yield GaugeMetricFamily(
                "edgeha_state_available_bytes", "Free space of that volume.", size.f_bavail * size.f_frsize
            )

    async def look(self) -> None:
        """Look at the volume, whose size is left out where that fails or takes longer than LOOK_SECONDS.

        In a thread, and in one at a time: on a network file system this may hang with the server.
        """
        looking = self._looking
        if looking is None:
            loop = asyncio.get_running_loop()
            looking = self._looking = loop.run_in_executor(None, os.statvfs, self._state_dir)
        await asyncio.wait({looking}, timeout=LOOK_SECONDS)
        self._size = looking.result() if looking.done() and not looking.exception() else None
        # Who waited for the same look may have been here before, and the next one may have begun.
        if looking.done() and self._looking is looking:
            self._looking = None


async def answer(_request: web.Request) -> web.Response:
    """All metrics, as Prometheus reads them."""
    return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})
