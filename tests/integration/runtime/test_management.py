# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What edgeAgent gets of a running daemon: modules that follow its word, states, logs, identities."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import signal
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from edgeha_runtime.daemon.keystore import DEPLOYMENT_FILE, KeyStore, Owner

from tests.integration.runtime.parts import AGENT, VERSION, Daemon, ask, spec, until
from tests.integration.runtime.standin_api import in_slot, plain

RESTARTS = "net.azure-devices.edge.restarts"


@pytest.fixture
async def managed(daemon: Daemon) -> Daemon:
    """A daemon with edgeAgent, which knows its identity and that of two modules; its hub is away."""
    daemon.state.mkdir()
    store = KeyStore.open(daemon.state, Owner("gw-1", daemon.hub))
    for name, generation in (("$edgeAgent", "1"), ("Sensor", "637"), ("other", "638")):
        store.remember(name, generation)
    store.keep_deployment({"identities": ["Sensor", "other"]})
    daemon.api.module_set(AGENT)
    for token, account in (("agent-token", "gw-edgeagent"), ("sensor-token", "gw-sensor")):
        daemon.api.tokens[token] = (f"system:serviceaccount:edge-gw:{account}", ["edgeha-gw"])
    await daemon.start()
    await until("ready from the cache", daemon.is_ready)
    return daemon


def placed(daemon: Daemon, name: str) -> dict[str, Any]:
    """The pod of a module in a slot (`gw-sensor-a`), which is there."""
    found = daemon.api.pod_of(name)
    assert found is not None, f"{name} has no pod"
    return found


def made(daemon: Daemon, name: str) -> dict[str, Any]:
    """What such a pod is to be."""
    found: dict[str, Any] = placed(daemon, name)["spec"]
    return found


def image(daemon: Daemon, name: str) -> str:
    """The image of the module in such a pod; empty while there is none."""
    found = daemon.api.pod_of(name)
    return str(found["spec"]["containers"][0]["image"]) if found else ""


def variables(daemon: Daemon, name: str) -> dict[str, str]:
    (container,) = made(daemon, name)["containers"]
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


async def test_on_the_nodes_network_a_module_gets_sockets_and_edge_agent_sees_what_it_said(
    managed: Daemon,
) -> None:
    given = spec("Sensor", createOptions={"HostConfig": {"NetworkMode": "host"}, "Labels": {"a": "b"}})
    given["config"]["env"] = [{"key": "IOTEDGE_WORKLOADURI", "value": "http://127.0.0.1:35001"}]
    await start(managed, given)
    assert variables(managed, "gw-sensor-a")["IOTEDGE_WORKLOADURI"] == "unix:///var/run/edgeha/workload.sock"
    status, shown = await ask(managed, "GET", "/modules/Sensor")
    assert status == 200
    assert shown["config"]["env"] == given["config"]["env"]
    assert shown["config"]["settings"] == given["config"]["settings"]


async def start(daemon: Daemon, given: dict[str, Any]) -> None:
    """Make a module and start it. It has its pod then."""
    name = given["name"]
    assert (await ask(daemon, "POST", "/modules", given))[0] == 201
    assert (await ask(daemon, "POST", f"/modules/{name}/start"))[0] == 204
    await until("its pod", lambda: f"gw-{name.lower()}-a" in daemon.api.placed())


def pod(daemon: Daemon, module: str, state: dict[str, Any], **status: Any) -> str:
    """What the kubelet tells of the module in its pod. Answers the pod's name."""
    found = placed(daemon, f"gw-{module.lower()}-a")
    own = {"name": "module", "image": "i", "imageID": "i", "ready": True, "restartCount": 0, "state": state}
    name = str(found["metadata"]["name"])
    daemon.api.put("pods", name, found | {"status": {**status, "containerStatuses": [own]}})
    return name


RUNS = {"running": {"startedAt": "2026-01-01T00:00:05Z"}}


async def test_edge_agent_starts_with_what_a_stock_one_wants(managed: Daemon) -> None:
    found = variables(managed, "gw-edgeagent-a")
    assert {name: found.get(name) for name in EXPECTED_OF_AGENT} == EXPECTED_OF_AGENT | {
        "IOTEDGE_IOTHUBHOSTNAME": managed.hub,
        "EdgeDeviceHostName": managed.hub,
    }
    # The first is for nested gateways only, the others for daemons with sockets and networks of Docker.
    assert not {"IOTEDGE_GATEWAYHOSTNAME", "IOTEDGE_WORKLOADLISTEN_MNTURI", "NetworkId"} & found.keys()
    given = managed.given("gw-edgeagent", "workload-proxy")
    assert given["EDGEHA_MANAGEMENT_URL"] == f"https://gw-daemon.edge-gw.svc:{managed.management_port}"
    assert given["EDGEHA_MANAGEMENT_LISTEN"] == "127.0.0.1:35000"


EXPECTED_OF_AGENT = {
    "EdgeDeviceHostName": "",
    "IOTEDGE_APIVERSION": "2022-08-03",
    "IOTEDGE_AUTHSCHEME": "sasToken",
    "IOTEDGE_DEVICEID": "gw-1",
    "IOTEDGE_IOTHUBHOSTNAME": "",
    "IOTEDGE_MANAGEMENTURI": "http://127.0.0.1:35000",
    "IOTEDGE_MODULEGENERATIONID": "1",
    "IOTEDGE_MODULEID": "$edgeAgent",
    "IOTEDGE_WORKLOADURI": "http://127.0.0.1:35001",
    "Mode": "iotedged",
}


