# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hub of its own for each test module, on a loopback address that no parallel run uses."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho  # type: ignore[import-untyped]  # the lock has no stubs for it
import pytest
import requests
from azure.iot.device import X509, IoTHubDeviceClient, IoTHubModuleClient, Message
from azure.iot.deviceprovisioning import DeviceProvisioningClient, generate_sas_token
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.sastoken import SasToken

from tests.ports import free_port
from tests.tls import Issued

EMULATOR = Path(__file__).parents[3] / "lab" / "iothub-emulator"
API_VERSION = "2021-04-12"
START_SECONDS = 20.0
# How long an answer may take on a machine that has much else to do.
LIMIT_SECONDS = 30.0


def wait_for(what: str, condition: Callable[[], object], seconds: float = LIMIT_SECONDS) -> Any:
    """Wait until `condition` returns something true and return that; fail naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s for: {what}")
        time.sleep(0.02)
    return result


def run_cli(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the emulator's command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "iothub_emulator", *arguments],
        env=os.environ | {"PYTHONPATH": str(EMULATOR)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def for_device(issued: Issued, directory: Path) -> X509:
    """Write chain and key; returns what Microsoft's device library takes."""
    chain, key = issued.write(directory)
    return X509(cert_file=str(chain), key_file=str(key))  # type: ignore[no-untyped-call]  # the library's


def free_address() -> str:
    """A loopback address on which the fixed MQTT port is free."""
    while True:
        address = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(256)}.{secrets.randbelow(254) + 1}"
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, Hub.mqtt_port))
            except OSError:
                continue
        return address


def message(body: str, message_id: str) -> Message:
    """A message of the device library."""
    message = Message(body)  # type: ignore[no-untyped-call]  # typed in part only
    message.message_id = message_id
    return message


class PahoDevice:
    """The Paho client, for what the device library hides: return codes, acknowledgements, the end."""

    def __init__(self, hub: "Hub", username: str, client_id: str, password: str) -> None:
        self.return_code: int | None = None
        self.session_present = False
        self.acknowledged: list[int] = []
        self.received: list[tuple[str, bytes]] = []
        self.disconnected = threading.Event()
        self.client = paho.Client(client_id=client_id, clean_session=False, protocol=paho.MQTTv311)
        self.client.tls_set(str(hub.state / "ca.pem"))
        self.client.username_pw_set(username, password)
        self.client.reconnect_delay_set(3600, 3600)
        self.client.max_inflight_messages_set(200)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = lambda *_arguments: self.disconnected.set()
        self.client.on_publish = lambda _client, _data, packet_id: self.acknowledged.append(packet_id)
        self.client.on_message = lambda _client, _data, message: self.received.append(
            (message.topic, message.payload)
        )
        self.client.connect(hub.name, hub.mqtt_port, keepalive=30)
        self.client.loop_start()
        wait_for("the answer to CONNECT", lambda: self.return_code is not None)

    def _on_connect(self, _client: object, _data: object, flags: dict[str, int], code: int) -> None:
        self.session_present = bool(flags["session present"])
        self.return_code = code

    def close(self) -> None:
        # A test may have broken the connection itself.
        with suppress(OSError):
            self.client.disconnect()
        self.client.loop_stop()


