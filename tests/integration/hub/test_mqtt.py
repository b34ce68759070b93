# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices and modules over MQTT, driven by Microsoft's azure-iot-device and by Paho."""

import asyncio
import json
import queue
import uuid
from typing import Any

import pytest
from azure.iot.device.aio import IoTHubDeviceClient
from azure.iot.device.exceptions import CredentialError
from azure.iot.hub.models import Twin, TwinProperties

from tests.integration.hub.conftest import LIMIT_SECONDS, Hub, PahoDevice, message, wait_for

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


def desire(hub: Hub, device_id: str, **properties: Any) -> None:
    hub.registry().update_twin(device_id, Twin(properties=TwinProperties(desired=properties)))


def state_of(hub: Hub, device_id: str) -> str:
    state = hub.registry().get_twin(device_id).connection_state
    assert isinstance(state, str)
    return state


async def test_telemetry_arrives_in_order_with_all_it_carries(hub: Hub) -> None:
    key = hub.create_device("sender")
    client = IoTHubDeviceClient.create_from_symmetric_key(
        key, hub.address, "sender", server_verification_cert=hub.ca
    )
    await client.connect()
    sent = []
    for number in range(20):
        telemetry = message(json.dumps({"n": number}), str(uuid.uuid4()))
        telemetry.content_type, telemetry.content_encoding = "application/json", "utf-8"
        telemetry.custom_properties = {"näme & =": "a/b+c%20 ✓", "empty": ""}
        sent.append((telemetry.message_id, telemetry.data))
        await client.send_message(telemetry)
    await asyncio.gather(*(client.send_message(f"burst {number}") for number in range(50)))
    await client.shutdown()

    log = hub.log("--device", "sender")
    assert [(entry["messageId"], entry["body"]) for entry in log[:20]] == sent
    assert sorted(entry["body"] for entry in log[20:]) == sorted(f"burst {number}" for number in range(50))
    assert [entry["seq"] for entry in log] == sorted(entry["seq"] for entry in log)
    assert [entry["enqueued"] for entry in log] == sorted(entry["enqueued"] for entry in log)
    assert log[0]["properties"] == {"näme & =": "a/b+c%20 ✓", "empty": ""}
    assert log[0]["system"]["content-type"] == "application/json"
    assert log[0]["module"] is None


def test_twin_reported_and_desired(hub: Hub) -> None:
    key = hub.create_device("twin")
    desire(hub, "twin", interval=5)
    client = hub.device("twin", key)
    client.connect()
    assert client.get_twin()["desired"] == {"interval": 5, "$version": 2}

    client.patch_twin_reported_properties({"fw": "1.0", "net": {"ip": "10.0.0.1", "up": True}})
    client.patch_twin_reported_properties({"net": {"ip": None}})
    reported = hub.registry().get_twin("twin").properties.reported
    assert (reported["fw"], reported["net"], reported["$version"]) == ("1.0", {"up": True}, 3)
    assert client.get_twin()["reported"] == {"fw": "1.0", "net": {"up": True}, "$version": 3}

    patches: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    client.on_twin_desired_properties_patch_received = patches.put
    desire(hub, "twin", interval=7, other={"x": 1})
    # The library reads the twin once when it subscribes, which may come first.
    while (patch := patches.get(timeout=LIMIT_SECONDS))["$version"] < 3:
        pass
    assert patch == {"interval": 7, "other": {"x": 1}, "$version": 3}
    hub.registry().replace_twin("twin", Twin(properties=TwinProperties(desired={"interval": 8})))
    assert patches.get(timeout=LIMIT_SECONDS) == {"interval": 8, "other": None, "$version": 4}


def test_bad_reported_properties_are_refused(hub: Hub) -> None:
    device = hub.paho("badly", hub.create_device("badly"))
    device.client.subscribe("$iothub/twin/res/#", qos=1)
    topic = "$iothub/twin/PATCH/properties/reported/?$rid="
    for number, payload in enumerate(["{", '{"a b": 1}', "[]", '{"ok": 1}']):
        device.client.publish(f"{topic}{number}", payload, qos=1)
    wait_for("four answers", lambda: len(device.received) == 4)
    topics = [topic for topic, _payload in device.received]
    assert [topic.split("/")[3] for topic in topics] == ["400", "400", "400", "204"]
    assert topics[3] == "$iothub/twin/res/204/?$rid=3&$version=2"
    assert hub.registry().get_twin("badly").properties.reported["ok"] == 1


