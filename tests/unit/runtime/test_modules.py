# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two loops outlive what goes wrong, lose no wish, and touch nothing that is somebody else's."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from edgeha_runtime.daemon import manifests, modules
from edgeha_runtime.daemon.hub import HubClient, Identity
from edgeha_runtime.daemon.keystore import KeyStore, Owner
from edgeha_runtime.daemon.kube import Applied, Cluster, ClusterError
from edgeha_runtime.daemon.manifests import Addresses, Manifest, OwnerReference
from edgeha_runtime.daemon.modules import Modules
from edgeha_runtime.daemon.settings import from_environment
from lightkube import ApiError
from lightkube.models.core_v1 import Pod
from lightkube.models.meta_v1 import Status

ENVIRONMENT = {
    "EDGEHA_RELEASE": "gw",
    "EDGEHA_NAMESPACE": "edge-gw",
    "EDGEHA_POD_NAME": "gw-daemon-1",
    "EDGEHA_POD_UID": "uid-7",
    "EDGEHA_NODE_NAME": "node-a",
    "EDGEHA_DEVICE_ID": "gw-1",
    "EDGEHA_IOTHUB_HOSTNAME": "hub.example.net",
    "EDGEHA_GATEWAY_SERVICE": "gw-gateway",
    "EDGEHA_DEVICE_KEY_FILE": "/k",
    "EDGEHA_STATE_DIR": "/s",
    "EDGEHA_TRUST_BUNDLE_FILE": "/t",
    "EDGEHA_WORKLOAD_PROXY_IMAGE": "r/workload-proxy:1",
}
AGENT = {"name": "edgeAgent", "image": "r/agent:1"}
KNOWN = {"$edgeAgent": "1", "m": "2", "n": "3"}


class FakeCluster:
    """Objects by kind and name; `others` are Secrets of somebody else. `before` is called at each apply."""

    def __init__(self) -> None:
        self.objects: dict[str, set[str]] = {"Deployment": set(), "Service": set(), "ServiceAccount": set()}
        self.others: set[str] = set()
        self.services: dict[str, dict[str, str]] = {}  # of somebody else
        self.applied: list[str] = []
        self.events: list[Manifest] = []
        self.deleted: list[tuple[str, str]] = []
        self.gateway: str | None = "10.0.0.1"
        self.before: Callable[[], None] = lambda: None
        self.failing: dict[str, Exception] = {}  # by kind/name
        self.claims: dict[str, str] = {}  # to their phases
        self.warned: dict[str, list[tuple[str, str]]] = {}  # by kind/name

    def _fail(self, kind: str, name: str) -> None:
        if error := self.failing.get(f"{kind}/{name}"):
            raise error

    async def owner(self, name: str) -> OwnerReference:
        return OwnerReference(name, "uid")

    async def address(self, service: str) -> str:
        if service == "gw-daemon":
            return "10.0.0.2"
        if self.gateway is None:
            raise ClusterError(f"Service {service} has no address")
        return self.gateway

    async def labels_of_service(self, name: str) -> dict[str, str] | None:
        return self.services.get(name)

    async def create_event(self, manifest: Manifest) -> None:
        self.events.append(manifest)

    async def apply(self, manifest: Manifest, *, force: bool = True) -> Applied:
        self.before()
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        self._fail(kind, name)
        if name in self.others and not force:
            raise ApiError(status=Status(code=409, message="conflict with kubectl"))
        self.applied.append(f"{kind}/{name}")
        if kind in self.objects:
            self.objects[kind].add(name)
        return Applied(1, f"uid of {name}")

    async def object_names(self, _labels: Mapping[str, str]) -> dict[str, set[str]]:
        return {kind: set(names) for kind, names in self.objects.items()}

    async def delete(self, kind: str, name: str) -> None:
        self._fail(kind, name)
        self.objects.get(kind, set()).discard(name)
        self.deleted.append((kind, name))

    async def pod_names(self, _labels: Mapping[str, str]) -> set[str]:
        return set()

    async def follow_config_map(self, *_: object) -> None:
        await asyncio.Event().wait()

    follow_deployments = follow_pods = follow_config_map

    async def claim_phase(self, name: str) -> str:
        return self.claims.get(name, "")

    async def warnings(self, kind: str, name: str) -> list[tuple[str, str]]:
        if error := self.failing.get(f"{kind}/{name}"):
            raise error
        return self.warned.get(f"{kind}/{name}", [])


