# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""POST /devices/query, with Microsoft's azure-iot-hub and as bare requests."""

from typing import Any

import pytest
from azure.iot.hub.models import QuerySpecification

from tests.integration.hub.conftest import Hub, HubFactory

FLEET = 250
WHERE = "SELECT * FROM devices WHERE "


def fill(hub: Hub, count: int) -> None:
    """Devices q-00000.. of which each second one is an edge device; tags say the number."""
    for start in range(0, count, 100):
        entries = [
            {
                "id": f"q-{number:05}",
                "capabilities": {"iotEdge": number % 2 == 0},
                "tags": {"number": number, "site": "north" if number % 10 == 0 else "south"},
                "properties": {"desired": {"speed": number / 4, "modules": {"sensor": {"env": "x" * 100}}}},
            }
            for number in range(start, min(start + 100, count))
        ]
        answer = hub.request("POST", "/devices", body=entries)
        assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def fleet(hub: Hub) -> Hub:
    fill(hub, FLEET)
    return hub


def query(hub: Hub, text: str, size: int | None = None) -> tuple[list[list[Any]], str]:
    """All pages of a query, and the type of their items."""
    pages, kinds = [], set()
    headers = {} if size is None else {"x-ms-max-item-count": str(size)}
    while True:
        answer = hub.request("POST", "/devices/query", body={"query": text}, headers=headers)
        assert answer.status_code == 200, answer.text
        pages.append(answer.json())
        kinds.add(answer.headers["x-ms-item-type"])
        if "x-ms-continuation" not in answer.headers:
            assert len(kinds) == 1
            return pages, kinds.pop()
        headers["x-ms-continuation"] = answer.headers["x-ms-continuation"]


def one_page(hub: Hub, text: str) -> list[Any]:
    pages, _kind = query(hub, text, 1000)
    assert len(pages) == 1
    return pages[0]


def test_the_client_pages_through_all_twins(fleet: Hub) -> None:
    registry = fleet.registry()
    found = []
    token = None
    specification = QuerySpecification(query="SELECT * FROM devices WHERE startswith(deviceId, 'q-')")
    while True:
        result = registry.query_iot_hub(specification, token, "100")
        assert result.type == "Twin"
        found += result.items
        token = result.continuation_token
        if token is None:
            break
    assert [twin.device_id for twin in found] == [f"q-{number:05}" for number in range(FLEET)]
    single = registry.get_twin("q-00042")
    assert found[42].as_dict() == single.as_dict()


def test_page_sizes(fleet: Hub) -> None:
    everything = "SELECT * FROM devices"
    assert [len(page) for page in query(fleet, everything)[0]] == [100, 100, 50]
    assert [len(page) for page in query(fleet, everything, 125)[0]] == [125, 125], "no empty page behind"
    assert [len(page) for page in query(fleet, everything, 5000)[0]] == [250], "at most 1000"
    assert [len(page) for page in query(fleet, "SELECT TOP 120 * FROM devices", 50)[0]] == [50, 50, 20]
    assert query(fleet, "SELECT * FROM devices WHERE deviceId = 'nobody'")[0] == [[]]


