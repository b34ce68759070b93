# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.modules.conftest import Hub, Run

    Play = Callable[..., Run]

DEVICES: list[dict[str, Any]] = [
    {"device_id": "gw-1", "edge": True, "tags": {"site": "a", "old": 1}},
    {"device_id": "leaf-1", "status": "disabled", "status_reason": "spare"},
]


def devices(items: list[dict[str, Any]], **extra: Any) -> dict[str, Any]:
    return {"edgeha.iotedge.iothub_devices": {"devices": items, **extra}}


def actions(run: Run, task: str) -> list[str]:
    return [device["action"] for device in run.results[task]["devices"]]


def test_check_first_and_second_run(hub: Hub, play: Play) -> None:
    checked = play({"devices": devices(DEVICES)}, "--check", "--diff")
    assert (checked.code, checked.changed) == (0, 1)
    assert hub.device_ids() == []
    diff = checked.results["devices"]["diff"]
    assert diff["before"] == {"gw-1": {}, "leaf-1": {}}
    assert diff["after"]["leaf-1"]["status_reason"] == "spare"

    first = play({"devices": devices(DEVICES), "again": devices(DEVICES)}, "--diff")
    assert actions(first, "devices") == ["create", "create"]
    # What check mode promised is what came.
    assert first.results["devices"]["diff"] == diff
    assert actions(first, "again") == ["none", "none"]
    assert first.results["again"]["changed"] is False
    assert first.results["again"]["diff"]["before"] == first.results["again"]["diff"]["after"]
    assert hub.device_ids() == ["gw-1", "leaf-1"]


def test_changes_keep_the_keys(hub: Hub, play: Play) -> None:
    changed: list[dict[str, Any]] = [
        {"device_id": "gw-1", "edge": True, "status": "disabled", "tags": {"site": "b", "old": None}},
        {"device_id": "leaf-1", "status": "enabled", "status_reason": ""},
    ]
    run = play(
        {
            "first": devices(DEVICES, return_keys=True),
            "change": devices(changed),
            "second": devices(changed, return_keys=True),
            "edge": devices([{"device_id": "leaf-1", "edge": True}]),
            "third": devices([{"device_id": "leaf-1", "edge": True}], return_keys=True),
        }
    )
    assert run.failures == []
    assert actions(run, "change") == ["update", "update"]
    assert run.results["change"]["devices"][0]["tags"] == {"site": "b"}
    assert actions(run, "second") == ["none", "none"]
    for before, after in zip(run.results["first"]["devices"], run.results["second"]["devices"], strict=True):
        assert before["primary_key"]
        assert before["primary_key"] == after["primary_key"]
        assert before["secondary_key"] == after["secondary_key"]
    assert actions(run, "edge") == ["update"]
    assert actions(run, "third") == ["none"]
    assert (
        run.results["third"]["devices"][0]["primary_key"] == run.results["first"]["devices"][1]["primary_key"]
    )
    # Without being asked for, keys are nowhere in a result.
    key = run.results["first"]["devices"][0]["primary_key"]
    assert key not in repr(run.results["change"])


def test_keys_are_not_returned_to_a_task_that_prints_them(
    hub: Hub, write_playbook: Callable[..., Path], run_playbook: Callable[..., Run]
) -> None:
    playbook = write_playbook({"make": devices(DEVICES, return_keys=True)})
    playbook.write_text(playbook.read_text().replace("no_log: true", "no_log: false"))
    run = run_playbook(["-i", "localhost,", str(playbook)])
    assert "needs no_log: true" in run.failures[0]
    assert hub.device_ids() == []


def test_absent(hub: Hub, play: Play) -> None:
    gone = [{"device_id": "gw-1", "state": "absent"}, {"device_id": "never", "state": "absent"}]
    run = play({"make": devices(DEVICES), "remove": devices(gone), "again": devices(gone)})
    assert actions(run, "remove") == ["delete", "none"]
    assert actions(run, "again") == ["none", "none"]
    assert hub.device_ids() == ["leaf-1"]


def test_bad_list_changes_nothing_and_names_every_item(hub: Hub, play: Play) -> None:
    bad = [{"device_id": "good"}, {"device_id": "b d"}, {"device_id": "good"}]
    run = play({"devices": devices(bad)})
    assert run.code != 0
    [message] = run.failures
    assert "devices[1]" in message
    assert "devices[2]" in message
    assert hub.device_ids() == []


