# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a pod and of a node, as processes on loopback: daemon, workload proxy, stand-in API server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
# Neither the runtime package nor the tests' own parts are installed.
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "runtime")]

from edgeha_runtime.daemon.keystore import KeyStore, Owner  # noqa: E402 - found on the path set above

from tests.integration.runtime.connect_proxy import ConnectProxy  # noqa: E402 - the same
from tests.integration.runtime.emulator import DEVICE_KEY, HUB_IP, Dps, Hub  # noqa: E402 - the same
from tests.integration.runtime.parts import OTHER, RUNTIME, SENSOR, Daemon, until  # noqa: E402 - the same
from tests.integration.runtime.standin_api import ApiServer  # noqa: E402 - the same
from tests.ports import free_port  # noqa: E402 - the same
from tests.tls import issue  # noqa: E402 - the same

SENDER = {"name": "sensor", "image": "r/sensor:1", "env": {"SEND_INTERVAL_SECONDS": "0.2"}}


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a CA (ca.crt) for the trust bundle."""
    folder = tmp_path_factory.mktemp("certificates")
    issue("test root", ca=True).write(folder, "ca")
    return folder


@pytest.fixture(scope="session")
def proxy_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workload proxy, built as for its image."""
    binary = tmp_path_factory.mktemp("proxy") / "workload-proxy"
    subprocess.run(
        ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "."],
        cwd=RUNTIME / "workload-proxy",
        env={**os.environ, "CGO_ENABLED": "0"},
        check=True,
        timeout=300,
    )
    return binary


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    """A stand-in for the cluster's API server."""
    async with ApiServer() as server:
        yield server


@pytest.fixture
async def daemon(api: ApiServer, tmp_path: Path, certificates: Path) -> AsyncIterator[Daemon]:
    """A daemon that is not started yet; its hub is away (nobody listens there)."""
    made = Daemon(
        cluster=api,
        folder=tmp_path,
        hub=f"127.0.0.1:{free_port()}",
        device_key=DEVICE_KEY,
        trust=(certificates / "ca.crt").read_text(),
    )
    yield made
    if made.process is not None:
        await made.stop(signal.SIGKILL)


@pytest.fixture
async def served(daemon: Daemon) -> Daemon:
    """A daemon that knows two modules from its claim, and whose hub is away."""
    daemon.state.mkdir()
    store = KeyStore.open(daemon.state, Owner("gw-1", daemon.hub))
    store.remember("Sensor", "637")
    store.remember("other", "638")
    daemon.api.module_set(SENSOR, OTHER)
    for token, account in (("sensor-token", "gw-sensor"), ("other-token", "gw-other"), ("nobody", "default")):
        daemon.api.tokens[token] = (f"system:serviceaccount:edge-gw:{account}", ["edgeha-gw"])
    daemon.api.tokens["api-token"] = (
        "system:serviceaccount:edge-gw:gw-sensor",
        ["https://kubernetes.default"],
    )
    await daemon.start()
    await until("ready from the cache", daemon.is_ready)
    return daemon


@pytest.fixture
async def hub(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Hub]:
    """A running hub that knows the edge device gw-1; a parameter is its HTTPS port."""
    made = Hub(tmp_path / "hub", getattr(request, "param", 0) or free_port(HUB_IP))
    made.state.mkdir()
    await made.cli("init", "--state", str(made.state), "--name", HUB_IP)
    await made.start()
    try:
        await made.register("gw-1", DEVICE_KEY)
        yield made
    finally:
        await made.stop()


@pytest.fixture
async def online(daemon: Daemon, hub: Hub) -> Daemon:
    """A daemon, not started, whose hub is there."""
    daemon.hub, daemon.trust = hub.host, hub.ca
    daemon.api.module_set(SENDER)
    daemon.api.tokens["sensor-token"] = ("system:serviceaccount:edge-gw:gw-sensor", ["edgeha-gw"])
    return daemon


@pytest.fixture
async def proxy() -> AsyncIterator[ConnectProxy]:
    """A proxy that serves."""
    async with ConnectProxy(free_port()) as made:
        yield made


@pytest.fixture
async def dps(tmp_path: Path) -> AsyncIterator[Dps]:
    """A hub with its provisioning service; REST on 443, because an assigned hub has no port."""
    hub = Hub(tmp_path / "hub", 443)
    hub.state.mkdir()
    await hub.cli("init", "--state", str(hub.state), "--name", HUB_IP)
    port = free_port(HUB_IP)
    await hub.start(dps_port=str(port))
    try:
        yield Dps(hub, port)
    finally:
        await hub.stop()
