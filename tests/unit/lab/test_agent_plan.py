# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's agent: what it reads from a twin, does in which order, and reports."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[3] / "lab" / "images" / "agent"))

import plan

OWN = {
    "IOTEDGE_APIVERSION": "2022-08-03",
    "IOTEDGE_DEVICEID": "gw-1",
    "IOTEDGE_IOTHUBHOSTNAME": "hub.example",
    "IOTEDGE_WORKLOADURI": "http://127.0.0.1:35001",
    "IOTEDGE_MANAGEMENTURI": "http://127.0.0.1:35000",
    "EdgeDeviceHostName": "gateway.plant",
    "Mode": "iotedged",
}
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def properties(**modules: dict[str, Any]) -> dict[str, Any]:
    return {"schemaVersion": "1.1", "runtime": {"type": "docker"}, "modules": modules, "$version": 3}


def module(image: str = "r/m:1", **more: Any) -> dict[str, Any]:
    return {"type": "docker", "settings": {"image": image}} | more


def running(wanted: plan.Wanted, **status: Any) -> dict[str, Any]:
    """A module as the daemon tells it, made by this agent."""
    spec = plan.spec(wanted, "1", OWN)
    return spec | {"status": {"runtimeStatus": {"status": "running"}} | status}


def text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def ended(wanted: plan.Wanted, status: str, seconds_ago: float, code: int = 0) -> dict[str, Any]:
    """A module whose container ended, as the daemon tells it."""
    at = text(NOW - timedelta(seconds=seconds_ago))
    return running(
        wanted,
        runtimeStatus={"status": status},
        startTime="2026-01-01T00:00:00Z",
        exitStatus={"exitTime": at, "statusCode": str(code)},
    )


def remembered(wanted: plan.Wanted, restarts: int = 0, **other: Any) -> plan.Memory:
    last = "2026-01-01T11:00:00Z" if restarts else ""
    return plan.Memory(other.get("status", wanted.status), wanted.terms, restarts, last)


def steps(
    wanted: list[plan.Wanted], there: dict[str, Any], memories: dict[str, plan.Memory] | None = None
) -> list[tuple[str, str]]:
    return [(step.action, step.name) for step in plan.steps(wanted, there, memories or {}, NOW)]


def test_modules_come_in_their_order_and_their_options_whole() -> None:
    cut = {"image": "r/a:1", "createOptions": '{"Env": ["A', "createOptions01": '=1"]}'}
    found = plan.read(
        properties(
            late=module(), a={"settings": cut, "startupOrder": 2}, first=module(startupOrder=1), b=module()
        )
        | {"systemModules": {"edgeAgent": module(), "edgeHub": module(startupOrder=0)}}
    )
    assert [wanted.name for wanted in found] == ["edgeAgent", "edgeHub", "first", "a", "b", "late"]
    assert found[3].options == '{"Env": ["A=1"]}'
    assert [wanted.identity for wanted in found[:3]] == ["$edgeAgent", "$edgeHub", "first"]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({}, 417),
        ({"modules": {}, "schemaVersion": "2.0"}, 412),
        (properties(m={}), 400),
        (properties(m={"settings": {"image": "i", "createOptions": "{"}}), 400),
        (properties(m={"settings": {"image": "i", "createOptions": "[1]"}}), 400),
        (properties(m=module(restartPolicy="sometimes")), 400),
        (properties() | {"modules": "none"}, 400),
        (properties() | {"runtime": "docker"}, 400),
        (properties() | {"runtime": {"settings": [1]}}, 400),
    ],
)
def test_what_is_no_deployment_is_told_by_its_code(document: dict[str, Any], code: int) -> None:
    with pytest.raises(plan.DeploymentError) as error:
        plan.read(document)
    assert error.value.code == code


