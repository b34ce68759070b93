# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import deployments, item_list
from ansible_collections.edgeha.iotedge.plugins.module_utils.deployments import (
    ActualDeployment,
    DesiredDeployment,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.manifests import MODULE, manifest


def layer(image: str = "a:1", options: Any = None) -> dict[str, Any]:
    settings = {"image": image, "createOptions": options or {}}
    return {
        "modulesContent": {"$edgeAgent": {"properties.desired.modules.x": {**MODULE, "settings": settings}}}
    }


def wanted(name: str = "plant", **item: Any) -> DesiredDeployment:
    empty = dict.fromkeys(("content", "priority", "target_condition", "labels", "metrics"))
    return DesiredDeployment.of({**empty, "id": name, "state": "present", "adopt": False, **item})


class Hub:
    """The rules of a hub for configurations, as far as a plan meets them."""

    def __init__(self, *configurations: dict[str, Any]) -> None:
        self.all = list(configurations)
        self.clock = 10

    def make(self, body: dict[str, Any]) -> None:
        self.clock += 1
        known = {entry["id"] for entry in self.all}
        assert body["id"] not in known
        self.all.append(
            {**copy.deepcopy(body), "etag": "1", "createdTimeUtc": f"2026-01-01T00:00:{self.clock}Z"}
        )

    def find(self, desired: DesiredDeployment) -> ActualDeployment:
        return deployments.find(desired, self.all)

    def apply(self, desired: DesiredDeployment, *, interrupted: bool = False) -> item_list.Plan:
        """Carry out a plan. interrupted: before the first deletion."""
        plan = deployments.plan(desired, self.find(desired))
        put = plan.body.get("put")
        if put and plan.etag:
            [entry] = [entry for entry in self.all if entry["id"] == put["id"]]
            # The content of one that exists stays, whatever is sent.
            entry |= {**copy.deepcopy(put), "content": entry["content"]}
        elif put:
            self.make(put)
        if not interrupted:
            gone = {entry["id"] for entry in plan.body.get("delete", [])}
            self.all = [entry for entry in self.all if entry["id"] not in gone]
        return plan

    def ids(self) -> list[str]:
        return [entry["id"] for entry in self.all]


def test_created_once_under_an_id_that_tells_its_content() -> None:
    hub = Hub()
    desired = wanted(content=layer(), priority=5, target_condition="*", labels={"a": "b"})
    plan = hub.apply(desired)
    assert plan.action == "create"
    assert plan.etag == ""
    [entry] = hub.all
    assert entry["id"] == desired.version_id
    assert entry["id"].startswith("plant-")
    assert entry["labels"] == {"a": "b", "edgeha_deployment": "plant"}
    assert entry["content"]["modulesContent"] == desired.content.modules if desired.content else None
    assert plan.after["labels"] == {"a": "b"}
    again = hub.apply(desired)
    assert (again.action, again.before) == ("none", again.after)
    # In another spelling it is the same.
    text = json.dumps(layer(), indent=2)
    assert hub.apply(wanted(content=text, priority=5)).action == "none"


def test_what_can_be_changed_is_changed_in_place() -> None:
    hub = Hub()
    hub.apply(wanted(content=layer(), priority=5))
    ids = hub.ids()
    metrics = {"applied": "SELECT deviceId FROM devices WHERE configurations.[[{id}]].status = 'Applied'"}
    plan = hub.apply(
        wanted(content=layer(), priority=7, target_condition="tags.a=1", labels={"r": "1"}, metrics=metrics)
    )
    assert (plan.action, plan.etag, plan.body["delete"]) == ("update", "1", [])
    assert hub.ids() == ids
    assert f"[[{ids[0]}]]" in plan.body["put"]["metrics"]["queries"]["applied"]
    # What is left out stays, without content too.
    assert hub.apply(wanted(priority=7)).action == "none"
    assert hub.apply(wanted(target_condition="tags.a=1")).action == "none"
    assert hub.apply(wanted(labels={})).action == "update"
    assert hub.all[0]["labels"] == {"edgeha_deployment": "plant"}
    assert hub.all[0]["targetCondition"] == "tags.a=1"


def test_changed_content_is_a_new_version_before_the_old_one_goes() -> None:
    hub = Hub()
    hub.apply(
        wanted(
            content=layer(),
            priority=5,
            target_condition="tags.a=1",
            labels={"r": "1"},
            metrics={"m": "SELECT deviceId FROM devices WHERE configurations.[[{id}]].status='Applied'"},
        )
    )
    [old] = hub.ids()
    plan = hub.apply(wanted(content=layer("a:2")))
    assert plan.action == "update"
    # It is created, with nothing lost that was not said again.
    assert plan.etag == ""
    put = plan.body["put"]
    assert put["id"] != old
    assert (put["priority"], put["targetCondition"]) == (5, "tags.a=1")
    assert put["labels"] == {"r": "1", "edgeha_deployment": "plant"}
    assert f"[[{put['id']}]]" in put["metrics"]["queries"]["m"]
    assert [entry["id"] for entry in plan.body["delete"]] == [old]
    assert plan.body["ids"] == [put["id"]] == hub.ids()
    assert plan.before["content"] != plan.after["content"]


VERSIONS = st.lists(st.tuples(st.sampled_from(["a:1", "a:2", "a:3"]), st.booleans()), max_size=6)


@given(VERSIONS, st.sampled_from(["a:1", "a:2", "a:3"]))
def test_whatever_interrupted_runs_left_one_run_makes_one_version(
    history: list[tuple[str, bool]], last: str
) -> None:
    foreign = {"id": "plant", "labels": {}, "content": layer(), "priority": 0, "etag": "1"}
    copied = {**foreign, "id": "plant-copy", "labels": {"edgeha_deployment": "plant"}}
    hub = Hub(copied)
    for image, interrupted in history:
        hub.apply(wanted(content=layer(image)), interrupted=interrupted)
    hub.apply(wanted(content=layer(last)))
    ours = [entry for entry in hub.all if entry["id"] != "plant-copy"]
    assert [entry["id"] for entry in ours] == [wanted(content=layer(last)).version_id]
    # A copy that somebody made carries our label and stays.
    assert len(hub.all) == 2
    assert hub.apply(wanted(content=layer(last))).action == "none"
    hub.apply(wanted(state="absent"))
    assert hub.ids() == ["plant-copy"]


def test_absent_removes_all_versions_and_needs_no_content() -> None:
    hub = Hub()
    hub.apply(wanted(content=layer("a:1")))
    hub.apply(wanted(content=layer("a:2")), interrupted=True)
    hub.apply(wanted("other", content=layer("a:1")))
    plan = hub.apply(wanted(state="absent"))
    assert plan.action == "delete"
    assert len(plan.body["delete"]) == 2
    assert hub.ids() == [wanted("other", content=layer()).version_id]
    assert hub.apply(wanted(state="absent")).action == "none"


def foreign(content: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": "plant",
        "content": content,
        "priority": 3,
        "targetCondition": "*",
        "labels": {"by": "hand"},
        "etag": "9",
        "createdTimeUtc": "2020-01-01T00:00:00Z",
        **more,
    }


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_deployment_of_somebody_else_is_refused(state: str) -> None:
    hub = Hub(foreign(layer()))
    with pytest.raises(item_list.Refused, match="adopt"):
        hub.apply(wanted(content=layer(), state=state))


def test_adopted_with_the_same_content_it_keeps_its_id() -> None:
    hub = Hub(foreign(layer()))
    plan = hub.apply(wanted(content=layer(), adopt=True))
    assert (plan.action, plan.etag) == ("update", "9")
    assert hub.ids() == ["plant"]
    assert hub.all[0]["labels"] == {"by": "hand", "edgeha_deployment": "plant"}
    # From now on it is ours.
    assert hub.apply(wanted(content=layer(), priority=4)).action == "update"
    assert hub.ids() == ["plant"]
    hub.apply(wanted(content=layer("a:2")))
    assert hub.ids() == [wanted(content=layer("a:2")).version_id]


def test_adopted_with_other_content_it_is_replaced() -> None:
    hub = Hub(foreign(layer()))
    plan = hub.apply(wanted(content=layer("a:2"), adopt=True))
    assert plan.body["put"]["priority"] == 3
    assert hub.ids() == [plan.body["put"]["id"]]
    hub = Hub(foreign(layer()))
    assert hub.apply(wanted(state="absent", adopt=True)).action == "delete"
    assert hub.ids() == []


def test_the_version_of_another_deployment_and_other_configurations_are_left_alone() -> None:
    hub = Hub()
    hub.apply(wanted(content=layer()))
    [name] = hub.ids()
    with pytest.raises(item_list.Refused, match="belongs to the deployment 'plant'"):
        hub.apply(wanted(name, content=layer()))
    assert hub.apply(wanted(name, state="absent")).action == "none"
    devices = Hub(foreign({"deviceContent": {}}))
    with pytest.raises(item_list.Refused, match="not for edge devices"):
        devices.apply(wanted(content=layer(), adopt=True))


def test_a_new_one_needs_content() -> None:
    with pytest.raises(item_list.Refused, match="needs content"):
        Hub().apply(wanted(priority=1))


def test_what_the_hub_says_against_queries_stops_it() -> None:
    actual = deployments.with_query_errors(ActualDeployment(), ["target_condition 'x': wrong"])
    with pytest.raises(item_list.Refused, match="target_condition 'x': wrong"):
        deployments.plan(wanted(content=layer(), target_condition="x"), actual)


def test_queries_are_tested_when_they_are_new() -> None:
    hub = Hub()
    metrics = {"m": "SELECT * FROM devices WHERE configurations.[[{id}]].status='Applied'"}
    desired = wanted(content=layer(), target_condition="tags.a=1", metrics=metrics)
    assert deployments.needs_query_test(desired, hub.find(desired))
    hub.apply(desired)
    assert not deployments.needs_query_test(desired, hub.find(desired))
    assert not deployments.needs_query_test(wanted(priority=1), hub.find(desired))
    other = wanted(content=layer(), target_condition="tags.a=2")
    assert deployments.needs_query_test(other, hub.find(other))


def test_rivals_of_the_same_priority_are_named() -> None:
    base = {"modulesContent": {"$edgeAgent": {"properties.desired": {}}}}
    hub = Hub(
        foreign(base, id="rival", priority=5),
        foreign(base, id="higher", priority=6),
        foreign(layer(), id="layer", priority=5),
    )
    assert hub.find(wanted(content=manifest(), priority=5)).rivals == ["rival"]
    hub.apply(wanted(content=manifest(), priority=4))
    assert hub.find(wanted(priority=5)).rivals == ["rival"]
    # Layers go on top of each other.
    assert hub.find(wanted(content=layer(), priority=5)).rivals == []


def test_room_for_new_ones_and_one_place_for_replacements() -> None:
    hub = Hub()
    hub.apply(wanted("a", content=layer()))
    hub.apply(wanted("b", content=layer()))

    def plan(desired: DesiredDeployment) -> item_list.Plan:
        return deployments.plan(desired, hub.find(desired))

    create = plan(wanted("c", content=layer()))
    replace_a, replace_b = (plan(wanted(name, content=layer("a:2"))) for name in "ab")
    update = plan(wanted("a", priority=3))
    assert deployments.room_errors([create], 99) == []
    assert deployments.room_errors([update], 100) == []
    assert deployments.room_errors([replace_a, replace_b], 99) == []
    [error] = deployments.room_errors([replace_a], 100)
    assert "100 configurations" in error
    [error] = deployments.room_errors([create, replace_a], 99)
    assert "1 new ones and one place" in error


def test_the_old_version_goes_when_the_new_one_targets_as_many() -> None:
    def entry(name: str, count: int | None, condition: str = "*") -> dict[str, Any]:
        results = {} if count is None else {"targetedCount": count}
        return {"id": name, "targetCondition": condition, "systemMetrics": {"results": results}}

    enough = deployments.targets_enough
    assert not enough("new", ["old"], [entry("old", 3)])
    assert not enough("new", ["old"], [entry("old", 3), entry("new", 2)])
    assert enough("new", ["old"], [entry("old", 3), entry("new", 3)])
    assert enough("new", ["old"], [entry("old", 3), entry("new", 0, "tags.a=1")])
    assert enough("new", ["old"], [entry("old", None), entry("new", 0)])
    assert enough("new", ["old"], [entry("new", 0)])


def test_errors_of_a_list_name_item_and_path() -> None:
    errors = deployments.list_errors(
        [
            wanted("a", content=layer()),
            wanted("Upper", content=layer("Not An Image")),
            wanted("x" * 116, priority=-1),
            wanted("b", labels={"edgeha_deployment": "x", "n": 1}, metrics={"m": None}),
            wanted("a"),
        ]
    )
    assert [error.partition(":")[0] for error in errors] == [
        f"deployments[{index}]" for index in (1, 1, 2, 2, 3, 3, 3, 4)
    ]
    assert "content $.modulesContent.$edgeAgent" in errors[0]
    assert "already in deployments[0]" in errors[-1]
    assert (
        deployments.list_errors([wanted("x" * 115), wanted("a-z0%_*!'+", state="absent", content="{")]) == []
    )
