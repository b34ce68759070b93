# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon as a process on loopback, and how to wait for what it does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shlex
import signal
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import requests
from aiohttp import web
from aiohttp.test_utils import TestServer
from edgeha_runtime.daemon import transport
from edgeha_runtime.daemon.keystore import KEY_FILE

from tests.integration.runtime.standin_api import ApiServer
from tests.ports import free_port

RUNTIME = Path(__file__).parents[3] / "runtime"
# Far from what it takes: how busy the machine is says nothing of the daemon.
LIMIT = 60.0
SENSOR = {"name": "Sensor", "image": "r/sensor:1", "env": {"SEND_INTERVAL_SECONDS": "5"}}
OTHER = {"name": "other", "image": "r/other:1"}
# Of the management API.
VERSION = {"api-version": "2022-08-03"}
AGENT = {"name": "edgeAgent", "image": "r/agent:1"}
# What clients of IoT Edge send and have sent, edgeAgent and edgeHub of all versions and the SDKs.
API_VERSIONS = [
    "2018-06-28",
    "2018-12-30",
    "2019-01-30",
    "2019-10-22",
    "2019-11-05",
    "2020-02-21",
    "2020-07-07",
    "2020-07-22",
    "2020-10-10",
    "2021-12-07",
    "2022-08-03",
]


def image_environment() -> dict[str, str]:
    """Variables by which the image's Python runs otherwise than one does without any.

    Not where the image has its packages, nor that it writes no compiled modules: it brings them.
    """
    lines = (RUNTIME / "Containerfile").read_text().splitlines()
    pairs = [pair for line in lines if line.startswith("ENV ") for pair in shlex.split(line)[1:]]
    found = dict(pair.split("=", 1) for pair in pairs)
    return {
        name: value for name, value in found.items() if name not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    }


async def until(what: str, condition: Callable[[], Any], limit: float = LIMIT) -> Any:
    """Wait for a true answer, or fail and say what for."""
    deadline = asyncio.get_running_loop().time() + limit
    while True:
        answer = condition()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        assert asyncio.get_running_loop().time() < deadline, f"not within {limit:g} s: {what}"
        await asyncio.sleep(0.05)


def knowing(certificate: str) -> ssl.SSLContext:
    """A client's TLS that knows a peer by this one certificate (PEM), whatever the address is called."""
    context = ssl.create_default_context(cadata=certificate)
    context.check_hostname = False
    return context


