# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods as the API server tells them, in the words of IoT Edge."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from edgeha_runtime.daemon import pods
from edgeha_runtime.daemon.manifests import MODULE_ANNOTATION, SLOT_LABEL
from edgeha_runtime.daemon.pods import NOT_STARTED, Board, Ended, Status
from hypothesis import given
from hypothesis import strategies as st
from lightkube.models.core_v1 import Pod

CREATED = "2026-03-01T10:00:00Z"
STARTED = "2026-03-01T10:00:05Z"
ENDED = "2026-03-01T10:01:07Z"
PULL = 'Back-off pulling image "r/m:1"'
BACK_OFF = "back-off 10s restarting failed container=module pod=gw-m-1_ns"


def of_container(name: str, state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "image": "i",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": state,
        "lastState": {},
    } | more


SIDECAR = of_container("workload-proxy", {"running": {"startedAt": CREATED}}, started=True)
RUNNING = of_container("module", {"running": {"startedAt": STARTED}}, started=True)
CREATING = of_container("module", {"waiting": {"reason": "ContainerCreating"}}, started=False)
BEHIND = of_container("module", {"waiting": {"reason": "PodInitializing"}}, started=False)


def terminated(code: int, **more: Any) -> dict[str, Any]:
    reason = "Error" if code else "Completed"
    return {
        "terminated": {"exitCode": code, "reason": reason, "startedAt": STARTED, "finishedAt": ENDED} | more
    }


def crash_loop(code: int, **more: Any) -> dict[str, Any]:
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": BACK_OFF}}
    return of_container("module", waiting, restartCount=3, lastState=terminated(code, **more), started=False)


def sent(
    own: dict[str, Any] | None = RUNNING,
    *,
    name: str = "gw-m-1",
    sidecar: dict[str, Any] | None = SIDECAR,
    created: str = CREATED,
    going: bool = False,
    conditions: list[dict[str, str]] | None = None,
    annotations: dict[str, str] | None = None,
    slot: str = "a",
    phase: str = "Pending",
    restarts: str = "Always",
) -> Any:
    """A Pod as the API server sends it; restarts: its restartPolicy."""
    metadata = {
        "name": name,
        "uid": f"uid of {name}",
        "creationTimestamp": created,
        "annotations": {MODULE_ANNOTATION: "m"} if annotations is None else annotations,
        "labels": {SLOT_LABEL: slot},
    }
    if going:
        metadata["deletionTimestamp"] = ENDED
    status: dict[str, Any] = {"phase": phase, "conditions": conditions or []}
    if own:
        status["containerStatuses"] = [own]
    if sidecar:
        status["initContainerStatuses"] = [sidecar]
    spec = {
        "nodeName": "node-a",
        "containers": [{"name": "module"}],
        "restartPolicy": restarts,
        "terminationGracePeriodSeconds": 10,
    }
    return Pod.from_dict({"metadata": metadata, "spec": spec, "status": status})


def status(*found: Any, running: bool = True, ended: Ended | None = None) -> Status:
    """How a module with these pods is; ended: how its run ended, as it was noted."""
    board = Board("a")
    for pod in found:
        board.put("ADDED", pod)
    return pods.status(board.of("m"), running=running, ended=ended)


def told(*found: Any, running: bool = True, ended: Ended | None = None) -> dict[str, Any]:
    """The contract's Status for a module with these pods."""
    return status(*found, running=running, ended=ended).document()


def state(*found: Any, running: bool = True, ended: Ended | None = None) -> tuple[str, str]:
    known = status(*found, running=running, ended=ended)
    return known.status, known.description


def test_a_running_module_is_told_with_its_start() -> None:
    assert told(sent()) == {"runtimeStatus": {"status": "running"}, "startTime": STARTED}


def test_a_module_that_runs_again_tells_how_it_ended_before() -> None:
    found = told(sent(RUNNING | {"lastState": terminated(139)}))
    assert found["runtimeStatus"] == {"status": "running"}
    assert found["exitStatus"] == {"exitTime": ENDED, "statusCode": "139"}


def test_a_pod_on_its_way_is_unknown_and_says_where_it_stands() -> None:
    assert state() == ("unknown", "its pod is not there yet")
    assert state(sent(None, sidecar=None)) == ("unknown", "its pod starts")
    creating = SIDECAR | {"state": {"waiting": {"reason": "PodInitializing"}}, "started": False}
    assert state(sent(CREATING, sidecar=creating)) == ("unknown", "ContainerCreating")