class FakeHub:
    """Identities by name. `asked` is called with each name that is asked for."""

    def __init__(self) -> None:
        self.generations = dict(KNOWN)
        self.removed: list[str] = []
        self.asked: Callable[[str], None] = lambda _name: None

    async def get_module(self, name: str) -> Identity | None:
        self.asked(name)
        found = self.generations.get(name)
        return Identity(name, found, "", "") if found else None

    async def create_module(self, name: str) -> Identity:
        self.generations[name] = "9"
        return Identity(name, "9", "", "")

    async def set_keys(self, name: str, *_keys: bytes) -> Identity:
        return Identity(name, self.generations[name], "", "")

    async def delete_module(self, name: str) -> None:
        self.generations.pop(name, None)
        self.removed.append(name)


class Gateway:
    """Modules on a real store, between a hub and a cluster that do what the test wants."""

    def __init__(self, folder: Path, slots: str = "a", **environment: str) -> None:
        self.store = KeyStore.open(folder, Owner("gw-1", "hub.example.net"))
        for name, generation in KNOWN.items():
            self.store.remember(name, generation)
        self.store.keep_deployment({"identities": ["m", "n"]})
        self.cluster, self.hub = FakeCluster(), FakeHub()
        self.modules = Modules(
            from_environment(ENVIRONMENT | {"EDGEHA_SLOTS": slots} | environment),
            self.store,
            cast(HubClient, self.hub),
            cast(Cluster, self.cluster),
        )
        self.chart(AGENT)

    def chart(self, *entries: Mapping[str, Any]) -> None:
        self.modules.take({"modules.json": json.dumps(entries)})

    async def running(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.modules.run())


def spec(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "type": "docker", "config": {"settings": {"image": "r/i:1", **settings}}}


LOGIN = {"serveraddress": "registry.plant", "username": "u", "password": "p"}


def pod(
    module: str = "m", *, claim: str = "", started: bool = False, node: str = "node-a", unfit: str = ""
) -> Pod:
    """A pod of a module, as the API server sends it; unfit: why no node is."""
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}] if claim else []
    state = {"running": {"startedAt": "2026-03-01T10:00:05Z"}} if started else {"waiting": {"reason": "X"}}
    own = {"name": "module", "image": "i", "imageID": "", "ready": started, "restartCount": 0, "state": state}
    unscheduled = {"type": "PodScheduled", "status": "False", "message": unfit}
    found: Pod = Pod.from_dict(
        {
            "metadata": {
                "name": f"gw-{module}-a-1",
                "creationTimestamp": "2026-03-01T10:00:00Z",
                "annotations": {manifests.MODULE_ANNOTATION: module},
                "labels": {manifests.SLOT_LABEL: "a"},
            },
            "spec": {
                "nodeName": "" if unfit else node,
                "containers": [{"name": "module"}],
                "volumes": volumes,
            },
            "status": {
                "conditions": [unscheduled] if unfit else [],
                "containerStatuses": [] if unfit else [own],
            },
        }
    )
    return found


