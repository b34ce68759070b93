# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import edge_modules, item_list
from ansible_collections.edgeha.iotedge.plugins.module_utils.edge_modules import ActualModules, DesiredModules

from tests.manifests import MODULE, manifest


def content(tag: str = "1", options: Any = None, secret: str = "") -> dict[str, Any]:
    settings = {"image": f"s:{tag}", "createOptions": options or {}}
    return manifest(
        {"sensor": {**MODULE, "settings": settings}},
        routes={"r": {"route": "FROM /* INTO $upstream"}},
        credentials={"r": {"address": "r.example", "username": "u", "password": secret or "none"}},
    )


def hub_after(desired: DesiredModules, **configurations: Any) -> ActualModules:
    """As a hub tells it after the content was applied."""
    twins = {
        name: {
            "properties": {
                "desired": {**(desired.modules.get(name) or {}).get("properties.desired", {}), "$version": 4}
            }
        }
        for name in desired.twins
    }
    return ActualModules({"deviceId": "gw", "configurations": configurations}, twins)


def test_a_device_as_wanted_is_left_alone_however_the_options_are_written() -> None:
    there = hub_after(DesiredModules.of("gw", content(options={"a": "x" * 700})))
    again = DesiredModules.of("gw", content(options=json.dumps({"a": "x" * 700}, indent=1)))
    plan = edge_modules.plan(again, there)
    assert plan.action == "none"
    assert plan.before == plan.after


def test_what_differs_is_named_and_shown() -> None:
    there = hub_after(DesiredModules.of("gw", content("1")))
    desired = DesiredModules.of("gw", content("2"))
    plan = edge_modules.plan(desired, there)
    assert plan.action == "update"
    assert edge_modules.differing(desired, there) == ["$edgeAgent"]
    # All of the content is sent: the hub takes no part of it.
    assert set(plan.body) == {"$edgeAgent", "$edgeHub"}
    assert plan.before["$edgeAgent"]["modules"]["sensor"]["settings"]["image"] == "s:1"
    assert plan.after["$edgeAgent"]["modules"]["sensor"]["settings"]["image"] == "s:2"
    assert plan.before["$edgeHub"] == plan.after["$edgeHub"]


def test_a_module_that_the_device_has_not_started_yet_is_no_reason_for_a_change() -> None:
    document = content()
    document["modulesContent"]["sensor"] = {"properties.desired": {"interval": 5}}
    desired = DesiredModules.of("gw", document)
    there = hub_after(desired)
    young = ActualModules(there.device, {n: t for n, t in there.modules.items() if n != "sensor"})
    assert edge_modules.plan(desired, young).action == "none"
    assert edge_modules.waiting(desired, young) == ["sensor"]
    # Together with a change it is sent, and shown.
    changed = content("2")
    changed["modulesContent"]["sensor"] = {"properties.desired": {"interval": 5}}
    plan = edge_modules.plan(DesiredModules.of("gw", changed), young)
    assert plan.after["sensor"] == {"interval": 5}
    assert "sensor" not in plan.before
    # Without a twin of the edge agent nothing was ever set.
    assert edge_modules.plan(desired, ActualModules()).action == "update"


def test_a_new_password_is_a_change_that_shows_no_password() -> None:
    there = hub_after(DesiredModules.of("gw", content(secret="hunter1")))
    plan = edge_modules.plan(DesiredModules.of("gw", content(secret="hunter2")), there)
    assert plan.action == "update"
    assert plan.before != plan.after
    assert "hunter" not in repr(plan)


def test_deployments_of_both_twins_are_named_and_other_configurations_are_not() -> None:
    there = hub_after(DesiredModules.of("gw", content()), b={"status": "Applied"}, d={"status": "Applied"})
    agent = {**there.modules["$edgeAgent"], "configurations": {"a": {"status": "Targeted"}}}
    actual = ActualModules(there.device, {**there.modules, "$edgeAgent": agent})
    known = [
        {"id": "a", "content": {"modulesContent": {}}},
        {"id": "b", "content": {"modulesContent": {}}},
        {"id": "d", "content": {"deviceContent": {}}},
    ]
    assert edge_modules.deployments_of(actual, known) == ["a", "b"]


@pytest.mark.parametrize(
    ("twin", "fact"),
    [
        (None, "is not registered"),
        ({"capabilities": {"iotEdge": False}}, "is no edge device"),
        ({}, "no edge"),
    ],
)
def test_devices_that_run_no_modules(twin: Any, fact: str) -> None:
    with pytest.raises(item_list.Refused, match=fact) as caught:
        edge_modules.check_device("gw-1", twin)
    assert "gw-1" in str(caught.value)


def test_errors_of_a_list_name_item_and_path() -> None:
    layer = {
        "modulesContent": {
            "$edgeAgent": {"properties.desired.modules.x": {**MODULE, "settings": {"image": "a"}}}
        }
    }
    errors = edge_modules.list_errors(
        [
            DesiredModules.of("gw", content()),
            DesiredModules.of("g w", "{"),
            DesiredModules.of("gw", layer),
        ]
    )
    assert [error.partition(":")[0] for error in errors] == [
        "devices[1]",
        "devices[1]",
        "devices[2]",
        "devices[2]",
    ]
    assert "content $: not JSON" in errors[1]
    assert "is a layer" in errors[2]
    assert "already in devices[0]" in errors[3]
