# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Killed with -9 at each of its write steps, the daemon goes on with what there is: nothing is made twice."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runtime.emulator import Hub
from tests.integration.runtime.parts import AGENT, RUNTIME, Daemon, until
from tests.integration.runtime.standin_api import in_slot

KILL_AT = Path(__file__).parent / "kill_at"
# Parts of the steps, so that several processes share them.
PARTS = 4
MODULES = (AGENT, {"name": "sensor", "image": "r/sensor:1"})
KINDS = ("pods", "serviceaccounts", "services", "secrets", "daemonsets")


async def made(daemon: Daemon, hub: Hub) -> dict[str, Any]:
    """What there is: uid of each object, generation of each identity, and the master key."""
    found: dict[str, Any] = {
        f"{kind}/{name}": content["metadata"]["uid"]
        for (kind, name), content in daemon.api.objects.items()
        if kind in KINDS
    }
    for module in await hub.service("GET", "/devices/gw-1/modules"):
        found[f"identity/{module['moduleId']}"] = module["generationId"]
    if (daemon.state / "master-key.json").exists():
        found["master key"] = daemon.master_key
    return found


async def forget(daemon: Daemon, hub: Hub) -> None:
    """Make everything as before the first start."""
    for kind, name in [key for key in daemon.api.objects if key[0] in KINDS and key[1] != "gw-daemon"]:
        daemon.api.remove(kind, name)
    for module in await hub.service("GET", "/devices/gw-1/modules"):
        path = f"/devices/gw-1/modules/{module['moduleId']}"
        if module["moduleId"].startswith("$"):
            continue
        await hub.service("DELETE", path, change=True)
    shutil.rmtree(daemon.state, ignore_errors=True)
    (daemon.folder / "daemon.log").write_text("")


async def ended(daemon: Daemon) -> bool:
    """Whether the daemon came to its step; False when all was done before."""
    assert daemon.process is not None
    waits = asyncio.create_task(daemon.process.wait())

    async def over() -> bool:
        try:
            return waits.done() or ("r/sensor:1" in daemon.kept_images() and await daemon.is_ready())
        except OSError:
            return False

    await until("the step, or that all is done", over)
    # The last steps may follow the moment at which it is ready.
    await asyncio.wait((waits,), timeout=0 if waits.done() else 1.5)
    if not waits.done():
        waits.cancel()
        return False
    return True


@pytest.mark.parametrize("part", range(PARTS))
async def test_nothing_is_made_twice_or_lost(online: Daemon, hub: Hub, part: int) -> None:
    online.api.module_set(*MODULES)
    path = f"{KILL_AT}:{RUNTIME}"
    step, steps = part + 1, 0
    while True:
        await forget(online, hub)
        await online.start(wait=False, PYTHONPATH=path, KILL_AT=str(step))
        killed = await ended(online)
        await online.stop()
        if not killed:
            break
        before = await made(online, hub)
        (online.folder / "daemon.log").write_text("")
        await online.start()
        await until(f"ready after a kill at step {step}", online.is_ready)
        await until("its image is kept", lambda: "r/sensor:1" in online.kept_images())
        after = await made(online, hub)
        changed = {name for name, value in before.items() if after.get(name) != value}
        assert not changed, f"made anew after a kill at step {step}: {changed}"
        assert "identity/sensor" in after
        pods = sorted(in_slot(name) for name in after if name.startswith("pods/"))
        assert pods == ["pods/gw-edgeagent-a", "pods/gw-sensor-a"], "each once"
        await online.stop()
        steps += 1
        step += PARTS
    assert steps >= 5, "the steps were counted"