class Hub:
    """One emulator process and the means to talk to it."""

    mqtt_port = 8883  # fixed in the device library

    def __init__(
        self,
        state: Path,
        address: str,
        *,
        name: str | None = None,
        clock_offset: float = 0,
        serve_options: Sequence[str] = (),
    ) -> None:
        self.state = state
        self.address = address
        self.name = name or address
        self.https_port = 8443
        self.clock_offset = clock_offset
        self.serve_options = serve_options
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[Callable[[], None]] = []
        result = run_cli("init", "--state", str(state), "--name", self.name)
        assert result.returncode == 0, result.stderr
        self.policies: dict[str, str] = json.loads((state / "policies.json").read_text())
        self.ca = (state / "ca.pem").read_text()

    @property
    def host(self) -> str:
        return f"{self.name}:{self.https_port}"

    def start(self) -> "Hub":
        with (self.state / "serve.log").open("ab") as log:
            self._process = process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "iothub_emulator", "serve", "--state", str(self.state)),
                    *("--listen", self.address, "--https-port", str(self.https_port)),
                    *("--mqtt-port", str(self.mqtt_port), "--clock-offset", str(self.clock_offset)),
                    *self.serve_options,
                ],
                env=os.environ | {"PYTHONPATH": str(EMULATOR)},
                stderr=log,
            )

        def listening() -> bool:
            assert process.poll() is None, (self.state / "serve.log").read_text()
            pid_file = self.state / "serve.pid"
            return pid_file.exists() and pid_file.read_text().strip() == str(process.pid)

        try:
            wait_for("the hub to listen", listening, START_SECONDS)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Close the clients, end the process; returns its exit code."""
        try:
            for close in self._clients:
                close()
            self._clients.clear()
        finally:
            code = self.kill(number)
        return code

    def kill(self, number: int = signal.SIGKILL) -> int:
        """End the process under its clients; returns its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(timeout=15)

    def events(self) -> list[dict[str, Any]]:
        """What the hub logged."""
        # Not splitlines, which also splits at characters that may stand in an id.
        return [json.loads(line) for line in (self.state / "serve.log").read_text().split("\n") if line]

    def last_event(self, name: str) -> dict[str, Any]:
        """The newest log entry of a kind; a refusal is logged before it is sent, an end may be after it."""
        found = wait_for(
            f"the event {name}", lambda: [event for event in self.events() if event["event"] == name]
        )
        return dict(found[-1])

    def log(self, *arguments: str) -> list[dict[str, Any]]:
        result = run_cli("log", "--state", str(self.state), "--json", *arguments)
        assert result.returncode == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    def registry(self, policy: str = "iothubowner", key: str | None = None) -> IoTHubRegistryManager:
        """Microsoft's service client."""
        key = key or self.policies[policy]
        manager = IoTHubRegistryManager.from_connection_string(
            f"HostName={self.host};SharedAccessKeyName={policy};SharedAccessKey={key}"
        )
        manager.protocol.config.connection.verify = str(self.state / "ca.pem")
        return manager

    def token(
        self, *, policy: str | None = None, key: str | None = None, path: str = "", ttl: int = 300
    ) -> str:
        """A token for the hub, or for a path below it."""
        key = key or self.policies[policy or "iothubowner"]
        return str(SasToken(f"{self.host}{path}", key, policy, ttl=ttl))

    def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: Any = None,
        raw_body: bytes | None = None,
        if_match: str | None = None,
        api_version: str | None = API_VERSION,
        headers: dict[str, str] | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> requests.Response:
        """A bare HTTPS request, by default as iothubowner; with a certificate and its key without a token."""
        if certificate is None:
            token = token if token is not None else self.token(policy="iothubowner")
            headers = {"Authorization": token, **(headers or {})}
        headers = dict(headers or {})
        if if_match is not None:
            headers["If-Match"] = if_match
        return requests.request(
            method,
            f"https://{self.host}{path}",
            params={"api-version": api_version} if api_version else None,
            headers=headers,
            json=body,
            data=raw_body,
            verify=str(self.state / "ca.pem"),
            cert=None if certificate is None else (str(certificate[0]), str(certificate[1])),
            timeout=10,
        )

    def create_device(self, device_id: str, *, edge: bool = False) -> str:
        """Register a device; returns its primary key."""
        device = self.registry().create_device_with_sas(device_id, "", "", "enabled", iot_edge=edge)
        key = device.authentication.symmetric_key.primary_key
        assert isinstance(key, str)
        return key

    def device(self, device_id: str, key: str, **options: Any) -> IoTHubDeviceClient:
        """Microsoft's device client, not yet connected. options: of the client besides."""
        client = IoTHubDeviceClient.create_from_symmetric_key(
            key,
            self.name,
            device_id,
            server_verification_cert=self.ca,
            connection_retry=False,
            auto_connect=False,
            **options,
        )
        self._clients.append(client.shutdown)
        return client

    def module(self, device_id: str, module_id: str, key: str) -> IoTHubModuleClient:
        """Microsoft's module client, not yet connected."""
        client = IoTHubModuleClient.create_from_connection_string(
            f"HostName={self.name};DeviceId={device_id};ModuleId={module_id};SharedAccessKey={key}",
            server_verification_cert=self.ca,
            connection_retry=False,
            auto_connect=False,
        )
        self._clients.append(client.shutdown)
        return client

    def paho(self, device_id: str, key: str, *, ttl: int = 300, host: str | None = None) -> PahoDevice:
        """A Paho client that has got its answer to CONNECT."""
        return self.paho_as(
            f"{host or self.name}/{device_id}/?api-version={API_VERSION}",
            device_id,
            self.token(key=key, path=f"/devices/{device_id}", ttl=ttl),
        )

    def paho_as(self, username: str, client_id: str, password: str) -> PahoDevice:
        """The same for any user name."""
        client = PahoDevice(self, username, client_id, password)
        self._clients.append(client.close)
        return client


