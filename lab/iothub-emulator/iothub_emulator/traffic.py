# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to calls on their way: they are counted, throttled and hit by injected faults.

The calls below /$emulator/ are for tests and benchmarks. They are no part of a hub's contract, need the
policy iothubowner, and are neither counted nor met by faults. Nothing here outlives the server.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from iothub_emulator.errors import HubError
from iothub_emulator.faults import Fault, parse_fault
from iothub_emulator.feature import Context, Feature
from iothub_emulator.operations import OperationClass
from iothub_emulator.options import ServeOptions
from iothub_emulator.rest import Cut, Handler, json_response, read_json
from iothub_emulator.throttle import Meter, rates


class Traffic:
    """The way of every call, and its calls below /$emulator/."""

    def __init__(self, options: ServeOptions) -> None:
        self._meters: dict[OperationClass, Meter] = {}
        if options.tier is not None:
            self._meters = {
                operation: Meter(operation, rate, options.throttle_burst, options.throttle_backlog)
                for operation, rate in rates(options.tier, options.units).items()
            }
        self._faults: list[Fault] = []
        self._reset()

    def _reset(self) -> None:
        self._since = time.monotonic()
        self._calls: Counter[str] = Counter()
        self._throttled: Counter[str] = Counter()
        self._delayed: Counter[str] = Counter()
        self._delay_seconds: dict[str, float] = {}
        self._met_by_faults = 0

    async def pass_on(
        self, request: web.Request, operation: OperationClass, handler: Handler
    ) -> web.StreamResponse:
        """Let an authorized call through to its handler, late, or not at all."""
        self._calls[operation] += 1
        await self._throttle(operation)
        fault = next(
            (
                fault
                for fault in self._faults
                if fault.meets(operation, request.method, request.path, _chance)
            ),
            None,
        )
        if fault is None:
            return await handler(request)
        self._met_by_faults += 1
        await asyncio.sleep(fault.delay)
        response = await handler(request) if fault.after or not (fault.cut or fault.status) else None
        if fault.cut:
            raise Cut
        if fault.status is not None:
            code = fault.code or ""
            raise HubError(fault.status, code, "A fault that a test injected.", dict(fault.headers or {}))
        if response is None:
            raise RuntimeError("a fault without an answer")
        return response

    async def _throttle(self, operation: OperationClass) -> None:
        meter = self._meters.get(operation)
        if meter is None:
            return
        try:
            delay = meter.take(time.monotonic())
        except HubError:
            self._throttled[operation] += 1
            raise
        if delay:
            self._delayed[operation] += 1
            self._delay_seconds[operation] = self._delay_seconds.get(operation, 0.0) + delay
            await asyncio.sleep(delay)

    async def get_statistics(self, _request: web.Request) -> web.Response:
        return json_response(
            {
                "seconds": time.monotonic() - self._since,
                "calls": dict(self._calls),
                "throttled": dict(self._throttled),
                "delayed": dict(self._delayed),
                "delaySeconds": self._delay_seconds,
                "metByFaults": self._met_by_faults,
            }
        )

    async def delete_statistics(self, _request: web.Request) -> web.Response:
        self._reset()
        return web.Response(status=204)

    async def get_faults(self, _request: web.Request) -> web.Response:
        return json_response([fault.document() for fault in self._faults])

    async def add_fault(self, request: web.Request) -> web.Response:
        fault = parse_fault(await read_json(request))
        self._faults.append(fault)
        return json_response(fault.document())

    async def delete_faults(self, _request: web.Request) -> web.Response:
        self._faults.clear()
        return web.Response(status=204)


def _chance() -> float:
    return secrets.randbelow(10**6) / 10**6


@asynccontextmanager
async def _run(context: Context) -> AsyncIterator[None]:
    traffic = Traffic(context.options)
    rest = context.rest
    rest.set_way(traffic.pass_on)
    rest.add_emulator_route("GET", "/$emulator/statistics", traffic.get_statistics)
    rest.add_emulator_route("DELETE", "/$emulator/statistics", traffic.delete_statistics)
    rest.add_emulator_route("GET", "/$emulator/faults", traffic.get_faults)
    rest.add_emulator_route("POST", "/$emulator/faults", traffic.add_fault)
    rest.add_emulator_route("DELETE", "/$emulator/faults", traffic.delete_faults)
    yield


FEATURE = Feature(_run)
