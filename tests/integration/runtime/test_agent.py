# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment at the hub becomes modules: the lab's agent, proxy and daemon against the hub emulator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runtime.connect_proxy import ConnectProxy
from tests.integration.runtime.emulator import HUB_IP, REPOSITORY, Hub
from tests.integration.runtime.parts import VERSION, Daemon, start_proxy, until
from tests.integration.runtime.standin_api import plain
from tests.ports import free_port

TWIN = "/twins/gw-1/modules/%24edgeAgent"


def module(image: str, options: str = "{}", **more: Any) -> dict[str, Any]:
    return {
        "type": "docker",
        "status": "running",
        "restartPolicy": "always",
        "settings": {"image": image, "createOptions": options},
    } | more


@dataclass
class Gateway:
    """Daemon, proxy and agent of one gateway."""

    daemon: Daemon
    hub: Hub
    folder: Path
    proxy: Path
    started: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def deploy(self, system: dict[str, Any] | None = None, **modules: Any) -> None:
        """Set the modules, as `az iot edge set-modules` does."""
        desired = {
            "schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {}},
            "systemModules": system or {},
            "modules": modules,
        }
        content = {"modulesContent": {"$edgeAgent": {"properties.desired": desired}}}
        await self.hub.service("POST", "/devices/gw-1/applyConfigurationContent", content)

    async def start_agent(self) -> None:
        """Start proxy and agent with what the daemon gives their pod."""
        (self.folder / "token").write_text("agent-token")
        ports = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        sidecar = self.daemon.given("gw-edgeagent", "workload-proxy") | {
            "EDGEHA_WORKLOAD_URL": self.daemon.url,
            "EDGEHA_WORKLOAD_TOKEN_FILE": str(self.folder / "token"),
            "EDGEHA_WORKLOAD_LISTEN": ports[0],
            "EDGEHA_MANAGEMENT_URL": f"https://127.0.0.1:{self.daemon.management_port}",
            "EDGEHA_MANAGEMENT_LISTEN": ports[1],
        }
        agent = self.daemon.given("gw-edgeagent") | {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY / "lab/images"),
            "IOTEDGE_WORKLOADURI": f"http://{ports[0]}",
            "IOTEDGE_MANAGEMENTURI": f"http://{ports[1]}",
            # The SDK has no way to name a port for REST and goes to 8883 for MQTT: the bare address.
            "IOTEDGE_GATEWAYHOSTNAME": HUB_IP,
            "LOOP_SECONDS": "0.3",
            "storageFolder": str(self.folder),
        }
        self.started.append(await start_proxy(self.proxy, sidecar))
        program = REPOSITORY / "lab/images/agent/agent.py"
        with (self.folder / "agent.log").open("ab") as log:
            self.started.append(
                await asyncio.create_subprocess_exec(
                    sys.executable, program, env=agent, stdout=log, stderr=log
                )
            )

    async def stop_agent(self) -> None:
        while self.started:
            process = self.started.pop()
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                process.kill()
            await process.wait()

    async def reported(self) -> dict[str, Any]:
        """What the agent last reported."""
        found: dict[str, Any] = (await self.hub.service("GET", TWIN))["properties"]["reported"]
        return found

    async def becomes(self, code: int, *modules: str) -> dict[str, Any]:
        """Wait until this code and these modules are reported for the newest deployment."""

        async def told() -> dict[str, Any] | None:
            twin = (await self.hub.service("GET", TWIN))["properties"]
            found: dict[str, Any] = twin["reported"]
            status = found.get("lastDesiredStatus") or {}
            newest = found.get("lastDesiredVersion") == twin["desired"]["$version"]
            same = set(found.get("modules") or {}) == set(modules)
            return found if newest and same and status.get("code") == code else None

        answer: dict[str, Any] = await until(f"{code} and {modules}", told, 40)
        return answer

    def runs(self, name: str, restarts: int = 0) -> None:
        """A pod that runs, as the kubelet tells it."""
        found = self.daemon.api.pod_of(f"gw-{name}-a")
        assert found is not None, f"{name} has no pod"
        own = {"name": "module", "image": "i", "imageID": "i", "ready": True, "restartCount": restarts}
        state = {"running": {"startedAt": "2026-01-01T00:00:05Z"}}
        told = {"containerStatuses": [{**own, "state": state}]}
        self.daemon.api.put("pods", found["metadata"]["name"], found | {"status": told})


