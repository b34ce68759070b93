# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configurations and edge deployments, with Microsoft's clients and as bare requests."""

from collections.abc import Iterator
from typing import Any

import pytest
from azure.iot.hub import IoTHubConfigurationManager
from azure.iot.hub.models import Twin
from azure.iot.hub.protocol.models import (
    Configuration,
    ConfigurationContent,
    ConfigurationMetrics,
    ConfigurationQueriesTestInput,
)
from msrest.exceptions import HttpOperationError

from tests.integration.hub.conftest import Hub, HubFactory, free_address, wait_for
from tests.integration.hub.test_registry import desired, refused

QUICK = ("--evaluation-interval", "0.05")


@pytest.fixture
def hub(make_hub: HubFactory) -> Hub:
    """A hub for each test: configurations look at the whole fleet."""
    return make_hub(serve_options=QUICK).start()


def manager(hub: Hub) -> IoTHubConfigurationManager:
    """Microsoft's client for configurations."""
    manager = IoTHubConfigurationManager.from_connection_string(
        f"HostName={hub.host};SharedAccessKeyName=iothubowner;SharedAccessKey={hub.policies['iothubowner']}"
    )
    manager.protocol.config.connection.verify = str(hub.state / "ca.pem")
    return manager


def manifest(version: str, **modules: dict[str, Any]) -> dict[str, Any]:
    agent = {"schemaVersion": "1.1", "modules": {"tool": {"settings": {"image": f"tool:{version}"}}}}
    return {
        "$edgeAgent": {"properties.desired": agent},
        "$edgeHub": {"properties.desired": {"routes": {"up": f"FROM /* INTO $upstream {version}"}}},
        **{name: {"properties.desired": content} for name, content in modules.items()},
    }


def put(hub: Hub, name: str, content: dict[str, Any], condition: str = "*", priority: int = 1) -> None:
    body = {"id": name, "content": content, "targetCondition": condition, "priority": priority}
    answer = hub.request("PUT", f"/configurations/{name}", body=body)
    assert answer.status_code == 200, answer.text


def agent_image(hub: Hub, device_id: str) -> str | None:
    twin = hub.request("GET", f"/twins/{device_id}/modules/$edgeAgent").json()
    modules = twin["properties"]["desired"].get("modules", {})
    image: str | None = modules.get("tool", {}).get("settings", {}).get("image")
    return image


def states(hub: Hub, device_id: str) -> dict[str, str]:
    shown = hub.request("GET", f"/twins/{device_id}").json().get("configurations", {})
    return {name: state["status"] for name, state in shown.items()}


def report(hub: Hub, device_id: str, code: int) -> None:
    """Be the edge agent for a moment: report the result of the deployment that stands in the twin."""
    key = hub.request("GET", f"/devices/{device_id}/modules/$edgeAgent").json()
    key["authentication"] = {"type": "sas"}
    path = f"/devices/{device_id}/modules/$edgeAgent"
    key = hub.request("PUT", path, body=key, if_match="*").json()
    client = hub.module(device_id, "$edgeAgent", key["authentication"]["symmetricKey"]["primaryKey"])
    client.connect()
    version = client.get_twin()["desired"]["$version"]
    client.patch_twin_reported_properties(
        {"lastDesiredVersion": version, "lastDesiredStatus": {"code": code}}
    )


