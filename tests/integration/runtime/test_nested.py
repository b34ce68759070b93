# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway below another one: its calls go to the parent, signed for the hub.

The emulator takes the parent's place, under the parent's address and with the hub's name.
"""

from __future__ import annotations

import aiohttp
import pytest

from tests.integration.runtime.emulator import HUB_IP, Hub
from tests.integration.runtime.parts import Daemon, until

HUB = "hub.test"
AGENT = {"name": "edgeAgent", "image": "$upstream:443/agent:1"}


@pytest.fixture
async def below(online: Daemon, hub: Hub) -> Daemon:
    """A daemon, not started, whose hub is one that only the parent reaches."""
    await hub.stop()
    await hub.cli("init", "--state", str(hub.state), "--name", HUB)
    await hub.start()
    online.hub = HUB
    online.api.module_set(AGENT, {"name": "sensor", "image": "r/sensor:1"})
    return online


async def test_calls_go_to_the_parent_and_are_signed_for_the_hub(below: Daemon, hub: Hub) -> None:
    await below.start(EDGEHA_PARENT_HOSTNAME=hub.host)
    await until("ready", below.is_ready)
    assert await hub.service("GET", "/devices/gw-1/modules/sensor")
    given = below.given("gw-edgeagent")
    assert given["IOTEDGE_GATEWAYHOSTNAME"] == HUB_IP
    assert given["IOTEDGE_IOTHUBHOSTNAME"] == HUB
    assert below.container("gw-edgeagent")["image"] == f"{HUB_IP}:443/agent:1"
    assert below.given("gw-sensor")["IOTEDGE_IOTHUBHOSTNAME"] == HUB


async def test_a_parent_that_cannot_be_reached_is_told_and_known_modules_go_on(
    below: Daemon, hub: Hub
) -> None:
    await below.start(EDGEHA_PARENT_HOSTNAME=hub.host)
    await until("ready", below.is_ready)
    await hub.stop()
    below.api.module_set(AGENT, {"name": "sensor", "image": "r/sensor:1"}, {"name": "new", "image": "r/n:1"})

    async def told() -> bool:
        try:
            return f"module new: parent gateway {hub.host} does not answer" in (await below.ready())[1]
        except aiohttp.ClientError:
            return False

    await until("the reason", told, 40)
    assert "module sensor" not in (await below.ready())[1]