def test_conditions_on_everything_that_is_stored(fleet: Hub) -> None:
    north = one_page(fleet, "SELECT * FROM devices WHERE tags.site = 'north' AND tags.number >= 100")
    assert [twin["tags"]["number"] for twin in north] == list(range(100, 250, 10))
    for condition, count in (
        ("properties.desired.speed < 1", 4),
        ("properties.desired.modules.sensor.env = 'x'", 0),
        ("properties.desired.$metadata.speed.$lastUpdatedVersion = 2", FLEET),
        ("capabilities.iotEdge = true", FLEET // 2),
        ("status = 'enabled' AND connectionState = 'Disconnected' AND authenticationType = 'sas'", FLEET),
        ("is_defined(deviceScope)", FLEET // 2),
        ("NOT is_defined(moduleId)", FLEET),
        ("deviceId IN ['q-00001', 'q-00002', 'nobody']", 2),
        ("version = 3", FLEET),
    ):
        assert len(one_page(fleet, WHERE + condition)) == count, condition


def test_modules(fleet: Hub) -> None:
    agents = one_page(fleet, "SELECT * FROM devices.modules WHERE moduleId = '$edgeAgent'")
    assert [(twin["deviceId"], twin["moduleId"]) for twin in agents] == [
        (f"q-{number:05}", "$edgeAgent") for number in range(0, FLEET, 2)
    ]
    pages, _kind = query(fleet, "SELECT * FROM devices.modules", 99)
    assert sum(map(len, pages)) == FLEET


def test_columns_and_groups(fleet: Hub) -> None:
    pages, kind = query(fleet, "SELECT deviceId, tags.number AS n FROM devices WHERE tags.number < 2")
    assert (pages, kind) == ([[{"deviceId": "q-00000", "n": 0}, {"deviceId": "q-00001", "n": 1}]], "Raw")
    assert query(fleet, "SELECT COUNT() AS total FROM devices") == ([[{"total": FLEET}]], "Raw")
    assert one_page(fleet, "SELECT COUNT() AS n FROM devices WHERE tags.number > 900") == [{"n": 0}]
    groups = "SELECT tags.site AS site, COUNT() AS n FROM devices GROUP BY tags.site"
    rows = [{"site": "north", "n": 25}, {"site": "south", "n": 225}]
    assert query(fleet, groups) == ([rows], "Raw")
    assert query(fleet, groups, 1) == ([[rows[0]], [rows[1]]], "Raw")
    assert one_page(fleet, "SELECT COUNT() AS n FROM devices GROUP BY tags.nothing") == [{"n": FLEET}]


@pytest.mark.parametrize(
    ("body", "headers", "status", "part"),
    [
        ({"query": "SELECT * FROM devices WHERE tags.a = "}, {}, 400, "at position 38"),
        ({"query": "SELECT * FROM devices.jobs"}, {}, 501, "devices.jobs"),
        ({"query": 7}, {}, 400, "{query: text}"),
        ([], {}, 400, "{query: text}"),
        ({"query": "SELECT * FROM devices"}, {"x-ms-max-item-count": "many"}, 400, "not a number"),
        ({"query": "SELECT * FROM devices"}, {"x-ms-continuation": "e30="}, 400, "x-ms-continuation"),
        ({"query": "SELECT * FROM devices"}, {"x-ms-continuation": "?"}, 400, "x-ms-continuation"),
    ],
)
def test_refused(hub: Hub, body: Any, headers: dict[str, str], status: int, part: str) -> None:
    answer = hub.request("POST", "/devices/query", body=body, headers=headers)
    assert answer.status_code == status
    assert answer.headers["iothub-errorcode"] == ("ArgumentInvalid" if status == 400 else "NotImplemented")
    assert part in answer.json()["Message"]


def test_a_continuation_is_for_its_query_only_and_outlives_the_server(make_hub: HubFactory) -> None:
    hub = make_hub().start()
    fill(hub, 3)
    text = "SELECT deviceId FROM devices"
    size = {"x-ms-max-item-count": "2"}
    first = hub.request("POST", "/devices/query", body={"query": text}, headers=size)
    token = first.headers["x-ms-continuation"]
    headers = {**size, "x-ms-continuation": token}
    other = hub.request("POST", "/devices/query", body={"query": f"{text} "}, headers=headers)
    assert other.status_code == 400
    hub.kill()
    hub.start()
    hub.registry().delete_device("q-00001")
    second = hub.request("POST", "/devices/query", body={"query": text}, headers=headers)
    assert second.json() == [{"deviceId": "q-00002"}]


def test_query_needs_service_connect(hub: Hub) -> None:
    for policy, status in (("registryReadWrite", 401), ("device", 401), ("service", 200)):
        token = hub.token(policy=policy)
        answer = hub.request(
            "POST", "/devices/query", token=token, body={"query": "SELECT * FROM devices WHERE 1 = 2"}
        )
        assert answer.status_code == status


def test_ten_thousand_devices_in_pages_of_a_thousand(make_hub: HubFactory) -> None:
    hub = make_hub().start()
    fill(hub, 10_000)
    for text, count in (
        ("SELECT * FROM devices", 10_000),
        ("SELECT * FROM devices WHERE tags.site = 'north'", 1_000),
        ("SELECT * FROM devices WHERE properties.desired.speed >= 2499", 4),
    ):
        pages, _kind = query(hub, text, 1000)
        assert sum(map(len, pages)) == count
