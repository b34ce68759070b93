# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Enrollments and groups, through ansible-playbook against a provisioning service on loopback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.modules.conftest import run_play, write_play
from tests.ports import free_port
from tests.tls import issue

if TYPE_CHECKING:
    from tests.integration.modules.conftest import Hub, Run

    Play = Callable[..., Run]

ENROLLMENTS: list[dict[str, Any]] = [
    {
        "registration_id": "gw-1",
        "attestation": {"type": "symmetric_key"},
        "device_id": "plant07-gw",
        "edge": True,
        "initial_twin": {"tags": {"site": "a"}, "desired": {"n": 1}},
        "reprovision_policy": {"migrate_device_data": False},
    },
    {
        "registration_id": "tpm-1",
        "attestation": {"type": "tpm", "endorsement_key": "RU5ET1JTRU1FTlQ="},
        "status": "disabled",
        "allocation_policy": "static",
        "iot_hubs": ["127.0.0.1"],
    },
]


@pytest.fixture
def play(
    start_hub: Callable[..., Hub],
    tmp_path: Path,
) -> Play:
    """Return a function that runs tasks against a provisioning service of its own."""
    port = free_port()
    hub = start_hub("--dps-port", str(port))
    defaults = {
        "hostname": f"127.0.0.1:{port}",
        "policy_key": hub.keys["provisioningserviceowner"],
        "ca_file": hub.ca_file,
    }

    return lambda tasks, *options: run_play(write_play(tmp_path, tasks, {"dps": defaults}), *options)


def enrollments(items: list[dict[str, Any]], **extra: Any) -> dict[str, Any]:
    return {"edgeha.iotedge.dps_enrollments": {"enrollments": items, **extra}}


def groups(items: list[dict[str, Any]], **extra: Any) -> dict[str, Any]:
    return {"edgeha.iotedge.dps_groups": {"groups": items, **extra}}


def actions(run: Run, task: str) -> list[str]:
    result = run.results[task]
    return [entry["action"] for entry in result.get("enrollments") or result["groups"]]


def test_check_first_and_second_run(play: Play) -> None:
    checked = play({"make": enrollments(ENROLLMENTS)}, "--check", "--diff")
    assert (checked.code, checked.changed) == (0, 1)
    run = play({"make": enrollments(ENROLLMENTS), "again": enrollments(ENROLLMENTS)}, "--diff")
    assert run.failures == []
    assert actions(run, "make") == ["create", "create"]
    # What check mode promised is what came.
    assert run.results["make"]["diff"] == checked.results["make"]["diff"]
    assert actions(run, "again") == ["none", "none"]
    assert run.results["again"]["changed"] is False
    gateway, tpm = run.results["again"]["enrollments"]
    assert gateway["initial_twin"] == {"tags": {"site": "a"}, "desired": {"n": 1}}
    assert gateway["reprovision_policy"] == {"update_hub_assignment": True, "migrate_device_data": False}
    assert (gateway["device_id"], gateway["registration_status"]) == ("plant07-gw", "unassigned")
    assert (tpm["status"], tpm["allocation_policy"], tpm["iot_hubs"]) == ("disabled", "static", ["127.0.0.1"])


def test_update_keeps_the_keys_and_absent_removes(play: Play) -> None:
    change = [{"registration_id": "GW-1", "status": "disabled", "edge": False}]
    gone = [{"registration_id": "gw-1", "state": "absent"}, {"registration_id": "no", "state": "absent"}]
    given = {"type": "symmetric_key", "primary_key": "QUFB" * 8, "secondary_key": "QkJC" * 8}
    keys = [{"registration_id": "gw-1", "attestation": given}]
    run = play(
        {
            "make": enrollments(ENROLLMENTS, return_keys=True),
            "change": enrollments(change),
            "look": enrollments(change, return_keys=True),
            "keys": enrollments(keys),
            "same": enrollments(keys),
            "checked": {**enrollments(gone), "check_mode": True},
            "remove": enrollments(gone),
            "again": enrollments(gone),
        },
        "--diff",
    )
    assert run.failures == []
    before, after = run.results["make"]["enrollments"][0], run.results["look"]["enrollments"][0]
    assert before["primary_key"]
    assert (before["primary_key"], before["secondary_key"]) == (after["primary_key"], after["secondary_key"])
    assert run.results["make"]["enrollments"][1]["primary_key"] is None
    assert actions(run, "change") == ["update"]
    assert actions(run, "look") == ["none"]
    assert (after["status"], after["edge"], after["device_id"]) == ("disabled", False, "plant07-gw")
    assert before["primary_key"] not in repr(run.results["change"])
    assert actions(run, "keys") == ["update"]
    assert actions(run, "same") == ["none"]
    assert given["primary_key"] not in repr([run.results["keys"], run.results["same"]])
    assert actions(run, "checked") == actions(run, "remove") == ["delete", "none"]
    assert actions(run, "again") == ["none", "none"]


