# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.integration.modules.conftest import Hub, Run

    Play = Callable[..., Run]

DEVICES: dict[str, Any] = {
    "edgeha.iotedge.iothub_devices": {
        "devices": [{"device_id": "gw-1", "edge": True, "tags": {"a": 1}}, {"device_id": "leaf-1"}]
    }
}
MODULE: dict[str, Any] = {
    "edgeha.iotedge.iothub_modules": {"modules": [{"device_id": "leaf-1", "module_id": "m"}]}
}


def keys(items: list[dict[str, Any]], **extra: Any) -> dict[str, Any]:
    return {"edgeha.iotedge.iothub_keys": {"identities": items, "return_keys": True, **extra}}


def pairs(run: Run, task: str) -> list[tuple[str, str]]:
    return [(entry["primary_key"], entry["secondary_key"]) for entry in run.results[task]["identities"]]


def test_each_rotation_replaces_what_it_says(hub: Hub, play: Play) -> None:
    items = [
        {"device_id": "gw-1", "rotate": "primary"},
        {"device_id": "leaf-1", "rotate": "swap"},
        {"device_id": "leaf-1", "module_id": "m", "rotate": "both"},
    ]
    run = play(
        {
            "devices": DEVICES,
            "module": MODULE,
            "before": {**keys(items), "check_mode": True},
            "rotate": keys(items),
            "after": {**keys(items), "check_mode": True},
            "again": keys(items),
        },
        "--diff",
    )
    assert run.failures == []
    edge, leaf, module = pairs(run, "before")
    new_edge, new_leaf, new_module = pairs(run, "rotate")
    assert new_edge[0] != edge[0]
    assert new_edge[1] == edge[1]
    assert new_leaf == leaf[::-1]
    assert not set(new_module) & set(module)
    # What is told is what the hub has, and check mode changed nothing.
    assert pairs(run, "after") == pairs(run, "rotate")
    assert run.results["before"]["changed"]
    # An act: the second time it is done again.
    assert pairs(run, "again")[0][0] != new_edge[0]
    diff = run.results["rotate"]["diff"]
    assert diff["after"]["gw-1"]["primary_digest"] == "a new one"
    assert not any(key in repr(diff) for pair in pairs(run, "before") + pairs(run, "rotate") for key in pair)


def test_rotation_of_a_named_key_is_done_once(hub: Hub, play: Play) -> None:
    ask = [{"device_id": "leaf-1", "rotate": "secondary"}]
    digest = "{{ known.identities[0].secondary_digest }}"
    once = [{**ask[0], "expected_digest": digest}]
    run = play(
        {
            "devices": DEVICES,
            "look": {**keys(ask), "check_mode": True, "register": "known"},
            "rotate": keys(once, return_keys=False),
            "again": keys(once),
        }
    )
    assert run.failures == []
    assert [run.results[task]["identities"][0]["action"] for task in ("rotate", "again")] == [
        "update",
        "none",
    ]
    assert run.results["again"]["changed"] is False
    assert "primary_key" not in run.results["rotate"]["identities"][0]
    assert pairs(run, "again")[0][0] == pairs(run, "look")[0][0]
    assert pairs(run, "again")[0][1] != pairs(run, "look")[0][1]


def test_bad_items_are_named_before_anything_is_rotated(hub: Hub, play: Play) -> None:
    certificate = {
        "device_id": "leaf-1",
        "module_id": "x",
        "authentication": {"type": "self_signed", "primary_thumbprint": "AB" * 20},
    }
    good = {"device_id": "leaf-1", "rotate": "primary"}
    run = play(
        {
            "devices": DEVICES,
            "module": {"edgeha.iotedge.iothub_modules": {"modules": [certificate]}},
            "before": {**keys([good]), "check_mode": True},
            "list": {
                **keys([good, {"device_id": "a b", "rotate": "both"}, good], return_keys=False),
                "ignore_errors": True,
            },
            "certificate": {
                **keys(
                    [good, {"device_id": "leaf-1", "module_id": "x", "rotate": "swap"}], return_keys=False
                ),
                "ignore_errors": True,
            },
            "missing": {
                **keys([good, {"device_id": "none", "rotate": "swap"}], return_keys=False),
                "ignore_errors": True,
            },
            "after": {**keys([good]), "check_mode": True},
        }
    )
    bad, refused, missing = run.failures
    assert "identities[1]: the device id 'a b'" in bad
    assert "identities[2]: 'leaf-1' is already in identities[0]" in bad
    assert "identities[1] leaf-1/x: it authenticates by self_signed" in refused
    assert "identities[1] none: the device 'none' is not registered" in missing
    assert pairs(run, "after") == pairs(run, "before")