def test_what_is_on_its_way_is_told_as_running_without_a_start() -> None:
    # A stock edgeAgent does nothing at all any more while one module that shall run is unknown.
    running = {"runtimeStatus": {"status": "running", "description": "its pod is not there yet"}}
    assert told() == running
    assert told(sent(CREATING)) == {
        "runtimeStatus": {"status": "running", "description": "ContainerCreating"}
    }
    going = told(sent(RUNNING | {"lastState": terminated(3)}, going=True))
    assert going["runtimeStatus"] == {"status": "running", "description": "its pod is being replaced"}
    assert "startTime" not in going
    assert going["exitStatus"]["statusCode"] == "3"


def test_what_cannot_start_has_an_exit_from_which_edge_agent_counts_its_pauses() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": PULL}}
    exited = {"exitTime": CREATED, "statusCode": str(NOT_STARTED)}
    found = told(sent(of_container("module", waiting)))
    assert (found["runtimeStatus"]["status"], found["exitStatus"]) == ("failed", exited)
    assert NOT_STARTED == 125
    assert "startTime" not in found
    # One that ran before tells its own.
    again = told(sent(of_container("module", waiting, lastState=terminated(2))))
    assert again["exitStatus"] == {"exitTime": ENDED, "statusCode": "2"}
    # And where something else keeps its pod from starting.
    refused = pods.Trouble("no volume", lasting=True)
    pod = pods.view(sent(CREATING))
    assert pod is not None
    found = pods.status([pod], running=True, trouble=refused).document()
    assert (found["runtimeStatus"]["status"], found["exitStatus"]) == ("failed", exited)


def test_a_module_behind_its_sidecar_waits_for_the_daemon() -> None:
    found = sent(BEHIND, sidecar=SIDECAR | {"started": False})
    assert state(found) == ("unknown", "workload-proxy waits for the daemon")


def test_an_image_that_cannot_be_pulled_is_a_failure_with_its_reason() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": PULL}}
    assert state(sent(of_container("module", waiting))) == ("failed", f"ImagePullBackOff: {PULL}")
    found = sent(BEHIND, sidecar=of_container("workload-proxy", waiting, started=False))
    assert state(found) == ("failed", f"workload-proxy: ImagePullBackOff: {PULL}")


@pytest.mark.parametrize("reason", sorted(pods.IMAGE_REASONS))
def test_an_image_that_nobody_may_use_is_a_failure_too(reason: str) -> None:
    waiting = {"waiting": {"reason": reason, "message": "said"}}
    assert state(sent(of_container("module", waiting))) == ("failed", f"{reason}: said")
    assert "SignatureValidationFailed" in pods.IMAGE_REASONS


def test_a_sidecar_that_crashes_is_told_but_no_failure_of_the_module() -> None:
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    found = sent(BEHIND, sidecar=of_container("workload-proxy", waiting, started=False))
    assert state(found) == ("unknown", "workload-proxy: CrashLoopBackOff: back-off")


def test_a_module_that_ended_with_an_error_failed_while_it_waits_for_its_restart() -> None:
    found = told(sent(crash_loop(1, message="no broker\n")))
    assert found == {
        "runtimeStatus": {"status": "failed", "description": f"CrashLoopBackOff: {BACK_OFF}: no broker"},
        "startTime": STARTED,
        "exitStatus": {"exitTime": ENDED, "statusCode": "1"},
    }


def test_a_module_that_ended_by_itself_is_stopped() -> None:
    ended = {"exitTime": ENDED, "statusCode": "0"}
    at_once = told(sent(of_container("module", terminated(0))))
    assert at_once == {
        "runtimeStatus": {"status": "stopped", "description": "Completed"},
        "startTime": STARTED,
        "exitStatus": ended,
    }
    waiting = told(sent(crash_loop(0)))
    assert waiting["runtimeStatus"]["status"] == "stopped"
    assert waiting["exitStatus"] == ended


def test_a_container_whose_end_nobody_saw_ended_in_1970() -> None:
    lost = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "finishedAt": None}}
    found = told(sent(of_container("module", lost)))
    assert found["exitStatus"] == {"exitTime": "1970-01-01T00:00:00Z", "statusCode": "137"}


