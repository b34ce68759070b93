# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon that starts with a module set that nobody can read goes on with the last readable one."""

from __future__ import annotations

import json
import signal

import pytest
from edgeha_runtime.daemon.keystore import MODULE_SET_FILE, KeyStore, Owner

from tests.integration.runtime.parts import OTHER, SENSOR, Daemon, sensor_signs, until


@pytest.fixture
async def known(daemon: Daemon) -> Daemon:
    """A daemon that knows its two modules; its hub is away."""
    daemon.state.mkdir()
    store = KeyStore.open(daemon.state, Owner("gw-1", daemon.hub))
    for name, generation in (("Sensor", "637"), ("other", "638")):
        store.remember(name, generation)
    daemon.api.module_set(SENSOR, OTHER)
    daemon.api.tokens["sensor-token"] = ("system:serviceaccount:edge-gw:gw-sensor", ["edgeha-gw"])
    await daemon.start()
    await until("ready from the cache", daemon.is_ready)
    await daemon.stop(signal.SIGKILL)
    (daemon.folder / "daemon.log").write_text("")
    return daemon


@pytest.mark.parametrize("broken", ["no JSON", None], ids=["unreadable", "deleted"])
async def test_modules_go_on_and_sign_after_a_restart(known: Daemon, broken: str | None) -> None:
    if broken is None:
        known.api.remove("configmaps", "gw-modules")
    else:
        known.api.put("configmaps", "gw-modules", {"data": {"modules.json": broken}})
    pods, known.api.writes = known.api.placed(), []
    await known.start()

    async def tells() -> bool:
        return "ConfigMap gw-modules" in (await known.ready())[1]

    await until("the reason", tells)
    assert await sensor_signs(known) == 200
    assert (known.api.placed(), known.api.writes) == (pods, [])
    known.api.module_set(SENSOR)
    await until("the new set counts", lambda: known.api.placed() == {"gw-sensor-a"})
    await until("ready", known.is_ready)
    assert json.loads((known.state / MODULE_SET_FILE).read_text())["moduleSet"] == json.dumps([SENSOR])