async def test_a_module_is_made_started_stopped_updated_and_removed(managed: Daemon) -> None:
    given = spec("Sensor", createOptions={"Labels": {"net.azure-devices.edge.env": "{}"}, "Env": ["A=1"]})
    given["config"]["env"] = [
        {"key": "IOTEDGE_GATEWAYHOSTNAME", "value": "of-before.plant"},
        {"key": "IOTEDGE_WORKLOADURI", "value": "http://elsewhere"},
        {"key": "IOTEDGE_MODULEID", "value": "another"},
    ]
    status, details = await ask(managed, "POST", "/modules", given)
    assert (status, details["config"]) == (201, given["config"])
    assert details["status"]["runtimeStatus"]["status"] == "stopped"
    assert (await ask(managed, "POST", "/modules", given))[0] == 409
    await until("its objects", lambda: "gw-sensor" in managed.api.names("serviceaccounts"))
    await until("ready", managed.is_ready)
    assert managed.api.placed() == {"gw-edgeagent-a"}

    assert [await ask(managed, "POST", "/modules/Sensor/start") for _ in range(2)] == [(204, {}), (304, {})]
    await until("it runs", lambda: "gw-sensor-a" in managed.api.placed())
    found = variables(managed, "gw-sensor-a")
    assert found["A"] == "1"
    assert found["IOTEDGE_GATEWAYHOSTNAME"] == managed.hub, "a name of before is nobody's any more"
    assert found["IOTEDGE_WORKLOADURI"] == "http://127.0.0.1:35001", "the daemon knows where the API is"
    assert found["IOTEDGE_MODULEID"] == "Sensor", "nobody gets another one's name"

    assert (await ask(managed, "POST", "/modules/Sensor/restart"))[0] == 204

    def restarts() -> str | None:
        found = managed.api.pod_of("gw-sensor-a")
        return found["metadata"]["annotations"].get(RESTARTS) if found else None

    await until("it restarts", lambda: restarts() == "1")
    assert [await ask(managed, "POST", "/modules/Sensor/stop") for _ in range(2)] == [(204, {}), (304, {})]
    await until("it stops", lambda: "gw-sensor-a" not in managed.api.placed())

    given["config"]["settings"]["image"] = "r/sensor:2"
    assert (await ask(managed, "POST", "/modules/Sensor/prepareupdate", given))[0] == 204
    status, details = await ask(managed, "PUT", "/modules/Sensor", given, start="true")
    assert (status, details["config"]["settings"]["image"]) == (200, "r/sensor:2")
    await until("it runs again", lambda: image(managed, "gw-sensor-a") == "r/sensor:2")

    assert [(await ask(managed, "DELETE", "/modules/Sensor"))[0] for _ in range(2)] == [204, 404]
    await until("it is gone", lambda: "gw-sensor" not in managed.api.names("serviceaccounts"))
    assert managed.api.placed() == {"gw-edgeagent-a"}


async def test_after_a_kill_all_goes_on_and_nothing_is_made_again(managed: Daemon) -> None:
    for name in ("Sensor", "other"):
        assert (await ask(managed, "POST", "/modules", spec(name)))[0] == 201
        assert (await ask(managed, "POST", f"/modules/{name}/start"))[0] == 204
    assert (await ask(managed, "POST", "/modules/other/restart"))[0] == 204
    await until("both run", managed.is_ready)
    # What a kill cuts off is finished after it; here all has been done.
    wanted = {"r/agent:1", "r/sensor:1", "r/other:1"}
    await until("their images are kept", lambda: set(managed.kept_images()) == wanted)
    before, kept = await ask(managed, "GET", "/modules"), dict(managed.api.objects)
    await managed.stop(signal.SIGKILL)
    managed.api.writes.clear()
    (managed.folder / "daemon.log").write_text("")
    await managed.start()
    await until("ready from the cache", managed.is_ready)
    assert await ask(managed, "GET", "/modules") == before
    assert managed.api.objects == kept
    assert managed.api.writes == []


async def test_nobody_but_edge_agent_manages(managed: Daemon) -> None:
    assert (await ask(managed, "POST", "/modules", spec("Sensor")))[0] == 201
    for method, path in (("GET", "/modules"), ("POST", "/modules/Sensor/stop"), ("GET", "/identities/")):
        status, refused = await ask(managed, method, path, caller="sensor")
        assert status == 403
        assert "not edgeAgent" in refused["message"]
    assert (await ask(managed, "GET", "/modules", caller=""))[0] == 401
    line = next(line for line in managed.log if line["msg"] == "refused")
    assert (line["module"], line["status"]) == ("Sensor", 403)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": "m"}, "config is missing"),
    (spec("../m"), "no module id"),
    (spec("$edgeHub"), "names with $"),
    (spec("m", createOptions="{"), "createOptions is not JSON"),
    (spec("m", createOptions={"HostConfig": {"Foo": 1}}), "createOptions.HostConfig.Foo: no such option"),
    (spec("m", auth={"username": "u"}), "auth lacks serveraddress"),
    (spec("SENSOR"), "belongs to module Sensor too"),
    (spec("m") | {"type": "exe"}, "type is not docker"),
    (spec("m") | {"imagePullPolicy": "Always"}, "imagePullPolicy"),
]


async def test_what_cannot_run_is_refused_with_the_reason_and_changes_nothing(managed: Daemon) -> None:
    assert (await ask(managed, "POST", "/modules", spec("Sensor")))[0] == 201
    before = (managed.state / DEPLOYMENT_FILE).read_bytes()
    for document, reason in BAD:
        for path in ("/modules", f"/modules/{document['name'].replace('/', '%2F')}/prepareupdate"):
            status, refused = await ask(managed, "POST", path, document)
            assert status == 400, (path, document, refused)
            assert reason in refused["message"]
    assert (await ask(managed, "PUT", "/modules/nobody", spec("nobody")))[0] == 404
    status, refused = await ask(managed, "PUT", "/modules/Sensor", spec("other"))
    assert (status, "name is not Sensor" in refused["message"]) == (400, True)
    assert (managed.state / DEPLOYMENT_FILE).read_bytes() == before
    assert managed.process is not None
    assert managed.process.returncode is None


