# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's agent: what it reads from a twin, does in which order, and reports."""

from __future__ import annotations

import itertools
import sys
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


def properties(**modules: dict[str, Any]) -> dict[str, Any]:
    return {"schemaVersion": "1.1", "runtime": {"type": "docker"}, "modules": modules, "$version": 3}


def module(image: str = "r/m:1", **more: Any) -> dict[str, Any]:
    return {"type": "docker", "settings": {"image": image}} | more


def running(wanted: plan.Wanted, **status: Any) -> dict[str, Any]:
    """A module as the daemon tells it, made by this agent."""
    spec = plan.spec(wanted, "1", OWN)
    return spec | {"status": {"runtimeStatus": {"status": "running"}} | status}


def steps(wanted: list[plan.Wanted], there: dict[str, Any], now: float = 0) -> list[tuple[str, str]]:
    return [(step.action, step.name) for step in plan.steps(wanted, there, {}, now)]


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


@pytest.mark.parametrize(
    ("policy", "status", "ended", "starts"),
    [
        ("always", "failed", True, True),
        ("always", "stopped", True, True),
        ("on-failure", "failed", True, True),
        ("on-failure", "stopped", True, False),
        ("never", "failed", True, False),
        ("never", "stopped", False, True),
        ("never", "running", False, False),
        ("always", "unknown", False, False),
    ],
)
def test_restart_policies(policy: str, status: str, ended: bool, starts: bool) -> None:
    wanted = plan.Wanted("m", "r/m:1", restart_policy=policy)
    exit_status = {"exitStatus": {"exitTime": "2026-01-01T00:00:00Z", "statusCode": "1"}} if ended else {}
    there = {"m": running(wanted, runtimeStatus={"status": status}, **exit_status)}
    backoffs: dict[str, plan.Backoff] = {}
    assert plan.steps([wanted], there, backoffs, 0) == [], "not at once"
    assert bool(plan.steps([wanted], there, backoffs, 10)) == starts


def test_pauses_grow() -> None:
    backoff, now, times = plan.Backoff(), 0.0, []
    while len(times) < 7:
        if backoff.went_down(now):
            times.append(now)
        now += 1
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert [times[0], *gaps] == [10, 21, 41, 81, 161, 301, 301]


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
