# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests import manifests
from tests.manifests import MODULE

if TYPE_CHECKING:
    from tests.integration.modules.conftest import Hub, Run

    Play = Callable[..., Run]

PASSWORD = "registry-password-of-a-test"


def manifest(tag: str = "1", **twins: Any) -> dict[str, Any]:
    options = {"Env": ["LONG=" + "ä" * 700], "HostConfig": {"Binds": ["/a:/b"]}}
    settings = {"image": f"example/sensor:{tag}", "createOptions": options}
    return manifests.manifest(
        {"sensor": {**MODULE, "settings": settings}},
        routes={"up": {"route": "FROM /messages/* INTO $upstream", "priority": 1}},
        credentials={"r": {"address": "r.example", "username": "u", "password": PASSWORD}},
        **twins,
    )


def devices(*items: dict[str, Any]) -> dict[str, Any]:
    return {"edgeha.iotedge.iothub_devices": {"devices": list(items)}}


def edge(*items: tuple[str, Any]) -> dict[str, Any]:
    return {
        "edgeha.iotedge.iothub_edge_modules": {
            "devices": [{"device_id": name, "content": content} for name, content in items]
        }
    }


def twin(hub: Hub, device_id: str, module_id: str) -> dict[str, Any]:
    return hub.client().get_twin(device_id, module_id) or {}


def wait_for_interval(hub: Hub, interval: int) -> None:
    deadline = time.monotonic() + 20
    while (found := twin(hub, "gw", "sensor")["properties"]["desired"]).get("interval") != interval:
        assert time.monotonic() < deadline, f"the sensor's twin wants {found}, not {interval}"


def test_modules_of_a_device_are_set_once_and_truly(hub: Hub, play: Play) -> None:
    gateway = {"device_id": "gw", "edge": True}
    content = manifest(sensor={"interval": 5})
    checked = play({"device": devices(gateway), "set": edge(("gw", content))}, "--check")
    assert checked.results["set"]["changed"] is True
    assert hub.device_ids() == []

    run = play(
        {
            "device": devices(gateway),
            "set": edge(("gw", content)),
            "as text": edge(("gw", json.dumps(content, indent=4))),
            # What the edge agent does when it first runs the module.
            "identity": {
                "edgeha.iotedge.iothub_modules": {"modules": [{"device_id": "gw", "module_id": "sensor"}]}
            },
        },
        "--diff",
    )
    # A hub gives a new identity the twin that waits for it a moment later.
    wait_for_interval(hub, 5)
    changes = play(
        {
            "change": edge(("gw", manifest("2", sensor={"interval": 5}))),
            "twin": edge(("gw", manifest("2", sensor={"interval": 6}))),
        },
        "--diff",
    )
    assert run.failures + changes.failures == []
    assert run.results["set"]["devices"] == [
        {
            "device_id": "gw",
            "action": "update",
            "changed_modules": ["$edgeAgent", "$edgeHub"],
            "waiting_modules": ["sensor"],
            "deployments": [],
            "warnings": [],
        }
    ]
    assert run.results["as text"]["changed"] is False
    assert run.results["as text"]["diff"]["before"] == run.results["as text"]["diff"]["after"]
    assert changes.results["change"]["devices"][0]["changed_modules"] == ["$edgeAgent"]
    assert PASSWORD not in run.text + changes.text
    desired = twin(hub, "gw", "$edgeAgent")["properties"]["desired"]
    settings = desired["modules"]["sensor"]["settings"]
    assert settings["image"] == "example/sensor:2"
    # As the runtime reads it: text in parts.
    assert json.loads(settings["createOptions"] + settings["createOptions01"])["Env"][0].endswith("ä")
    assert desired["runtime"]["settings"]["registryCredentials"]["r"]["password"] == PASSWORD
    assert changes.results["twin"]["devices"][0]["changed_modules"] == ["sensor"]
    assert twin(hub, "gw", "sensor")["properties"]["desired"]["interval"] == 6


def test_what_somebody_else_changed_is_found_and_put_right(hub: Hub, play: Play) -> None:
    gateway = {"device_id": "gw", "edge": True}
    play({"device": devices(gateway), "set": edge(("gw", manifest()))})
    hub.client().patch_twin("gw", {"properties": {"desired": {"routes": {"up": None}}}}, "*", "$edgeHub")
    checked = play({"set": edge(("gw", manifest()))}, "--check", "--diff")
    assert checked.results["set"]["devices"][0]["changed_modules"] == ["$edgeHub"]
    assert "routes" in json.dumps(checked.results["set"]["diff"])
    assert twin(hub, "gw", "$edgeHub")["properties"]["desired"].get("routes") == {}
    run = play({"set": edge(("gw", manifest())), "again": edge(("gw", manifest()))})
    assert run.results["set"]["changed"] is True
    assert run.results["again"]["changed"] is False


def test_nothing_is_set_while_an_item_is_wrong(hub: Hub, play: Play) -> None:
    play({"devices": devices({"device_id": "gw", "edge": True}, {"device_id": "leaf"})})
    before = twin(hub, "gw", "$edgeAgent")["etag"]
    broken = manifest()
    del broken["modulesContent"]["$edgeHub"]["properties.desired"]["routes"]
    for items, facts in (
        ([("gw", manifest()), ("leaf", manifest())], ["devices[1]", "'leaf' is no edge device"]),
        ([("gw", manifest()), ("none", manifest())], ["devices[1]", "'none' is not registered"]),
        ([("gw", manifest()), ("leaf", broken)], ["devices[1]: content $.modulesContent.$edgeHub", "routes"]),
    ):
        run = play({"set": edge(*items)})
        [message] = run.failures
        assert "Nothing was changed" in message
        assert all(fact in message for fact in facts), message
    assert twin(hub, "gw", "$edgeAgent")["etag"] == before


def test_a_deployment_that_will_overwrite_it_is_told(hub: Hub, play: Play) -> None:
    play({"device": devices({"device_id": "gw", "edge": True})})
    hub.client().request(
        "PUT",
        "/configurations/other",
        body={"id": "other", "content": manifest(), "targetCondition": "deviceId='gw'", "priority": 1},
    )
    # One that sets properties of the device itself, and no modules.
    device = {
        "id": "device",
        "content": {"deviceContent": {"properties.desired.a": 1}},
        "targetCondition": "*",
    }
    hub.client().request("PUT", "/configurations/device", body=device)
    deadline = time.monotonic() + 20
    while len(hub.client().get_twin("gw")["configurations"]) < 2 or not twin(hub, "gw", "$edgeAgent").get(
        "configurations"
    ):
        assert time.monotonic() < deadline, "the deployment does not target the device"
        time.sleep(0.05)
    run = play({"set": edge(("gw", manifest("2")))})
    assert run.results["set"]["devices"][0]["deployments"] == ["other"]
    assert any("other" in text for text in run.results["set"]["warnings"])