def test_a_module_learns_who_and_where_it_is() -> None:
    (hub, own) = (plan.Wanted("edgeHub", "r/hub:1"), plan.Wanted("m", "r/m:1", env=(("A", "1"),)))
    env = {entry["key"]: entry["value"] for entry in plan.spec(own, "7", OWN)["config"]["env"]}
    assert (env["IOTEDGE_GATEWAYHOSTNAME"], env["IOTEDGE_MODULEGENERATIONID"], env["A"]) == (
        "gateway.plant",
        "7",
        "1",
    )
    env = {entry["key"]: entry["value"] for entry in plan.spec(hub, "7", OWN)["config"]["env"]}
    assert (env["EdgeDeviceHostName"], env["IOTEDGE_MODULEID"]) == ("gateway.plant", "$edgeHub")
    assert "IOTEDGE_GATEWAYHOSTNAME" not in env


def test_only_what_differs_is_done() -> None:
    a, b = plan.Wanted("a", "r/a:1"), plan.Wanted("b", "r/b:1", env=(("A", "1"),))
    there = {"a": running(a), "b": running(b), "edgeAgent": running(plan.Wanted("edgeAgent", "r/agent:1"))}
    assert steps([a, b], there) == []
    newer = plan.Wanted("b", "r/b:1", env=(("A", "2"),))
    assert steps([a, newer], there) == [("update", "b")]
    assert steps([a], there) == [("remove", "b")]
    new = plan.Wanted("c", "r/c:1")
    assert steps([a, b, new], there) == [("create", "c"), ("start", "c")]
    assert steps([a, b, plan.Wanted("c", "r/c:1", status="stopped")], there) == [("create", "c")]
    assert steps([a, plan.Wanted("b", "r/b:1", env=(("A", "1"),), status="stopped")], there) == [
        ("stop", "b")
    ]


@pytest.mark.parametrize("told", ["unknown", "creating"])
def test_a_status_that_the_daemon_does_not_know_fails_the_whole_pass(told: str) -> None:
    a, b = plan.Wanted("a", "r/a:1"), plan.Wanted("b", "r/b:1")
    there = {"a": running(a, runtimeStatus={"status": told}), "gone": running(plan.Wanted("gone", "r/g:1"))}
    with pytest.raises(plan.DeploymentError, match="module a: the daemon's runtimeStatus is") as error:
        steps([a, b], there)
    assert error.value.code == 500
    # Of one that is not to run it is no error, and neither of one that no deployment knows.
    stopped = plan.Wanted("a", "r/a:1", status="stopped")
    assert steps([stopped], {"a": there["a"]}) == [("stop", "a")]
    assert steps([], {"a": there["a"]}) == [("remove", "a")]
    # It is seen by the deployment that was carried out last.
    with pytest.raises(plan.DeploymentError):
        steps([stopped], {"a": there["a"]}, {"a": remembered(a)})


@pytest.mark.parametrize(
    ("policy", "status", "restarts", "computed"),
    [
        ("always", "failed", 0, "backoff"),
        ("always", "stopped", 19, "backoff"),
        ("always", "unhealthy", 0, "backoff"),
        ("always", "stopped", 20, "failed"),
        ("on-failure", "failed", 19, "backoff"),
        ("on-failure", "failed", 20, "failed"),
        ("on-failure", "unhealthy", 0, "backoff"),
        ("on-failure", "stopped", 0, "stopped"),
        ("on-unhealthy", "failed", 0, "backoff"),
        ("on-unhealthy", "unhealthy", 20, "failed"),
        ("on-unhealthy", "stopped", 0, "stopped"),
        ("never", "failed", 0, "failed"),
        ("never", "stopped", 0, "stopped"),
        ("always", "running", 20, "running"),
        ("always", "unknown", 0, "unknown"),
    ],
)
def test_a_status_is_what_the_restart_policy_makes_of_it(
    policy: str, status: str, restarts: int, computed: str
) -> None:
    wanted = plan.Wanted("m", "r/m:1", restart_policy=policy)
    there = {"m": ended(wanted, status, 3600)}
    told = plan.report([wanted], there, {"m": remembered(wanted, restarts)})["modules"]["m"]
    assert told["runtimeStatus"] == computed
    off = plan.Wanted("m", "r/m:1", restart_policy=policy, status="stopped")
    assert plan.report([off], there, {})["modules"]["m"]["runtimeStatus"] == status