def test_a_pod_that_no_node_takes_failed_with_the_schedulers_reason() -> None:
    no_node = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient memory.",
    }
    assert state(sent(None, sidecar=None, conditions=[no_node])) == (
        "failed",
        "no node for it: 0/3 nodes are available: 3 Insufficient memory.",
    )


def test_a_running_pod_that_is_being_deleted_is_no_running_module() -> None:
    assert state(sent(going=True)) == ("unknown", "its pod is being replaced")


@pytest.mark.parametrize(("given", "counts"), [(None, 10.0), (300, 300.0), (2, 2.0), (0, 0.0)])
def test_a_pod_that_goes_has_the_time_that_who_deleted_it_gave(given: int | None, counts: float) -> None:
    found = sent(going=True)
    found.metadata.deletionGracePeriodSeconds = given
    assert seen(found).grace == counts
    assert seen(sent()).grace == 10.0, "its own, while it stays"


def test_a_stopped_module_runs_until_its_pod_has_ended() -> None:
    assert state(running=False) == ("stopped", "")
    assert state(sent(going=True), running=False) == ("running", "")
    found = told(sent(of_container("module", terminated(137)), going=True), running=False)
    assert found == {
        "runtimeStatus": {"status": "stopped"},
        "startTime": STARTED,
        "exitStatus": {"exitTime": ENDED, "statusCode": "137"},
    }


def finished(code: int = 0, *, phase: str = "", **more: Any) -> Any:
    """A pod of edgeAgent's whose module ended."""
    own = of_container("module", terminated(code, **more.pop("ended", {})))
    return sent(own, phase=phase or ("Failed" if code else "Succeeded"), **{"restarts": "Never"} | more)


def seen(found: Any) -> pods.Pod:
    pod = pods.view(found)
    assert pod is not None
    return pod


@pytest.mark.parametrize(("code", "called"), [(0, "stopped"), (3, "failed")])
def test_a_run_that_ended_is_told_alike_with_its_pod_and_without(code: int, called: str) -> None:
    pod = seen(finished(code))
    assert (pod.finished, pod.lost, pod.waits) == (True, False, False)
    expected = told(finished(code))
    assert expected["runtimeStatus"]["status"] == called
    assert expected["startTime"] == STARTED
    assert expected["exitStatus"] == {"exitTime": ENDED, "statusCode": str(code)}
    noted = pod.ended
    assert told(finished(code), ended=noted) == expected
    assert told(finished(code, going=True), ended=noted) == expected, "its pod may go"
    assert told(ended=noted) == expected
    # Its next pod is on its way, however the one before ended.
    later = "2026-03-01T11:00:00Z"
    assert state(sent(CREATING, name="gw-m-2", created=later), ended=noted)[0] == "unknown"
    stopped = told(running=False, ended=noted)
    assert (stopped["runtimeStatus"], stopped["exitStatus"]) == (
        {"status": "stopped"},
        expected["exitStatus"],
    )


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ("evicted", finished(137, conditions=[{"type": "DisruptionTarget", "status": "True"}])),
        ("its machine was away", finished(137, ended={"reason": "ContainerStatusUnknown"})),
        ("its runtime was away", finished(255, ended={"reason": "Unknown"})),
        ("refused by the kubelet", sent(None, sidecar=None, phase="Failed", restarts="Never")),
        ("the kubelet's to start again", finished(3, restarts="Always")),
    ],
)
def test_what_was_taken_from_a_module_is_no_end_of_it(how: str, found: Any) -> None:
    pod = seen(found)
    assert (how, pod.finished, pod.lost) == (how, True, True)
    assert state(found) == ("unknown", "its pod is being replaced")


def test_a_disruption_that_did_not_come_and_an_end_before_the_pods_are_no_loss() -> None:
    spared = finished(3, conditions=[{"type": "DisruptionTarget", "status": "False"}])
    assert not seen(spared).lost
    # The sidecar still runs, and so may what the module left behind.
    ending = sent(of_container("module", terminated(0)), phase="Running", restarts="Never")
    assert not seen(ending).finished


def test_an_end_is_on_disk_what_it_was() -> None:
    for ended in (seen(finished(3)).ended, Ended(0, datetime(2026, 3, 1, tzinfo=UTC))):
        assert ended is not None
        assert Ended.of(json.loads(json.dumps(ended.document()))) == ended