async def test_edge_agent_replaces_itself_until_the_chart_says_another_one(managed: Daemon) -> None:
    for method, path in (("POST", "/modules/edgeAgent/stop"), ("DELETE", "/modules/edgeAgent")):
        assert (await ask(managed, method, path))[0] == 409
    newer = spec("edgeAgent", image="r/agent:2")
    newer["config"]["env"] = [{"key": "IOTEDGE_MODULEID", "value": "$edgeAgent"}, {"key": "B", "value": "2"}]
    assert (await ask(managed, "PUT", "/modules/edgeAgent", newer, start="true"))[0] == 200

    def runs() -> str:
        return image(managed, "gw-edgeagent-a")

    await until("its new image", lambda: runs() == "r/agent:2")
    found = variables(managed, "gw-edgeagent-a")
    assert {name: found.get(name) for name in EXPECTED_OF_AGENT if EXPECTED_OF_AGENT[name]} == {
        name: value for name, value in EXPECTED_OF_AGENT.items() if value
    }
    assert found["B"] == "2"
    await managed.stop(signal.SIGKILL)
    (managed.folder / "daemon.log").write_text("")
    await managed.start()
    await until("ready", managed.is_ready)
    assert runs() == "r/agent:2"
    managed.api.module_set({**AGENT, "image": "r/agent:3"})
    await until("the chart's image", lambda: runs() == "r/agent:3")


async def test_edge_agent_comes_back_as_it_was_when_somebody_deletes_it(managed: Daemon) -> None:
    name = "gw-edgeagent-a"

    async def comes_back() -> None:
        before = placed(managed, name)
        managed.api.remove("pods", before["metadata"]["name"])
        await until("edgeAgent is back", lambda: name in managed.api.placed())
        after = placed(managed, name)
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        assert after["spec"] == before["spec"]
        await until("ready", managed.is_ready)

    await comes_back()
    # As it made itself anew, and not as the chart gives it.
    newer = spec("edgeAgent", image="r/agent:2")
    newer["config"]["env"] = [{"key": "B", "value": "2"}]
    assert (await ask(managed, "PUT", "/modules/edgeAgent", newer, start="true"))[0] == 200
    await until("its own update", lambda: image(managed, name) == "r/agent:2")
    await comes_back()
    assert {"B", "IOTEDGE_MANAGEMENTURI"} < variables(managed, "gw-edgeagent-a").keys()


async def test_without_edge_agent_its_modules_go_and_come_back_with_it(managed: Daemon) -> None:
    await start(managed, spec("Sensor"))
    managed.api.module_set()
    await until("nothing is left", lambda: managed.api.placed() == set())
    managed.api.module_set(AGENT)
    await until("all is back", lambda: "gw-sensor-a" in managed.api.placed())


async def shown(daemon: Daemon, name: str) -> dict[str, Any]:
    """The Status of a module. Both ways to ask for it keep to the words that edgeAgent can live with."""
    (status, one), (_status, found) = [
        await ask(daemon, "GET", path) for path in (f"/modules/{name}", "/modules")
    ]
    assert status == 200
    states = {module["name"]: module["status"] for module in found["modules"]}
    words = {state["runtimeStatus"]["status"] for state in (one["status"], *states.values())}
    assert words <= {"running", "stopped", "failed"}, "edgeAgent fails as a whole at another word"
    return dict(one["status"])


async def becomes(daemon: Daemon, name: str, word: str, description: str = "") -> dict[str, Any]:
    """Wait until a module is told so. Answers its Status."""
    runtime = {"status": word} | ({"description": description} if description else {})

    async def told() -> dict[str, Any] | None:
        found = await shown(daemon, name)
        return found if found["runtimeStatus"] == runtime else None

    found: dict[str, Any] = await until(f"{name} is {word} {description}", told)
    return found


async def test_states_are_those_of_the_pods(managed: Daemon) -> None:
    for name in ("Sensor", "other"):
        await start(managed, spec(name))
    on_its_way = {"runtimeStatus": {"status": "running", "description": "its pod starts"}}
    assert await becomes(managed, "Sensor", "running", "its pod starts") == on_its_way
    pod(managed, "Sensor", RUNS)
    pull = {"reason": "ImagePullBackOff", "message": "no such image r/other:1"}
    pod(managed, "other", {"waiting": pull})
    assert await becomes(managed, "Sensor", "running") == {
        "runtimeStatus": {"status": "running"},
        "startTime": "2026-01-01T00:00:05Z",
    }
    told = await becomes(managed, "other", "failed", "ImagePullBackOff: no such image r/other:1")
    # From there edgeAgent counts how long it waits before it starts it once more.
    kept = json.loads((managed.state / DEPLOYMENT_FILE).read_text())["deployment"]["modules"]["other"]
    assert told["exitStatus"]["statusCode"] == "125"
    asked = datetime.fromisoformat(kept["since"])
    assert datetime.fromisoformat(told["exitStatus"]["exitTime"]) == asked
    assert "startTime" not in told
    before = placed(managed, "gw-sensor-a")["metadata"]
    managed.api.remove("pods", before["name"])
    assert await becomes(managed, "Sensor", "running", "its pod starts") == on_its_way, "its end is seen"


def ended(code: int, **more: Any) -> dict[str, Any]:
    """A container that ended with this code."""
    at = {"startedAt": "2026-01-01T00:00:05Z", "finishedAt": "2026-01-01T00:01:00Z"}
    return {"terminated": {"exitCode": code, **at, **more}}


def told_end(code: int) -> dict[str, Any]:
    """What is told of a module that ended so, besides its state."""
    exit_status = {"exitTime": "2026-01-01T00:01:00Z", "statusCode": str(code)}
    return {"startTime": "2026-01-01T00:00:05Z", "exitStatus": exit_status}


def pods(daemon: Daemon, name: str) -> list[str]:
    """The uids of the pods of a module in a slot (`gw-sensor-a`)."""
    return [
        found["metadata"]["uid"]
        for (kind, full), found in daemon.api.objects.items()
        if kind == "pods" and in_slot(full) == name
    ]


async def another(daemon: Daemon, name: str, before: list[str]) -> None:
    """Wait for the one pod that comes in place of these."""
    await until("another pod", lambda: pods(daemon, name) not in ([], before))
    await until("ready", daemon.is_ready)
    assert len(pods(daemon, name)) == 1
    assert not set(pods(daemon, name)) & set(before)


async def killed(daemon: Daemon) -> None:
    """Kill the daemon. It can be started again."""
    await daemon.stop(signal.SIGKILL)
    (daemon.folder / "daemon.log").write_text("")
    daemon.api.writes.clear()


ENDS = [
    # Code, what the kubelet calls the pod, what edgeAgent is told.
    (0, "Succeeded", "stopped"),
    (3, "Failed", "failed"),
]