def test_groups_with_keys_and_with_an_authority(play: Play) -> None:
    first, second = issue("ca-1").pem, issue("ca-2").pem
    x509_group: dict[str, Any] = {
        "group_id": "by-ca",
        "attestation": {"type": "x509", "primary_certificate": first},
        "edge": True,
    }
    rolled = {
        "group_id": "by-ca",
        "attestation": {"type": "x509", "primary_certificate": second, "secondary_certificate": first},
    }
    key_group = {"group_id": "by-key", "attestation": {"type": "symmetric_key"}}
    derived = "{{ made.groups[1].primary_key | edgeha.iotedge.derive_device_key('gw-1') }}"
    run = play(
        {
            "make": {**groups([x509_group, key_group], return_keys=True), "register": "made"},
            "again": groups([x509_group, key_group]),
            "derive": {"ansible.builtin.debug": {"msg": derived}},
            "roll": groups([rolled]),
            "rolled": groups([rolled]),
        }
    )
    assert run.failures == []
    assert actions(run, "make") == ["create", "create"]
    assert actions(run, "again") == ["none", "none"]
    assert len(run.results["derive"]["msg"]) == 44
    assert run.results["derive"]["msg"] != run.results["make"]["groups"][1]["primary_key"]
    old = run.results["make"]["groups"][0]["attestation"]["primary_sha256"]
    attestation = run.results["rolled"]["groups"][0]["attestation"]
    assert actions(run, "rolled") == ["none"]
    assert attestation["secondary_sha256"] == old
    assert attestation["primary_sha256"] != old
    assert run.results["rolled"]["groups"][0]["edge"]


def test_bad_lists_change_nothing_and_name_every_item(play: Play) -> None:
    bad: list[dict[str, Any]] = [
        {"registration_id": "good", "attestation": {"type": "symmetric_key"}},
        {"registration_id": "a b"},
        {"registration_id": "GOOD"},
        {"registration_id": "k", "attestation": {"type": "symmetric_key", "primary_key": "QUFB" * 8}},
        {"registration_id": "t", "initial_twin": {"tags": {"a.b": 1}}},
    ]
    run = play(
        {
            "bad": {**enrollments(bad), "ignore_errors": True},
            "nothing": {**enrollments([bad[0], {"registration_id": "new"}]), "ignore_errors": True},
            "good": enrollments(bad[:1]),
            "other": {
                **enrollments([{**bad[0], "attestation": {"type": "tpm", "endorsement_key": "QUFB"}}]),
                "ignore_errors": True,
            },
            "hub": {
                **enrollments([bad[0], {**bad[0], "registration_id": "h", "iot_hubs": ["strange.net"]}]),
                "ignore_errors": True,
            },
        }
    )
    lists, nothing, other, hub = run.failures
    assert all(f"enrollments[{index}]" in lists for index in (1, 2, 3, 4))
    assert "enrollments[1] new: it does not exist" in nothing
    assert actions(run, "good") == ["create"]
    assert "enrollments[0] good: its attestation is of type symmetricKey" in other
    # What only the service knows is its own error, with the item's name.
    assert "enrollments[1] h: " in hub
    assert "strange.net" in hub


def test_missing_right_and_wrong_host_are_explained(play: Play) -> None:
    wrong = {"policy_key": "QUFB" * 11}
    run = play(
        {
            "key": {**enrollments(ENROLLMENTS, **wrong), "ignore_errors": True},
            "host": groups([{"group_id": "g"}], hostname="127.0.0.1:1"),
        }
    )
    key, host = run.failures
    assert "rights of the policy" in key
    assert "Check the host name" in host
