# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throttles, counts, injected faults and queries that lag: what a test can ask of the emulator."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from azure.iot.hub.models import Twin

from tests.integration.hub.conftest import Hub, HubFactory, wait_for


def statistics(hub: Hub) -> dict[str, Any]:
    found: dict[str, Any] = hub.request("GET", "/$emulator/statistics", api_version=None).json()
    return found


def inject(hub: Hub, **fault: Any) -> None:
    answer = hub.request("POST", "/$emulator/faults", body=fault, api_version=None)
    assert answer.status_code == 200, answer.text


def query_ids(hub: Hub) -> list[str]:
    answer = hub.request("POST", "/devices/query", body={"query": "SELECT deviceId FROM devices"})
    return [row["deviceId"] for row in answer.json()]


def test_calls_are_counted_by_class(hub: Hub) -> None:
    hub.request("DELETE", "/$emulator/statistics", api_version=None)
    registry = hub.registry()
    hub.create_device("counted")
    registry.get_device("counted")
    registry.get_twin("counted")
    registry.update_twin("counted", Twin(tags={"a": 1}))
    query_ids(hub)
    hub.request("POST", "/devices", body=[{"id": f"counted-{number}"} for number in range(50)])
    hub.request("GET", "/configurations")
    assert statistics(hub)["calls"] == {
        "identityRegistry": 3,
        "twinReads": 1,
        "twinUpdates": 1,
        "queries": 1,
        "configurations": 1,
    }
    assert statistics(hub)["throttled"] == {}
    for policy in ("service", "registryReadWrite"):
        token = hub.token(policy=policy)
        assert hub.request("GET", "/$emulator/statistics", token=token).status_code == 401


def test_a_tier_throttles(make_hub: HubFactory) -> None:
    # 20 queries a second: two pass at once, two wait.
    options = ("--tier", "S1", "--units", "60", "--throttle-burst", "0.1", "--throttle-backlog", "0.12")
    hub = make_hub(serve_options=options).start()
    body = {"query": "SELECT * FROM devices"}

    def query(_number: int) -> requests.Response:
        return hub.request("POST", "/devices/query", body=body)

    def refusal() -> requests.Response | None:
        # Together, because calls one after the other wait and so keep to the limit.
        with ThreadPoolExecutor(12) as pool:
            answers = pool.map(query, range(24))
            return next((answer for answer in answers if answer.status_code != 200), None)

    # An answer that is an error counts as false.
    refused = wait_for("a refusal", lambda: [answer] if (answer := refusal()) is not None else [], 20)[0]
    assert refused.status_code == 429
    assert refused.headers["iothub-errorcode"] in ("ThrottleBacklogLimitExceeded", "ThrottlingException")
    assert "Retry-After" not in refused.headers
    assert "10 seconds" in refused.json()["Message"]
    assert refused.headers["Connection"] == "close"
    found = statistics(hub)
    assert found["throttled"]["queries"] >= 1
    assert found["delayed"]["queries"] >= 1
    assert hub.request("GET", "/configurations").status_code == 200, "each class has its own meter"


def test_a_free_hub_has_ten_configurations(make_hub: HubFactory) -> None:
    hub = make_hub(serve_options=("--tier", "F1")).start()
    content = {"deviceContent": {"properties.desired.a": 1}}
    codes = [
        hub.request("PUT", f"/configurations/c{number}", body={"content": content}).status_code
        for number in range(11)
    ]
    assert codes == [200] * 10 + [413]


def test_faults(hub: Hub) -> None:
    hub.create_device("faulty")
    path = "/devices/faulty"
    inject(hub, path=path, status=429, headers={"Retry-After": "3"}, count=1)
    inject(hub, operation="identityRegistry", status=503, count=1)
    first = hub.request("GET", path)
    assert (first.status_code, first.headers["Retry-After"]) == (429, "3")
    assert first.headers["iothub-errorcode"] == "ThrottlingException"
    assert [hub.request("GET", path).status_code for _call in range(2)] == [503, 200]

    inject(hub, method="PUT", path="/devices/cut-*", cut=True, count=1)
    with pytest.raises(requests.ConnectionError):
        hub.request("PUT", "/devices/cut-1", body={})
    assert hub.request("GET", "/devices/cut-1").status_code == 404, "cut before it was carried out"
    inject(hub, method="PUT", path="/devices/cut-*", cut=True, when="after", count=1)
    with pytest.raises(requests.ConnectionError):
        hub.request("PUT", "/devices/cut-2", body={})
    assert hub.request("GET", "/devices/cut-2").status_code == 200, "carried out, its answer lost"
    inject(hub, method="PUT", path="/devices/lost", status=500, when="after", count=1)
    assert hub.request("PUT", "/devices/lost", body={}).status_code == 500
    assert hub.request("GET", "/devices/lost").status_code == 200

    inject(hub, path=path, delay=0.3, count=1)
    started = time.monotonic()
    assert hub.request("GET", path).status_code == 200
    assert time.monotonic() - started >= 0.3

    assert len(hub.request("GET", "/$emulator/faults", api_version=None).json()) == 6
    assert statistics(hub)["metByFaults"] == 6
    inject(hub, status=500)
    assert hub.request("GET", path).status_code == 500
    assert hub.request("DELETE", "/$emulator/faults", api_version=None).status_code == 204
    assert hub.request("GET", path).status_code == 200
    refused = hub.request("POST", "/$emulator/faults", body={"status": 200}, api_version=None)
    assert (refused.status_code, refused.headers["iothub-errorcode"]) == (400, "ArgumentInvalid")


def test_queries_lag_behind(make_hub: HubFactory) -> None:
    hub = make_hub(serve_options=("--query-lag", "1.5"), clock_offset=-3600).start()
    registry = hub.registry()
    created = time.monotonic()
    hub.create_device("late", edge=True)
    registry.update_twin("late", Twin(tags={"site": "north"}))
    assert query_ids(hub) == []
    assert registry.get_twin("late").tags == {"site": "north"}, "reads of one twin do not lag"
    wait_for("the new device", lambda: query_ids(hub) == ["late"])
    assert time.monotonic() - created >= 1.5

    deleted = time.monotonic()
    registry.delete_device("late")
    answer = hub.request("POST", "/devices/query", body={"query": "SELECT * FROM devices"}).json()
    assert [(twin["deviceId"], twin["tags"]) for twin in answer] == [("late", {"site": "north"})]
    body = {"query": "SELECT COUNT() AS n FROM devices.modules"}
    assert hub.request("POST", "/devices/query", body=body).json() == [{"n": 2}]
    hub.create_device("late")
    assert query_ids(hub) == ["late"], "once, not twice"
    wait_for("the end of the deleted device", lambda: "tags" not in _tagged(hub))
    assert time.monotonic() - deleted >= 1.5
    wait_for("the new one", lambda: query_ids(hub) == ["late"])


def _tagged(hub: Hub) -> str:
    body = {"query": "SELECT deviceId, tags FROM devices WHERE is_defined(tags.site)"}
    return hub.request("POST", "/devices/query", body=body).text