def test_the_pod_that_stays_counts_and_not_the_one_that_goes() -> None:
    later = "2026-03-01T11:00:00Z"
    old = sent(name="gw-m-1", going=True)
    assert state(old, sent(CREATING, name="gw-m-2", created=later)) == ("unknown", "ContainerCreating")
    again = of_container("module", {"running": {"startedAt": later}})
    assert told(old, sent(again, name="gw-m-2", created=later))["startTime"] == later


def test_of_pods_that_stay_the_running_one_counts_and_then_the_newest() -> None:
    later = "2026-03-01T11:00:00Z"
    evicted = sent(None, name="gw-m-1", sidecar=None, created=later)
    assert state(evicted, sent(name="gw-m-2")) == ("running", "")
    crashed = sent(crash_loop(1), name="gw-m-1")
    assert state(crashed, sent(CREATING, name="gw-m-2", created=later)) == ("unknown", "ContainerCreating")


def test_long_texts_are_cut() -> None:
    found = pods.view(sent(crash_loop(1, message="x" * 2000)))
    assert found is not None
    started = datetime(2026, 3, 1, 10, 0, 5, tzinfo=UTC)
    assert found.ended == Ended(1, datetime(2026, 3, 1, 10, 1, 7, tzinfo=UTC), "x" * 512, started)
    assert len(state(sent(crash_loop(1, message="x" * 2000)))[1]) == 512


def test_a_pod_of_no_module_is_not_seen() -> None:
    assert pods.view(sent(annotations={})) is None
    assert pods.view(Pod.from_dict({"metadata": {"name": "p"}})) is None


def test_the_board_follows_the_watch() -> None:
    board = Board("a")
    board.put("ADDED", sent(CREATING))
    board.put("MODIFIED", sent())
    board.put("ADDED", sent(name="gw-n-1", annotations={MODULE_ANNOTATION: "n"}))
    board.put("ADDED", sent(name="other", annotations={"a": "b"}))
    standby = board.put("ADDED", sent(name="standby", slot="b"))
    assert (standby.slot if standby else "") == "b"
    (found,) = board.of("m")
    assert (found.name, found.node, found.module) == ("gw-m-1", "node-a", "m")
    assert found.started == datetime(2026, 3, 1, 10, 0, 5, tzinfo=UTC)
    board.put("DELETED", sent(name="never-seen"))
    deleted = board.put("DELETED", sent())
    assert (deleted.uid if deleted else "") == "uid of gw-m-1"
    assert board.of("m") == []
    assert sorted(pod.name for pod in board.all()) == ["gw-n-1", "standby"]
    assert [pod.name for pod in board.keep({"gw-x-1", "standby"})] == ["gw-n-1"]
    assert board.of("n") == []
    assert [pod.name for pod in board.all()] == ["standby"]


STATES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.just({"running": {"startedAt": STARTED}}),
    st.sampled_from([0, 1, 137]).map(terminated),
    st.fixed_dictionaries(
        {}, optional={"reason": st.sampled_from(["ErrImagePull", "PodInitializing"]), "message": st.text()}
    ).map(lambda waiting: {"waiting": waiting}),
)


@pytest.mark.parametrize("running", [True, False])
@given(
    own=STATES,
    last=STATES,
    first=STATES,
    started=st.sampled_from([True, False, None]),
    going=st.booleans(),
    phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
    restarts=st.sampled_from(["Always", "Never"]),
    noted=st.sampled_from([None, seen(finished(0)).ended, seen(finished(3)).ended]),
)
def test_whatever_the_pod_the_status_is_one_of_the_contract(
    running: bool,
    own: dict[str, Any],
    last: dict[str, Any],
    first: dict[str, Any],
    started: bool | None,
    going: bool,
    phase: str,
    restarts: str,
    noted: Ended | None,
) -> None:
    pod = sent(
        of_container("module", own, lastState=last),
        sidecar=of_container("workload-proxy", first, started=started),
        going=going,
        phase=phase,
        restarts=restarts,
    )
    known = status(pod, running=running, ended=noted)
    found = known.document()
    assert known.status in {"running", "stopped", "failed", "unknown"}
    if known.status == "unknown":
        assert running
        assert found["runtimeStatus"]["status"] == "running"
        assert "startTime" not in found
    else:
        assert found["runtimeStatus"]["status"] == known.status
        assert ("startTime" in found) == bool(known.started or known.ended)
    if known.status == "failed":
        assert int(found["exitStatus"]["statusCode"]) > 0
