# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway whose way to the cloud is an HTTP proxy."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from tests.integration.runtime.connect_proxy import ConnectProxy
from tests.integration.runtime.emulator import DEVICE_KEY, HUB_IP, Dps, Hub
from tests.integration.runtime.parts import AGENT, Daemon, until
from tests.integration.runtime.test_dps import keys
from tests.integration.runtime.test_x509 import authenticate, by_thumbprint, given
from tests.tls import issue

LIMIT = 40.0


async def told(daemon: Daemon, *parts: str) -> None:
    """Wait until a reason for not being ready holds all of these."""

    async def in_readyz() -> bool:
        try:
            status, reasons = await daemon.ready()
        except aiohttp.ClientError:
            return False
        return status == 503 and any(all(part in line for part in parts) for line in reasons.splitlines())

    await until(f"{parts} in /readyz", in_readyz, LIMIT)


async def test_identities_come_through_the_proxy(online: Daemon, hub: Hub, proxy: ConnectProxy) -> None:
    await online.start(EDGEHA_HTTPS_PROXY=proxy.url)
    await until("ready", online.is_ready)
    assert set(proxy.targets) == {hub.host}
    assert await hub.service("GET", "/devices/gw-1/modules/sensor")
    # There is no other way: without the proxy a new module waits.
    await proxy.stop()
    online.api.module_set({"name": "new", "image": "r/new:1"})
    await told(online, "module new: ", f"proxy {proxy.url} cannot be reached")
    await proxy.start()
    await until("ready again", online.is_ready, LIMIT)
    assert await hub.service("GET", "/devices/gw-1/modules/new")


async def test_a_certificate_proves_the_device_through_the_proxy(
    online: Daemon, hub: Hub, proxy: ConnectProxy, tmp_path: Path
) -> None:
    own = issue("gw-1")
    await authenticate(hub, by_thumbprint(own))
    await online.start(**given(own, tmp_path), EDGEHA_HTTPS_PROXY=proxy.url)
    await until("ready", online.is_ready)
    assert set(proxy.targets) == {hub.host}
    assert await hub.service("GET", "/devices/gw-1/modules/sensor")


async def test_the_provisioning_service_is_asked_through_the_proxy(
    daemon: Daemon, dps: Dps, proxy: ConnectProxy
) -> None:
    body = {"registrationId": "reg-1", "deviceId": "gw-from-dps", "attestation": keys(DEVICE_KEY)}
    await dps.enroll("/enrollments/reg-1", body | {"capabilities": {"iotEdge": True}})
    daemon.hub, daemon.trust = HUB_IP, dps.hub.ca
    daemon.api.module_set({"name": "sensor", "image": "r/sensor:1"})
    await proxy.stop()
    await daemon.start(wait=False, EDGEHA_HTTPS_PROXY=proxy.url, **dps.settings("reg-1"))
    await told(
        daemon,
        f"provisioning service {dps.host}: proxy {proxy.url} cannot be reached",
        "Start it, or correct network.httpsProxy",
    )
    await proxy.start()
    await until("ready", daemon.is_ready, LIMIT)
    assert list(dict.fromkeys(proxy.targets)) == [dps.host, f"{HUB_IP}:443"]


async def test_a_proxy_that_wants_a_login_is_told_and_one_that_no_longer_does_is_used(
    online: Daemon, hub: Hub, proxy: ConnectProxy
) -> None:
    proxy.refuses = True
    await online.start(EDGEHA_HTTPS_PROXY=proxy.url)
    await told(
        online,
        f"hub {hub.host}: proxy {proxy.url} refuses the way there with 407 Proxy Authentication Required",
        "without a login",
        "network.httpsProxy",
        "network.noProxy",
    )
    assert proxy.targets == []
    assert online.process is not None
    assert online.process.returncode is None
    proxy.refuses = False
    await until("ready", online.is_ready, LIMIT)
    assert set(proxy.targets) == {hub.host}


async def test_a_proxy_that_is_away_holds_up_no_start_and_is_waited_for(
    online: Daemon, hub: Hub, proxy: ConnectProxy
) -> None:
    await proxy.stop()
    await online.start(EDGEHA_HTTPS_PROXY=proxy.url)
    await told(
        online,
        f"hub {hub.host}: proxy {proxy.url} cannot be reached: ",
        "Start it, or correct network.httpsProxy, or name the host in network.noProxy",
    )
    assert any(f"proxy {proxy.url} cannot be reached" in line["msg"] for line in online.log)
    await proxy.start()
    await until("ready", online.is_ready, LIMIT)
    assert set(proxy.targets) == {hub.host}


@pytest.mark.parametrize("rule", [HUB_IP, f"10.0.0.0/8,{HUB_IP}/32"], ids=["address", "network"])
async def test_what_is_named_in_no_proxy_is_reached_without_it(
    online: Daemon, hub: Hub, proxy: ConnectProxy, rule: str
) -> None:
    await online.start(EDGEHA_HTTPS_PROXY=proxy.url, EDGEHA_NO_PROXY=rule)
    await until("ready", online.is_ready)
    assert await hub.service("GET", "/devices/gw-1/modules/sensor")
    assert (proxy.targets, proxy.refused) == ([], 0)


async def test_edge_agent_gets_the_way_and_other_modules_what_their_deployment_says(
    online: Daemon, hub: Hub, proxy: ConnectProxy
) -> None:
    online.api.module_set(AGENT, {"name": "sensor", "image": "r/sensor:1"})
    await online.start(
        EDGEHA_HTTPS_PROXY=proxy.url, EDGEHA_NO_PROXY="10.0.0.0/8", EDGEHA_GATEWAY_HOSTNAME="gateway.plant"
    )
    await until("ready", online.is_ready)
    env = online.given("gw-edgeagent")
    assert (env["https_proxy"], hub.host in env["no_proxy"]) == (proxy.url, False)
    assert {"10.0.0.0/8", "127.0.0.1", "gw-daemon.edge-gw.svc", "gateway.plant"} < set(
        env["no_proxy"].split(",")
    )
    for name, which in (("gw-sensor", "module"), ("gw-edgeagent", "workload-proxy")):
        assert not {"https_proxy", "no_proxy"} & online.given(name, which).keys()
    online.api.module_set(AGENT | {"env": {"HTTPS_PROXY": "http://other.plant:3128", "no_proxy": "x"}})

    def own() -> bool:
        # The new pod comes when the one before is gone.
        found = online.given("gw-edgeagent") if "gw-edgeagent-a" in online.api.placed() else {}
        return "https_proxy" not in found and (found.get("HTTPS_PROXY"), found.get("no_proxy")) == (
            "http://other.plant:3128",
            "x",
        )

    await until("its own", own)