class Dps:
    """The provisioning service of a hub."""

    def __init__(self, hub: Hub, port: int) -> None:
        self.hub = hub
        self.host = f"{hub.name}:{port}"
        self.key: str = json.loads((hub.state / "policies.json").read_text())["provisioningserviceowner"]
        self.id_scope: str = json.loads((hub.state / "dps.json").read_text())["idScope"]

    def client(self, key: str | None = None, policy: str = "provisioningserviceowner") -> Any:
        """Microsoft's service client."""
        return DeviceProvisioningClient.from_connection_string(
            f"HostName={self.host};SharedAccessKeyName={policy};SharedAccessKey={key or self.key}",
            connection_verify=str(self.hub.state / "ca.pem"),
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        api_version: str = "2021-10-01",
        headers: dict[str, str] | None = None,
    ) -> requests.Response:
        """A bare HTTPS request as the owner, for what the client hides."""
        return requests.request(
            method,
            f"https://{self.host}{path}",
            params={"api-version": api_version},
            headers={"Authorization": generate_sas_token(self.host, "provisioningserviceowner", self.key)}
            | (headers or {}),
            json=body,
            verify=str(self.hub.state / "ca.pem"),
            timeout=10,
        )


HubFactory = Callable[..., Hub]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A running hub that the tests of a module share; each uses device ids of its own."""
    hub = Hub(tmp_path_factory.mktemp("hub"), free_address()).start()
    yield hub
    assert hub.stop() == 0, (hub.state / "serve.log").read_text()
    failures = [event for event in hub.events() if event["level"] == "error"]
    assert not failures


@pytest.fixture
def make_hub(tmp_path: Path) -> Iterator[HubFactory]:
    """Make hubs, set up and not started, that end with the test."""
    hubs: list[Hub] = []

    def make(**options: Any) -> Hub:
        hub = Hub(tmp_path / f"hub{len(hubs)}", options.pop("address", None) or free_address(), **options)
        hubs.append(hub)
        return hub

    yield make
    for hub in hubs:
        if hub._process is not None:
            hub.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def dps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dps]:
    """The provisioning service of a running hub that the tests of a module share."""
    address = free_address()
    port = free_port(address)
    hub = Hub(tmp_path_factory.mktemp("hub"), address, serve_options=["--dps-port", str(port)]).start()
    yield Dps(hub, port)
    assert hub.stop() == 0
    assert not [event for event in hub.events() if event["level"] == "error"]
