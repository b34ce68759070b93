# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images are there before an update stops anything, and stay on every machine. The test plays the kubelet."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
from edgeha_runtime.daemon.keystore import KeyStore, Owner

from tests.integration.runtime.parts import AGENT, Daemon, ask, spec, until

PULLED = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
LOGIN = {"serveraddress": "registry.plant", "username": "u", "password": "hunter2"}


@pytest.fixture
async def pulling(daemon: Daemon) -> Daemon:
    """A daemon with edgeAgent that pulls images before updates."""
    daemon.state.mkdir()
    store = KeyStore.open(daemon.state, Owner("gw-1", daemon.hub))
    for name in ("$edgeAgent", "Sensor"):
        store.remember(name, "1")
    store.keep_deployment({"identities": ["Sensor"]})
    daemon.api.module_set(AGENT)
    daemon.api.tokens["agent-token"] = ("system:serviceaccount:edge-gw:gw-edgeagent", ["edgeha-gw"])
    await daemon.start(EDGEHA_PULL_SECONDS="20", EDGEHA_IMAGE="r/edge-runtime:1")
    await until("ready from the cache", daemon.is_ready)
    return daemon


def pullers(daemon: Daemon) -> list[str]:
    return sorted(name for name in daemon.api.names("pods") if "-pull-" in name)


def tell(daemon: Daemon, name: str, state: dict[str, Any], phase: str = "Pending") -> None:
    """What the kubelet tells of the pod's one container."""
    found = daemon.api.objects[("pods", name)]
    container = {
        "name": "image", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state,
    }  # fmt: skip
    daemon.api.put("pods", name, {**found, "status": {"phase": phase, "containerStatuses": [container]}})


async def prepared(
    daemon: Daemon, given: dict[str, Any], *states: dict[str, Any], phase: str = "Pending"
) -> tuple[int, dict[str, Any]]:
    """What prepareupdate answers when the kubelet tells these states of its pod."""
    asked = asyncio.create_task(ask(daemon, "POST", f"/modules/{given['name']}/prepareupdate", given))
    await until("its pod", lambda: pullers(daemon))
    (name,) = pullers(daemon)
    for state in states:
        await asyncio.sleep(0.05)
        assert not asked.done(), "it waits"
        tell(daemon, name, state, phase)
    found = await asked
    assert pullers(daemon) == [], "its pod is gone"
    return found


async def test_an_update_waits_for_its_image(pulling: Daemon) -> None:
    seen: dict[str, Any] = {}
    asked = asyncio.create_task(ask(pulling, "POST", "/modules/Sensor/prepareupdate", spec("Sensor")))
    await until("its pod", lambda: pullers(pulling))
    (name,) = pullers(pulling)
    seen = pulling.api.objects[("pods", name)]["spec"]
    assert (seen["nodeName"], seen["restartPolicy"]) == ("node-a", "Never")
    (container,) = seen["containers"]
    assert (container["image"], container["imagePullPolicy"]) == ("r/sensor:1", "IfNotPresent")
    assert container["command"] == ["/edgeha/workload-proxy", "hold"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    tell(pulling, name, {"waiting": {"reason": "PodInitializing"}})
    tell(pulling, name, {"waiting": {"reason": "ContainerCreating"}})
    tell(pulling, name, PULLED, "Running")
    assert (await asked)[0] == 204
    assert pullers(pulling) == []
    # It is there now, for whoever wants it next.
    assert (await ask(pulling, "POST", "/modules/Sensor/prepareupdate", spec("Sensor")))[0] == 204
    assert [
        name for _method, name in pulling.api.writes if "-pull-" in name and name.startswith("pods/")
    ] == [f"pods/{name}"] * 5  # made, told three times, deleted


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("ErrImagePull", "manifest unknown"),
        ("SignatureValidationFailed", "not ours"),
        ("ImagePullBackOff", "back-off"),
        ("InvalidImageName", "no"),
    ],
)
async def test_an_image_that_cannot_be_had_stops_the_update_and_nothing_else(
    pulling: Daemon, reason: str, message: str
) -> None:
    status, body = await prepared(
        pulling, spec("Sensor", image="r/wrong:9"), {"waiting": {"reason": reason, "message": message}}
    )
    assert status == 502
    said = f"image r/wrong:9 cannot be pulled on node node-a: {reason}: {message}"
    assert body == {"message": said}
    await until("an event", lambda: [event["message"] for event in pulling.api.events] == [said])


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        # The image is there, what is wrong is its container.
        ({"terminated": {"exitCode": 128, "reason": "StartError"}}, "Running"),
        ({"waiting": {"reason": "CreateContainerError", "message": "no"}}, "Pending"),
        # The machine takes no pod: nothing is known of the image.
        ({"waiting": {"reason": "ContainerCreating"}}, "Failed"),
    ],
)
async def test_what_says_nothing_against_the_image_is_no_reason_against_the_update(
    pulling: Daemon, state: dict[str, Any], phase: str
) -> None:
    assert (await prepared(pulling, spec("Sensor"), state, phase=phase))[0] == 204