@pytest.fixture
async def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    monkeypatch.setattr(modules, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(modules, "RETRY_SECONDS", (0.01,))
    monkeypatch.setattr(modules, "LOOK_SECONDS", 0.01)
    made = Gateway(tmp_path)
    task = await made.running()
    yield made
    assert not task.done(), "the loops go on"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_full_disk_is_told_of_the_module_that_waits_for_it_and_ends_nothing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gateway.modules.deployment.create(spec("m", auth=LOGIN))
    await gateway.modules.deployment.create(spec("n"))
    keep = gateway.store.keep_deployment

    def full(_content: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gateway.store, "keep_deployment", full)
    await until(lambda: any("No space left" in reason for reason in gateway.modules.not_ready()))
    await until(lambda: "Deployment/gw-n-a" in gateway.cluster.applied)
    assert [line[:9] for line in gateway.modules.not_ready()] == ["module m:"]
    assert "Secret/gw-m-registry" not in gateway.cluster.applied, "what is not noted is not made"
    monkeypatch.setattr(gateway.store, "keep_deployment", keep)
    await until(lambda: gateway.modules.not_ready() == [])


async def test_a_gateway_without_an_address_is_told_and_ends_nothing(gateway: Gateway) -> None:
    gateway.cluster.gateway = None
    await gateway.modules.deployment.create(spec("m"))
    await until(lambda: any("has no address" in reason for reason in gateway.modules.not_ready()))
    gateway.cluster.gateway = "10.0.0.1"
    await until(lambda: gateway.modules.not_ready() == [])


async def test_what_nobody_thought_of_ends_one_pass_only(gateway: Gateway) -> None:
    def fail() -> None:
        gateway.cluster.before = lambda: None
        raise KeyError("Content-Type")

    gateway.cluster.before = fail
    await gateway.modules.deployment.create(spec("m"))
    await until(lambda: gateway.modules.not_ready() == [])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ApiError(status=Status(code=413, message="too large")), "API server: too large (413)"),
        (ApiError(status=Status(code=500, message="webhook")), "API server: webhook (500)"),
        (httpx2.ReadTimeout("slow webhook"), "API server does not answer: slow webhook"),
        (KeyError("name"), "internal error, see the daemon's log"),
    ],
)
async def test_one_bad_module_is_told_and_stops_nothing_of_the_others(
    gateway: Gateway, error: Exception, said: str
) -> None:
    gateway.chart(AGENT, {"name": "old", "image": "i"}, {"name": "stuck", "image": "i"})
    await until(lambda: gateway.modules.not_ready() == [])
    gateway.cluster.failing |= {"Deployment/gw-bad-a": error, "Deployment/gw-old-a": error}
    gateway.chart(AGENT, {"name": "bad", "image": "i"}, {"name": "after", "image": "i"})
    # `old` cannot be deleted, `stuck` behind it goes; of `bad` something is missing, `after` is there.
    await until(lambda: ("ServiceAccount", "gw-stuck") in gateway.cluster.deleted)
    assert "gw-stuck-a" not in gateway.cluster.objects["Deployment"]
    await until(lambda: "Deployment/gw-after-a" in gateway.cluster.applied)
    await until(lambda: said in str(gateway.modules.not_ready()))
    assert gateway.modules.not_ready() == [f"module bad: {said}"]
    gateway.cluster.failing.clear()
    await until(lambda: gateway.modules.not_ready() == [])
    await until(lambda: "gw-old-a" not in gateway.cluster.objects["Deployment"])


async def test_a_cluster_that_is_away_is_not_asked_for_each_module(gateway: Gateway) -> None:
    gateway.cluster.failing |= {"ServiceAccount/gw-m": httpx2.ConnectError("refused")}
    await gateway.modules.deployment.create(spec("m"))
    await gateway.modules.deployment.create(spec("n"))
    await until(lambda: gateway.modules.not_ready())
    away = "API server does not answer: refused"
    await until(lambda: gateway.modules.not_ready() == [f"module m: {away}", f"module n: {away}"])
    assert "Deployment/gw-n-a" not in gateway.cluster.applied
    gateway.cluster.failing.clear()
    await until(lambda: gateway.modules.not_ready() == [])


@pytest.mark.parametrize(
    ("mode", "refused"),
    [("ReadWriteMany", set()), ("ReadWriteOnce", set()), ("ReadWriteOncePod", {"m", "n"})],
)
async def test_modules_of_one_machine_share_a_volume_but_not_one_that_is_one_pods(
    tmp_path: Path, mode: str, refused: set[str]
) -> None:
    made = Gateway(tmp_path, EDGEHA_STORAGE_ACCESS_MODE=mode)
    options = {"HostConfig": {"Binds": ["data:/data"]}}
    made.chart(*({"name": name, "image": "i", "createOptions": options} for name in ("m", "n")))
    told = {reason.removeprefix("module ")[0] for reason in made.modules.not_ready() if "volume" in reason}
    assert told == refused