@pytest.mark.parametrize(("code", "phase", "word"), ENDS)
async def test_a_module_that_ends_gets_no_other_pod_until_edge_agent_starts_it(
    managed: Daemon, code: int, phase: str, word: str
) -> None:
    await start(managed, spec("Sensor"))
    pod(managed, "Sensor", RUNS)
    await becomes(managed, "Sensor", "running")
    pod(managed, "Sensor", ended(code), phase=phase)
    before = pods(managed, "gw-sensor-a")
    runtime = {"runtimeStatus": {"status": word}}
    assert await becomes(managed, "Sensor", word) == runtime | told_end(code)
    # It is ready once it looked at the module after it saw the end.
    await until("ready", managed.is_ready)
    assert pods(managed, "gw-sensor-a") == before

    assert [await ask(managed, "POST", "/modules/Sensor/start") for _ in range(2)] == [(204, {}), (304, {})]
    await another(managed, "gw-sensor-a", before)
    assert await becomes(managed, "Sensor", "running", "its pod starts") == {
        "runtimeStatus": {"status": "running", "description": "its pod starts"}
    }

    # While it runs, and once it ended.
    for state, more in ((RUNS, {}), (ended(code), {"phase": phase})):
        pod(managed, "Sensor", state, **more)
        await becomes(managed, "Sensor", word if more else "running")
        before = pods(managed, "gw-sensor-a")
        for what in ("stop", "start"):
            assert (await ask(managed, "POST", f"/modules/Sensor/{what}"))[0] == 204
        await another(managed, "gw-sensor-a", before)


@pytest.mark.parametrize(("code", "phase", "word"), ENDS)
async def test_a_module_that_ended_stays_so_whatever_becomes_of_the_daemon_and_of_its_pod(
    managed: Daemon, code: int, phase: str, word: str
) -> None:
    await start(managed, spec("Sensor"))
    pod(managed, "Sensor", RUNS)
    await becomes(managed, "Sensor", "running")
    told = {"runtimeStatus": {"status": word}} | told_end(code)
    before = pods(managed, "gw-sensor-a")

    async def stays(there: list[str]) -> None:
        # Until it saw the module set it knows no caller.
        await until("ready", managed.is_ready)
        assert await becomes(managed, "Sensor", word) == told
        assert pods(managed, "gw-sensor-a") == there
        assert not [name for _method, name in managed.api.writes if name.startswith("pods/")]

    # It ends while there is no daemon.
    await killed(managed)
    pod(managed, "Sensor", ended(code), phase=phase)
    managed.api.writes.clear()
    await managed.start()
    await stays(before)
    await killed(managed)
    await managed.start()
    await stays(before)
    # Now it stands in the daemon's own file alone.
    await killed(managed)
    managed.api.remove("pods", pod_name(managed))
    managed.api.writes.clear()
    await managed.start()
    await stays([])
    assert (await ask(managed, "POST", "/modules/Sensor/start"))[0] == 204
    await another(managed, "gw-sensor-a", before)
    # The same with a daemon that looks on.
    pod(managed, "Sensor", ended(code), phase=phase)
    await becomes(managed, "Sensor", word)
    await until("ready", managed.is_ready)
    managed.api.remove("pods", pod_name(managed))
    managed.api.writes.clear()
    # What comes later is done later.
    await start(managed, spec("other"))
    await until("ready", managed.is_ready)
    assert managed.api.placed() == {"gw-edgeagent-a", "gw-other-a"}
    assert await shown(managed, "Sensor") == told


LOST: list[tuple[dict[str, Any], dict[str, Any]]] = [
    # Ended by the kubelet: whatever code it ended with then, that was no end of its own.
    (ended(137), {"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True"}]}),
    (ended(0), {"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True"}]}),
    # Its machine was gone.
    (ended(137, reason="ContainerStatusUnknown"), {"phase": "Failed"}),
    # Evicted before it started.
    ({"waiting": {"reason": "ContainerCreating"}}, {"phase": "Failed", "reason": "Evicted"}),
]