@contextlib.contextmanager
def in_a_thread(application: Callable[[], web.Application]) -> Iterator[str]:
    """Serve an application from a thread of its own; yields its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> TestServer:
        server = TestServer(application())
        await server.start_server()
        return server

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    yield f"http://127.0.0.1:{server.port}"
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def refused_version(url: str, path: str, query: dict[str, str]) -> str:
    """Ask with a version that nobody knows, or with none; returns what the refusal says."""
    answer = requests.get(f"{url}{path}", params=query, headers={"Authorization": "Bearer t"}, timeout=30)
    assert (answer.status_code, list(answer.json())) == (400, ["message"])
    return str(answer.json()["message"])


async def start_proxy(
    binary: Path, environment: dict[str, str], limit: float = LIMIT
) -> asyncio.subprocess.Process:
    """A sidecar's proxy that serves: its startup probe passed."""
    process = await asyncio.create_subprocess_exec(binary, env=environment)

    async def checked() -> bool:
        probe = await asyncio.create_subprocess_exec(
            binary, "check", env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        return await asyncio.wait_for(probe.wait(), 10) == 0

    try:
        await until("the sidecar's startup probe", checked, limit)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return process


class Cluster(Protocol):
    """What a daemon is started against."""

    def kubeconfig(self) -> str: ...


@dataclass
class Daemon:
    """The daemon as a process, with everything around it that a test may want to look at."""

    cluster: Cluster
    folder: Path
    hub: str
    device_key: str
    trust: str
    workload_port: int = field(default_factory=free_port)
    management_port: int = field(default_factory=free_port)
    health_port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def api(self) -> ApiServer:
        """The stand-in, where there is one."""
        assert isinstance(self.cluster, ApiServer)
        return self.cluster

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.workload_port}"

    @property
    def master_key(self) -> bytes:
        return base64.b64decode(json.loads((self.state / KEY_FILE).read_text())["masterKey"])

    @property
    def certificate(self) -> str:
        """The daemon's one certificate, in PEM."""
        return transport.derive(self.master_key)[1]

    @property
    def tls(self) -> ssl.SSLContext:
        """What a sidecar knows the daemon by: its one certificate, whatever the address is called."""
        return knowing(self.certificate)

    def container(self, name: str, which: str = "module") -> dict[str, Any]:
        """A container that the daemon made in slot a: `module`, `workload-proxy` or `gate`.

        `name` is the object name of the module.
        """
        pod = self.api.pod_of(f"{name}-a")
        assert pod is not None, f"{name} has no pod in slot a"
        containers: list[dict[str, Any]] = pod["spec"]["initContainers"] + pod["spec"]["containers"]
        return next(found for found in containers if found["name"] == which)

    def kept_images(self) -> list[str]:
        """Images that are kept on every machine."""
        found = self.api.objects.get(("daemonsets", "gw-images"))
        return [one["image"] for one in found["spec"]["template"]["spec"]["containers"]] if found else []

    def given(self, name: str, which: str = "module") -> dict[str, str]:
        """Variables that the daemon gives that container; those that a pod's fields fill are left out."""
        described = self.container(name, which)["env"]
        return {entry["name"]: entry["value"] for entry in described if "value" in entry}

    def session(self, token: str = "", port: int = 0, *, address: str = "127.0.0.1") -> aiohttp.ClientSession:
        """A client of the workload API, as the sidecar of the module with this token is one.

        `address`: of loopback, which it calls from.
        """
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connector = aiohttp.TCPConnector(ssl=self.tls, local_addr=(address, 0))
        url = f"https://127.0.0.1:{port or self.workload_port}"
        return aiohttp.ClientSession(url, headers=headers, connector=connector)

    def management(self, token: str) -> aiohttp.ClientSession:
        """A client of the management API, as edgeAgent's sidecar is one."""
        return self.session(token, self.management_port)

    @property
    def log(self) -> list[dict[str, Any]]:
        lines = (self.folder / "daemon.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    async def start(self, *, wait: bool = True, **extra: str) -> None:
        for name, text in (("device-key", self.device_key), ("ca.pem", self.trust)):
            (self.folder / name).write_text(text)
        (self.folder / "kubeconfig").write_text(self.cluster.kubeconfig())
        environment = {
            **image_environment(),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(RUNTIME),
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "EDGEHA_RELEASE": "gw",
            "EDGEHA_NAMESPACE": "edge-gw",
            "EDGEHA_POD_NAME": "gw-daemon-0",
            "EDGEHA_NODE_NAME": "node-a",
            "EDGEHA_DEVICE_ID": "gw-1",
            "EDGEHA_IOTHUB_HOSTNAME": self.hub,
            "EDGEHA_DEVICE_KEY_FILE": str(self.folder / "device-key"),
            "EDGEHA_TRUST_BUNDLE_FILE": str(self.folder / "ca.pem"),
            "EDGEHA_STATE_DIR": str(self.state),
            "EDGEHA_WORKLOAD_PROXY_IMAGE": "r/workload-proxy:1",
            "EDGEHA_WORKLOAD_PORT": str(self.workload_port),
            "EDGEHA_MANAGEMENT_PORT": str(self.management_port),
            "EDGEHA_HEALTH_PORT": str(self.health_port),
            # No kubelet pulls anything here; test_images.py plays one.
            "EDGEHA_PULL_SECONDS": "0",
            **extra,
        }
        with (self.folder / "daemon.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "edgeha_runtime.daemon", env=environment, stderr=log
            )
        process = self.process

        def serves() -> bool:
            log = self.log
            assert process.returncode is None, f"the daemon ended with {process.returncode}: {log[-5:]}"
            return any(line["msg"] == "serving" for line in log)

        if wait:
            await until("the daemon serves", serves)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        code = await asyncio.wait_for(self.process.wait(), LIMIT)
        self.process = None
        return code

    async def ready(self) -> tuple[int, str]:
        """Status and text of /readyz."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.health_port}/readyz") as answer,
        ):
            return answer.status, await answer.text()

    async def is_ready(self) -> bool:
        return (await self.ready())[0] == 200


def spec(name: str, **more: Any) -> dict[str, Any]:
    settings = {"image": f"r/{name.lower()}:1", **more}
    return {"name": name, "type": "docker", "imagePullPolicy": "On-Create", "config": {"settings": settings}}


async def sensor_signs(daemon: Daemon) -> int:
    """Status of the answer when the module Sensor, of generation 637, has something signed."""
    body = {"keyId": "primary", "algo": "HMACSHA256", "data": "AA=="}
    async with (
        daemon.session("sensor-token") as session,
        session.post(
            "/modules/Sensor/genid/637/sign", params={"api-version": "2020-07-07"}, json=body
        ) as answer,
    ):
        return answer.status


async def ask(
    daemon: Daemon, method: str, path: str, body: object = None, caller: str = "agent", **query: str
) -> tuple[int, dict[str, Any]]:
    """Ask as edgeAgent does."""
    async with (
        daemon.management(caller and f"{caller}-token") as session,
        session.request(method, path, params=VERSION | query, json=body) as answer,
    ):
        text = await answer.text()
        return answer.status, json.loads(text) if text else {}
