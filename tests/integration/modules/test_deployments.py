# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_client

from tests.manifests import MODULE, manifest

if TYPE_CHECKING:
    from tests.integration.modules.conftest import Hub, Run

    Play = Callable[..., Run]

GATEWAY = {
    "edgeha.iotedge.iothub_devices": {
        "devices": [
            {"device_id": "gw", "edge": True, "tags": {"site": "a"}},
            {"device_id": "other", "edge": True},
        ]
    }
}


def base(image: str) -> dict[str, Any]:
    return manifest({"sensor": {**MODULE, "settings": {"image": image}}})


def layer(name: str, image: str) -> dict[str, Any]:
    entry = {**MODULE, "settings": {"image": image}}
    return {"modulesContent": {"$edgeAgent": {f"properties.desired.modules.{name}": entry}}}


def deploy(*items: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"edgeha.iotedge.iothub_deployments": {"deployments": list(items), **options}}


def configurations(hub: Hub) -> dict[str, Any]:
    return {entry["id"]: entry for entry in hub.client().request("GET", "/configurations").body}


def images(client: iothub_client.HubClient, device_id: str = "gw") -> dict[str, str]:
    """What the device is told to run."""
    twin = client.get_twin(device_id, "$edgeAgent") or {}
    modules = twin["properties"]["desired"].get("modules") or {}
    return {name: module["settings"]["image"] for name, module in modules.items()}


def wait_for_images(hub: Hub, expected: dict[str, str], device_id: str = "gw") -> None:
    client, deadline = hub.client(), time.monotonic() + 20
    while (found := images(client, device_id)) != expected:
        assert time.monotonic() < deadline, f"{device_id} runs {found}, not {expected}"
        time.sleep(0.05)


@contextmanager
def watching(hub: Hub) -> Iterator[list[dict[str, str]]]:
    """Poll what the gateway is told to run; the list has each state once, in order."""
    seen: list[dict[str, str]] = []
    stop = threading.Event()

    def watch() -> None:
        client = hub.client()
        while not stop.is_set():
            found = images(client)
            if not seen or seen[-1] != found:
                seen.append(found)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def test_first_second_and_check_run(hub: Hub, play: Play) -> None:
    item = {
        "id": "plant",
        "content": base("s:1"),
        "priority": 10,
        "target_condition": "tags.site='a'",
        "labels": {"release": "1"},
        "metrics": {
            "applied": "SELECT deviceId FROM devices.modules WHERE moduleId = '$edgeAgent' "
            "AND configurations.[[{id}]].status = 'Applied'"
        },
    }
    changed = {**item, "priority": 11, "labels": {}, "target_condition": "*"}
    checked = play({"devices": GATEWAY, "deploy": deploy(item)}, "--check", "--diff")
    assert checked.failures == []
    assert checked.results["deploy"]["changed"] is True
    assert configurations(hub) == {}
    run = play(
        {"devices": GATEWAY, "deploy": deploy(item), "again": deploy(item), "change": deploy(changed)},
        "--diff",
    )
    assert run.failures == []
    [made] = run.results["deploy"]["deployments"]
    assert made["action"] == "create"
    # What check mode promised is what came.
    assert checked.results["deploy"]["deployments"] == [made]
    assert checked.results["deploy"]["diff"] == run.results["deploy"]["diff"]
    assert run.results["again"]["changed"] is False
    assert run.results["again"]["diff"]["before"] == run.results["again"]["diff"]["after"]
    [after] = run.results["change"]["deployments"]
    assert (after["action"], after["replaced"]) == ("update", [])
    # In place, under the same id.
    assert after["configuration_id"] == made["configuration_id"]
    [(name, entry)] = configurations(hub).items()
    assert name == made["configuration_id"]
    assert (entry["priority"], entry["targetCondition"]) == (11, "*")
    assert entry["labels"] == {"edgeha_deployment": "plant"}
    wait_for_images(hub, {"sensor": "s:1"})
    wait_for_images(hub, {"sensor": "s:1"}, "other")
    assert configurations(hub)[name]["metrics"]["results"] == {"applied": 2}