async def test_a_reprovision_during_a_pass_is_not_lost(gateway: Gateway) -> None:
    await until(lambda: gateway.modules.not_ready() == [])

    def again() -> None:
        gateway.cluster.before = lambda: None
        gateway.modules.reprovision()

    gateway.cluster.applied.clear()
    gateway.cluster.before = again
    gateway.modules.reprovision()
    await until(lambda: gateway.cluster.applied.count("Deployment/gw-edgeagent-a") == 2)


async def test_a_secret_of_somebody_else_is_neither_written_nor_deleted(gateway: Gateway) -> None:
    gateway.cluster.others.add("gw-m-registry")
    await gateway.modules.deployment.create(spec("m", auth=LOGIN))
    await until(lambda: any("conflict with kubectl" in reason for reason in gateway.modules.not_ready()))
    await gateway.modules.deployment.remove("m")
    await until(lambda: gateway.modules.not_ready() == [])
    assert gateway.modules.deployment.pull_secrets == frozenset()
    assert ("Secret", "gw-m-registry") not in gateway.cluster.deleted


async def test_only_objects_with_the_labels_of_a_module_are_deleted(gateway: Gateway) -> None:
    await gateway.modules.deployment.create(spec("m"))
    await until(lambda: "gw-m-a" in gateway.cluster.objects["Deployment"])
    await gateway.modules.deployment.remove("m")
    await until(lambda: "gw-m-a" not in gateway.cluster.objects["Deployment"])
    deleted = [("Deployment", "gw-m-a"), ("Service", "m"), ("ServiceAccount", "gw-m")]
    assert sorted(gateway.cluster.deleted) == deleted


async def test_a_module_has_a_service_of_its_name_beside_that_of_its_ports(gateway: Gateway) -> None:
    ports = {"ExposedPorts": {"80/tcp": {}}}
    await gateway.modules.deployment.create(spec("m", createOptions=ports))
    await until(lambda: {"gw-m", "m", "edgeagent"} == gateway.cluster.objects["Service"])
    await gateway.modules.deployment.update("m", spec("m"), start=True)
    await until(lambda: {"m", "edgeagent"} == gateway.cluster.objects["Service"])


@pytest.mark.parametrize("labels", [{}, manifests.selector("other")])
async def test_a_service_of_somebody_else_stays_theirs_and_the_module_runs(
    gateway: Gateway, labels: dict[str, str]
) -> None:
    gateway.cluster.services["m"] = labels
    await gateway.modules.deployment.create(spec("m"))
    await until(lambda: any("Service m is somebody else's" in one for one in gateway.modules.not_ready()))
    assert "gw-m-a" in gateway.cluster.objects["Deployment"]
    assert "Service/m" not in gateway.cluster.applied
    gateway.cluster.services["m"] = manifests.selector("gw")
    gateway.modules.reprovision()
    await until(lambda: gateway.modules.not_ready() == [])
    assert "Service/m" in gateway.cluster.applied


async def test_a_refused_edge_agent_takes_no_name_out_of_the_hosts_files(gateway: Gateway) -> None:
    await gateway.modules.deployment.create(spec("m"))
    await until(lambda: "Deployment/gw-m-a" in gateway.cluster.applied)
    gateway.chart({**AGENT, "env": 1})
    assert gateway.modules.agent == "$edgeAgent"
    # As after a restart of the daemon, which then knows no address yet.
    gateway.modules._addresses = Addresses()
    gateway.modules.reprovision()
    gateway.cluster.applied.clear()
    await until(lambda: "Deployment/gw-m-a" in gateway.cluster.applied)
    assert gateway.modules._addresses == Addresses("10.0.0.2", "10.0.0.1")