def test_a_deployment_from_create_to_delete(hub: Hub) -> None:
    configurations = manager(hub)
    hub.create_device("gw", edge=True)
    hub.create_device("leaf")
    created = configurations.create_configuration(
        Configuration(
            id="first",
            content=ConfigurationContent(modules_content=manifest("1")),
            target_condition="tags.site = 'north'",
            priority=7,
            labels={"who": "test"},
            metrics=ConfigurationMetrics(queries={"all": "SELECT * FROM devices"}),
        )
    )
    assert (created.id, created.priority, created.labels) == ("first", 7, {"who": "test"})
    assert created.schema_version == "1.0"
    assert created.metrics.results == {"all": 2}
    assert created.system_metrics.results["targetedCount"] == 0
    assert agent_image(hub, "gw") is None

    for device_id in ("gw", "leaf"):
        hub.registry().update_twin(device_id, Twin(tags={"site": "north"}))
    wait_for("the deployment", lambda: agent_image(hub, "gw") == "tool:1")
    assert states(hub, "gw") == {"first": "Applied"}
    assert states(hub, "leaf") == {}, "modulesContent is for edge devices"
    module = hub.registry().get_module_twin("gw", "$edgeHub")
    assert desired(module) == {"routes": {"up": "FROM /* INTO $upstream 1"}}

    report(hub, "gw", 200)
    results = configurations.get_configuration("first").system_metrics.results
    assert results == {
        "targetedCount": 1,
        "appliedCount": 1,
        "reportedSuccessfulCount": 1,
        "reportedFailedCount": 0,
    }
    report(hub, "gw", 406)
    listed = configurations.get_configurations()
    assert [one.id for one in listed] == ["first"]
    assert listed[0].system_metrics.results["reportedFailedCount"] == 1
    for name, text in listed[0].system_metrics.queries.items():
        # Clients run these queries themselves.
        found = hub.request("POST", "/devices/query", body={"query": text}).json()
        assert len(found) == listed[0].system_metrics.results[name], name

    configurations.delete_configuration("first")
    wait_for("the end of the target", lambda: states(hub, "gw") == {})
    assert agent_image(hub, "gw") == "tool:1", "what was applied stays"
    with pytest.raises(HttpOperationError) as error:
        configurations.get_configuration("first")
    assert refused(error) == (404, "ConfigurationNotFound")


def test_put_creates_only_and_updates_with_a_quoted_etag_only(hub: Hub) -> None:
    put(hub, "once", {"modulesContent": manifest("1")})
    first = hub.request("GET", "/configurations/once")
    etag = first.json()["etag"]
    assert first.headers["ETag"] == f'"{etag}"'
    body = first.json() | {"priority": 9, "content": {"modulesContent": manifest("2")}}

    def answer(if_match: str | None, name: str = "once") -> tuple[int, str]:
        path, document = f"/configurations/{name}", body | {"id": name}
        response = hub.request("PUT", path, body=document, if_match=if_match)
        return response.status_code, response.headers.get("iothub-errorcode", "")

    assert answer(None) == (409, "ConfigurationAlreadyExists")
    assert answer(etag) == (409, "ConfigurationAlreadyExists"), "without quotes it does not count"
    assert answer('"wrong"') == (412, "PreconditionFailed")
    assert answer('"*"', "missing") == (404, "ConfigurationNotFound")
    assert answer(f'"{etag}"') == (200, "")
    updated = hub.request("GET", "/configurations/once").json()
    assert updated["priority"] == 9
    assert updated["content"] == first.json()["content"], "the content is immutable, in silence"
    assert updated["etag"] != etag
    assert updated["createdTimeUtc"] == first.json()["createdTimeUtc"]
    assert (answer("*"), answer('"*"')) == ((200, ""), (200, ""))

    for if_match, status in ((None, 412), (etag, 412), (f'"{etag}"', 412), ('"*"', 204), ("*", 404)):
        assert hub.request("DELETE", "/configurations/once", if_match=if_match).status_code == status


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("Upper", {}, "ArgumentInvalid"),
        ("bad", {"id": "other"}, "ArgumentInvalid"),
        ("bad", {"content": None}, "ArgumentInvalid"),
        ("bad", {"content": {}}, "InvalidConfigurationContent"),
        (
            "bad",
            {"content": {"modulesContent": {"m": {"properties.desired": {}}}}},
            "InvalidConfigurationContent",
        ),
        ("bad", {"targetCondition": "tags.a ="}, "InvalidConfigurationTargetCondition"),
        ("bad", {"targetCondition": "FROM devices.modules"}, "InvalidConfigurationTargetCondition"),
        ("bad", {"targetCondition": 1}, "ArgumentInvalid"),
        ("bad", {"priority": -1}, "ArgumentInvalid"),
        ("bad", {"labels": {"a": 1}}, "ArgumentInvalid"),
        ("bad", {"metrics": {"queries": {"q": "SELECT"}}}, "InvalidConfigurationCustomMetricsQuery"),
    ],
)
def test_what_is_refused(module_hub: Hub, name: str, change: dict[str, Any], code: str) -> None:
    body = {"id": name, "content": {"modulesContent": manifest("1")}, "targetCondition": "*"} | change
    answer = module_hub.request("PUT", f"/configurations/{name}", body=body)
    assert (answer.status_code, answer.headers["iothub-errorcode"]) == (400, code)
    assert module_hub.request("GET", "/configurations").json() == []