@pytest.mark.parametrize(
    ("state", "status"), LOST, ids=["evicted", "evicted with 0", "lost with its machine", "never ran"]
)
async def test_a_pod_that_is_taken_from_a_module_is_made_anew(
    managed: Daemon, state: dict[str, Any], status: dict[str, Any]
) -> None:
    await start(managed, spec("Sensor"))
    # It has been there for long; one that is lost at once waits a little.
    placed(managed, "gw-sensor-a")["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    pod(managed, "Sensor", RUNS)
    await becomes(managed, "Sensor", "running")
    before = pods(managed, "gw-sensor-a")
    pod(managed, "Sensor", state, **status)
    await another(managed, "gw-sensor-a", before)
    assert await shown(managed, "Sensor") == {
        "runtimeStatus": {"status": "running", "description": "its pod starts"}
    }, "nothing of it is an end"


async def test_a_pod_that_somebody_deletes_is_made_anew_once_it_is_gone(managed: Daemon) -> None:
    await start(managed, spec("Sensor"))
    pod(managed, "Sensor", RUNS)
    await becomes(managed, "Sensor", "running")
    before = pods(managed, "gw-sensor-a")
    found = placed(managed, "gw-sensor-a")
    soon = datetime.now(UTC) + timedelta(seconds=30)
    going = {**found["metadata"], "deletionTimestamp": f"{soon:%Y-%m-%dT%H:%M:%SZ}"}
    managed.api.put("pods", pod_name(managed), found | {"metadata": going})
    told = await becomes(managed, "Sensor", "running", "its pod is being replaced")
    assert "startTime" not in told

    async def waits() -> bool:
        return "module Sensor: the pod before it still ends" in (await managed.ready())[1]

    await until("it waits", waits)
    # The daemon looked at all modules once it came to the other one again.
    await start(managed, spec("other"))
    assert (await ask(managed, "POST", "/modules/other/stop"))[0] == 204
    await until("the other stops", lambda: "gw-other-a" not in managed.api.placed())
    assert pods(managed, "gw-sensor-a") == before, "two at a time would be two clients with one identity"
    managed.api.remove("pods", pod_name(managed))
    await another(managed, "gw-sensor-a", before)


async def test_at_no_time_edge_agent_is_told_a_word_that_it_cannot_live_with(managed: Daemon) -> None:
    # `shown` and `becomes` look at each answer for it.
    managed.api.refused["gw-sensor-a"] = "no quota"
    assert (await ask(managed, "POST", "/modules", spec("Sensor")))[0] == 201
    await becomes(managed, "Sensor", "stopped")
    assert (await ask(managed, "POST", "/modules/Sensor/start"))[0] == 204
    await becomes(managed, "Sensor", "failed", "its pod is not made: API server: no quota (403)")
    managed.api.refused.clear()
    await becomes(managed, "Sensor", "running", "its pod starts")
    for reason in ("PodInitializing", "ContainerCreating"):
        pod(managed, "Sensor", {"waiting": {"reason": reason}}, phase="Pending")
        await shown(managed, "Sensor")
    pod(managed, "Sensor", RUNS, phase="Running")
    await becomes(managed, "Sensor", "running")
    # One that is made anew at once waits a little.
    state, status = LOST[0]
    pod(managed, "Sensor", state, **status)
    told = await becomes(managed, "Sensor", "running", "its pod is being replaced")
    assert "startTime" not in told
    assert (await ask(managed, "POST", "/modules/Sensor/stop"))[0] == 204
    await becomes(managed, "Sensor", "stopped")


async def test_why_a_module_has_no_pod_or_no_volume_is_its_state(managed: Daemon) -> None:
    managed.api.refused["gw-sensor-a"] = "no quota"
    for name in ("Sensor", "other"):
        assert (await ask(managed, "POST", "/modules", spec(name)))[0] == 201
        assert (await ask(managed, "POST", f"/modules/{name}/start"))[0] == 204

    async def state(name: str) -> tuple[str, str]:
        runtime = (await shown(managed, name))["runtimeStatus"]
        return runtime["status"], runtime.get("description", "")

    async def is_told(name: str, said: str) -> bool:
        return await state(name) == ("failed", said) and f"module {name}: " in (await managed.ready())[1]

    await until("no pod", lambda: is_told("Sensor", "its pod is not made: API server: no quota (403)"))
    managed.api.put("persistentvolumeclaims", "gw-volume-d", {"status": {"phase": "Pending"}})
    about = {"kind": "PersistentVolumeClaim", "name": "gw-volume-d"}
    for number, (kind, reason) in enumerate([("Warning", "ProvisioningFailed"), ("Normal", "WaitForPod")]):
        event = {"involvedObject": about, "type": kind, "reason": reason, "message": "no class fast"}
        managed.api.put("events", f"e{number}", event)
    await until("the other's pod", lambda: "gw-other-a" in managed.api.placed())
    found = managed.api.objects[("pods", pod(managed, "other", {"waiting": {"reason": "ContainerCreating"}}))]
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "gw-volume-d"}}
    managed.api.put(
        "pods", found["metadata"]["name"], found | {"spec": {**found["spec"], "volumes": [volume]}}
    )
    said = "its claim gw-volume-d cannot be bound: ProvisioningFailed: no class fast"
    await until("no volume", lambda: is_told("other", said))
    managed.api.refused.clear()
    managed.api.put("persistentvolumeclaims", "gw-volume-d", {"status": {"phase": "Bound"}})
    await until("all is well", managed.is_ready)
    assert "gw-sensor-a" in managed.api.placed()


def frames(raw: bytes) -> list[str]:
    """Lines in Docker's frames, as edgeAgent takes them apart."""
    found = []
    while raw:
        assert raw[:4] == b"\x01\0\0\0"
        length = int.from_bytes(raw[4:8], "big")
        found.append(raw[8 : 8 + length].decode())
        raw = raw[8 + length :]
    return found


async def test_logs(managed: Daemon) -> None:
    await ask(managed, "POST", "/modules", spec("Sensor"))

    async def log(**query: str) -> list[str]:
        async with (
            managed.management("agent-token") as session,
            session.get("/modules/Sensor/logs", params=VERSION | query) as answer,
        ):
            assert answer.status == 200, await answer.text()
            return frames(await answer.read())

    assert await log() == [], "no pod, no lines"
    assert (await ask(managed, "POST", "/modules/Sensor/start"))[0] == 204
    await until("its pod", lambda: "gw-sensor-a" in managed.api.placed())
    lines = [f"2026-01-01T00:00:0{n}.5Z line {n}" for n in range(1, 6)]
    managed.api.logs[pod(managed, "Sensor", RUNS)] = lines

    async def there() -> bool:
        return bool(await log())

    await until("the pod is seen", there)
    assert await log() == [f"line {n}\n" for n in range(1, 6)]
    assert await log(tail="2", timestamps="true") == [
        "2026-01-01T00:00:04.5Z line 4\n",
        "2026-01-01T00:00:05.5Z line 5\n",
    ]
    assert await log(since="2026-01-01T00:00:03Z", until="2026-01-01T00:00:05Z") == ["line 3\n", "line 4\n"]
    assert await log(until="2026-01-01T00:00:04Z", tail="1") == ["line 3\n"]
    for wrong in ({"tail": "x"}, {"since": "yesterday"}, {"follow": "7"}):
        assert (await ask(managed, "GET", "/modules/Sensor/logs", **wrong))[0] == 400
    assert (await ask(managed, "GET", "/modules/nobody/logs"))[0] == 404

    async with (
        managed.management("agent-token") as session,
        session.get("/modules/Sensor/logs", params=VERSION | {"follow": "true", "tail": "1"}) as answer,
    ):
        first = await asyncio.wait_for(answer.content.readexactly(8 + len("line 5\n")), 10)
        assert frames(first) == ["line 5\n"]
        managed.api.log_end.set()
        assert frames(await asyncio.wait_for(answer.read(), 10)) == ["last\n"]


async def test_a_client_that_leaves_a_followed_log_costs_nothing(managed: Daemon) -> None:
    await start(managed, spec("Sensor"))
    managed.api.logs[pod(managed, "Sensor", RUNS)] = ["2026-01-01T00:00:01Z line"]
    await becomes(managed, "Sensor", "running")
    for _ in range(3):
        async with (
            managed.management("agent-token") as session,
            session.get("/modules/Sensor/logs", params=VERSION | {"follow": "true"}) as answer,
        ):
            await asyncio.wait_for(answer.content.readany(), 10)
    assert (await ask(managed, "GET", "/modules"))[0] == 200
    assert not [line for line in managed.log if line["level"] == "error"]