@contextlib.asynccontextmanager
async def running(
    online: Daemon, hub: Hub, proxy_binary: Path, tmp_path: Path, env: dict[str, str], **settings: str
) -> AsyncIterator[Gateway]:
    """A gateway whose agent runs, with this `env` of the chart's."""
    online.api.module_set({"name": "edgeAgent", "image": "r/agent:1", "env": env})
    online.api.tokens["agent-token"] = ("system:serviceaccount:edge-gw:gw-edgeagent", ["edgeha-gw"])
    made = Gateway(online, hub, tmp_path, proxy_binary)
    await online.start(wait=True, **settings)
    await until("ready", online.is_ready)
    try:
        await made.start_agent()
        yield made
    finally:
        await made.stop_agent()


@pytest.fixture
async def gateway(online: Daemon, hub: Hub, proxy_binary: Path, tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway whose agent runs."""
    async with running(online, hub, proxy_binary, tmp_path, {}) as made:
        yield made


async def test_modules_follow_the_deployment_at_the_hub(gateway: Gateway) -> None:
    api = gateway.daemon.api
    long = json.dumps({"Env": [f"A{number}=x" for number in range(80)]})
    cut = {"image": "r/b:1", "createOptions": long[:512], "createOptions01": long[512:]}
    await gateway.deploy(
        a=module("r/a:1", env={"A": {"value": "1"}}), b=module("r/b:1") | {"settings": cut}, c=module("r/c:1")
    )
    await gateway.becomes(200, "a", "b", "c")
    await until("all are started", lambda: {"gw-a-a", "gw-b-a", "gw-c-a"} < api.placed())
    for name in "abc":
        gateway.runs(name)
        assert await gateway.hub.service("GET", f"/devices/gw-1/modules/{name}")

    async def all_run() -> bool:
        modules = (await gateway.reported())["modules"]
        began = all(entry["lastStartTimeUtc"].startswith("2026") for entry in modules.values())
        return began and {entry["runtimeStatus"] for entry in modules.values()} == {"running"}

    await until("all are reported to run", all_run)
    assert {"A0", "A79"} < gateway.daemon.given("gw-b").keys(), "createOptions came in two parts"

    kept = gateway.daemon.kept_images
    await until("the images are kept", lambda: {"r/a:1", "r/b:1", "r/c:1"} <= set(kept()))
    untouched = [api.pod_of(f"gw-{name}-a") for name in "bc"]
    assert None not in untouched
    api.writes.clear()
    await gateway.deploy(
        a=module("r/a:2", env={"A": {"value": "2"}}), b=module("r/b:1") | {"settings": cut}, c=module("r/c:1")
    )

    def image(name: str) -> str:
        found = api.pod_of(f"gw-{name}-a")
        return str(found["spec"]["containers"][0]["image"]) if found else ""

    await until("a is updated", lambda: image("a") == "r/a:2")
    await gateway.becomes(200, "a", "b", "c")
    assert [api.pod_of(f"gw-{name}-a") for name in "bc"] == untouched
    await until("the new image is kept", lambda: "r/a:2" in kept())
    assert sorted(plain(api.writes)) == [
        ("DELETE", "pods/gw-a-a"),
        ("PUT", "daemonsets/gw-images"),
        ("PUT", "pods/gw-a-a"),
    ], "nothing else was touched"

    await gateway.deploy(a=module("r/a:2", env={"A": {"value": "2"}}, status="stopped"))
    await gateway.becomes(200, "a")
    await until("b and c are gone", lambda: not {"gw-b", "gw-c"} & api.names("serviceaccounts"))
    await until("a stops", lambda: api.placed() == {"gw-edgeagent-a"})
    assert "gw-a" in api.names("serviceaccounts")
    known = {entry["moduleId"] for entry in await gateway.hub.service("GET", "/devices/gw-1/modules")}
    assert known == {"$edgeAgent", "$edgeHub", "a"}


async def test_what_cannot_run_is_reported_with_its_reason_and_stops_nothing(gateway: Gateway) -> None:
    await gateway.deploy(good=module("r/good:1"), bad=module("r/bad:1", '{"HostConfig": {"Nonsense": 1}}'))
    found = await gateway.becomes(500, "good")
    assert (
        "bad: 400: createOptions.HostConfig.Nonsense: no such option"
        in found["lastDesiredStatus"]["description"]
    )
    await until("good's pod", lambda: "gw-good-a" in gateway.daemon.api.placed())
    await gateway.deploy(good=module("r/good:1"), bad=module("r/bad:1"))
    await gateway.becomes(200, "good", "bad")


async def test_after_kills_of_agent_and_daemon_nothing_is_made_again(gateway: Gateway) -> None:
    await gateway.deploy(a=module("r/a:1"))
    await gateway.becomes(200, "a")
    api = gateway.daemon.api
    await until("it is started", lambda: "gw-a-a" in api.placed())
    gateway.runs("a")
    (key,) = [key for key in api.objects if key[1].startswith("gw-a-a-")]
    # What a kill cuts off is finished after it; here all has been done.
    await until("its image is kept", lambda: "r/a:1" in gateway.daemon.kept_images())
    kept = dict(api.objects)
    await gateway.stop_agent()
    await gateway.daemon.stop(signal.SIGKILL)
    api.writes.clear()
    (gateway.daemon.folder / "daemon.log").write_text("")
    await gateway.hub.stop()
    await gateway.daemon.start()
    await until("ready with the hub away", gateway.daemon.is_ready)
    assert api.objects == kept
    await gateway.hub.start()
    await gateway.start_agent()
    await gateway.deploy(a=module("r/a:1"), b=module("r/b:1"))
    await gateway.becomes(200, "a", "b")
    assert not [name for _method, name in api.writes if name.startswith("pods/gw-a-a-")]
    assert [key for key in api.objects if key[1].startswith("gw-a-a-")] == [key]
    assert api.objects[key] == kept[key]


async def test_with_the_hub_away_at_its_start_it_works_by_the_deployment_that_it_kept(
    gateway: Gateway,
) -> None:
    await gateway.deploy(a=module("r/a:1", env={"PASSWORD": {"value": "hush"}}))
    await gateway.becomes(200, "a")
    api = gateway.daemon.api
    await until("it is started", lambda: "gw-a-a" in api.placed())
    gateway.runs("a")
    await gateway.stop_agent()
    assert "hush" not in (gateway.folder / "edgeAgent/backup.json").read_text()
    await gateway.hub.stop()
    (gateway.folder / "agent.log").write_text("")
    await gateway.start_agent()

    def restored() -> bool:
        lines = (gateway.folder / "agent.log").read_text().splitlines()
        told = [json.loads(line) for line in lines if line.startswith("{")]
        return any(line["event"] == "deployment" and line["source"] == "backup" for line in told)

    await until("it has its deployment", restored, 60)
    # It looks after it: what is stopped behind its back starts again.
    before = api.pod_of("gw-a-a")
    client = gateway.daemon.management("agent-token")
    async with client, client.post("/modules/a/stop", params=VERSION) as answer:
        assert answer.status < 400

    def again() -> bool:
        pod = api.pod_of("gw-a-a")
        return pod is not None and before is not None and pod["metadata"]["uid"] != before["metadata"]["uid"]

    await until("it is started again", again, 60)
    gateway.runs("a")
    await gateway.hub.start()
    await gateway.deploy(a=module("r/a:1"), b=module("r/b:1"))
    await until("the twin counts again", lambda: "gw-b-a" in api.placed(), 60)


@pytest.mark.parametrize("hub", [443], indirect=True)
@pytest.mark.parametrize("own", [False, True], ids=["the daemon's proxy", "a proxy of its own"])
async def test_where_the_network_lets_nothing_out_but_a_proxy_to_443(
    online: Daemon, hub: Hub, proxy_binary: Path, tmp_path: Path, proxy: ConnectProxy, own: bool
) -> None:
    # Nobody listens on 8883.
    await hub.stop()
    await hub.start(mqtt_port=str(free_port(HUB_IP)))
    async with ConnectProxy(free_port()) as other:
        env = {"UpstreamProtocol": "MqttWs"} | ({"https_proxy": other.url} if own else {})
        async with running(online, hub, proxy_binary, tmp_path, env, EDGEHA_HTTPS_PROXY=proxy.url) as gateway:
            await gateway.deploy(a=module("r/a:1"))
            await gateway.becomes(200, "a")
            await until("its pod", lambda: "gw-a-a" in gateway.daemon.api.placed())
            # A change is pushed on the same connection.
            await gateway.deploy(a=module("r/a:1"), b=module("r/b:1"))
            await gateway.becomes(200, "a", "b")
        assert set(proxy.targets) == {f"{HUB_IP}:443"}
        assert set(other.targets) == ({f"{HUB_IP}:443"} if own else set())


@pytest.mark.parametrize("protocol", ["Amqp", "AmqpWs", "Http"])
async def test_a_protocol_that_the_stand_in_does_not_speak_is_told(
    online: Daemon, hub: Hub, proxy_binary: Path, tmp_path: Path, protocol: str
) -> None:
    async with running(online, hub, proxy_binary, tmp_path, {"UpstreamProtocol": protocol}) as gateway:
        assert await asyncio.wait_for(gateway.started[-1].wait(), 20) == 1
        (line,) = (gateway.folder / "agent.log").read_text().splitlines()
        assert json.loads(line)["reason"] == (
            f"UpstreamProtocol is '{protocol}': this stand-in speaks no AMQP, set Mqtt or MqttWs"
        )
