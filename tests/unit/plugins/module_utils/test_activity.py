# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import activity

NOON = datetime(2026, 2, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-02-01T12:00:00Z", NOON),
        ("2026-02-01T12:00:00.0000000Z", NOON),
        ("2026-02-01T12:00:00.1234567Z", NOON.replace(microsecond=123456)),
        ("2026-02-01T13:00:00+01:00", NOON),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        (None, None),
        ("yesterday", None),
    ],
)
def test_times_of_the_hub(text: object, expected: datetime | None) -> None:
    assert activity.parse_time(text) == expected


def state(**identity: object) -> activity.ModuleState:
    [found] = activity.states("gw", [{"moduleId": "sensor", **identity}], ["sensor"])
    return found


def test_ready_is_connected_and_active_since() -> None:
    connected = {"connectionState": "Connected", "lastActivityTime": "2026-02-01T12:00:00Z"}
    assert state(**connected).ready(NOON)
    assert not state(**connected).ready(NOON.replace(second=1))
    assert not state(**{**connected, "connectionState": "Disconnected"}).ready(NOON)
    assert not state(connectionState="Connected").ready(NOON)


def test_module_that_does_not_exist_is_not_ready() -> None:
    [found] = activity.states("gw", [], ["sensor"])
    assert not found.exists
    assert not found.ready(NOON)


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        ({"connectionState": "Disconnected"}, "is not connected (never active)"),
        ({"connectionState": "Connected"}, "sent nothing since 2026-02-01T12:00:00Z (last active never)"),
    ],
)
def test_explanation_names_device_module_and_what_was_seen(identity: dict[str, object], text: str) -> None:
    line = activity.explain(state(**identity), NOON)
    assert line.startswith("device gw, module sensor: ")
    assert text in line


def test_modules_of_an_info_are_all_that_exist() -> None:
    found = activity.states("gw", [{"moduleId": "b"}, {"moduleId": "a"}])
    assert [entry.module_id for entry in found] == ["a", "b"]


def twin(reported: dict[str, Any], *, version: int = 3) -> dict[str, Any]:
    desired = {
        "$version": version,
        "systemModules": {"edgeAgent": {}, "edgeHub": {"status": "running"}},
        "modules": {"m": {"status": "running"}, "off": {"status": "stopped"}},
    }
    return {"properties": {"desired": desired, "reported": reported}}


RUNS = {"runtimeStatus": "running"}
WELL = {
    "lastDesiredVersion": 3,
    "lastDesiredStatus": {"code": 200},
    "systemModules": {"edgeAgent": RUNS, "edgeHub": RUNS},
    "modules": {"m": RUNS, "off": {"runtimeStatus": "stopped"}},
}


def test_a_deployment_is_carried_out_when_all_of_its_modules_run() -> None:
    found = activity.agent_state("gw", twin(WELL))
    assert found.ready
    assert activity.explain_agent(found) == []


@pytest.mark.parametrize(
    ("reported", "lines"),
    [
        ({}, ["device gw: edgeAgent has not taken version 3 of the deployment (reported: nothing yet)"]),
        ({**WELL, "lastDesiredVersion": 2}, ["device gw: edgeAgent has not taken version 3"]),
        (
            {**WELL, "lastDesiredStatus": {"code": 500, "description": "create m: no such option"}},
            ["device gw: edgeAgent reports 500: create m: no such option"],
        ),
        (
            {
                **WELL,
                "modules": {"m": {"runtimeStatus": "failed", "statusDescription": "ImagePullBackOff: gone"}},
                "systemModules": {"edgeAgent": RUNS},
            },
            [
                "device gw, module edgeHub: not reported",
                "device gw, module m: failed (ImagePullBackOff: gone)",
            ],
        ),
    ],
)
def test_what_keeps_a_deployment_from_running_is_a_line_each(
    reported: dict[str, Any], lines: list[str]
) -> None:
    found = activity.agent_state("gw", twin(reported))
    assert not found.ready
    told = activity.explain_agent(found)
    assert len(told) == len(lines)
    assert all(line.startswith(start) for line, start in zip(told, lines, strict=True))


STARTED = {"lastStartTimeUtc": "2026-02-01T12:00:00Z"}
NEVER_STARTED = [{"lastStartTimeUtc": None}, {"lastStartTimeUtc": "0001-01-01T00:00:00Z"}]


def of_module(state: dict[str, Any], restart_policy: str | None = None) -> activity.AgentState:
    """How far it is with a module `m` that is reported like this."""
    found = twin(WELL | {"modules": {"m": state, "off": {"runtimeStatus": "stopped"}}})
    if restart_policy is not None:
        found["properties"]["desired"]["modules"]["m"]["restartPolicy"] = restart_policy
    return activity.agent_state("gw", found)


def test_a_module_runs_once_it_has_a_time_of_its_start() -> None:
    assert of_module(RUNS | STARTED).ready
    assert of_module(RUNS).ready, "one that reports no such time at all"
    for none in NEVER_STARTED:
        assert of_module(RUNS | none).waiting == {"m": "starting"}
        told = RUNS | none | {"statusDescription": " pulls r/m:1 "}
        assert of_module(told).waiting == {"m": "starting (pulls r/m:1)"}


@pytest.mark.parametrize("policy", ["never", "on-failure"])
def test_a_module_that_ended_well_and_may_stay_so_is_done(policy: str) -> None:
    ended = {"runtimeStatus": "stopped", "exitCode": 0} | STARTED
    assert of_module(ended, policy).ready
    assert of_module(ended | {"exitCode": 1}, policy).waiting == {"m": "stopped"}
    assert of_module(ended | {"runtimeStatus": "failed"}, policy).waiting == {"m": "failed"}
    assert of_module({"runtimeStatus": "stopped", "exitCode": 0}, policy).waiting == {"m": "stopped"}
    for none in NEVER_STARTED:
        assert of_module(ended | none, policy).waiting == {"m": "stopped"}


@pytest.mark.parametrize("policy", [None, "always", "on-unhealthy"])
def test_a_module_that_is_started_again_is_not_done_when_it_ended(policy: str | None) -> None:
    ended = {"runtimeStatus": "stopped", "exitCode": 0} | STARTED
    assert of_module(ended, policy).waiting == {"m": "stopped"}
    assert of_module(ended | {"runtimeStatus": "backoff"}, policy).waiting == {"m": "backoff"}


def test_a_device_without_edge_agent_is_told_as_such() -> None:
    found = activity.agent_state("leaf", None)
    assert not found.ready
    assert "register it as an edge device" in activity.explain_agent(found)[0]


def test_of_a_module_that_did_what_it_had_to_no_word_is_awaited() -> None:
    done = {"runtimeStatus": "stopped", "exitCode": 0, **STARTED}
    found = of_module(done, "never")
    assert found.ended == {"m"}
    silent = {"moduleId": "m", "connectionState": "Disconnected"}
    (ended,) = activity.states("gw", [silent], ["m"], ended=found.ended)
    (other,) = activity.states("gw", [silent], ["m"], ended=of_module(done, "always").ended)
    moment = datetime(2026, 2, 1, tzinfo=UTC)
    assert (ended.ready(moment), other.ready(moment)) == (True, False)
