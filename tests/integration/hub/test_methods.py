# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Direct methods, called with Microsoft's azure-iot-hub and answered with azure-iot-device."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from azure.iot.device import MethodRequest, MethodResponse
from azure.iot.hub.models import CloudToDeviceMethod
from msrest.exceptions import HttpOperationError

from tests.integration.hub.conftest import Hub, PahoDevice, wait_for


def answer_methods(client: Any, status: int = 200) -> None:
    """Answer every method with its own name and payload."""

    def answer(request: MethodRequest) -> None:
        payload = {"name": request.name, "payload": request.payload}
        client.send_method_response(MethodResponse.create_from_method_request(request, status, payload))

    client.on_method_request_received = answer


def invoke(hub: Hub, device_id: str, **options: Any) -> dict[str, Any]:
    method = CloudToDeviceMethod(method_name=options.pop("name", "restart"), **options)
    result = hub.registry().invoke_device_method(device_id, method)
    return dict(result.as_dict())


def refusal(error: "pytest.ExceptionInfo[HttpOperationError]") -> tuple[int, str, int]:
    """Status, code in the header and number in the body."""
    response = error.value.response
    numbered = json.loads(response.json()["Message"])
    assert numbered.keys() == {"errorCode", "trackingId", "message", "info", "timestampUtc"}
    return response.status_code, response.headers["iothub-errorcode"], numbered["errorCode"]


def listener(hub: Hub, device_id: str) -> PahoDevice:
    """A device that is subscribed to methods and answers by hand."""
    device = hub.paho(device_id, hub.create_device(device_id))
    granted: list[int] = []
    device.client.on_subscribe = lambda _client, _data, _id, codes: granted.extend(codes)
    device.client.subscribe("$iothub/methods/POST/#", qos=1)
    wait_for("the subscription", lambda: granted)
    return device


def test_device_answers(hub: Hub) -> None:
    client = hub.device("answers", hub.create_device("answers"))
    client.connect()
    answer_methods(client, 418)
    for payload in ({"in": [1, "ä", None]}, "text", 7, {}):
        result = invoke(hub, "answers", payload=payload, response_timeout_in_seconds=10)
        assert result["status"] == 418
        assert result["payload"] == {"name": "restart", "payload": payload}


def test_module_answers(hub: Hub) -> None:
    hub.create_device("carrier")
    answer = hub.request(
        "PUT", "/devices/carrier/modules/sensor", body={"deviceId": "carrier", "moduleId": "sensor"}
    )
    key = answer.json()["authentication"]["symmetricKey"]["primaryKey"]
    module = hub.module("carrier", "sensor", key)
    module.connect()
    answer_methods(module)
    method = CloudToDeviceMethod(method_name="reset", payload=1, response_timeout_in_seconds=10)
    result = hub.registry().invoke_device_module_method("carrier", "sensor", method)
    assert (result.status, result.payload) == (200, {"name": "reset", "payload": 1})
    with pytest.raises(HttpOperationError) as error:
        invoke(hub, "carrier")
    assert refusal(error) == (404, "DeviceNotOnline", 404103), "the device itself is not connected"


def test_many_calls_at_once_find_their_answers(hub: Hub) -> None:
    device = listener(hub, "busy")
    with ThreadPoolExecutor(5) as pool:
        calls = [
            pool.submit(
                invoke, hub, "busy", name=f"m{number}", payload=number, response_timeout_in_seconds=10
            )
            for number in range(5)
        ]
        wait_for("five requests", lambda: len(device.received) == 5)
        # Answered in another order than asked.
        for topic, payload in reversed(device.received):
            assert topic.split("/")[3] == f"m{payload.decode()}"
            request_id = topic.partition("?$rid=")[2]
            device.client.publish(f"$iothub/methods/res/200/?$rid={request_id}", payload, qos=1)
        results = [call.result() for call in calls]
    assert results == [{"status": 200, "payload": number} for number in range(5)]