@pytest.fixture
async def logging(managed: Daemon) -> Daemon:
    """A daemon whose module Sensor has a pod that runs."""
    await start(managed, spec("Sensor"))
    pod(managed, "Sensor", RUNS)
    await becomes(managed, "Sensor", "running")
    return managed


def pod_name(daemon: Daemon) -> str:
    """Name of the pod of Sensor."""
    return str(placed(daemon, "gw-sensor-a")["metadata"]["name"])


async def test_a_quiet_log_is_followed_until_its_reader_leaves(logging: Daemon) -> None:
    async with (
        logging.management("agent-token") as session,
        session.get("/modules/Sensor/logs", params=VERSION | {"follow": "true"}) as answer,
    ):
        assert (answer.status, logging.api.followers) == (200, 1), "it is told before there is a line"
    await until("nobody follows the pod any more", lambda: logging.api.followers == 0)
    async with (
        logging.management("agent-token") as session,
        session.get("/modules/Sensor/logs", params=VERSION | {"follow": "true"}) as answer,
    ):
        logging.api.log_end.set()
        assert frames(await asyncio.wait_for(answer.read(), 10)) == ["last\n"]
    assert not [line for line in logging.log if "exception" in line]


async def test_a_log_goes_out_while_it_comes_in(logging: Daemon) -> None:
    lines = [f"line {number:05} {'x' * 1000}\n" for number in range(5000)]
    logging.api.logs[pod_name(logging)] = [f"2026-01-01T00:00:01Z {line[:-1]}" for line in lines]
    logging.api.log_halts = True
    async with (
        logging.management("agent-token") as session,
        session.get("/modules/Sensor/logs", params=VERSION) as answer,
    ):
        first = await asyncio.wait_for(answer.content.readexactly(8 + len(lines[0])), 10)
        assert frames(first) == lines[:1], "the cluster's API has not sent the rest"
        logging.api.log_end.set()
        assert frames(await asyncio.wait_for(answer.read(), 60)) == lines[1:]


@pytest.mark.parametrize("query", [{}, {"follow": "true"}])
async def test_half_a_log_does_not_look_like_a_whole_one(logging: Daemon, query: dict[str, str]) -> None:
    logging.api.logs[pod_name(logging)] = ["2026-01-01T00:00:01Z line"]
    logging.api.log_cut = True
    async with (
        logging.management("agent-token") as session,
        session.get("/modules/Sensor/logs", params=VERSION | query) as answer,
    ):
        assert frames(await asyncio.wait_for(answer.content.readexactly(8 + len("line\n")), 10)) == ["line\n"]
        with pytest.raises(aiohttp.ClientPayloadError):
            await asyncio.wait_for(answer.read(), 10)
    assert [line["module"] for line in logging.log if line["msg"] == "log cut"] == ["Sensor"]
    assert not [line for line in logging.log if "exception" in line]


async def test_a_log_that_cannot_be_had_is_an_error_of_the_contract(logging: Daemon) -> None:
    logging.api.log_refused = True
    for query in ({}, {"follow": "true"}):
        status, refused = await ask(logging, "GET", "/modules/Sensor/logs", **query)
        assert (status, "cannot be read" in refused["message"]) == (503, True)
    assert not [line for line in logging.log if "exception" in line]


async def test_modules_of_the_chart_keep_their_identities_whatever_edge_agent_cleans_up(
    managed: Daemon,
) -> None:
    managed.api.module_set(AGENT, {"name": "third", "image": "r/third:1"})
    # With the hub away it would wait for its identity; one that the store knows is there at once.
    await managed.stop(signal.SIGKILL)
    KeyStore.open(managed.state, Owner("gw-1", managed.hub)).remember("third", "639")
    (managed.folder / "daemon.log").write_text("")
    await managed.start()
    await until("ready", managed.is_ready)
    _status, found = await ask(managed, "GET", "/identities/")
    managers = {entry["moduleId"]: entry["managedBy"] for entry in found["identities"]}
    assert managers == {"$edgeAgent": "IotEdge", "Sensor": "IotEdge", "other": "IotEdge", "third": "edgeha"}
    status, refused = await ask(managed, "DELETE", "/identities/third")
    assert (status, "of the chart" in refused["message"]) == (409, True)


async def test_identities_with_the_hub_away(managed: Daemon) -> None:
    status, found = await ask(managed, "GET", "/identities/")
    assert status == 200
    assert {entry["moduleId"]: entry["generationId"] for entry in found["identities"]} == {
        "$edgeAgent": "1",
        "Sensor": "637",
        "other": "638",
    }
    assert {(entry["managedBy"], entry["authType"]) for entry in found["identities"]} == {("IotEdge", "Sas")}
    update = {"generationId": "637", "managedBy": "IotEdge"}
    status, known = await ask(managed, "PUT", "/identities/Sensor", update)
    assert (status, known["generationId"]) == (200, "637"), "what is known goes on with the cloud away"
    status, refused = await ask(managed, "POST", "/identities/", {"moduleId": "new"})
    assert (status, "does not answer" in refused["message"]) == (503, True)
    status, refused = await ask(managed, "DELETE", "/identities/Sensor")
    assert status == 503
    for wrong in (".", "..", "a/b", "$other", ""):
        status, refused = await ask(managed, "POST", "/identities/", {"moduleId": wrong})
        assert (status, "moduleId" in refused["message"]) == (400, True), wrong
    assert (await ask(managed, "PUT", "/identities/nobody", update))[0] == 404
    assert (await ask(managed, "DELETE", "/identities/nobody"))[0] == 404


