# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_auth, iothub_client
from ansible_collections.edgeha.iotedge.plugins.module_utils.rest_client import (
    Response,
    ServiceResponseError,
)


@pytest.fixture
def client() -> iothub_client.HubClient:
    policy = iothub_auth.SasPolicy("service", base64.b64encode(bytes(32)).decode())
    return iothub_client.HubClient("hub.example", policy)


def test_query_goes_on_until_there_is_no_further_page(
    client: iothub_client.HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {
        None: Response(200, [{"deviceId": "a"}, {"deviceId": "b"}], {"x-ms-continuation": "t1"}),
        # A page may be empty and not be the last.
        "t1": Response(200, [], {"x-ms-continuation": "t2"}),
        "t2": Response(200, [{"deviceId": "c"}], {}),
    }
    asked = []

    def request(_method: str, _path: str, **call: Any) -> Response:
        asked.append((call["body"], call["headers"]["x-ms-max-item-count"]))
        return pages[call["headers"].get("x-ms-continuation")]

    monkeypatch.setattr(client, "request", request)
    assert [row["deviceId"] for row in client.query("SELECT deviceId FROM devices")] == ["a", "b", "c"]
    assert asked == [({"query": "SELECT deviceId FROM devices"}, "1000")] * 3


def test_partial_failure_of_new_keys_is_an_answer_and_another_400_an_error(
    client: iothub_client.HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"policyKey": "both", "rotatedKeys": [], "errors": [{"id": "d", "errorCode": "DeviceNotFound"}]}
    refusals = [
        ServiceResponseError("IoT Hub h", 400, "BulkRegenerateDeviceKeyOperationFailure", "-", body=answer),
        ServiceResponseError("IoT Hub h", 400, "InvalidPolicyKey", "-", body={"Message": "no"}),
    ]
    queries = []

    def request(_method: str, _path: str, **call: Any) -> Response:
        queries.append(call["query"])
        raise refusals.pop(0)

    monkeypatch.setattr(client, "request", request)
    assert client.regenerate_keys("both", [{"id": "d"}]) == answer
    with pytest.raises(ServiceResponseError, match="InvalidPolicyKey"):
        client.regenerate_keys("both", [{"id": "d"}])
    # The client's own version does not have this call.
    assert queries == [{"api-version": "2024-03-31"}] * 2