def test_change_that_is_not_possible_stops_before_any_other(hub: Hub, play: Play) -> None:
    run = play(
        {
            "make": devices([{"device_id": "gw-1", "edge": True}]),
            "leaf": devices([{"device_id": "new"}, {"device_id": "gw-1", "edge": False}]),
        }
    )
    [message] = run.failures
    assert "devices[1]" in message
    assert "cannot become a leaf" in message
    assert hub.device_ids() == ["gw-1"]


def test_run_that_was_interrupted_is_finished_by_the_next(hub: Hub, play: Play) -> None:
    # What an interruption leaves: one device of two, without its tags.
    run = play(
        {
            "left": devices([{"device_id": "gw-1", "edge": True}]),
            "next": devices(DEVICES),
            "last": devices(DEVICES),
        }
    )
    assert actions(run, "next") == ["update", "create"]
    assert run.results["last"]["changed"] is False


def test_family_of_devices_with_a_certificate(hub: Hub, play: Play) -> None:
    family: list[dict[str, Any]] = [
        {
            "device_id": "press",
            "parent": "line",
            "authentication": {"type": "self_signed", "primary_thumbprint": "AB" * 20},
            "desired": {"speed": 3},
        },
        {"device_id": "line", "edge": True, "parent": "top"},
        {"device_id": "top", "edge": True},
    ]
    moved: list[dict[str, Any]] = [
        {**family[0], "parent": "", "desired": {"pace": 1}, "twin_mode": "exact"},
        {"device_id": "line", "parent": ""},
    ]
    run = play(
        {
            "make": devices(family),
            "again": devices(family),
            "move": devices(moved),
            "still": devices(moved),
            "back": devices(family),
        }
    )
    assert run.failures == []
    assert actions(run, "make") == ["create", "create", "create"]
    assert actions(run, "again") == ["none", "none", "none"]
    press, line = run.results["move"]["devices"]
    assert (press["parent"], line["parent"]) == (None, None)
    assert press["desired"] == {"pace": 1}
    assert actions(run, "still") == ["none", "none"]
    press, line, _top = run.results["back"]["devices"]
    assert (press["parent"], line["parent"]) == ("line", "top")
    assert press["desired"] == {"pace": 1, "speed": 3}
    assert (press["authentication"], press["primary_thumbprint"]) == ("self_signed", "AB" * 20)


def test_leaf_becomes_an_edge_device_below_another(hub: Hub, play: Play) -> None:
    before = [{"device_id": "a"}, {"device_id": "top", "edge": True}, {"device_id": "b", "parent": "top"}]
    after = [{"device_id": name, "edge": True, "parent": "top"} for name in ("a", "b")]
    run = play({"before": devices(before), "after": devices(after), "again": devices(after)})
    assert run.failures == []
    assert actions(run, "after") == ["update", "update"]
    assert run.results["again"]["changed"] is False


def test_keys_of_the_list(hub: Hub, play: Play) -> None:
    keys = {name: base64.b64encode(bytes([number]) * 32).decode() for number, name in enumerate("abc")}
    given = {"primary_key": keys["a"], "secondary_key": keys["b"]}
    first = [{"device_id": "own", "authentication": given}]
    other = [{"device_id": "own", "authentication": {**given, "secondary_key": keys["c"]}}]
    run = play({"make": devices(first), "again": devices(first), "other": devices(other)}, "--diff")
    assert [actions(run, name) for name in ("make", "again", "other")] == [["create"], ["none"], ["update"]]
    for key in keys.values():
        assert key not in run.text
    identity = hub.client().get_device("own")
    assert identity is not None
    assert identity["authentication"]["symmetricKey"]["secondaryKey"] == keys["c"]


def test_kind_of_authentication_changes_only_when_that_is_meant(hub: Hub, play: Play) -> None:
    wanted = {"device_id": "d", "authentication": {"type": "certificate_authority"}}
    run = play({"make": devices([{"device_id": "d"}]), "refused": devices([wanted])})
    assert "devices[0]: device 'd' authenticates by sas" in run.failures[0]
    meant = [{**wanted, "replace_authentication": True}]
    run = play({"meant": devices(meant), "again": devices(meant)})
    assert [actions(run, name) for name in ("meant", "again")] == [["update"], ["none"]]