@pytest.mark.parametrize(
    ("restarts", "seconds_ago", "due"),
    [
        (0, 10, False),
        (0, 11, True),
        (1, 20, False),
        (1, 21, True),
        (4, 160, False),
        (4, 161, True),
        (5, 300, False),
        (5, 301, True),
        (19, 300, False),
        (19, 301, True),
        (20, 3600, False),
        (19, 0, True),
        (19, -60, True),
    ],
)
def test_a_restart_waits_longer_each_time_and_not_for_a_wrong_clock(
    restarts: int, seconds_ago: float, due: bool
) -> None:
    wanted = plan.Wanted("m", "r/m:1")
    found = steps(
        [wanted], {"m": ended(wanted, "failed", seconds_ago, 1)}, {"m": remembered(wanted, restarts)}
    )
    assert found == ([("restart", "m")] if due else [])


def test_what_has_no_end_is_restarted_at_once() -> None:
    wanted = plan.Wanted("m", "r/m:1")
    there = {"m": running(wanted, runtimeStatus={"status": "failed"})}
    assert steps([wanted], there, {"m": remembered(wanted, 19)}) == [("restart", "m")]


def test_a_time_of_the_daemon_that_is_none_is_told() -> None:
    wanted = plan.Wanted("m", "r/m:1")
    there = {"m": ended(wanted, "failed", 60)}
    there["m"]["status"]["exitStatus"]["exitTime"] = "soon"
    with pytest.raises(plan.DeploymentError, match="module m: 'soon' of the daemon is no time"):
        steps([wanted], there)


@pytest.mark.parametrize(
    ("policy", "has_run", "starts"),
    [
        ("never", True, False),
        ("never", False, True),
        # The rule modulesToStart of the stock HealthRestartPlanner: stopped, and a policy above never. The
        # restart policy leaves such a module at `stopped`, so that it is started at once, with no pause and
        # no count, although it ended well.
        ("on-failure", True, True),
        ("on-failure", False, True),
        ("on-unhealthy", True, True),
    ],
)
def test_what_stopped_by_itself_is_started_by_its_policy(policy: str, has_run: bool, starts: bool) -> None:
    wanted = plan.Wanted("m", "r/m:1", restart_policy=policy)
    there = {"m": ended(wanted, "stopped", 1)}
    if not has_run:
        there["m"]["status"].pop("startTime")
    memories = {"m": remembered(wanted, 3)}
    assert steps([wanted], there, memories) == ([("start", "m")] if starts else [])
    assert after([wanted], there, memories)["m"].restarts == 3


def test_what_failed_stays_so_with_never() -> None:
    wanted = plan.Wanted("m", "r/m:1", restart_policy="never")
    assert steps([wanted], {"m": ended(wanted, "failed", 3600, 1)}) == []


@pytest.mark.parametrize("status", ["running", "failed", "unhealthy", "backoff"])
def test_what_is_not_to_run_is_stopped(status: str) -> None:
    wanted = plan.Wanted("m", "r/m:1", status="stopped")
    assert steps([wanted], {"m": ended(wanted, status, 1)}, {"m": remembered(wanted)}) == [("stop", "m")]
    assert steps([wanted], {"m": ended(wanted, "stopped", 1)}, {"m": remembered(wanted)}) == []


def test_a_deployment_that_lets_a_module_run_again_needs_no_policy() -> None:
    wanted = plan.Wanted("m", "r/m:1", restart_policy="never")
    there = {"m": ended(wanted, "stopped", 1)}
    assert steps([wanted], there, {"m": remembered(wanted, status="stopped")}) == [("start", "m")]