def test_no_device_meets_another_deployment_while_content_is_replaced(hub: Hub, play: Play) -> None:
    fallback = {"id": "fallback", "content": base("fallback:1"), "priority": 1, "target_condition": "*"}
    first = {"id": "plant", "content": base("s:1"), "priority": 10, "target_condition": "tags.site='a'"}
    second = {**first, "content": base("s:2")}
    third = {**first, "content": base("s:3"), "priority": 5}
    play({"devices": GATEWAY, "deploy": deploy(fallback, first)})
    wait_for_images(hub, {"sensor": "s:1"})
    wait_for_images(hub, {"sensor": "fallback:1"}, "other")
    with watching(hub) as seen:
        run = play({"second": deploy(fallback, second), "third": deploy(fallback, third)})
        wait_for_images(hub, {"sensor": "s:3"})
    assert run.failures == []
    # Straight from one version to the next, never by way of the other deployment, also to a lower priority.
    assert seen == [{"sensor": "s:1"}, {"sensor": "s:2"}, {"sensor": "s:3"}]
    assert len(configurations(hub)) == 2
    result = run.results["second"]["deployments"][1]
    assert result["configuration_id"] != result["replaced"][0]


def test_a_layer_is_replaced_without_the_device_ever_lacking_it(hub: Hub, play: Play) -> None:
    plant = {"id": "plant", "content": base("s:1"), "priority": 1, "target_condition": "*"}
    extra = {
        "id": "extra",
        "content": layer("extra", "e:1"),
        "priority": 2,
        "target_condition": "tags.site='a'",
    }
    play({"devices": GATEWAY, "deploy": deploy(plant, extra)})
    wait_for_images(hub, {"sensor": "s:1", "extra": "e:1"})
    with watching(hub) as seen:
        play({"deploy": deploy({**extra, "content": layer("extra", "e:2")})})
        wait_for_images(hub, {"sensor": "s:1", "extra": "e:2"})
    assert seen == [{"sensor": "s:1", "extra": "e:1"}, {"sensor": "s:1", "extra": "e:2"}]
    play({"remove": deploy({"id": "extra", "state": "absent"})})
    wait_for_images(hub, {"sensor": "s:1"})


def test_what_an_interrupted_run_left_is_finished(hub: Hub, play: Play) -> None:
    item = {"id": "plant", "content": base("s:1"), "priority": 10, "target_condition": "*"}
    run = play({"devices": GATEWAY, "deploy": deploy(item)})
    [old] = configurations(hub).values()
    # As after a run that ended before it deleted: another version, with our label.
    left = "plant-0123456789ab"
    kept = {key: old[key] for key in ("labels", "targetCondition", "priority")}
    body = {**kept, "id": left, "content": base("s:0")}
    hub.client().request("PUT", f"/configurations/{left}", body=body)
    run = play({"deploy": deploy(item), "again": deploy(item)})
    assert run.results["deploy"]["deployments"][0]["replaced"] == [left]
    assert run.results["again"]["changed"] is False
    assert list(configurations(hub)) == [old["id"]]


def test_wrong_conditions_metrics_and_content_are_refused_before_anything_changes(
    hub: Hub, play: Play
) -> None:
    good = {"id": "good", "content": base("s:1"), "target_condition": "*"}
    for bad, facts in (
        ({"id": "bad", "content": base("s:1"), "target_condition": "tags.a ="}, ["target_condition"]),
        ({"id": "bad", "content": base("s:1"), "metrics": {"m": "SELECT"}}, ["metrics.m"]),
        ({"id": "bad", "content": base("Not An Image")}, ["settings.image"]),
        ({"id": "bad"}, ["needs content"]),
    ):
        run = play({"deploy": deploy(good, bad)})
        [message] = run.failures
        assert "Nothing was changed" in message
        assert "deployments[1]" in message
        assert all(fact in message for fact in facts), message
    assert configurations(hub) == {}


def test_a_deployment_made_by_hand_is_adopted_only_when_asked(hub: Hub, play: Play) -> None:
    body = {
        "id": "plant",
        "content": base("s:1"),
        "targetCondition": "*",
        "priority": 3,
        "labels": {"by": "hand"},
    }
    hub.client().request("PUT", "/configurations/plant", body=body)
    item = {"id": "plant", "content": base("s:1")}
    refused = play({"deploy": deploy(item)})
    assert "adopt: true" in refused.failures[0]
    run = play(
        {
            "adopt": deploy({**item, "adopt": True}),
            "again": deploy(item),
            "replace": deploy({**item, "content": base("s:2")}),
            "remove": deploy({"id": "plant", "state": "absent"}),
        }
    )
    assert run.failures == []
    assert run.results["adopt"]["deployments"][0]["configuration_id"] == "plant"
    assert run.results["again"]["changed"] is False
    assert run.results["replace"]["deployments"][0]["replaced"] == ["plant"]
    assert run.results["replace"]["deployments"][0]["labels"] == {"by": "hand"}
    assert configurations(hub) == {}
