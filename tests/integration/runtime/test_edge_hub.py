# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's edgeHub between Microsoft's clients and the hub emulator: what it acknowledged arrives."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from azure.iot.device import Message, MethodResponse
from azure.iot.device.aio import IoTHubDeviceClient, IoTHubModuleClient
from azure.iot.device.exceptions import ClientError
from edgeha_runtime.daemon.credential import sas_token
from yarl import URL

from tests.integration.runtime.connect_proxy import ConnectProxy
from tests.integration.runtime.emulator import HUB_IP, REPOSITORY, Hub
from tests.integration.runtime.parts import Daemon, start_proxy, until
from tests.ports import free_port

GATEWAY_IP = HUB_IP.removesuffix("1") + "2"
LEAF_KEY = "bGVhZi1rZXktb2YtdGhlLXRlc3RzLTAx"
LIMIT = 30.0


@dataclass
class Gateway:
    """Daemon, proxies and edgeHub of one gateway, with a module `m`."""

    daemon: Daemon
    hub: Hub
    folder: Path
    proxy: Path
    uris: dict[str, str] = field(default_factory=dict)
    proxies: list[asyncio.subprocess.Process] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None
    more: dict[str, str] = field(default_factory=dict)  # of edgeHub's environment
    https_port: int = 0

    async def start_proxy(self, account: str) -> None:
        listen = f"127.0.0.1:{free_port()}"
        token = self.folder / f"{account}.token"
        token.write_text(f"{account}-token")
        sidecar = self.daemon.given(account, "workload-proxy") | {
            "EDGEHA_WORKLOAD_URL": self.daemon.url,
            "EDGEHA_WORKLOAD_TOKEN_FILE": str(token),
            "EDGEHA_WORKLOAD_LISTEN": listen,
        }
        self.proxies.append(await start_proxy(self.proxy, sidecar, LIMIT))
        self.uris[account] = f"http://{listen}"

    @property
    def log(self) -> list[dict[str, Any]]:
        lines = (self.folder / "edgehub.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def start(self, *, wait: bool = True) -> None:
        """Start edgeHub and wait until clients may come."""
        self.https_port = free_port(GATEWAY_IP)
        lab = REPOSITORY / "lab"
        paths = [lab / "images/hub", lab / "images", lab / "iothub-emulator"]
        environment = (
            self.daemon.given("gw-edgehub")
            | self.more
            | {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": ":".join(map(str, paths)),
                "IOTEDGE_WORKLOADURI": self.uris["gw-edgehub"],
                "EdgeDeviceHostName": GATEWAY_IP,
                "storageFolder": str(self.folder / "edgehub"),
                "LISTEN_ADDRESS": GATEWAY_IP,
                "HTTPS_PORT": str(self.https_port),
                "METRICS_PORT": str(free_port(GATEWAY_IP)),
            }
        )
        (self.folder / "edgehub.log").write_text("")
        with (self.folder / "edgehub.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "edge_hub", env=environment, stdout=log, stderr=log
            )
        if not wait:
            return
        await until("edgeHub serves", lambda: any(line["event"] == "serving" for line in self.log), LIMIT)

    async def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                self.process.kill()
            await self.process.wait()
            self.process = None

    def module(self) -> IoTHubModuleClient:
        """Microsoft's client, made from the variables of the module's container as a module makes it."""
        before = dict(os.environ)
        os.environ.update(
            self.daemon.given("gw-m")
            | {"IOTEDGE_WORKLOADURI": self.uris["gw-m"], "IOTEDGE_GATEWAYHOSTNAME": GATEWAY_IP}
        )
        try:
            return IoTHubModuleClient.create_from_edge_environment(connection_retry_interval=1)
        finally:
            os.environ.clear()
            os.environ.update(before)

    async def bodies(self, count: int) -> list[Any]:
        """Bodies of the messages at the hub, once there are `count`."""
        found: list[Any] = []

        async def enough() -> bool:
            found[:] = [entry["body"] for entry in await self.hub.messages()]
            return len(found) >= count

        await until(f"{count} messages at the hub", enough, LIMIT)
        return found


@pytest.fixture
async def gateway(online: Daemon, hub: Hub, proxy_binary: Path, tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway whose edgeHub runs."""
    online.api.module_set({"name": "edgeHub", "image": "r/hub:1"}, {"name": "m", "image": "r/m:1"})
    for account in ("gw-edgehub", "gw-m"):
        online.api.tokens[f"{account}-token"] = (f"system:serviceaccount:edge-gw:{account}", ["edgeha-gw"])
    made = Gateway(online, hub, tmp_path, proxy_binary)
    await online.start()
    await until("ready", online.is_ready)
    try:
        for account in ("gw-edgehub", "gw-m"):
            await made.start_proxy(account)
        await made.start()
        yield made
    finally:
        await made.kill()
        for process in made.proxies:
            process.kill()
            await process.wait()


async def send(client: Any, *texts: str) -> None:
    for text in texts:
        await asyncio.wait_for(client.send_message(Message(text)), LIMIT)


async def test_what_was_acknowledged_outlives_kills_and_a_hub_that_is_away(gateway: Gateway) -> None:
    client = gateway.module()
    await client.connect()
    await send(client, "1", "2")
    assert await gateway.bodies(2) == ["1", "2"]
    await gateway.hub.stop()
    await send(client, "3", "4", "5")
    await client.shutdown()
    await gateway.kill()
    # A start with the cloud away: who may come is known from before.
    await gateway.start()
    client = gateway.module()
    await client.connect()
    await send(client, "6")
    await gateway.kill()
    await gateway.start()
    await gateway.hub.start()
    arrived = await gateway.bodies(6)
    assert list(dict.fromkeys(arrived)) == ["1", "2", "3", "4", "5", "6"], "each once or more, in order"
    await client.shutdown()
    sent = await gateway.hub.messages()
    assert {(entry["device"], entry["module"]) for entry in sent} == {("gw-1", "m")}


async def test_twins_methods_and_the_cloud_pass_through(gateway: Gateway) -> None:
    client = gateway.module()
    patches: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def answer(request: Any) -> None:
        response = MethodResponse.create_from_method_request(request, 207, {"echo": request.payload})
        await client.send_method_response(response)

    client.on_twin_desired_properties_patch_received = patches.put
    client.on_method_request_received = answer
    await client.connect()
    await asyncio.wait_for(client.patch_twin_reported_properties({"mood": "good"}), LIMIT)
    twin = await asyncio.wait_for(client.get_twin(), LIMIT)
    assert twin["reported"]["mood"] == "good"
    desired = {"properties": {"desired": {"interval": 7}}}
    await gateway.hub.service("PATCH", "/twins/gw-1/modules/m", desired)
    # After a connection the SDK may tell the whole twin as a patch, too.
    async with asyncio.timeout(LIMIT):
        while (await patches.get()).get("interval") != 7:
            pass
    call = {"methodName": "hello", "payload": [1], "connectTimeoutInSeconds": 20}
    found = await gateway.hub.service("POST", "/twins/gw-1/modules/m/methods", call)
    assert found == {"status": 207, "payload": {"echo": [1]}}
    await client.shutdown()


async def test_a_gateway_below_has_its_calls_and_connections_passed_on(gateway: Gateway) -> None:
    edge = await gateway.hub.service("GET", "/devices/gw-1")
    authentication = {"type": "sas", "symmetricKey": {"primaryKey": LEAF_KEY, "secondaryKey": LEAF_KEY}}
    below = {
        "deviceId": "line", "status": "enabled", "authentication": authentication,
        "capabilities": {"iotEdge": True}, "parentScopes": [edge["deviceScope"]],
    }  # fmt: skip
    await gateway.hub.service("PUT", "/devices/line", below)
    roots = await trusted(gateway)
    door = f"{GATEWAY_IP}:{gateway.https_port}"

    async def call(method: str, device: str, body: object = None) -> tuple[int, Any]:
        resource = f"{gateway.hub.host}/devices/line"
        token = sas_token(resource, base64.b64decode(LEAF_KEY), int(time.time()) + 600)
        url = URL(f"https://{door}/devices/{device}/modules/$edgeHub?api-version=2021-04-12", encoded=True)
        context = ssl.create_default_context(cadata=roots)
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.request(method, url, json=body, headers={"Authorization": token}) as answer,
        ):
            return answer.status, await answer.json()

    async def known() -> bool:
        return (await call("GET", "line"))[0] != 401

    await until("the gateway below is known", known, LIMIT)
    status, module = await call("GET", "line")
    assert (status, module["deviceId"]) == (200, "line")
    # It asks for itself alone; the hub, and not this gateway, judges what it may.
    assert (await call("GET", "gw-1"))[0] == 401
    text = f"HostName={gateway.hub.host.partition(':')[0]};DeviceId=line;SharedAccessKey={LEAF_KEY}"
    client = IoTHubDeviceClient.create_from_connection_string(
        f"{text};GatewayHostName={GATEWAY_IP}", server_verification_cert=roots, connection_retry=False
    )
    await asyncio.wait_for(client.connect(), LIMIT)
    await send(client, "from below")
    await asyncio.wait_for(client.patch_twin_reported_properties({"mood": "good"}), LIMIT)
    assert await gateway.bodies(1) == ["from below"]
    assert (await gateway.hub.service("GET", "/twins/line"))["properties"]["reported"]["mood"] == "good"
    wrong = text.replace(LEAF_KEY, "d3Jvbmcta2V5LW9mLXRoZS10ZXN0cy0wMDE=")
    refused = IoTHubDeviceClient.create_from_connection_string(
        f"{wrong};GatewayHostName={GATEWAY_IP}", server_verification_cert=roots, connection_retry=False
    )
    with pytest.raises(ClientError):
        await refused.connect()
    await refused.shutdown()
    await client.shutdown()
    await gateway.hub.stop()
    assert (await call("GET", "line"))[0] == 503


async def test_a_device_behind_the_gateway_and_one_that_is_not(gateway: Gateway) -> None:
    edge = await gateway.hub.service("GET", "/devices/gw-1")
    authentication = {"type": "sas", "symmetricKey": {"primaryKey": LEAF_KEY, "secondaryKey": LEAF_KEY}}
    for name, scope in (("leaf", edge["deviceScope"]), ("stranger", None)):
        document = {"deviceId": name, "status": "enabled", "authentication": authentication}
        if scope:
            document["deviceScope"] = scope
        await gateway.hub.service("PUT", f"/devices/{name}", document)
    roots = await trusted(gateway)

    def device(name: str, key: str = LEAF_KEY) -> IoTHubDeviceClient:
        text = f"HostName={gateway.hub.host.partition(':')[0]};DeviceId={name};SharedAccessKey={key}"
        return IoTHubDeviceClient.create_from_connection_string(
            f"{text};GatewayHostName={GATEWAY_IP}", server_verification_cert=roots, connection_retry=False
        )

    leaf = device("leaf")

    async def connected() -> bool:
        try:
            await leaf.connect()
        except ClientError:
            return False
        return True

    await until("the leaf is known", connected, LIMIT)
    await send(leaf, "from the leaf")
    assert await gateway.bodies(1) == ["from the leaf"]
    (entry,) = await gateway.hub.messages()
    assert (entry["device"], entry["module"]) == ("leaf", None)
    for refused in (device("stranger"), device("leaf", "d3Jvbmcta2V5LW9mLXRoZS10ZXN0cy0wMDE=")):
        with pytest.raises(ClientError):
            await refused.connect()
        await refused.shutdown()
    reasons = {line["reason"] for line in gateway.log if line["event"] == "client-refused"}
    assert {"not in this gateway's scope", "wrong key"} <= reasons
    await leaf.shutdown()


async def trusted(gateway: Gateway) -> str:
    """The trust bundle, as a module gets it."""
    async with (
        gateway.daemon.session("gw-m-token") as session,
        session.get("/trust-bundle", params={"api-version": "2020-07-07"}) as answer,
    ):
        return str((await answer.json())["certificate"])


async def test_routes_bring_messages_to_inputs_also_when_nobody_is_there_yet(gateway: Gateway) -> None:
    desired = {
        "schemaVersion": "1.1",
        "routes": {
            "loop": {
                "route": 'FROM /messages/modules/m/outputs/out INTO BrokeredEndpoint("/modules/m/inputs/in")'
            },
            "up": "FROM /messages/modules/m/outputs/up INTO $upstream",
        },
        "storeAndForwardConfiguration": {"timeToLiveSecs": 600},
    }
    await gateway.hub.service("PATCH", "/twins/gw-1/modules/%24edgeHub", {"properties": {"desired": desired}})
    await until(
        "the routes",
        lambda: [line for line in gateway.log if line["event"] == "routes" and line["routes"] == 2],
        LIMIT,
    )
    client = gateway.module()
    await client.connect()
    await asyncio.wait_for(client.send_message_to_output(Message("for an input"), "out"), LIMIT)
    await asyncio.wait_for(client.send_message_to_output(Message("for the cloud"), "up"), LIMIT)
    await asyncio.wait_for(client.send_message_to_output(Message("for nobody"), "none"), LIMIT)
    assert await gateway.bodies(1) == ["for the cloud"]
    await gateway.kill()
    await gateway.start()
    taken: asyncio.Queue[Any] = asyncio.Queue()
    client.on_message_received = taken.put
    message = await asyncio.wait_for(taken.get(), LIMIT)
    assert (message.data, message.input_name) == (b"for an input", "in")
    assert len(await gateway.hub.messages()) == 1
    await client.shutdown()

    async def reported() -> bool:
        twin = await gateway.hub.service("GET", "/twins/gw-1/modules/%24edgeHub")
        status = twin["properties"]["reported"].get("lastDesiredStatus") or {}
        return bool(status.get("code") == 200)

    await until("it reports", reported, LIMIT)


async def test_a_second_hub_on_the_same_store_ends_at_once(gateway: Gateway) -> None:
    first = gateway.process
    assert first is not None
    await gateway.start(wait=False)
    second = gateway.process
    assert second is not None
    assert await asyncio.wait_for(second.wait(), LIMIT) == 1
    assert "is used by another hub" in gateway.log[-1]["reason"]
    assert first.returncode is None
    first.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(first.wait(), LIMIT) == 0
    gateway.process = None


@pytest.fixture
async def behind(gateway: Gateway, proxy: ConnectProxy) -> Gateway:
    """A gateway in a network that lets nothing out but a proxy to the hub's HTTPS port."""
    await gateway.kill()
    await gateway.hub.stop()
    await gateway.hub.start(mqtt_port=str(free_port(HUB_IP)))
    gateway.more = {"UpstreamProtocol": "MqttWs", "https_proxy": proxy.url}
    await gateway.start()
    return gateway


async def test_all_passes_over_websockets_and_a_proxy_and_nothing_is_lost(
    behind: Gateway, proxy: ConnectProxy
) -> None:
    assert [line["upstream"] for line in behind.log if line["event"] == "serving"] == ["MqttWs"]
    client = behind.module()
    patches: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    await client.connect()
    client.on_twin_desired_properties_patch_received = patches.put
    large = "x" * 250_000
    await send(client, "1", large)
    assert await behind.bodies(2) == ["1", large]
    await behind.hub.service("PATCH", "/twins/gw-1/modules/m", {"properties": {"desired": {"interval": 7}}})
    async with asyncio.timeout(LIMIT):
        while (await patches.get()).get("interval") != 7:
            pass
    assert set(proxy.targets) == {behind.hub.host}
    # The proxy goes away with all connections: what was acknowledged meanwhile arrives later.
    await proxy.stop()
    await send(client, "3", "4")
    await proxy.start()
    arrived = await behind.bodies(4)
    assert list(dict.fromkeys(arrived)) == ["1", large, "3", "4"]
    await client.shutdown()


async def test_no_proxy_of_its_environment_counts(behind: Gateway, proxy: ConnectProxy) -> None:
    await behind.kill()
    proxy.targets.clear()
    behind.more["no_proxy"] = HUB_IP
    await behind.start()
    client = behind.module()
    await client.connect()
    await send(client, "direct")
    assert await behind.bodies(1) == ["direct"]
    assert proxy.targets == []
    await client.shutdown()


async def test_a_protocol_that_the_stand_in_does_not_speak_is_told(gateway: Gateway) -> None:
    await gateway.kill()
    gateway.more = {"UpstreamProtocol": "AmqpWs"}
    await gateway.start(wait=False)
    assert gateway.process is not None
    assert await asyncio.wait_for(gateway.process.wait(), LIMIT) == 1
    assert gateway.log[-1]["reason"].endswith(
        "UpstreamProtocol is 'AmqpWs': this stand-in speaks no AMQP, set Mqtt or MqttWs"
    )