@pytest.fixture(scope="module")
def module_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(tmp_path_factory.mktemp("configurations"), free_address()).start()
    yield hub
    hub.stop()


def test_a_hundred_at_most(hub: Hub) -> None:
    content = {"deviceContent": {"properties.desired.a": 1}}
    for number in range(100):
        put(hub, f"c-{number}", content, "tags.never = 1")
    body = {"id": "c-100", "content": content}
    answer = hub.request("PUT", "/configurations/c-100", body=body)
    assert (answer.status_code, answer.headers["iothub-errorcode"]) == (
        413,
        "ConfigurationCountLimitExceeded",
    )
    answer = hub.request("GET", "/configurations?top=3")
    assert len(answer.json()) == 100


def test_precedence_layers_and_custom_modules(hub: Hub) -> None:
    hub.create_device("gw", edge=True)
    registry = hub.registry()
    registry.create_module_with_sas("gw", "sensor", "", "", "")
    put(hub, "low", {"modulesContent": manifest("low", sensor={"rate": 1})}, priority=1)
    wait_for("low", lambda: agent_image(hub, "gw") == "tool:low")
    assert desired(registry.get_module_twin("gw", "sensor")) == {"rate": 1}
    put(hub, "high", {"modulesContent": manifest("high", sensor={"rate": 2}, late={"x": 1})}, priority=5)
    wait_for("high", lambda: agent_image(hub, "gw") == "tool:high")
    assert states(hub, "gw") == {"low": "Targeted", "high": "Applied"}
    put(hub, "same", {"modulesContent": manifest("same", late={"x": 1})}, priority=5)
    wait_for("the newest of the same priority", lambda: agent_image(hub, "gw") == "tool:same")
    layered = {"$edgeAgent": {"properties.desired.modules.more": {"settings": {"image": "more:1"}}}}
    put(hub, "layer", {"modulesContent": layered}, priority=9)
    wait_for("the layer", lambda: states(hub, "gw").get("layer") == "Applied")
    agent = desired(registry.get_module_twin("gw", "$edgeAgent"))
    assert {name: one["settings"]["image"] for name, one in agent["modules"].items()} == {
        "tool": "tool:same",
        "more": "more:1",
    }
    assert desired(registry.get_module_twin("gw", "sensor")) == {"rate": 2}, "nothing takes it back"

    registry.create_module_with_sas("gw", "late", "", "", "")
    wait_for("the late module", lambda: desired(registry.get_module_twin("gw", "late")) == {"x": 1})

    # What somebody writes over a deployment stays until the next evaluation only.
    registry.update_module_twin(
        "gw", "$edgeHub", Twin.from_dict({"properties": {"desired": {"routes": {"up": "mine"}}}})
    )
    wait_for(
        "the deployment's route again",
        lambda: (
            desired(registry.get_module_twin("gw", "$edgeHub"))["routes"]["up"]
            == "FROM /* INTO $upstream same"
        ),
    )
    hub.request("DELETE", "/configurations/same", if_match="*")
    wait_for("the one before", lambda: agent_image(hub, "gw") == "tool:high")
    assert "more" in desired(registry.get_module_twin("gw", "$edgeAgent"))["modules"]


