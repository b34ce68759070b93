# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MQTT over WebSockets on port 443, driven by Microsoft's azure-iot-device: also through a proxy."""

import asyncio
import queue
import signal
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests
from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, MethodResponse, ProxyOptions
from azure.iot.device.exceptions import ClientError, CredentialError
from azure.iot.hub.models import CloudToDeviceMethod, Twin, TwinProperties

from tests.integration.hub.conftest import (
    LIMIT_SECONDS,
    Hub,
    HubFactory,
    for_device,
    free_address,
    message,
    wait_for,
)
from tests.integration.runtime.connect_proxy import ConnectProxy
from tests.ports import free_port
from tests.tls import issue

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
# As large as a hub takes one: more than a frame's short lengths, and than a socket's buffers.
LARGE = "x" * 250_000


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub whose HTTPS is on 443, the one port that the library knows for WebSockets."""
    hub = Hub(tmp_path_factory.mktemp("hub"), free_address())
    hub.https_port = 443
    yield hub.start()
    assert hub.stop() == 0, (hub.state / "serve.log").read_text()
    assert not [event for event in hub.events() if event["level"] == "error"]


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    """A proxy that serves, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made = ConnectProxy(free_port("127.0.0.1"))
    asyncio.run_coroutine_threadsafe(made.start(), loop).result(10)
    yield made
    asyncio.run_coroutine_threadsafe(made.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def device(hub: Hub, name: str, key: str, **options: Any) -> IoTHubDeviceClient:
    return hub.device(name, key, websockets=True, **options)


def test_messages_and_twins_pass(hub: Hub) -> None:
    client = device(hub, "sender", hub.create_device("sender"))
    patches: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    client.connect()
    client.on_twin_desired_properties_patch_received = patches.put
    bodies = [*(f"number {number}" for number in range(20)), LARGE]
    for number, body in enumerate(bodies):
        client.send_message(message(body, f"m{number}"))
    assert [entry["body"] for entry in hub.log("--device", "sender")] == bodies
    client.patch_twin_reported_properties({"mood": "good"})
    assert client.get_twin()["reported"]["mood"] == "good"
    hub.registry().update_twin("sender", Twin(properties=TwinProperties(desired={"interval": 7})))
    while patches.get(timeout=LIMIT_SECONDS).get("interval") != 7:
        pass
    assert hub.registry().get_device("sender").connection_state == "Connected"
    client.disconnect()
    wait_for(
        "its end to be seen", lambda: hub.registry().get_device("sender").connection_state == "Disconnected"
    )


def test_a_module_answers_methods(hub: Hub) -> None:
    hub.create_device("gateway", edge=True)
    hub.registry().create_module_with_sas("gateway", "m", "edgeha", KEY, KEY)
    client = IoTHubModuleClient.create_from_connection_string(
        f"HostName={hub.name};DeviceId=gateway;ModuleId=m;SharedAccessKey={KEY}",
        server_verification_cert=hub.ca,
        websockets=True,
    )
    hub._clients.append(client.shutdown)

    def answer(request: Any) -> None:
        client.send_method_response(
            MethodResponse.create_from_method_request(request, 207, {"echo": request.payload})
        )

    client.on_method_request_received = answer
    client.connect()
    call = CloudToDeviceMethod(method_name="hello", payload=[1], response_timeout_in_seconds=20)
    found = hub.registry().invoke_device_module_method("gateway", "m", call)
    assert (found.status, found.payload) == (207, {"echo": [1]})


def test_a_certificate_proves_a_device_here_too(hub: Hub, tmp_path: Path) -> None:
    own = issue("by-certificate")
    hub.registry().create_device_with_x509("by-certificate", own.thumbprint, own.thumbprint, "enabled")
    for shown, known in ((own, True), (issue("by-certificate"), False)):
        client = IoTHubDeviceClient.create_from_x509_certificate(
            for_device(shown, tmp_path),
            hub.name,
            "by-certificate",
            server_verification_cert=hub.ca,
            websockets=True,
            connection_retry=False,
        )
        hub._clients.append(client.shutdown)
        if known:
            client.connect()
            client.send_message("proven")
            client.disconnect()
        else:
            with pytest.raises(CredentialError):
                client.connect()
    assert [entry["body"] for entry in hub.log("--device", "by-certificate")] == ["proven"]


def test_a_wrong_key_is_refused_by_mqtt(hub: Hub) -> None:
    hub.create_device("wrongly")
    with pytest.raises(CredentialError):
        device(hub, "wrongly", KEY).connect()
    assert "wrong key" in hub.last_event("device-refused")["reason"]


def test_what_is_no_websocket_for_mqtt_gets_an_answer(hub: Hub) -> None:
    url = f"https://{hub.host}/$iothub/websocket"
    assert requests.get(url, verify=str(hub.state / "ca.pem"), timeout=10).status_code == 400
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OTAxMjM0NQ==",
        "Sec-WebSocket-Protocol": "amqp",
    }
    answer = requests.get(url, headers=upgrade, verify=str(hub.state / "ca.pem"), timeout=10)
    assert (answer.status_code, answer.headers["iothub-errorcode"]) == (400, "ProtocolNotSupported")


def test_a_disabled_device_is_dropped_and_a_kill_of_the_hub_loses_nothing(make_hub: HubFactory) -> None:
    hub = make_hub()
    hub.https_port = 443
    hub.start()
    made = hub.registry().create_device_with_sas("dropped", KEY, KEY, "enabled")
    client = device(hub, "dropped", KEY)
    client.connect()
    client.send_message("before")
    hub.registry().update_device_with_sas("dropped", made.etag, KEY, KEY, "disabled")
    wait_for("the device to be dropped", lambda: not client.connected)
    hub.stop(signal.SIGKILL)
    hub.start()
    assert [entry["body"] for entry in hub.log()] == ["before"]


def test_all_of_it_passes_through_a_proxy(hub: Hub, proxy: ConnectProxy) -> None:
    way = ProxyOptions("HTTP", "127.0.0.1", proxy.port)
    key = hub.create_device("behind")
    client = device(hub, "behind", key, proxy_options=way)
    client.connect()
    client.send_message(message(LARGE, "m"))
    assert client.get_twin()["desired"] == {"$version": 1}
    assert proxy.targets == [f"{hub.name}:443"]
    assert [entry["body"] for entry in hub.log("--device", "behind")] == [LARGE]
    client.disconnect()
    proxy.refuses = True
    with pytest.raises(ClientError):
        device(hub, "behind", key, proxy_options=way).connect()
    assert (proxy.refused, len(proxy.targets)) == (1, 1)


async def test_text_is_no_mqtt_and_ends_the_connection(hub: Hub) -> None:
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=hub.ca))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect(f"https://{hub.host}/$iothub/websocket", protocols=("mqtt",)) as websocket,
    ):
        assert websocket.protocol == "mqtt"
        await websocket.send_str("hello")
        message = await asyncio.wait_for(websocket.receive(), LIMIT_SECONDS)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