async def test_a_login_of_a_registry_becomes_a_secret_and_nothing_else(managed: Daemon) -> None:
    auth = {"serveraddress": "registry.plant", "username": "puller", "password": "s3cret-of-registry"}
    await start(managed, spec("Sensor", auth=auth))
    secret = managed.api.objects[("secrets", "gw-sensor-registry")]
    (login,) = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))["auths"].items()
    assert (login[0], base64.b64decode(login[1]["auth"])) == ("registry.plant", b"puller:s3cret-of-registry")
    assert made(managed, "gw-sensor-a")["imagePullSecrets"] == [{"name": "gw-sensor-registry"}]
    _status, shown = await ask(managed, "GET", "/modules/Sensor")
    text = json.dumps(shown) + (managed.folder / "daemon.log").read_text()
    assert "s3cret-of-registry" not in text
    assert (managed.state / DEPLOYMENT_FILE).stat().st_mode & 0o777 == 0o600
    assert (await ask(managed, "PUT", "/modules/Sensor", spec("Sensor")))[0] == 200
    await until("the login goes", lambda: ("secrets", "gw-sensor-registry") not in managed.api.objects)


async def test_a_secret_of_somebody_else_stays_as_it_is(managed: Daemon) -> None:
    managed.api.put("secrets", "gw-sensor-registry", {"data": {"mine": "bWluZQ=="}})
    auth = {"serveraddress": "registry.plant", "username": "puller", "password": "s3cret-of-registry"}
    assert (await ask(managed, "POST", "/modules", spec("Sensor", auth=auth)))[0] == 201

    async def told() -> bool:
        return "somebody else's" in (await managed.ready())[1]

    await until("it is told", told)
    assert (await ask(managed, "DELETE", "/modules/Sensor"))[0] == 204
    await until("ready", managed.is_ready)
    assert managed.api.objects[("secrets", "gw-sensor-registry")]["data"] == {"mine": "bWluZQ=="}


async def test_the_machine_is_told_in_true_numbers(managed: Daemon) -> None:
    status, info = await ask(managed, "GET", "/systeminfo")
    assert (status, info["osType"], info["provisioning"]["type"]) == (200, "Linux", "manual.sas")
    status, numbers = await ask(managed, "GET", "/systeminfo/resources")
    assert status == 200
    assert 0 < numbers["used_ram"] < numbers["total_ram"] == info["total_memory"]
    assert 0 <= numbers["used_cpu"] <= 100
    assert numbers["host_uptime"] >= numbers["process_uptime"] >= 0
    assert numbers["disks"]
    assert all(0 < disk["available_space"] <= disk["total_space"] for disk in numbers["disks"])


async def bundle(daemon: Daemon, **query: str) -> dict[str, bytes]:
    """The files of a support bundle."""
    async with (
        daemon.management("agent-token") as session,
        session.get("/systeminfo/supportbundle", params=VERSION | query) as answer,
    ):
        assert (answer.status, answer.content_type) == (200, "application/zip")
        archive = zipfile.ZipFile(io.BytesIO(await answer.read()))
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


async def test_a_support_bundle_tells_much_and_no_secret(managed: Daemon) -> None:
    auth = {"serveraddress": "registry.plant", "username": "puller", "password": "s3cret-of-registry"}
    given = spec("Sensor", auth=auth, createOptions={"Env": ["KEY=s3cret-in-options"]})
    given["config"]["env"] = [{"key": "TOKEN", "value": "s3cret-in-env"}]
    await start(managed, given)
    managed.api.logs[pod(managed, "Sensor", RUNS)] = ["2026-01-01T00:00:01Z hello"]

    async def logged() -> bool:
        return bool((await bundle(managed))["logs/Sensor.txt"])

    await until("the log is in it", logged)
    found = await bundle(managed)
    assert found["logs/Sensor.txt"] == b"2026-01-01T00:00:01Z hello\n"
    assert {"modules.json", "identities.json", "resources.json", "systeminfo.json"} < found.keys()
    assert b"TOKEN" in found["modules.json"]
    assert b"s3cret" not in b"".join(found.values())
    assert not [name for name in await bundle(managed, edge_runtime_only="true") if name == "logs/Sensor.txt"]


async def test_a_support_bundle_holds_the_logs_of_the_time_that_was_asked_for(logging: Daemon) -> None:
    now = datetime.now(UTC)
    ago = [timedelta(days=3), timedelta(hours=2), timedelta(minutes=5)]
    logging.api.logs[pod_name(logging)] = [
        f"{now - past:%Y-%m-%dT%H:%M:%S.%f}Z line {number}" for number, past in enumerate(ago)
    ]

    async def lines(**query: str) -> list[str]:
        text = (await bundle(logging, **query))["logs/Sensor.txt"].decode()
        return [line.partition(" ")[2] for line in text.splitlines()]

    assert await lines() == ["line 0", "line 1", "line 2"]
    assert await lines(since="1d") == ["line 1", "line 2"]
    assert await lines(until="1 hour") == ["line 0", "line 1"]
    assert await lines(since=str(int((now - timedelta(days=1)).timestamp())), until="1h") == ["line 1"]
    assert await lines(since=f"{now - timedelta(minutes=30):%Y-%m-%dT%H:%M:%SZ}") == ["line 2"]
    # The cluster's API is asked for no more than that.
    assert 1500 < int(logging.api.log_queries[-1]["sinceSeconds"]) < 3600
    for wrong in ({"since": "yesterday"}, {"until": "soon"}, {"edge_runtime_only": "7"}):
        status, refused = await ask(logging, "GET", "/systeminfo/supportbundle", **wrong)
        assert (status, next(iter(wrong)) in refused["message"]) == (400, True)
    # Sockets of a host, and a check against a hub, are there on stock devices only.
    host = await bundle(logging, host="unix:///var/run/iotedge/mgmt.sock", iothub_hostname="other.example")
    assert host.keys() == (await bundle(logging)).keys()
    assert b"other.example" not in b"".join(host.values())


async def test_a_large_body_and_half_a_body_end_with_an_answer(managed: Daemon) -> None:
    status, refused = await ask(managed, "POST", "/modules", spec("m", createOptions="x" * (2 << 20)))
    assert (status, "larger than" in refused["message"]) == (413, True)
    async with (
        managed.management("agent-token") as session,
        session.post("/modules", params=VERSION, data=b'{"name": "m"') as answer,
    ):
        assert answer.status == 400
    assert (await ask(managed, "GET", "/modules"))[0] == 200