async def test_an_identity_that_is_being_made_is_not_one_that_left_the_set(gateway: Gateway) -> None:
    await until(lambda: all(gateway.modules.identities.is_checked(name) for name in KNOWN))
    with gateway.modules.making("new"):
        await gateway.modules.identities.ensure("new")
        looked: list[str] = []
        gateway.hub.asked = looked.append
        gateway.modules.reprovision()
        await until(lambda: set(looked) == set(KNOWN))
        await asyncio.sleep(0.05)
        assert gateway.hub.removed == []
        await gateway.modules.deployment.keep_identity("new")
    gateway.modules.reprovision()
    await until(lambda: "new" in looked)
    assert (gateway.hub.removed, gateway.modules.identities.known["new"]) == ([], "9")


async def test_the_rest_of_a_removal_that_was_cut_short_goes(gateway: Gateway) -> None:
    # The daemon ended after the hub and its own file had forgotten the identity.
    gateway.store.forget("m")
    del gateway.hub.generations["m"], gateway.hub.generations["n"]
    gateway.modules.reprovision()
    await until(lambda: gateway.modules.deployment.identities == {"n"})
    assert gateway.modules.identities.known["n"] == "3", "one that modules sign with stays"


async def test_an_identity_of_dots_is_forgotten_and_nothing_of_it_asked_of_the_hub(gateway: Gateway) -> None:
    # Such a name was taken once; at the hub its path leads to the device itself.
    for name in ("..", "zz"):
        gateway.store.remember(name, "1")
    gateway.modules.reprovision()
    await until(lambda: not {"..", "zz"} & gateway.modules.identities.known.keys())
    assert gateway.hub.removed == ["zz"]