def test_device_and_module_configurations_reach_connected_clients(hub: Hub) -> None:
    device = hub.paho("thing", hub.create_device("thing"))
    device.client.subscribe("$iothub/twin/PATCH/properties/desired/#", 1)
    registry = hub.registry()
    registry.create_module_with_sas("thing", "part", "", "", "")
    own = Twin.from_dict({"properties": {"desired": {"own": 1}}})
    wait_for("the subscription", lambda: registry.update_twin("thing", own) and device.received)
    fan = {"deviceContent": {"properties.desired.fan": {"rpm": 100}}}
    put(hub, "fans", fan, "tags.fan = true")
    part = {"moduleContent": {"properties.desired.level": 3}}
    put(hub, "parts", part, "FROM devices.modules WHERE moduleId = 'part'")
    registry.update_twin("thing", Twin(tags={"fan": True}))
    wait_for("the push", lambda: any(b'"rpm": 100' in body for _topic, body in device.received))
    assert desired(registry.get_twin("thing")) == {"own": 1, "fan": {"rpm": 100}}
    assert states(hub, "thing") == {"fans": "Applied"}
    wait_for("the module", lambda: desired(registry.get_module_twin("thing", "part")) == {"level": 3})
    results = hub.request("GET", "/configurations/parts").json()["systemMetrics"]["results"]
    assert results == {"targetedCount": 1, "appliedCount": 1}
    found = hub.request(
        "POST",
        "/devices/query",
        body={"query": "SELECT deviceId FROM devices WHERE configurations.[[fans]].status = 'Applied'"},
    )
    assert found.json() == [{"deviceId": "thing"}]
    registry.update_twin("thing", Twin(tags={"fan": None}))
    wait_for("the end of the target", lambda: states(hub, "thing") == {})
    assert desired(registry.get_twin("thing"))["fan"] == {"rpm": 100}


def test_apply_to_one_device(hub: Hub) -> None:
    hub.create_device("gw", edge=True)
    hub.create_device("leaf")
    configurations = manager(hub)
    content = ConfigurationContent(modules_content=manifest("7", sensor={"rate": 5}))
    configurations.apply_configuration_on_edge_device("gw", content)
    assert agent_image(hub, "gw") == "tool:7", "at once"
    registry = hub.registry()
    registry.create_module_with_sas("gw", "sensor", "", "", "")
    wait_for("the module's content", lambda: desired(registry.get_module_twin("gw", "sensor")) == {"rate": 5})
    registry.update_module_twin("gw", "sensor", Twin.from_dict({"properties": {"desired": {"rate": 6}}}))
    assert desired(registry.get_module_twin("gw", "sensor")) == {"rate": 6}, "it is applied once"

    for device_id, body, status, code in (
        ("leaf", {"modulesContent": manifest("7")}, 400, "ArgumentInvalid"),
        ("nobody", {"modulesContent": manifest("7")}, 404, "DeviceNotFound"),
        ("gw", {}, 400, "InvalidConfigurationContent"),
        ("gw", {"deviceContent": {"properties.desired.a": 1}}, 400, "InvalidConfigurationContent"),
        ("gw", [], 400, "ArgumentInvalid"),
    ):
        path = f"/devices/{device_id}/applyConfigurationContent"
        answer = hub.request("POST", path, body=body)
        assert (answer.status_code, answer.headers["iothub-errorcode"]) == (status, code)


def test_test_queries(hub: Hub) -> None:
    def test(condition: str, **queries: str) -> tuple[Any, dict[str, str]]:
        result = manager(hub).test_configuration_queries(
            ConfigurationQueriesTestInput(target_condition=condition, custom_metric_queries=queries)
        )
        return result.target_condition_error, result.custom_metric_query_errors

    assert test("tags.a = 1", good="SELECT deviceId FROM devices") == (None, {})
    error, errors = test("tags.a =", bad="SELECT * FROM things", good="SELECT * FROM devices")
    assert "at position 9" in error
    assert list(errors) == ["bad"]
    assert "position 15" in errors["bad"]
    assert test("*")[0], "PUT takes it, this does not"


def test_configurations_survive_kill_9(hub: Hub) -> None:
    hub.create_device("gw", edge=True)
    put(hub, "kept", {"modulesContent": manifest("1")}, "tags.site = 'north'")
    hub.kill()
    hub.start()
    hub.registry().update_twin("gw", Twin(tags={"site": "north"}))
    wait_for("the deployment", lambda: agent_image(hub, "gw") == "tool:1")
    hub.registry().delete_device("gw")
    hub.create_device("gw", edge=True)
    assert states(hub, "gw") == {}


def test_rights(hub: Hub) -> None:
    for policy, read, write in (
        ("registryRead", 200, 401),
        ("registryReadWrite", 200, 200),
        ("device", 401, 401),
    ):
        token = hub.token(policy=policy)
        assert hub.request("GET", "/configurations", token=token).status_code == read
        body = {"id": f"by-{policy.lower()}", "content": {"deviceContent": {"properties.desired.a": 1}}}
        answer = hub.request("PUT", f"/configurations/by-{policy.lower()}", token=token, body=body)
        assert answer.status_code == write