async def test_modules_find_the_gateway_by_their_hosts_file(managed: Daemon) -> None:
    await managed.stop()
    managed.api.put("services", "gw-gateway", {"spec": {"clusterIP": "10.96.7.7"}})
    (managed.folder / "daemon.log").write_text("")
    await managed.start(EDGEHA_GATEWAY_SERVICE="gw-gateway", EDGEHA_GATEWAY_HOSTNAME="gateway.plant")
    await until("ready", managed.is_ready)
    assert variables(managed, "gw-edgeagent-a")["EdgeDeviceHostName"] == "gateway.plant"
    daemon = {"ip": "10.96.7.1", "hostnames": ["gw-daemon.edge-gw.svc"]}
    assert made(managed, "gw-edgeagent-a")["hostAliases"] == [daemon], "it goes to the hub itself"
    given = spec("Sensor", createOptions={"HostConfig": {"ExtraHosts": ["plc:10.0.0.9"]}})
    await start(managed, given)
    assert made(managed, "gw-sensor-a")["hostAliases"] == [
        daemon,
        {"ip": "10.96.7.7", "hostnames": ["gateway.plant"]},
        {"ip": "10.0.0.9", "hostnames": ["plc"]},
    ]


async def test_prometheus_is_told_what_the_gateway_does(managed: Daemon) -> None:
    await ask(managed, "POST", "/modules", spec("Sensor"))
    await ask(managed, "POST", "/modules/nobody/start")
    await ask(managed, "GET", "/modules", caller="sensor")
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{managed.health_port}/metrics") as answer,
    ):
        text = await answer.text()
        assert answer.status == 200
    found = {
        name: float(value)
        for name, _space, value in (line.rpartition(" ") for line in text.splitlines() if line[0] != "#")
    }
    requests = 'edgeha_daemon_requests_total{api="management",code="%s",route="%s"}'
    assert found[requests % (201, "/modules")] == 1
    assert found[requests % (404, "/modules/{name}/start")] == 1
    assert found[requests % (403, "/modules")] == 1
    assert found['edgeha_module_state{module="Sensor",state="stopped"}'] == 1
    assert found['edgeha_module_state{module="edgeAgent",state="unknown"}'] == 1
    assert found['edgeha_daemon_hub_requests_total{code="",method="GET"}'] > 0, "the hub is away"
    assert found["edgeha_state_available_bytes"] > 0
    assert found["process_resident_memory_bytes"] > 0
    assert [name for name in found if name.startswith('edgeha_gateway_info{device="gw-1",hub=')]


@pytest.mark.parametrize("slots", ["a", "ab"], ids=["alone", "with a standby"])
async def test_fifty_modules_come_without_a_burst_of_calls(daemon: Daemon, slots: str) -> None:
    daemon.state.mkdir()
    store = KeyStore.open(daemon.state, Owner("gw-1", daemon.hub))
    names = [f"m{number}" for number in range(50)]
    for name in ("$edgeAgent", *names):
        store.remember(name, "1")
    store.keep_deployment({"identities": names})
    daemon.api.module_set(AGENT)
    daemon.api.tokens["agent-token"] = ("system:serviceaccount:edge-gw:gw-edgeagent", ["edgeha-gw"])
    await daemon.start(EDGEHA_SLOTS=",".join(slots))
    await until("ready", daemon.is_ready)
    daemon.api.writes.clear()
    daemon.api.write_seconds, daemon.api.most_writing = 0.005, 0
    daemon.api.requests.clear()
    for name in names:
        assert (await ask(daemon, "POST", "/modules", spec(name)))[0] == 201
        assert (await ask(daemon, "POST", f"/modules/{name}/start"))[0] == 204
    await until(
        "all run",
        lambda: {f"gw-{name}-{slot}" for name in names for slot in slots} <= daemon.api.placed(),
        60,
    )
    await until("ready", daemon.is_ready)

    # Each once, whether a module was seen before it was started or not.
    kinds = ["serviceaccounts/gw-{}", "services/{}", *(f"pods/gw-{{}}-{slot}" for slot in slots)]
    each = [("PUT", kind.format(name)) for kind in kinds for name in names]
    images = ("PUT", "daemonsets/gw-images")
    assert sorted(one for one in plain(daemon.api.writes) if one != images) == sorted(each)
    assert plain(daemon.api.writes).count(images) <= len(names) // 2
    # Beside these a look for the Service's name, a listing of pods and an event; what a module that was seen
    # before it was started needs once more (ServiceAccount, Service, listing) is left for what a pass costs.
    assert len(daemon.api.requests) <= (8 + len(slots)) * len(names)
    # One by one: beside the objects there are an event and the images.
    assert 1 <= daemon.api.most_writing <= 3
    await until("the images are kept", lambda: {f"r/{name}:1" for name in names} <= set(daemon.kept_images()))
    await until("all is told", lambda: len(daemon.api.events) >= len(names))
    daemon.api.writes.clear()
    daemon.api.requests.clear()
    newer = spec("m7", image="r/m7:2")
    assert (await ask(daemon, "PUT", "/modules/m7", newer, start="true"))[0] == 200
    changed = [(method, f"pods/gw-m7-{slot}") for slot in slots for method in ("DELETE", "PUT")]
    await until("the update", lambda: set(changed) <= set(plain(daemon.api.writes)))
    await until("its image is kept", lambda: "r/m7:2" in daemon.kept_images())
    await until("it is told", lambda: len(daemon.api.events) > len(names))
    assert sorted(plain(daemon.api.writes)) == sorted([*changed, images])
    # A new pod is tried before the one of before goes.
    calls = plain(daemon.api.requests)
    listings = [("GET", kind) for kind in ("pods", "services", "serviceaccounts")]
    once = ["serviceaccounts/gw-m7", "services/m7", "daemonsets/gw-images"]
    expected = [("POST", "events"), *(("PATCH", name) for name in once)]
    expected += [(how, f"pods/gw-m7-{slot}") for slot in slots for how in ("PATCH", "DELETE", "PATCH")]
    named = [one for one in calls if one not in listings]
    assert sorted(named) == sorted(expected), "an update costs nothing for the others"
    # A pass lists each kind at most once. What makes one: the module, its identity, and each slot's pod.
    assert all(calls.count(one) <= 2 + len(slots) for one in listings)
