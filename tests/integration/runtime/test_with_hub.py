# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an empty claim to acknowledged messages: daemon, proxy and sensor against the lab's hub emulator."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from edgeha_runtime.daemon.credential import Credential
from edgeha_runtime.daemon.hub import HubClient, HubError, HubUnavailableError
from edgeha_runtime.daemon.keystore import KeyStore, Owner
from edgeha_runtime.daemon.settings import from_environment
from edgeha_runtime.daemon.trust import TrustBundle

from tests.integration.runtime.emulator import DEVICE_KEY, HUB_IP, REPOSITORY, Hub
from tests.integration.runtime.parts import Daemon, start_proxy, until
from tests.ports import free_port


async def test_messages_of_the_sensor_arrive_and_go_on_after_the_hub_was_away(
    online: Daemon, hub: Hub, proxy_binary: Path, tmp_path: Path
) -> None:
    await online.start()
    await until("ready", online.is_ready)
    listen = f"127.0.0.1:{free_port()}"
    (tmp_path / "token").write_text("sensor-token")
    sidecar = online.given("gw-sensor", "workload-proxy") | {
        "EDGEHA_WORKLOAD_URL": online.url,
        "EDGEHA_WORKLOAD_TOKEN_FILE": str(tmp_path / "token"),
        "EDGEHA_WORKLOAD_LISTEN": listen,
    }
    module = online.given("gw-sensor") | {
        "IOTEDGE_WORKLOADURI": f"http://{listen}",
        # The SDK has no way to name a port for REST and goes to 8883 for MQTT: the bare address.
        "IOTEDGE_GATEWAYHOSTNAME": HUB_IP,
        "NODE_NAME": "node-a",
    }
    with (tmp_path / "sensor.log").open("wb") as log:
        started = [await start_proxy(proxy_binary, sidecar)]
        try:
            started.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, str(REPOSITORY / "lab/images/sensor/sensor.py"), env=module, stdout=log
                )
            )
            bodies = await arrived(hub, 3)
            assert {body["node"] for body in bodies} == {"node-a"}
            assert len({body["boot"] for body in bodies}) == 1
            await hub.stop()
            await hub.start()
            bodies = await arrived(hub, len(bodies) + 3)
            # Each number at least once, in order of first arrival: nothing acknowledged got lost.
            numbers = list(dict.fromkeys(body["sequence"] for body in bodies))
            assert numbers == list(range(1, len(numbers) + 1))
        finally:
            for process in started:
                process.kill()
                await process.wait()
    lines = [json.loads(line) for line in (tmp_path / "sensor.log").read_text().splitlines()]
    acknowledged = {line["sequence"] for line in lines if line["event"] == "acknowledged"}
    assert acknowledged <= {body["sequence"] for body in [*bodies, *await arrived(hub, 1)]}


async def arrived(hub: Hub, count: int) -> list[dict[str, Any]]:
    """Bodies of the messages at the hub, once there are `count`."""
    found: list[dict[str, Any]] = []

    async def enough() -> bool:
        found[:] = [
            entry["body"] if isinstance(entry["body"], dict) else json.loads(entry["body"])
            for entry in await hub.messages()
        ]
        return len(found) >= count

    await until(f"{count} messages at the hub", enough, 40)
    return found


async def test_state_outlives_the_daemon_and_the_hub_sees_one_identity(online: Daemon, hub: Hub) -> None:
    await online.start()
    await until("ready", online.is_ready)
    generation = online.given("gw-sensor")["IOTEDGE_MODULEGENERATIONID"]
    await until("its image is kept", lambda: "r/sensor:1" in online.kept_images())
    writes = list(online.api.writes)
    await online.stop(signal.SIGKILL)
    await hub.stop()
    (online.folder / "daemon.log").write_text("")
    await online.start()
    await until("ready from the claim, with the hub away", online.is_ready)
    assert online.given("gw-sensor")["IOTEDGE_MODULEGENERATIONID"] == generation
    assert online.api.writes == writes


def client(hub: Hub, folder: Path, *, key: str = DEVICE_KEY, ca: str = "") -> HubClient:
    """The daemon's hub client, alone."""
    (folder / "device-key").write_text(key)
    config = from_environment(
        {
            "EDGEHA_RELEASE": "gw",
            "EDGEHA_NAMESPACE": "edge-gw",
            "EDGEHA_POD_NAME": "p",
            "EDGEHA_NODE_NAME": "n",
            "EDGEHA_DEVICE_ID": "gw-1",
            "EDGEHA_IOTHUB_HOSTNAME": hub.host,
            "EDGEHA_DEVICE_KEY_FILE": str(folder / "device-key"),
            "EDGEHA_STATE_DIR": str(folder),
            "EDGEHA_TRUST_BUNDLE_FILE": str(folder / "ca.pem"),
            "EDGEHA_WORKLOAD_PROXY_IMAGE": "i",
        }
    )
    return HubClient(config, Credential(config, TrustBundle(ca or hub.ca).context()), pause=0.05)