@pytest.mark.parametrize(
    "change", [{"restart_policy": "never"}, {"pull_policy": "never"}, {"startup_order": 1}, {"version": "2"}]
)
def test_what_no_label_tells_of_a_deployment_is_a_change_too(change: dict[str, Any]) -> None:
    old, new = plan.Wanted("m", "r/m:1"), plan.Wanted("m", "r/m:1", **change)
    assert steps([new], {"m": running(old)}, {"m": remembered(old)}) == [("update", "m")]
    # Without the memory of the one before it cannot be told.
    assert steps([new], {"m": running(old)}) == []


def after(
    wanted: list[plan.Wanted], there: dict[str, Any], memories: dict[str, plan.Memory], undone: bool = False
) -> dict[str, plan.Memory]:
    """What is remembered after a pass, in which all was done or nothing."""
    todo = plan.steps(wanted, there, memories, NOW)
    done, left = ([], todo) if undone else (todo, [])
    return plan.remember(wanted, there, memories, done, left, NOW)


def test_restarts_are_counted_once_they_are_done() -> None:
    wanted = plan.Wanted("m", "r/m:1")
    there, memories = {"m": ended(wanted, "failed", 3600, 1)}, {"m": remembered(wanted, 2)}
    found = after([wanted], there, memories)
    assert (found["m"].restarts, found["m"].restarted) == (3, text(NOW))
    assert after([wanted], there, memories, undone=True) == memories
    # A change that could not be made is still one.
    stopped = plan.Wanted("m", "r/m:1", status="stopped")
    assert after([stopped], there, memories, undone=True) == memories


def test_restarts_are_forgotten_with_what_they_were_of() -> None:
    old = plan.Wanted("m", "r/m:1")
    memories = {"m": remembered(old, 5)}
    short, long = (text(NOW - timedelta(seconds=seconds)) for seconds in (600, 601))
    ran = running(old, startTime=short)
    assert after([old], {"m": ran}, memories) == memories
    assert after([old], {"m": running(old)}, memories) == memories, "it tells no time of its start"
    for wanted, there in (
        (old, running(old, startTime=long)),
        (plan.Wanted("m", "r/m:2"), ran),
        (plan.Wanted("m", "r/m:1", restart_policy="never"), ran),
        (plan.Wanted("m", "r/m:1", status="stopped"), ran),
    ):
        assert after([wanted], {"m": there}, memories) == {"m": remembered(wanted)}
    assert after([], {"m": ran}, memories) == {}


def test_times_that_there_are_none_of_are_reported_as_year_one() -> None:
    wanted = plan.Wanted("m", "r/m:1")
    entry = plan.report([wanted], {"m": running(wanted)}, {})["modules"]["m"]
    times = ("lastStartTimeUtc", "lastExitTimeUtc", "lastRestartTimeUtc")
    assert [entry[name] for name in times] == ["0001-01-01T00:00:00Z"] * 3
    assert (entry["exitCode"], entry["restartCount"]) == (0, 0)

    there = {"m": ended(wanted, "failed", 60, 137)}
    entry = plan.report([wanted], there, {"m": remembered(wanted, 2)})["modules"]["m"]
    assert [entry[name] for name in times] == [
        "2026-01-01T00:00:00Z",
        "2026-01-01T11:59:00Z",
        "2026-01-01T11:00:00Z",
    ]
    assert (entry["exitCode"], entry["restartCount"], entry["runtimeStatus"]) == (137, 2, "backoff")


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


def merged(old: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """As the hub takes a patch."""
    found = dict(old)
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict):
            before = found.get(key)
            found[key] = merged(before if isinstance(before, dict) else {}, value)
        else:
            found[key] = value
    return found


def clean(document: dict[str, Any]) -> dict[str, Any]:
    return merged({}, document)


@given(
    old=st.dictionaries(st.sampled_from("abc"), DOCUMENTS),
    new=st.dictionaries(st.sampled_from("abc"), DOCUMENTS),
)
def test_a_patch_makes_the_new_of_the_old(old: dict[str, Any], new: dict[str, Any]) -> None:
    held = clean(old)
    assert merged(held, plan.patch(held, new)) == clean(new)
    assert plan.patch(clean(new), clean(new)) == {}