def test_subscriptions_outlive_the_connection(hub: Hub) -> None:
    key = hub.create_device("resume")
    first = hub.paho("resume", key)
    assert not first.session_present
    first.client.subscribe("$iothub/twin/PATCH/properties/desired/#", qos=1)
    desire(hub, "resume", a=1)
    wait_for("the first push", lambda: first.received)
    first.close()
    second = hub.paho("resume", key)
    assert second.session_present
    desire(hub, "resume", a=2)
    wait_for("the push on the second connection", lambda: second.received)
    topic, payload = second.received[0]
    assert topic == "$iothub/twin/PATCH/properties/desired/?$version=3"
    assert json.loads(payload) == {"a": 2, "$version": 3}


def test_connection_state_and_activity(hub: Hub) -> None:
    key = hub.create_device("state")
    registry = hub.registry()
    assert state_of(hub, "state") == "Disconnected"
    client = hub.device("state", key)
    client.connect()
    connected = registry.get_device("state")
    assert connected.connection_state == "Connected"
    assert connected.connection_state_updated_time == connected.last_activity_time
    assert connected.etag == registry.get_twin("state").device_etag, "connecting moves no etag"
    client.send_message("one")
    sent = registry.get_device("state")
    assert sent.last_activity_time > connected.last_activity_time
    assert sent.connection_state_updated_time == connected.connection_state_updated_time
    client.disconnect()
    wait_for("Disconnected after a clean end", lambda: state_of(hub, "state") == "Disconnected")


def test_broken_connection_counts_as_disconnected(hub: Hub) -> None:
    device = hub.paho("broken", hub.create_device("broken"))
    assert state_of(hub, "broken") == "Connected"
    sock = device.client.socket()
    assert sock is not None
    device.client.loop_stop()
    sock.close()
    wait_for("Disconnected after a broken one", lambda: state_of(hub, "broken") == "Disconnected")


def test_newer_connection_evicts_the_older(hub: Hub) -> None:
    key = hub.create_device("evicted")
    older = hub.paho("evicted", key)
    newer = hub.paho("evicted", key)
    assert older.disconnected.wait(5)
    assert state_of(hub, "evicted") == "Connected", "the old one's end must not mark the new one"
    newer.client.publish("devices/evicted/messages/events/", "still here", qos=1).wait_for_publish(5)
    assert [entry["body"] for entry in hub.log("--device", "evicted")] == ["still here"]
    assert not newer.disconnected.is_set()


def test_wrong_key_does_not_evict(hub: Hub) -> None:
    key = hub.create_device("guarded")
    device = hub.paho("guarded", key)
    assert hub.paho("guarded", KEY).return_code == 5
    device.client.publish("devices/guarded/messages/events/", "here", qos=1).wait_for_publish(5)
    assert not device.disconnected.is_set()


def test_library_reports_a_wrong_key(hub: Hub) -> None:
    hub.create_device("wrongly")
    with pytest.raises(CredentialError):
        hub.device("wrongly", KEY).connect()
    assert "wrong key" in hub.last_event("device-refused")["reason"]


@pytest.mark.parametrize(
    ("device_id", "ttl", "host", "reason"),
    [
        ("refused", -5, None, "token expired"),
        ("nobody", 300, None, "missing device"),
        ("refused", 300, "contoso.azure-devices.net", "not a name of this hub"),
    ],
)
def test_refusals(hub: Hub, device_id: str, ttl: int, host: str | None, reason: str) -> None:
    if hub.request("GET", "/devices/refused").status_code == 404:
        hub.registry().create_device_with_sas("refused", KEY, KEY, "enabled")
    assert hub.paho(device_id, KEY, ttl=ttl, host=host).return_code == 5
    assert reason in hub.last_event("device-refused")["reason"]


def test_token_of_another_device(hub: Hub) -> None:
    hub.registry().create_device_with_sas("alice", KEY, KEY, "enabled")
    hub.registry().create_device_with_sas("bob", KEY, KEY, "enabled")
    token = hub.token(key=KEY, path="/devices/alice")
    device = PahoDevice(hub, f"{hub.address}/bob/?api-version=2021-04-12", "bob", token)
    assert device.return_code == 5
    device.close()