async def test_identities_are_made_read_given_keys_and_deleted(hub: Hub, tmp_path: Path) -> None:
    device = client(hub, tmp_path)
    try:
        assert await device.get_module("a-b.c$1") is None
        made = await device.create_module("a-b.c$1")
        again = await device.create_module("a-b.c$1")
        assert again == made
        keyed = await device.set_keys("a-b.c$1", b"p" * 32, b"s" * 32)
        assert keyed.generation_id == made.generation_id
        assert base64.b64decode(keyed.primary_key) == b"p" * 32
        assert await device.get_module("a-b.c$1") == keyed
        await device.delete_module("a-b.c$1")
        await device.delete_module("a-b.c$1")
        assert await device.get_module("a-b.c$1") is None
    finally:
        await device.close()


async def test_a_wrong_device_key_is_told_as_such(hub: Hub, tmp_path: Path) -> None:
    device = client(hub, tmp_path, key=base64.b64encode(b"x" * 32).decode())
    try:
        with pytest.raises(HubError, match=r"answered 401.*device gw-1: wrong device key in the Secret"):
            await device.get_module("m")
    finally:
        await device.close()


async def test_a_clock_that_is_off_is_told_with_its_offset(hub: Hub, tmp_path: Path) -> None:
    await hub.stop()
    await hub.start(clock_offset="7200")
    device = client(hub, tmp_path)
    try:
        with pytest.raises(HubError, match=r"clock of this node is -7\d\d\d s off the hub's"):
            await device.get_module("m")
    finally:
        await device.close()


async def test_a_hub_that_is_not_trusted_or_away_is_told_as_such(
    hub: Hub, tmp_path: Path, certificates: Path
) -> None:
    untrusting = client(hub, tmp_path, ca=(certificates / "ca.crt").read_text())
    try:
        with pytest.raises(HubError, match=r"certificate is not trusted"):
            await untrusting.get_module("m")
    finally:
        await untrusting.close()
    await hub.stop()
    device = client(hub, tmp_path)
    try:
        with pytest.raises(HubUnavailableError, match=r"does not answer"):
            await device.get_module("m")
    finally:
        await device.close()


async def test_a_removed_modules_identity_goes_too_and_other_identities_stay(
    online: Daemon, hub: Hub, tmp_path: Path
) -> None:
    device = client(hub, tmp_path)
    try:
        await device.create_module("foreign")
        await online.start()
        await until("ready", online.is_ready)
        assert await device.get_module("sensor") is not None
        online.api.module_set()

        async def gone() -> bool:
            return await device.get_module("sensor") is None

        await until("the identity is gone", gone)
        # The store follows the hub, so an end in between only means to ask once more.
        await until("it is forgotten", lambda: any(e["msg"] == "module identity removed" for e in online.log))
        assert await device.get_module("foreign") is not None
        await online.stop()
        assert dict(KeyStore.open(online.state, Owner("gw-1", hub.host)).identities) == {}
    finally:
        await device.close()


async def test_edge_agents_identities_are_made_at_the_hub_and_go_by_its_word_alone(
    online: Daemon, hub: Hub, tmp_path: Path
) -> None:
    online.api.module_set({"name": "edgeAgent", "image": "r/agent:1"})
    online.api.tokens["agent-token"] = ("system:serviceaccount:edge-gw:gw-edgeagent", ["edgeha-gw"])
    version = {"api-version": "2022-08-03"}
    device = client(hub, tmp_path)
    try:
        await online.start()
        await until("ready", online.is_ready)
        agent = await device.get_module("$edgeAgent")
        assert agent is not None, "the hub made it with the device"
        store = KeyStore.open(online.state, Owner("gw-1", hub.host))
        key = store.module_key("$edgeAgent", agent.generation_id, "primary")
        assert base64.b64decode(agent.primary_key) == key, "the daemon signs with it"

        async def call(method: str, path: str, body: object = None) -> tuple[int, Any]:
            async with (
                online.management("agent-token") as session,
                session.request(method, path, params=version, json=body) as answer,
            ):
                return answer.status, await answer.json() if answer.status == 200 else None

        status, made = await call("POST", "/identities/", {"moduleId": "Filter", "managedBy": "IotEdge"})
        at_hub = await device.get_module("Filter")
        assert at_hub is not None
        assert (status, made["generationId"]) == (200, at_hub.generation_id)
        await call("POST", "/identities/", {"moduleId": "$edgeHub", "managedBy": "IotEdge"})
        # A module that nobody starts needs its identity still.
        await online.stop(signal.SIGKILL)
        (online.folder / "daemon.log").write_text("")
        await online.start()
        await until("ready again", online.is_ready)
        assert await device.get_module("Filter") == at_hub
        status, updated = await call("PUT", "/identities/Filter", {"generationId": at_hub.generation_id})
        assert (status, updated) == (200, made)
        assert (await call("DELETE", "/identities/Filter"))[0] == 204
        assert await device.get_module("Filter") is None
        assert (await call("DELETE", "/identities/$edgeHub"))[0] == 204
        assert await device.get_module("$edgeHub") is not None, "it belongs to the device"
    finally:
        await device.close()