@pytest.mark.parametrize(
    ("item", "fact"),
    [
        ({"device_id": "x", "parent": "nobody"}, "the parent 'nobody' of 'x' is neither in the list nor"),
        ({"device_id": "x", "parent": "leaf-1"}, "the parent 'leaf-1' of 'x' is no edge device"),
        ({"device_id": "gw-1", "edge": True, "parent": "gw-1"}, "cycle of parents"),
        ({"device_id": "x", "tags": {"a.b": 1}}, "tags: the key 'a.b'"),
        ({"device_id": "x", "desired": {"a": "x" * 4097}}, "desired.a: a text of more than 4096"),
        ({"device_id": "x", "authentication": {"primary_key": "!", "secondary_key": "!"}}, "not base64"),
        (
            {"device_id": "x", "authentication": {"type": "self_signed", "primary_thumbprint": "ab" * 21}},
            "this has 42 characters",
        ),
    ],
)
def test_bad_item_is_named_and_nothing_is_changed(
    hub: Hub, play: Play, item: dict[str, Any], fact: str
) -> None:
    run = play({"make": devices(DEVICES), "bad": devices([{"device_id": "new"}, item])})
    [message] = run.failures
    assert "Nothing was changed. devices[1]: " in message
    assert fact in message
    assert hub.device_ids() == ["gw-1", "leaf-1"]


def test_fleet_is_checked_by_queries_and_deleted_devices_come_back(hub: Hub, play: Play) -> None:
    fleet = [{"device_id": f"d-{number:03}", "tags": {"n": number}} for number in range(230)]
    options = {"query_above": 100}
    first = play({"make": devices(fleet, **options)})
    assert first.failures == []
    assert len(hub.device_ids()) == 230
    hub.client().delete_device("d-007", "*")
    hub.client().patch_twin("d-008", {"tags": {"n": 0}}, "*")
    second = play({"check": devices(fleet, **options)}, "--check")
    third = play({"mend": devices(fleet, **options), "again": devices(fleet, **options)})
    for run, task in ((second, "check"), (third, "mend")):
        done = {device["device_id"]: device["action"] for device in run.results[task]["devices"]}
        assert {name: action for name, action in done.items() if action != "none"} == {
            "d-007": "create",
            "d-008": "update",
        }
    assert third.results["again"]["changed"] is False


def test_missing_right_is_explained(hub: Hub, play: Play) -> None:
    run = play({"devices": devices(DEVICES, policy_name="registryRead", policy_key=hub.keys["registryRead"])})
    [message] = run.failures
    assert "rights of the policy" in message
    assert hub.device_ids() == []


def test_info_tells_what_is_there_without_keys(hub: Hub, play: Play) -> None:
    run = play(
        {
            "make": devices(DEVICES, return_keys=True),
            "info": {"edgeha.iotedge.iothub_devices_info": {"device_ids": ["gw-1", "leaf-1", "none"]}},
        },
    )
    gateway, leaf, none = run.results["info"]["devices"]
    assert gateway["exists"]
    assert gateway["edge"]
    assert [module["module_id"] for module in gateway["modules"]] == ["$edgeAgent", "$edgeHub"]
    assert (leaf["status"], leaf["status_reason"]) == ("disabled", "spare")
    assert none == {"device_id": "none", "exists": False}
    assert run.results["make"]["devices"][0]["primary_key"] not in repr(run.results["info"])


def test_wait_names_device_module_and_what_was_seen(hub: Hub, play: Play) -> None:
    wanted = {
        "devices": [{"device_id": "gw-1", "modules": ["sensor"]}],
        "wait_timeout": 1,
        "poll_interval": 0.2,
    }
    run = play({"make": devices(DEVICES), "wait": {"edgeha.iotedge.iothub_wait": wanted}})
    [message] = run.failures
    assert "device gw-1, module sensor: has no identity" in message
    assert f"Not ready after {run.results['wait']['waited_seconds']:.0f} s" in message
    checked = play({"wait": {"edgeha.iotedge.iothub_wait": wanted}}, "--check")
    assert checked.code == 0
    assert checked.results["wait"]["modules"][0]["ready"] is False


def test_wait_for_a_disabled_device_says_so_at_once(hub: Hub, play: Play) -> None:
    wanted = {"devices": [{"device_id": "leaf-1", "modules": ["m"]}], "wait_timeout": 60}
    run = play({"make": devices(DEVICES), "wait": {"edgeha.iotedge.iothub_wait": wanted}})
    [message] = run.failures
    assert "leaf-1 is disabled at the hub (spare)" in message
