# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics come although the volume with the state does not answer, or fails."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest
from edgeha_runtime.daemon import metrics
from edgeha_runtime.daemon.metrics import GatewayCollector

SIZE = "edgeha_state_size_bytes"


class NoModules:
    """A gateway that runs nothing."""

    def states(self) -> dict[str, str]:
        return {}

    def elsewhere(self) -> dict[str, str]:
        return {"here": "", "there": "its pod is on node-b"}

    def not_ready(self) -> list[str]:
        return []


@pytest.fixture
def collector(tmp_path: Path) -> GatewayCollector:
    return GatewayCollector("gw-1", "hub", NoModules(), lambda: None, lambda: None, tmp_path)


def names(collector: GatewayCollector) -> set[str]:
    return {metric.name for metric in collector.collect()}


async def test_the_size_of_the_volume_is_told(collector: GatewayCollector) -> None:
    await collector.look()
    assert SIZE in names(collector)


async def test_two_who_ask_at_a_time_are_both_told(collector: GatewayCollector) -> None:
    await asyncio.gather(collector.look(), collector.look())
    assert SIZE in names(collector)


def test_modules_on_another_machine_are_told(collector: GatewayCollector) -> None:
    (found,) = (metric for metric in collector.collect() if metric.name == "edgeha_module_elsewhere")
    assert {one.labels["module"]: one.value for one in found.samples} == {"here": 0.0, "there": 1.0}


async def test_a_volume_that_fails_takes_no_other_metric_away(
    collector: GatewayCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(_path: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "statvfs", stale)
    await collector.look()
    assert SIZE not in names(collector)
    assert "edgeha_gateway_not_ready_reasons" in names(collector)
    monkeypatch.undo()
    await collector.look()
    assert SIZE in names(collector)


async def test_a_volume_that_hangs_holds_up_one_thread_and_nothing_else(
    collector: GatewayCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "LOOK_SECONDS", 0.02)
    back, real, looks, waited = threading.Event(), os.statvfs, [], []

    def hanging(path: Path) -> os.statvfs_result:
        looks.append(path)
        waited.append(back.wait(60))
        return real(path)

    monkeypatch.setattr(os, "statvfs", hanging)
    async with asyncio.timeout(60):
        while not looks:
            await collector.look()
    for _ in range(3):
        await collector.look()
    assert not waited, "nobody waited for it"
    assert (len(looks), SIZE in names(collector)) == (1, False)
    back.set()
    async with asyncio.timeout(60):
        while SIZE not in names(collector):
            await collector.look()