async def test_one_modules_trouble_does_not_keep_the_daemon_from_looking_at_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules, "RESYNC_SECONDS", 0.1)
    monkeypatch.setattr(modules, "RETRY_SECONDS", (0.01,))
    made = Gateway(tmp_path)
    made.cluster.others.add("gw-m-registry")
    await made.modules.deployment.create(spec("m", auth=LOGIN))
    task = await made.running()
    await until(lambda: made.cluster.applied.count("Deployment/gw-edgeagent-a") > 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_each_module_is_in_every_slot_and_a_slot_that_goes_takes_its_objects(tmp_path: Path) -> None:
    both = Gateway(tmp_path, "a,b")
    running = await both.running()
    await until(lambda: {"gw-edgeagent-a", "gw-edgeagent-b"} == both.cluster.objects["Deployment"])
    assert both.cluster.objects["ServiceAccount"] == {"gw-edgeagent"}
    await until(lambda: not both.modules.not_ready())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    one = Gateway(tmp_path)
    one.cluster.objects = both.cluster.objects
    running = await one.running()
    await until(lambda: {"gw-edgeagent-a"} == one.cluster.objects["Deployment"])
    assert one.cluster.deleted == [("Deployment", "gw-edgeagent-b")]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_deployment_that_somebody_changed_is_put_right_in_each_slot(tmp_path: Path) -> None:
    both = Gateway(tmp_path, "a,b")
    running = await both.running()
    await until(lambda: not both.modules.not_ready())
    for slot in "ab":
        both.cluster.applied.clear()
        both.modules._object_changed(f"gw-edgeagent-{slot}", 1)
        both.modules._object_changed(f"gw-edgeagent-{slot}", 7)
        await until(lambda slot=slot: f"Deployment/gw-edgeagent-{slot}" in both.cluster.applied)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_is_wrong_with_a_module_is_an_event_at_its_deployment(gateway: Gateway) -> None:
    await gateway.modules.deployment.create(spec("m", auth=LOGIN))
    await until(lambda: "Deployment/gw-m-a" in gateway.cluster.applied)
    gateway.cluster.others.add("gw-m-registry")
    gateway.modules.reprovision()
    await until(lambda: gateway.cluster.events)
    (event,) = gateway.cluster.events
    assert (event["type"], event["reason"]) == ("Warning", "ObjectsNotMade")
    assert event["message"] == "module m: API server: conflict with kubectl (409)"
    assert event["involvedObject"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "gw-m-a",
        "namespace": "edge-gw",
        "uid": "uid of gw-m-a",
    }


async def test_what_a_module_without_objects_is_told_stands_at_the_daemons_pod(gateway: Gateway) -> None:
    gateway.chart(AGENT, {"name": "new", "image": ""})
    await until(lambda: gateway.cluster.events)
    gateway.chart(AGENT)
    gateway.chart(AGENT, {"name": "new", "image": ""})
    await asyncio.sleep(0.05)
    (event,) = gateway.cluster.events  # the same is not told again and again
    assert event["reason"] == "Refused"
    assert event["message"] == "module new is refused: image is missing"
    assert event["involvedObject"]["kind"] == "Pod"
    assert (event["involvedObject"]["name"], event["involvedObject"]["uid"]) == ("gw-daemon-1", "uid-7")


async def test_events_that_cannot_be_written_keep_nobody_waiting(gateway: Gateway) -> None:
    failing = [KeyError("Content-Type"), ApiError(status=Status(code=403, message="quota"))]

    async def create_event(event: Manifest) -> None:
        if failing:
            raise failing.pop()
        gateway.cluster.events.append(event)

    gateway.cluster.create_event = create_event  # type: ignore[method-assign]
    for number in range(1000):
        gateway.modules.tell("Normal", "m", "Started", f"{number}")
    await until(lambda: len(gateway.cluster.events) > 100)
    assert gateway.cluster.events[0]["message"] == "2", "two could not be written, the next one was"


def state(gateway: Gateway, name: str = "m") -> tuple[str, str]:
    found = gateway.modules.status(name, running=True)
    return found.status, found.description


async def running_module(gateway: Gateway, **settings: Any) -> None:
    await gateway.modules.deployment.create(spec("m", **settings))
    await gateway.modules.deployment.run("m", True)
    await until(lambda: gateway.modules.not_ready() == [])


def messages(gateway: Gateway, reason: str) -> list[str]:
    return [event["message"] for event in gateway.cluster.events if event["reason"] == reason]


async def test_what_the_api_server_refuses_is_the_modules_state(gateway: Gateway) -> None:
    gateway.cluster.failing["Deployment/gw-m-a"] = ApiError(status=Status(code=422, message="spec.x: wrong"))
    await gateway.modules.deployment.create(spec("m"))
    await gateway.modules.deployment.run("m", True)
    said = "API server: spec.x: wrong (422)"
    await until(lambda: state(gateway) == ("failed", said))
    assert gateway.modules.states()["m"] == "failed"
    # A pod of before goes on, and the reason is told beside it.
    gateway.modules._pod_changed("ADDED", pod(started=True))
    assert state(gateway) == ("running", said)
    gateway.cluster.failing.clear()
    await until(lambda: state(gateway) == ("running", ""))


async def test_a_refused_module_says_why(gateway: Gateway) -> None:
    await running_module(gateway)
    gateway.chart(AGENT, {"name": "M", "image": "i"})
    assert state(gateway)[0] == "failed"
    assert state(gateway)[1].startswith("refused: its object name gw-m belongs to module M too")


async def test_a_pod_that_the_cluster_does_not_make_is_told_until_it_does(gateway: Gateway) -> None:
    await running_module(gateway)
    for _again in range(2):
        gateway.modules._object_changed("gw-m-a", 1, "violates PodSecurity")
    assert state(gateway) == ("failed", "its pod is not made: violates PodSecurity")
    assert gateway.modules.not_ready() == ["module m: its pod in slot a is not made: violates PodSecurity"]
    told = "module m: its pod in slot a is not made: violates PodSecurity"
    await until(lambda: messages(gateway, "PodNotMade") == [told])
    gateway.modules._object_changed("gw-m-a", 1, "")
    assert (state(gateway)[0], gateway.modules.not_ready()) == ("unknown", [])


async def test_a_standby_whose_pods_are_not_made_is_told(tmp_path: Path) -> None:
    made = Gateway(tmp_path, "a,b")
    running = await made.running()
    await until(lambda: not made.modules.not_ready())
    made.modules._object_changed("gw-edgeagent-b", 1, "exceeded quota")
    assert made.modules.not_ready() == ["module edgeAgent: its pod in slot b is not made: exceeded quota"]
    assert state(made, "edgeAgent")[0] == "unknown", "the slot that works has nothing of it"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_claim_that_cannot_bind_is_told(gateway: Gateway) -> None:
    await running_module(gateway)
    gateway.cluster.claims["gw-volume-data"] = "Pending"
    gateway.modules._pod_changed("ADDED", pod(claim="gw-volume-data"))
    await until(lambda: state(gateway) == ("unknown", "its claim gw-volume-data is not bound yet"))
    assert gateway.modules.not_ready() == [], "it may only wait for its pod"
    gateway.cluster.warned["PersistentVolumeClaim/gw-volume-data"] = [
        ("ProvisioningFailed", "old"),
        ("ProvisioningFailed", "no class fast"),
    ]
    said = "its claim gw-volume-data cannot be bound: ProvisioningFailed: no class fast"
    await until(lambda: state(gateway) == ("failed", said))
    assert gateway.modules.not_ready() == [f"module m: {said}"]
    await until(lambda: messages(gateway, "VolumeNotThere") == [f"module m: {said}"])
    # Where no node fits because of it, both are told.
    gateway.modules._pod_changed("MODIFIED", pod(claim="gw-volume-data", unfit="unbound claims"))
    assert state(gateway) == ("failed", f"no node for it: unbound claims; {said}")
    gateway.cluster.claims["gw-volume-data"] = "Bound"
    gateway.modules._pod_changed("MODIFIED", pod(claim="gw-volume-data"))
    await until(lambda: state(gateway) == ("unknown", "X"))
    assert gateway.modules.not_ready() == []
    gateway.cluster.claims["gw-volume-data"] = "Lost"
    await until(lambda: "lost its volume" in state(gateway)[1])


async def test_a_volume_that_is_not_mounted_is_told_until_the_module_runs(gateway: Gateway) -> None:
    await running_module(gateway)
    gateway.cluster.warned["Pod/gw-m-a-1"] = [("FailedMount", "no such export"), ("BackOff", "y")]
    gateway.modules._pod_changed("ADDED", pod())
    await until(
        lambda: state(gateway) == ("unknown", "its volumes are not there: FailedMount: no such export")
    )
    # A question that gets no answer takes nothing back, and ends nothing.
    for error in (httpx2.ReadTimeout("slow"), KeyError("Content-Type")):
        gateway.cluster.failing["Pod/gw-m-a-1"] = error
        await asyncio.sleep(0.05)
    gateway.cluster.failing.clear()
    await until(lambda: "no such export" in state(gateway)[1])
    gateway.modules._pod_changed("MODIFIED", pod(started=True))
    assert state(gateway) == ("running", "")


async def test_a_module_on_another_machine_than_its_daemon_is_told_with_the_fix(gateway: Gateway) -> None:
    await running_module(gateway)
    gateway.modules._pod_changed("ADDED", pod(started=True))
    assert gateway.modules.elsewhere() == {"edgeAgent": "", "m": ""}
    gateway.modules._pod_changed("MODIFIED", pod(started=True, node="node-b"))
    said = (
        "its pod is on node node-b, and the daemon of its slot on node node-a: delete the pod, and a new one "
        "comes to the daemon"
    )
    assert gateway.modules.elsewhere() == {"edgeAgent": "", "m": said}
    assert gateway.modules.not_ready() == [f"module m: {said}"]
    assert state(gateway) == ("running", said)


@pytest.mark.parametrize("own", [{}, {"nodeSelector": {"a": "b"}}, {"affinity": {"nodeAffinity": {"c": {}}}}])
async def test_a_module_that_its_own_rules_keep_from_the_daemon_is_told_with_the_fix(
    gateway: Gateway, own: dict[str, Any]
) -> None:
    await running_module(gateway, createOptions={"k8s-extensions": own})
    gateway.modules._pod_changed("ADDED", pod(unfit="0/3 nodes"))
    assert bool(gateway.modules.elsewhere()["m"]) is bool(own)
    found, description = state(gateway)
    assert (found, description.startswith("no node for it: 0/3 nodes")) == ("failed", True)
    if own:
        assert "make its own nodeSelector and affinity fit that node" in description
        assert len(gateway.modules.not_ready()) == 1