async def test_an_image_that_takes_too_long_is_told(pulling: Daemon) -> None:
    await pulling.stop()
    (pulling.folder / "daemon.log").write_text("")
    await pulling.start(EDGEHA_PULL_SECONDS="1")
    await until("ready", pulling.is_ready)
    said = {"message": "image r/sensor:1 is not on node node-a after 1 s; it is still being pulled"}
    assert await ask(pulling, "POST", "/modules/Sensor/prepareupdate", spec("Sensor")) == (503, said)
    # It goes on, and the next one that asks finds it.
    (name,) = pullers(pulling)
    tell(pulling, name, PULLED)
    assert (await ask(pulling, "POST", "/modules/Sensor/prepareupdate", spec("Sensor")))[0] == 204
    assert pullers(pulling) == []
    assert pulling.api.writes.count(("PUT", f"pods/{name}")) == 2, "made once, and told once"


async def test_a_pod_that_goes_tells_nothing_and_is_made_anew(pulling: Daemon) -> None:
    asked = asyncio.create_task(ask(pulling, "POST", "/modules/Sensor/prepareupdate", spec("Sensor")))
    await until("its pod", lambda: pullers(pulling))
    (name,) = pullers(pulling)
    # One of the call before, which ends just now, with the trouble that it told then.
    found = pulling.api.objects[("pods", name)]
    going = found["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    pulling.api.put("pods", name, found | {"metadata": going})
    tell(pulling, name, {"waiting": {"reason": "ErrImagePull"}})
    await asyncio.sleep(0.1)
    assert not asked.done()
    pulling.api.remove("pods", name)
    await until("another one", lambda: pullers(pulling))
    tell(pulling, name, PULLED)
    assert (await asked)[0] == 204


async def test_a_login_of_the_deployment_is_there_for_the_pull_alone(pulling: Daemon) -> None:
    given = spec("Sensor", auth=LOGIN)
    asked = asyncio.create_task(ask(pulling, "POST", "/modules/Sensor/prepareupdate", given))
    await until("its pod", lambda: pullers(pulling))
    (name,) = pullers(pulling)
    assert pulling.api.objects[("pods", name)]["spec"]["imagePullSecrets"] == [{"name": name}]
    assert ("secrets", name) in pulling.api.objects
    tell(pulling, name, PULLED)
    assert (await asked)[0] == 204
    assert pulling.api.names("secrets") == set()
    assert "hunter2" not in (pulling.folder / "daemon.log").read_text()


async def test_images_that_are_not_to_be_pulled_are_not(pulling: Daemon) -> None:
    given = spec("Sensor") | {"imagePullPolicy": "Never"}
    assert (await ask(pulling, "POST", "/modules/Sensor/prepareupdate", given))[0] == 204
    assert not [name for _method, name in pulling.api.writes if "-pull-" in name]


async def test_a_pull_that_was_cut_off_leaves_nothing_for_ever(pulling: Daemon) -> None:
    given = spec("Sensor", auth=LOGIN)
    asked = asyncio.create_task(ask(pulling, "POST", "/modules/Sensor/prepareupdate", given))
    await until("its pod", lambda: pullers(pulling))
    await pulling.stop(signal.SIGKILL)
    await asyncio.gather(asked, return_exceptions=True)
    assert pullers(pulling)
    await pulling.start()
    await until("it is gone", lambda: not pullers(pulling) and not pulling.api.names("secrets"))


async def test_images_of_all_modules_are_kept_on_every_machine(pulling: Daemon) -> None:
    def kept() -> dict[str, Any]:
        found: dict[str, Any] = pulling.api.objects.get(("daemonsets", "gw-images"), {"spec": {}})["spec"]
        return found

    await until("the first images", lambda: pulling.kept_images() == ["r/agent:1", "r/edge-runtime:1"])
    assert (await ask(pulling, "POST", "/modules", spec("Sensor", auth=LOGIN)))[0] == 201
    other = spec("other", image="r/local:1") | {"imagePullPolicy": "Never"}
    assert (await ask(pulling, "POST", "/modules", other))[0] == 201
    await until(
        "those of the modules",
        lambda: pulling.kept_images() == ["r/agent:1", "r/edge-runtime:1", "r/sensor:1"],
        20,
    )
    found = kept()
    assert found["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": "100%"}
    pod = found["template"]["spec"]
    assert pod["initContainers"][0]["args"] == ["install", "/edgeha/workload-proxy"]
    assert pod["imagePullSecrets"] == [{"name": "gw-sensor-registry"}]
    assert len({one["name"] for one in pod["containers"]}) == 3
    labels = found["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "images", "no policy and no Service takes it for a module"
    await pulling.stop()
    (pulling.folder / "daemon.log").write_text("")
    await pulling.start(EDGEHA_KEEP_IMAGES="false")
    await until("they are not kept any more", lambda: not kept(), 20)
