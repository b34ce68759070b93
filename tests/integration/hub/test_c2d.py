# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages from the cloud, received with Microsoft's azure-iot-device and with Paho."""

import base64
import queue
from typing import Any
from urllib.parse import unquote

import paho.mqtt.client as paho  # type: ignore[import-untyped]  # the lock has no stubs for it
import pytest
from azure.iot.device import Message

from tests.integration.hub.conftest import LIMIT_SECONDS, Hub, HubFactory, PahoDevice, wait_for


def send(hub: Hub, device_id: str, body: str = "hello", **more: Any) -> dict[str, Any]:
    answer = hub.request(
        "POST", f"/$emulator/devices/{device_id}/messages", body={"body": body} | more, api_version=None
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def refusal(hub: Hub, device_id: str, **body: Any) -> tuple[int, str]:
    answer = hub.request(
        "POST", f"/$emulator/devices/{device_id}/messages", body={"body": "x"} | body, api_version=None
    )
    return answer.status_code, answer.headers.get("iothub-errorcode", "")


def waiting(hub: Hub, device_id: str) -> int:
    """How many messages wait, as every view of the device has to say."""
    counts = {
        hub.request("GET", f"/{kind}/{device_id}").json()["cloudToDeviceMessageCount"]
        for kind in ("devices", "twins")
    }
    query = {"query": "SELECT * FROM devices"}
    for listed in (
        hub.request("POST", "/devices/query", body=query).json(),
        hub.request("GET", "/devices").json(),
    ):
        counts |= {
            device["cloudToDeviceMessageCount"] for device in listed if device["deviceId"] == device_id
        }
    # A message may go between two looks.
    return int(max(counts))


def wait_for_count(hub: Hub, device_id: str, count: int) -> None:
    wait_for(f"{count} messages left", lambda: waiting(hub, device_id) == count)


def listen(device: PahoDevice, device_id: str, qos: int = 1) -> None:
    device.client.subscribe(f"devices/{device_id}/messages/devicebound/#", qos=qos)


def hold_back(device: PahoDevice) -> list[int]:
    """Let a device acknowledge nothing; the list grows by the packet ids."""
    held: list[int] = []

    def hold(packet_id: int) -> int:
        held.append(packet_id)
        return int(paho.MQTT_ERR_SUCCESS)

    device.client._send_puback = hold
    return held


def bodies(device: PahoDevice) -> list[str]:
    return [payload.decode() for _topic, payload in device.received]


def bag(device: PahoDevice, number: int = 0) -> dict[str, str | None]:
    """The properties in the topic of a received message."""
    pairs = device.received[number][0].split("/")[4].split("&")
    decoded = (pair.partition("=") for pair in pairs)
    return {unquote(key): unquote(value) if separator else None for key, separator, value in decoded}


def test_library_receives_all_that_a_message_carries(hub: Hub) -> None:
    client = hub.device("full", hub.create_device("full"))
    received: queue.SimpleQueue[Message] = queue.SimpleQueue()
    client.connect()
    client.on_message_received = received.put
    properties = {"näme & =/": "a/b+c%20 ✓=&#", "empty": "", "none": None}
    answer = send(
        hub,
        "full",
        "grüß",
        messageId="m-1",
        correlationId="c:2",
        ack="full",
        expirySeconds=60,
        properties=properties,
    )
    message = received.get(timeout=LIMIT_SECONDS)
    assert message.data == "grüß".encode()
    assert (message.message_id, message.correlation_id, message.ack) == ("m-1", "c:2", "full")
    assert message.custom_properties == properties
    assert message.expiry_time_utc == answer["expiryTimeUtc"]
    assert answer["deviceId"] == "full"
    wait_for_count(hub, "full", 0)

    raw = base64.b64encode(b"\xff\x00").decode()
    answer = send(hub, "full", body=None, bodyBase64=raw)  # type: ignore[arg-type]  # left out
    message = received.get(timeout=LIMIT_SECONDS)
    assert (message.data, message.message_id) == (b"\xff\x00", answer["messageId"])
    assert (message.ack, message.expiry_time_utc, message.custom_properties) == (None, None, {})


def test_what_was_sent_while_the_device_was_away_comes_in_order(hub: Hub) -> None:
    key = hub.create_device("away")
    for number in range(20):
        send(hub, "away", f"{number}")
    assert waiting(hub, "away") == 20
    client = hub.device("away", key)
    received: queue.SimpleQueue[Message] = queue.SimpleQueue()
    client.connect()
    client.on_message_received = received.put
    bodies_seen = [received.get(timeout=LIMIT_SECONDS).data for _ in range(20)]
    assert bodies_seen == [b"%d" % number for number in range(20)]
    wait_for_count(hub, "away", 0)
    client.disconnect()
    # The hub knows the session, so the library does not subscribe again.
    send(hub, "away", "later")
    client.connect()
    assert received.get(timeout=LIMIT_SECONDS).data == b"later"
    wait_for_count(hub, "away", 0)


def test_unacknowledged_messages_come_again_on_the_next_connection(hub: Hub) -> None:
    key = hub.create_device("again")
    first = hub.paho("again", key)
    hold_back(first)
    listen(first, "again")
    for body in ("a", "b", "c"):
        send(hub, "again", body)
    wait_for("three messages", lambda: len(first.received) == 3)
    assert waiting(hub, "again") == 3
    sock = first.client.socket()
    assert sock is not None
    first.client.loop_stop()
    sock.close()

    second = hub.paho("again", key)
    assert second.session_present
    wait_for("the same three once more", lambda: len(second.received) == 3)
    assert bodies(second) == ["a", "b", "c"]
    assert [bag(second, number)["$.mid"] for number in range(3)] == [
        bag(first, number)["$.mid"] for number in range(3)
    ]
    wait_for_count(hub, "again", 0)
    second.close()
    third = hub.paho("again", key)
    send(hub, "again", "d")
    wait_for("the next message", lambda: third.received)
    assert bodies(third) == ["d"], "what was acknowledged does not come again"


def test_a_device_that_does_not_acknowledge_gets_a_few_only(hub: Hub) -> None:
    device = hub.paho("slow", hub.create_device("slow"))
    acknowledge = device.client._send_puback
    held = hold_back(device)
    listen(device, "slow")
    for number in range(8):
        send(hub, "slow", f"{number}")
    wait_for("the first few", lambda: len(held) == 5)
    # Another request on the same connection is answered behind what was sent before it.
    device.client.subscribe("$iothub/twin/res/#", qos=0)
    device.client.publish("$iothub/twin/GET/?$rid=1", qos=0)
    wait_for("the twin", lambda: device.received[-1][0].startswith("$iothub/twin/res/200"))
    assert len(held) == 5
    # A copy: what these make room for is appended while they go out.
    for packet_id in held[:]:
        acknowledge(packet_id)
    wait_for("the rest", lambda: len(held) == 8)
    assert [body for body in bodies(device) if len(body) == 1] == [f"{number}" for number in range(8)]
    wait_for_count(hub, "slow", 3)


def test_topic_is_that_of_a_real_hub(hub: Hub) -> None:
    device = hub.paho("topic", hub.create_device("topic"))
    listen(device, "topic")
    send(hub, "topic", messageId="m", correlationId="c", ack="positive", properties={"a b": "1/2"})
    wait_for("the message", lambda: device.received)
    assert device.received[0][0] == (
        "devices/topic/messages/devicebound/%24.mid=m&%24.to=%2Fdevices%2Ftopic%2Fmessages%2Fdevicebound"
        "&%24.cid=c&iothub-ack=positive&a%20b=1%2F2"
    )


def test_qos_0_is_done_when_it_is_sent(hub: Hub) -> None:
    key = hub.create_device("loose")
    for number in range(12):
        send(hub, "loose", f"{number}")
    device = hub.paho("loose", key)
    listen(device, "loose", qos=0)
    wait_for("all messages", lambda: len(device.received) == 12)
    assert bodies(device) == [f"{number}" for number in range(12)]
    wait_for_count(hub, "loose", 0)


def test_queue_survives_kill_9(make_hub: HubFactory) -> None:
    hub = make_hub().start()
    key = hub.create_device("kept")
    device = hub.paho("kept", key)
    hold_back(device)
    listen(device, "kept")
    for number in range(8):
        send(hub, "kept", f"{number}", properties={"n": f"{number}"})
    wait_for("some in flight", lambda: device.received)
    hub.kill()
    assert device.disconnected.wait(5)
    hub.start()
    assert waiting(hub, "kept") == 8
    again = hub.paho("kept", key)
    wait_for("all messages", lambda: len(again.received) == 8)
    assert bodies(again) == [f"{number}" for number in range(8)]
    assert [bag(again, number)["n"] for number in range(8)] == bodies(again)
    wait_for_count(hub, "kept", 0)
    hub.kill()
    hub.start()
    assert waiting(hub, "kept") == 0


def test_limit_and_purge(hub: Hub) -> None:
    hub.create_device("crowded")
    for number in range(50):
        send(hub, "crowded", f"{number}")
    assert refusal(hub, "crowded") == (403, "DeviceMaximumQueueDepthExceeded")
    hub.create_device("neighbour")
    send(hub, "neighbour")
    # By the service client, as far as that goes.
    operations = hub.registry().protocol.cloud_to_device_messages
    purged = operations.purge_cloud_to_device_message_queue("crowded")
    assert (purged.device_id, purged.total_messages_purged) == ("crowded", 50)
    assert waiting(hub, "crowded") == 0
    assert waiting(hub, "neighbour") == 1
    send(hub, "crowded")
    answer = hub.request("DELETE", "/devices/crowded/commands")
    assert answer.json() == {"deviceId": "crowded", "totalMessagesPurged": 1, "moduleId": None}
    assert hub.request("DELETE", "/devices/crowded/commands").json()["totalMessagesPurged"] == 0
    answer = hub.request("DELETE", "/devices/nobody/commands")
    assert (answer.status_code, answer.headers["iothub-errorcode"]) == (404, "DeviceNotFound")
    token = hub.token(policy="registryReadWrite")
    assert hub.request("DELETE", "/devices/crowded/commands", token=token).status_code == 401


def test_expired_messages_are_dropped(hub: Hub) -> None:
    key = hub.create_device("expiry")
    send(hub, "expiry", "old", expirySeconds=0.2)
    send(hub, "expiry", "new", expirySeconds=600)
    wait_for_count(hub, "expiry", 1)
    device = hub.paho("expiry", key)
    listen(device, "expiry")
    wait_for("the message", lambda: device.received)
    assert bodies(device) == ["new"]
    assert bag(device).keys() == {"$.mid", "$.to", "$.exp"}


def test_time_of_expiry_is_the_hubs(make_hub: HubFactory) -> None:
    """Without waiting: the hub comes back with a clock that is an hour and a minute ahead."""
    hub = make_hub().start()
    key = hub.create_device("later")
    send(hub, "later", "default")
    send(hub, "later", "long", expirySeconds=7200)
    hub.stop()
    hub.clock_offset = 3660
    hub.start()
    device = hub.paho("later", key, ttl=7200)
    token = hub.token(policy="iothubowner", ttl=7200)
    listen(device, "later")
    wait_for("the message", lambda: device.received)
    assert bodies(device) == ["long"]
    twin = hub.request("GET", "/twins/later", token=token)
    assert twin.status_code == 200


def test_who_gets_no_messages(hub: Hub) -> None:
    assert refusal(hub, "nobody") == (404, "DeviceNotFound")
    hub.create_device("off")
    send(hub, "off")
    device = hub.request("GET", "/devices/off").json()
    hub.request("PUT", "/devices/off", body=device | {"status": "disabled"}, if_match="*")
    assert refusal(hub, "off") == (404, "DeviceNotFound")
    assert waiting(hub, "off") == 1, "what was in the queue stays"
    hub.registry().delete_device("off")
    key = hub.create_device("off")
    assert waiting(hub, "off") == 0, "a device made again starts anew"
    body = {"deviceId": "off", "moduleId": "m"}
    module = hub.request("PUT", "/devices/off/modules/m", body=body).json()
    send(hub, "off")
    assert module["cloudToDeviceMessageCount"] == 0
    assert hub.request("GET", "/devices/off/modules/m").json()["cloudToDeviceMessageCount"] == 0
    assert hub.request("GET", "/twins/off/modules/m").json()["cloudToDeviceMessageCount"] == 0
    hub.registry().delete_module("off", "m")
    assert waiting(hub, "off") == 1
    token = hub.token(key=key, path="/devices/off")
    path = "/$emulator/devices/off/messages"
    for policy in (token, hub.token(policy="service")):
        assert hub.request("POST", path, body={"body": "x"}, token=policy).status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        {"body": None},
        {"body": 1},
        {"bodyBase64": "eA=="},
        {"body": None, "bodyBase64": "!"},
        {"messageId": ""},
        {"messageId": "a b"},
        {"correlationId": "x" * 129},
        {"ack": "maybe"},
        {"expirySeconds": 0},
        {"expirySeconds": True},
        {"expirySeconds": 2 * 86_400 + 1},
        {"properties": []},
        {"properties": {"a": 1}},
        {"properties": {"": "x"}},
        {"properties": {"$.mid": "x"}},
        {"properties": {"iothub-ack": "x"}},
    ],
)
def test_what_is_refused(hub: Hub, change: dict[str, Any]) -> None:
    assert refusal(hub, "any", **change) == (400, "ArgumentInvalid")


def test_limits_of_size(hub: Hub) -> None:
    device = hub.paho("large", hub.create_device("large"))
    assert refusal(hub, "large", body="x" * 65537) == (413, "MessageTooLarge")
    assert refusal(hub, "large", properties={"a": "%" * 22_000}) == (413, "MessageTooLarge")
    send(hub, "large", "x" * 65536, properties={"a": "%" * 21_000})
    listen(device, "large")
    wait_for("the message", lambda: device.received)
    assert len(device.received[0][1]) == 65536
    assert bag(device)["a"] == "%" * 21_000
