# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.integration.modules.conftest import Hub, Run

    Play = Callable[..., Run]

MODULES: list[dict[str, Any]] = [
    {"device_id": "line1", "module_id": "camera", "managed_by": "line"},
    {
        "device_id": "line1",
        "module_id": "scale",
        "authentication": {"type": "self_signed", "primary_thumbprint": "ab" * 20},
    },
]


def devices(*ids: str, **more: Any) -> dict[str, Any]:
    return {"edgeha.iotedge.iothub_devices": {"devices": [{"device_id": name, **more} for name in ids]}}


def modules(items: list[dict[str, Any]], **extra: Any) -> dict[str, Any]:
    return {"edgeha.iotedge.iothub_modules": {"modules": items, **extra}}


def actions(run: Run, task: str) -> list[str]:
    return [entry["action"] for entry in run.results[task]["modules"]]


def test_check_first_and_second_run(hub: Hub, play: Play) -> None:
    # In check mode the device that a task before would have made is not there yet.
    checked = play({"modules": modules(MODULES)}, "--check", "--diff")
    assert (checked.code, checked.changed) == (0, 1)
    assert "'line1' is not registered" in str(checked.results["modules"]["warnings"])

    run = play({"device": devices("line1"), "modules": modules(MODULES), "again": modules(MODULES)}, "--diff")
    assert run.failures == []
    assert actions(run, "modules") == ["create", "create"]
    # What check mode promised is what came.
    assert run.results["modules"]["diff"] == checked.results["modules"]["diff"]
    assert run.results["modules"]["diff"]["before"] == {"line1/camera": {}, "line1/scale": {}}
    assert run.results["modules"]["modules"][1]["authentication"]["primary_thumbprint"] == "ab" * 20
    assert actions(run, "again") == ["none", "none"]
    assert run.results["again"]["changed"] is False


def test_changes_keep_the_keys_and_absent_removes(hub: Hub, play: Play) -> None:
    changed = [{**MODULES[0], "managed_by": "other"}]
    gone = [{**MODULES[0], "state": "absent"}, {"device_id": "none", "module_id": "m", "state": "absent"}]
    authority = {"device_id": "line1", "module_id": "scale", "replace_authentication": True}
    run = play(
        {
            "device": devices("line1"),
            "first": modules(MODULES, return_keys=True),
            "change": modules(changed),
            "second": modules(changed, return_keys=True),
            "authority": modules([{**authority, "authentication": {"type": "certificate_authority"}}]),
            "checked": {**modules(gone), "check_mode": True},
            "remove": modules(gone),
            "again": modules(gone),
        }
    )
    assert run.failures == []
    assert actions(run, "change") == ["update"]
    assert actions(run, "second") == ["none"]
    before, after = run.results["first"]["modules"][0], run.results["second"]["modules"][0]
    assert before["primary_key"]
    assert (before["primary_key"], before["secondary_key"]) == (after["primary_key"], after["secondary_key"])
    assert before["primary_key"] not in repr(run.results["change"])
    assert run.results["authority"]["modules"][0]["authentication"] == {"type": "certificate_authority"}
    assert actions(run, "checked") == actions(run, "remove") == ["delete", "none"]
    assert actions(run, "again") == ["none", "none"]


def test_given_keys_are_set_and_shown_nowhere(hub: Hub, play: Play) -> None:
    keys = {"primary_key": "QUFB" * 8, "secondary_key": "QkJC" * 8}
    given = [{"device_id": "line1", "module_id": "camera", "authentication": keys}]
    run = play(
        {
            "device": devices("line1"),
            "make": modules(MODULES[:1]),
            "set": modules(given),
            "again": modules(given),
        },
        "--diff",
    )
    assert run.failures == []
    assert actions(run, "set") == ["update"]
    assert actions(run, "again") == ["none"]
    assert keys["primary_key"] not in repr([run.results["set"], run.results["again"]])


def test_bad_list_changes_nothing_and_names_every_item(hub: Hub, play: Play) -> None:
    bad = [
        {"device_id": "line1", "module_id": "good"},
        {"device_id": "line1", "module_id": "a b"},
        {"device_id": "line1", "module_id": "good"},
        {"device_id": "line1", "module_id": "$edgeHub"},
        {
            "device_id": "line1",
            "module_id": "k",
            "authentication": {"primary_key": "@@", "secondary_key": "QkJC" * 8},
        },
    ]
    run = play(
        {
            "device": devices("line1"),
            "modules": {**modules(bad), "ignore_errors": True},
            "good": modules(bad[:1]),
        }
    )
    [message] = run.failures
    assert message.startswith("Nothing was changed.")
    assert all(f"modules[{index}]" in message for index in (1, 2, 3, 4))
    assert actions(run, "good") == ["create"]


def test_missing_and_disabled_devices_are_named(hub: Hub, play: Play) -> None:
    run = play(
        {
            "off": devices("off", status="disabled"),
            "missing": {**modules(MODULES), "ignore_errors": True},
            "disabled": modules([{"device_id": "off", "module_id": "m"}]),
        }
    )
    missing, disabled = run.failures
    assert "modules[0] line1/camera: the device 'line1' is not registered" in missing
    assert "modules[0] off/m: the device 'off' is disabled" in disabled


def test_one_module_that_fails_does_not_keep_the_others_from_being_done(hub: Hub, play: Play) -> None:
    # The emulator counts no modules, so the hub's refusal is that of another type of authentication.
    refused = {**MODULES[1], "authentication": {"type": "certificate_authority"}}
    rights = {"policy_name": "registryRead", "policy_key": hub.keys["registryRead"]}
    run = play(
        {
            "device": devices("line1"),
            "make": modules(MODULES),
            "type": {**modules([{"device_id": "line1", "module_id": "new"}, refused]), "ignore_errors": True},
            "rights": {**modules([{**MODULES[0], "managed_by": "x"}], **rights), "ignore_errors": True},
            "host": modules(MODULES, hostname="127.0.0.1:1", retry_budget=0),
        }
    )
    kind, rights_message, host = run.failures
    assert kind.startswith("Nothing was changed. modules[1] line1/scale: it authenticates by self_signed")
    assert "modules[0] line1/camera" in rights_message
    assert "rights of the policy" in rights_message
    assert "modules[0] line1/camera" in host
    assert "Check the host name" in host