def test_device_that_is_not_online(hub: Hub) -> None:
    key = hub.create_device("away")
    with pytest.raises(HttpOperationError) as error:
        invoke(hub, "away")
    assert refusal(error) == (404, "DeviceNotOnline", 404103)
    hub.paho("away", key)
    with pytest.raises(HttpOperationError) as error:
        invoke(hub, "away")
    assert refusal(error) == (404, "DeviceNotOnline", 404103), "connected, but not for methods"
    started = time.monotonic()
    with pytest.raises(HttpOperationError) as error:
        invoke(hub, "away", connect_timeout_in_seconds=1)
    assert refusal(error)[2] == 404103
    assert time.monotonic() - started >= 1
    with pytest.raises(HttpOperationError) as error:
        invoke(hub, "nobody")
    response = error.value.response
    assert (response.status_code, response.headers["iothub-errorcode"]) == (404, "DeviceNotFound")


def test_call_waits_for_a_device_that_comes(hub: Hub) -> None:
    client = hub.device("late", hub.create_device("late"))
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(invoke, hub, "late", payload=1, connect_timeout_in_seconds=20)
        impatient = pool.submit(invoke, hub, "late", payload=1, connect_timeout_in_seconds=1)
        with pytest.raises(HttpOperationError):
            impatient.result()
        assert not call.done()
        client.connect()
        answer_methods(client)
        assert call.result()["payload"] == {"name": "restart", "payload": 1}


def test_device_that_does_not_answer_or_goes_away(hub: Hub) -> None:
    device = listener(hub, "silent")
    with ThreadPoolExecutor(1) as pool:
        gone = pool.submit(invoke, hub, "silent", response_timeout_in_seconds=60)
        wait_for("the request", lambda: device.received)
        device.close()
        with pytest.raises(HttpOperationError) as error:
            gone.result()
    assert refusal(error) == (404, "DeviceNotOnline", 404103)

    device = listener(hub, "slow")
    started = time.monotonic()
    with pytest.raises(HttpOperationError) as error:
        invoke(hub, "slow", response_timeout_in_seconds=5)
    assert refusal(error) == (504, "GatewayTimeout", 504101)
    assert time.monotonic() - started >= 5
    # Its answer comes too late and hurts nobody.
    request_id = device.received[0][0].partition("?$rid=")[2]
    device.client.publish(f"$iothub/methods/res/200/?$rid={request_id}", "1", qos=1).wait_for_publish(5)
    assert not device.disconnected.is_set()


def test_subscription_of_the_session_before_counts(hub: Hub) -> None:
    key = hub.create_device("session")
    client = hub.device("session", key)
    client.connect()
    answer_methods(client)
    assert invoke(hub, "session", response_timeout_in_seconds=10)["status"] == 200
    client.disconnect()
    client.connect()
    assert invoke(hub, "session", connect_timeout_in_seconds=5)["status"] == 200


def test_answer_that_is_no_json(hub: Hub) -> None:
    device = listener(hub, "garbled")
    replies = iter([b"{broken", b""])

    def reply(_client: object, _data: object, request: Any) -> None:
        request_id = request.topic.partition("?$rid=")[2]
        device.client.publish(f"$iothub/methods/res/200/?$rid={request_id}", next(replies), qos=1)

    device.client.on_message = reply
    answer = hub.request("POST", "/twins/garbled/methods", body={"methodName": "m"})
    assert (answer.status_code, answer.headers["iothub-errorcode"]) == (502, "BadDeviceResponse")
    assert invoke(hub, "garbled") == {"status": 200}, "no payload is null"


@pytest.mark.parametrize(
    "change",
    [
        {"methodName": ""},
        {"methodName": 1},
        {"responseTimeoutInSeconds": 4},
        {"responseTimeoutInSeconds": 301},
        {"connectTimeoutInSeconds": -1},
        {"connectTimeoutInSeconds": "1"},
        {"payload": "x" * 131073},
    ],
)
def test_what_is_refused(hub: Hub, change: dict[str, Any]) -> None:
    answer = hub.request("POST", "/twins/any/methods", body={"methodName": "m"} | change)
    assert (answer.status_code, answer.headers["iothub-errorcode"]) == (400, "ArgumentInvalid")


def test_only_services_call_methods(hub: Hub) -> None:
    token = hub.token(policy="registryReadWrite")
    answer = hub.request("POST", "/twins/any/methods", token=token, body={"methodName": "m"})
    assert answer.status_code == 401