def test_token_ends_the_connection_when_it_expires(hub: Hub) -> None:
    device = hub.paho("short", hub.create_device("short"), ttl=2)
    assert device.return_code == 0
    assert device.disconnected.wait(6)
    wait_for("Disconnected", lambda: state_of(hub, "short") == "Disconnected")
    wait_for(
        "the reason in the log",
        lambda: (
            ("short", "the token expired")
            in [(event.get("device"), event.get("reason")) for event in hub.events()]
        ),
    )


def test_disabled_device_is_dropped_and_refused(hub: Hub) -> None:
    registry = hub.registry()
    device = registry.create_device_with_sas("disabled", KEY, KEY, "enabled")
    client = hub.paho("disabled", KEY)
    registry.update_device_with_sas("disabled", device.etag, KEY, KEY, "disabled")
    assert client.disconnected.wait(5)
    assert hub.paho("disabled", KEY).return_code == 5
    assert hub.registry().get_twin("disabled").status == "disabled"


def test_deleted_device_is_dropped(hub: Hub) -> None:
    client = hub.paho("deleted", hub.create_device("deleted"))
    hub.registry().delete_device("deleted")
    assert client.disconnected.wait(5)


def test_device_makes_its_module_and_the_module_works(hub: Hub) -> None:
    key = hub.create_device("gateway", edge=True)
    body = {
        "deviceId": "gateway",
        "moduleId": "sensor",
        "managedBy": "iotEdge",
        "authentication": {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}},
    }
    token = hub.token(key=key, path="/devices/gateway")
    created = hub.request("PUT", "/devices/gateway/modules/sensor", token=token, body=body)
    assert created.status_code == 200

    module = hub.module("gateway", "sensor", KEY)
    module.connect()
    module.send_message_to_output(message("21.5", "t1"), "temperature")
    module.patch_twin_reported_properties({"unit": "C"})
    assert module.get_twin()["reported"]["unit"] == "C"
    [entry] = hub.log("--device", "gateway")
    assert (entry["device"], entry["module"], entry["messageId"]) == ("gateway", "sensor", "t1")
    assert (entry["body"], entry["system"]["output-name"]) == ("21.5", "temperature")

    registry = hub.registry()
    assert registry.get_module("gateway", "sensor").connection_state == "Connected"
    assert registry.get_module_twin("gateway", "sensor").connection_state == "Connected"
    assert state_of(hub, "gateway") == "Disconnected", "a module is not its device"
    patches: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    module.on_twin_desired_properties_patch_received = patches.put
    registry.update_module_twin("gateway", "sensor", Twin(properties=TwinProperties(desired={"every": 2})))
    while (patch := patches.get(timeout=LIMIT_SECONDS))["$version"] < 2:
        pass
    assert patch["every"] == 2
    registry.delete_module("gateway", "sensor")
    wait_for("the module to be dropped", lambda: not module.connected)


@pytest.mark.parametrize(
    ("topic", "qos"),
    [
        ("devices/somebody/messages/events/", 1),
        ("devices/strict/modules/x/messages/events/", 1),
        ("anything", 0),
        ("devices/strict/messages/events/", 2),
    ],
)
def test_foreign_topics_and_qos_2_end_the_connection(hub: Hub, topic: str, qos: int) -> None:
    if hub.request("GET", "/devices/strict").status_code == 404:
        hub.registry().create_device_with_sas("strict", KEY, KEY, "enabled")
    device = hub.paho("strict", KEY)
    device.client.publish(topic, "x", qos=qos)
    assert device.disconnected.wait(5)
    assert hub.log("--device", "strict") == []


def test_qos_0_and_a_body_that_is_no_text(hub: Hub) -> None:
    device = hub.paho("binary", hub.create_device("binary"))
    device.client.publish("devices/binary/messages/events/", b"\xff\x00", qos=0)
    device.client.publish("devices/binary/messages/events", b"last", qos=1).wait_for_publish(5)
    first, last = hub.log("--device", "binary")
    assert (first["body"], first["bodyBase64"]) == (None, "/wA=")
    assert last["body"] == "last"


def test_foreign_subscription_fails(hub: Hub) -> None:
    device = hub.paho("curious", hub.create_device("curious"))
    granted: list[tuple[int, ...]] = []
    device.client.on_subscribe = lambda _client, _data, _id, codes: granted.append(tuple(codes))
    device.client.subscribe([("devices/other/messages/devicebound/#", 1), ("$iothub/twin/res/#", 2)])
    wait_for("the answer to SUBSCRIBE", lambda: granted)
    assert granted == [(0x80, 1)]
