# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.integration.modules.conftest import Hub, Run

    Play = Callable[..., Run]

DEVICE = {"edgeha.iotedge.iothub_devices": {"devices": [{"device_id": "gw-1", "edge": True}]}}
TWINS: list[dict[str, Any]] = [
    {"device_id": "gw-1", "tags": {"site": "a", "floor": {"level": 1, "room": 2}}},
    {"device_id": "gw-1", "module_id": "$edgeHub", "desired": {"interval": 5}},
]


def twins(items: list[dict[str, Any]], **extra: Any) -> dict[str, Any]:
    return {"edgeha.iotedge.iothub_twins": {"twins": items, **extra}}


def actions(run: Run, task: str) -> list[str]:
    return [entry["action"] for entry in run.results[task]["twins"]]


def test_check_first_and_second_run(hub: Hub, play: Play) -> None:
    checked = play({"twins": twins(TWINS)}, "--check", "--diff")
    assert (checked.code, checked.changed) == (0, 1)
    assert "'gw-1' is not registered" in str(checked.results["twins"]["warnings"])

    run = play({"device": DEVICE, "twins": twins(TWINS), "again": twins(TWINS)}, "--diff")
    assert run.failures == []
    assert actions(run, "twins") == ["update", "update"]
    assert run.results["twins"]["diff"]["after"] == checked.results["twins"]["diff"]["after"]
    assert run.results["twins"]["diff"]["after"]["gw-1/$edgeHub"] == {"desired": {"interval": 5}}
    assert actions(run, "again") == ["none", "none"]
    assert run.results["again"]["diff"] == {"before": {}, "after": {}}


def test_merge_keeps_and_removes_and_exact_replaces(hub: Hub, play: Play) -> None:
    merge = [{"device_id": "gw-1", "tags": {"site": None, "floor": {"room": 3}}, "desired": {"p": True}}]
    exact = [{"device_id": "gw-1", "tags": {"only": [1, 2]}, "mode": "exact"}]
    run = play(
        {
            "device": DEVICE,
            "first": twins(TWINS),
            "checked": {**twins(merge), "check_mode": True},
            "merge": twins(merge),
            "merged": twins(merge),
            "exact": twins(exact),
            "replaced": twins(exact),
        },
        "--diff",
    )
    assert run.failures == []
    assert run.results["checked"]["twins"] == run.results["merge"]["twins"]
    assert run.results["merge"]["twins"][0]["tags"] == {"floor": {"level": 1, "room": 3}}
    assert run.results["merge"]["diff"]["before"]["gw-1"] == {
        "tags": {"site": "a", "floor": {"room": 2}},
        "desired": {},
    }
    assert actions(run, "merged") == ["none"]
    assert run.results["exact"]["twins"][0]["tags"] == {"only": [1, 2]}
    # The section that is not given stays.
    assert run.results["exact"]["twins"][0]["desired"] == {"p": True}
    assert actions(run, "replaced") == ["none"]


def test_bad_list_changes_nothing_and_names_item_and_path(hub: Hub, play: Play) -> None:
    bad = [
        {"device_id": "gw-1", "tags": {"good": 1}},
        {"device_id": "gw-1", "module_id": "m", "tags": {"a.b": 1}},
        {"device_id": "gw-2", "desired": {"$a": 1}},
        {"device_id": "gw 3", "tags": {"a": 1}},
        {"device_id": "gw-4", "tags": {str(number): "x" * 4000 for number in range(3)}},
        {"device_id": "gw-1", "tags": {"other": 1}},
    ]
    run = play({"device": DEVICE, "bad": {**twins(bad), "ignore_errors": True}, "good": twins(bad[:1])})
    [message] = run.failures
    assert all(f"twins[{index}]" in message for index in (1, 2, 3, 4, 5))
    assert "8192" in message
    assert run.results["good"]["twins"][0]["tags"] == {"good": 1}
    assert actions(run, "good") == ["update"]


def test_what_is_missing_and_who_may_not_is_named(hub: Hub, play: Play) -> None:
    run = play(
        {
            "device": DEVICE,
            "missing": {**twins([{"device_id": "none", "tags": {}}]), "ignore_errors": True},
            "module": {
                **twins([{"device_id": "gw-1", "module_id": "none", "tags": {}}]),
                "ignore_errors": True,
            },
            "rights": twins(TWINS, policy_name="registryRead", policy_key=hub.keys["registryRead"]),
        }
    )
    missing, module, rights = run.failures
    assert "twins[0] none: the device 'none' is not registered" in missing
    assert "twins[0] gw-1/none: the device 'gw-1' has no module 'none'" in module
    assert "rights of the policy" in rights
