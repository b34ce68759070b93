# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two loops outlive what goes wrong, lose no wish, and touch nothing that is somebody else's."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from edgeha_runtime.daemon import manifests, modules, placement, volumes
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


LONG_AGO = "2026-03-01T10:00:00Z"
STARTED = "2026-03-01T10:00:05Z"
ENDED = "2026-03-01T10:01:07Z"


def in_slot(name: str) -> str:
    """A pod's name without what tells it from the one before."""
    return name.rpartition("-")[0]


class FakeCluster:
    """Objects by kind and name, and pods, whose kubelets are at once done with one that is deleted.

    `others` are Secrets of somebody else. `before` is called at each apply, `listed` when pods were listed.
    In what was applied or deleted, and in what fails, a pod is called by its module and slot: `gw-m-a`.
    """

    def __init__(self) -> None:
        self.objects: dict[str, set[str]] = {"Service": set(), "ServiceAccount": set()}
        self.pods_there: dict[str, Manifest] = {}
        self.others: set[str] = set()
        self.services: dict[str, dict[str, str]] = {}  # of somebody else
        self.applied: list[str] = []
        self.events: list[Manifest] = []
        self.deleted: list[tuple[str, str]] = []
        self.gateway: str | None = "10.0.0.1"
        self.before: Callable[[], None] = lambda: None
        self.listed: Callable[[], None] = lambda: None
        self.failing: dict[str, Exception] = {}  # by kind/name
        self.claims: dict[str, str] = {}  # to their phases
        self.warned: dict[str, list[tuple[str, str]]] = {}  # by kind/name
        self._watch: Callable[[str, Any], None] = lambda _kind, _pod: None

    @property
    def placed(self) -> list[str]:
        """Modules and slots of the pods that are there."""
        return sorted(map(in_slot, self.pods_there))

    def pod(self, which: str = "gw-m-a") -> Manifest:
        """The one pod of a module in a slot."""
        (found,) = (pod for name, pod in self.pods_there.items() if in_slot(name) == which)
        return found

    def becomes(self, which: str = "gw-m-a", **status: Any) -> None:
        """What the kubelet, or the scheduler, says of a pod now."""
        pod = self.pod(which)
        pod["status"] = status
        self._watch("MODIFIED", Pod.from_dict(pod))

    def ends(self, which: str = "gw-m-a", code: int = 0, *, reason: str = "", **status: Any) -> None:
        """The module of a pod ends, and with it the pod."""
        said = reason or ("Error" if code else "Completed")
        how = {"exitCode": code, "reason": said, "startedAt": STARTED, "finishedAt": ENDED}
        self.becomes(
            which,
            phase="Failed" if code else "Succeeded",
            containerStatuses=[container({"terminated": how})],
            **status,
        )

    def lose(self, which: str = "gw-m-a") -> None:
        """Somebody deletes a pod."""
        pod = self.pod(which)
        del self.pods_there[pod["metadata"]["name"]]
        self._watch("DELETED", Pod.from_dict(pod))

    def _drop(self, name: str) -> None:
        pod = self.pods_there.pop(name, None)
        if pod is not None:
            asyncio.get_running_loop().call_soon(self._watch, "DELETED", Pod.from_dict(pod))

    def _make(self, manifest: Manifest) -> str:
        name = manifest["metadata"]["name"]
        assert name not in self.pods_there, "no pod is changed"
        made = {"uid": f"uid of {name}", "creationTimestamp": LONG_AGO}
        pod = self.pods_there[name] = {**manifest, "metadata": {**manifest["metadata"], **made}}
        asyncio.get_running_loop().call_soon(self._watch, "ADDED", Pod.from_dict(pod))
        return str(made["uid"])

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

    async def apply(self, manifest: Manifest, *, force: bool = True, dry_run: bool = False) -> Applied:
        self.before()
        kind, full = manifest["kind"], manifest["metadata"]["name"]
        name = in_slot(full) if kind == "Pod" else full
        self._fail(kind, name)
        if name in self.others and not force:
            raise ApiError(status=Status(code=409, message="conflict with kubectl"))
        if dry_run:
            return Applied(full, "")
        self.applied.append(f"{kind}/{name}")
        if kind in self.objects:
            self.objects[kind].add(name)
        uid = self._make(manifest) if kind == "Pod" else f"uid of {name}"
        return Applied(full, uid)

    async def ensure_claim(self, manifest: Manifest) -> None:
        self.claims.setdefault(manifest["metadata"]["name"], "Bound")

    async def pods(self, labels: Mapping[str, str]) -> list[Pod]:
        found = [cast(Pod, Pod.from_dict(pod)) for pod in self._with(labels)]
        self.listed()
        return found

    def _with(self, labels: Mapping[str, str]) -> list[Manifest]:
        pods = self.pods_there.values()
        return [pod for pod in pods if labels.items() <= pod["metadata"]["labels"].items()]

    async def object_names(self, _labels: Mapping[str, str]) -> dict[str, set[str]]:
        return {kind: set(names) for kind, names in self.objects.items()}

    async def delete(self, kind: str, name: str) -> None:
        called = in_slot(name) if kind == "Pod" else name
        self._fail(kind, called)
        if kind == "Pod":
            self._drop(name)
        self.objects.get(kind, set()).discard(name)
        self.deleted.append((kind, called))

    async def give_up(self, pod: str) -> None:
        self.pods_there[pod]["metadata"]["labels"][manifests.SLOT_LABEL] = manifests.NO_SLOT

    async def pod_names(self, labels: Mapping[str, str]) -> set[str]:
        return {pod["metadata"]["name"] for pod in self._with(labels)}

    async def follow_config_map(self, *_: object) -> None:
        await asyncio.Event().wait()

    async def follow_pods(
        self,
        _labels: Mapping[str, str],
        changed: Callable[[str, Any], None],
        there: Callable[[set[str]], None],
    ) -> None:
        there(set(self.pods_there))
        self._watch = changed
        for pod in list(self.pods_there.values()):
            changed("ADDED", Pod.from_dict(pod))
        await asyncio.Event().wait()

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
    """Modules on a real store, between a hub and a cluster that do what the test wants.

    One on a folder, and with the cluster, of another one is the same gateway after a restart of its daemon.
    lost: nothing is left of what edgeAgent asked for.
    """

    def __init__(
        self,
        folder: Path,
        slots: str = "a",
        cluster: FakeCluster | None = None,
        *,
        chart: Iterable[Mapping[str, Any]] = (AGENT,),
        lost: bool = False,
        **environment: str,
    ) -> None:
        self.store = KeyStore.open(folder, Owner("gw-1", "hub.example.net"))
        for name, generation in KNOWN.items():
            self.store.remember(name, generation)
        if self.store.deployment is None and not lost:
            self.store.keep_deployment({"identities": ["m", "n"]})
        self.cluster, self.hub = cluster or FakeCluster(), FakeHub()
        self.modules = Modules(
            from_environment(ENVIRONMENT | {"EDGEHA_SLOTS": slots} | environment),
            self.store,
            cast(HubClient, self.hub),
            cast(Cluster, self.cluster),
        )
        self.chart(*chart)

    def chart(self, *entries: Mapping[str, Any]) -> None:
        self.modules.take({"modules.json": json.dumps(entries)})

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.modules.run())
        yield
        assert not task.done(), "the loops go on"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def spec(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "type": "docker", "config": {"settings": {"image": "r/i:1", **settings}}}


LOGIN = {"serveraddress": "registry.plant", "username": "u", "password": "p"}


def container(state: dict[str, Any]) -> dict[str, Any]:
    """The status of a module's container."""
    found = {"name": "module", "image": "i", "imageID": "", "restartCount": 0, "state": state}
    return found | {"ready": "running" in state}


def pod_is(
    gateway: Gateway, *, claim: str = "", started: bool = False, node: str = "node-a", unfit: str = ""
) -> None:
    """Tell the pod of `m` as it is now; unfit: why no node is."""
    spec = gateway.cluster.pod()["spec"]
    spec["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}] if claim else []
    spec["nodeName"] = "" if unfit else node
    state = {"running": {"startedAt": STARTED}} if started else {"waiting": {"reason": "X"}}
    unscheduled = {"type": "PodScheduled", "status": "False", "message": unfit}
    gateway.cluster.becomes(
        conditions=[unscheduled] if unfit else [], containerStatuses=[] if unfit else [container(state)]
    )


@pytest.fixture
async def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    monkeypatch.setattr(modules, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(modules, "RETRY_SECONDS", (0.01,))
    monkeypatch.setattr(volumes, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(placement, "LOST_SECONDS", 0.0)
    made = Gateway(tmp_path)
    async with made.running():
        yield made


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_full_disk_is_told_of_the_module_that_waits_for_it_and_ends_nothing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = gateway.store.keep_deployment

    def full(content: dict[str, Any]) -> None:
        if content["pullSecrets"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        keep(content)

    monkeypatch.setattr(gateway.store, "keep_deployment", full)
    await gateway.modules.deployment.create(spec("m", auth=LOGIN))
    await gateway.modules.deployment.create(spec("n"))
    await gateway.modules.deployment.run("n", True)
    await until(lambda: any("No space left" in reason for reason in gateway.modules.not_ready()))
    await until(lambda: "Pod/gw-n-a" in gateway.cluster.applied)
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
        (
            ApiError(status=Status(code=413, message="too large")),
            "its pod in slot a is not made: API server: too large (413)",
        ),
        (
            ApiError(status=Status(code=500, message="webhook")),
            "its pod in slot a is not made: API server: webhook (500)",
        ),
        (httpx2.ReadTimeout("slow webhook"), "API server does not answer: slow webhook"),
        (KeyError("name"), "internal error, see the daemon's log"),
    ],
)
async def test_one_bad_module_is_told_and_stops_nothing_of_the_others(
    gateway: Gateway, error: Exception, said: str
) -> None:
    gateway.chart(AGENT, {"name": "old", "image": "i"}, {"name": "stuck", "image": "i"})
    await until(lambda: gateway.modules.not_ready() == [])
    gateway.cluster.failing |= {"Pod/gw-bad-a": error, "Pod/gw-old-a": error}
    gateway.chart(AGENT, {"name": "bad", "image": "i"}, {"name": "after", "image": "i"})
    # `old` cannot be deleted, `stuck` behind it goes; of `bad` something is missing, `after` is there.
    await until(lambda: ("ServiceAccount", "gw-stuck") in gateway.cluster.deleted)
    assert "gw-stuck-a" not in gateway.cluster.placed
    await until(lambda: "Pod/gw-after-a" in gateway.cluster.applied)
    await until(lambda: said in str(gateway.modules.not_ready()))
    assert gateway.modules.not_ready() == [f"module bad: {said}"]
    gateway.cluster.failing.clear()
    await until(lambda: gateway.modules.not_ready() == [])
    await until(lambda: "gw-old-a" not in gateway.cluster.placed)


async def test_a_cluster_that_is_away_is_not_asked_for_each_module(gateway: Gateway) -> None:
    gateway.cluster.failing |= {"ServiceAccount/gw-m": httpx2.ConnectError("refused")}
    await gateway.modules.deployment.create(spec("m"))
    await gateway.modules.deployment.create(spec("n"))
    await until(lambda: gateway.modules.not_ready())
    away = "API server does not answer: refused"
    await until(lambda: gateway.modules.not_ready() == [f"module m: {away}", f"module n: {away}"])
    assert "ServiceAccount/gw-n" not in gateway.cluster.applied
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
    await until(lambda: gateway.cluster.applied.count("ServiceAccount/gw-edgeagent") == 2)


async def test_a_secret_of_somebody_else_is_neither_written_nor_deleted(gateway: Gateway) -> None:
    gateway.cluster.others.add("gw-m-registry")
    await gateway.modules.deployment.create(spec("m", auth=LOGIN))
    await until(lambda: any("conflict with kubectl" in reason for reason in gateway.modules.not_ready()))
    await gateway.modules.deployment.remove("m")
    await until(lambda: gateway.modules.not_ready() == [])
    assert gateway.modules.deployment.pull_secrets == frozenset()
    assert ("Secret", "gw-m-registry") not in gateway.cluster.deleted


async def test_only_objects_with_the_labels_of_a_module_are_deleted(gateway: Gateway) -> None:
    await running_module(gateway)
    assert gateway.cluster.placed == ["gw-edgeagent-a", "gw-m-a"]
    await gateway.modules.deployment.remove("m")
    await until(lambda: ("ServiceAccount", "gw-m") in gateway.cluster.deleted)
    assert gateway.cluster.placed == ["gw-edgeagent-a"]
    deleted = [("Pod", "gw-m-a"), ("Service", "m"), ("ServiceAccount", "gw-m")]
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
    await gateway.modules.deployment.run("m", True)
    await until(lambda: any("Service m is somebody else's" in one for one in gateway.modules.not_ready()))
    await until(lambda: "gw-m-a" in gateway.cluster.placed)
    assert "Service/m" not in gateway.cluster.applied
    gateway.cluster.services["m"] = manifests.selector("gw")
    gateway.modules.reprovision()
    await until(lambda: gateway.modules.not_ready() == [])
    assert "Service/m" in gateway.cluster.applied


async def test_a_refused_edge_agent_takes_no_name_out_of_the_hosts_files(gateway: Gateway) -> None:
    await running_module(gateway)
    names = [entry["hostnames"] for entry in gateway.cluster.pod()["spec"]["hostAliases"]]
    assert names == [["gw-daemon.edge-gw.svc"], ["hub.example.net"]]
    gateway.chart({**AGENT, "env": 1})
    assert gateway.modules.agent == "$edgeAgent"
    # As after a restart of the daemon, which then knows no address yet.
    gateway.modules._addresses = Addresses()
    await looked_at(gateway)
    assert gateway.modules._addresses == Addresses("10.0.0.2", "10.0.0.1")
    assert "Pod/gw-m-a" not in gateway.cluster.applied, "its pod knows them still"


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


SENSOR = {"name": "sensor", "image": "r/sensor:1"}
PUMP = {"name": "pump", "image": "r/pump:1"}


@pytest.fixture
async def restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    """A gateway that lost what edgeAgent asked for; the chart's pump left while its daemon was away."""
    monkeypatch.setattr(modules, "SETTLE_SECONDS", 0.0)
    before = KeyStore.open(tmp_path, Owner("gw-1", "hub.example.net"))
    for name in ("sensor", "pump"):
        before.remember(name, "1")
    before.keep_module_set(json.dumps([AGENT, SENSOR, PUMP]))
    made = Gateway(tmp_path, chart=(AGENT, SENSOR), lost=True)
    made.hub.generations |= {"sensor": "1", "pump": "1"}
    async with made.running():
        yield made


async def test_identities_stay_where_nothing_is_left_that_says_that_edge_agent_made_them(
    restored: Gateway,
) -> None:
    await until(lambda: restored.modules.identities.known == KNOWN | {"sensor": "1"})
    assert restored.hub.removed == ["pump"]
    assert restored.modules.deployment.identities == {"m", "n"}
    assert set(restored.modules.deployment.modules) == {"edgeAgent"}
    kept = restored.store.deployment or {}
    assert kept["identities"] == ["m", "n"], "it is on disk before anything goes"
    # The chart's own goes with the chart, and edgeAgent's when edgeAgent says so.
    restored.chart(AGENT)
    await until(lambda: restored.hub.removed == ["pump", "sensor"])
    await restored.modules.identities.remove("n")
    await restored.modules.deployment.drop_identity("n")
    restored.modules.reprovision()
    await until(lambda: restored.modules.identities.is_checked("m"))
    assert restored.modules.identities.known == {"$edgeAgent": "1", "m": "2"}


async def test_what_edge_agent_asks_for_first_takes_no_identity_of_before_away(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, lost=True)
    await gateway.modules.deployment.keep_identity("new")
    assert gateway.modules.deployment.identities == {"m", "n", "new"}
    assert Gateway(tmp_path, lost=True).modules.deployment.identities == {"m", "n", "new"}


async def test_a_gateway_without_edge_agent_adopts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules, "SETTLE_SECONDS", 0.0)
    gateway = Gateway(tmp_path, chart=(SENSOR,), lost=True)
    async with gateway.running():
        await until(lambda: gateway.hub.removed == ["m", "n"])
    assert gateway.store.deployment is None


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
    async with made.running():
        await until(lambda: made.cluster.applied.count("ServiceAccount/gw-edgeagent") > 2)


async def test_each_module_is_in_every_slot_and_a_slot_that_goes_takes_its_pods(tmp_path: Path) -> None:
    both = Gateway(tmp_path, "a,b")
    async with both.running():
        await until(lambda: both.cluster.placed == ["gw-edgeagent-a", "gw-edgeagent-b"])
        assert both.cluster.objects["ServiceAccount"] == {"gw-edgeagent"}
        await until(lambda: not both.modules.not_ready())

    one = Gateway(tmp_path, cluster=both.cluster)
    async with one.running():
        await until(lambda: one.cluster.placed == ["gw-edgeagent-a"])
        assert set(one.cluster.deleted) == {("Pod", "gw-edgeagent-b")}


async def test_a_pod_that_somebody_deleted_is_made_again_in_each_slot(tmp_path: Path) -> None:
    both = Gateway(tmp_path, "a,b")
    async with both.running():
        await until(lambda: not both.modules.not_ready())
        for slot in "ab":
            both.cluster.applied.clear()
            both.cluster.lose(f"gw-edgeagent-{slot}")
            await until(lambda slot=slot: f"Pod/gw-edgeagent-{slot}" in both.cluster.applied)
            await until(lambda: not both.modules.not_ready())
            assert both.cluster.applied == [f"Pod/gw-edgeagent-{slot}"]


async def test_a_pod_of_a_module_that_left_goes_however_late_it_is_seen(gateway: Gateway) -> None:
    await running_module(gateway)
    late = gateway.cluster.pod()
    await gateway.modules.deployment.remove("m")
    await until(lambda: ("ServiceAccount", "gw-m") in gateway.cluster.deleted)
    # As one that a daemon before this one made while this one looked.
    gateway.cluster.pods_there[late["metadata"]["name"]] = late
    gateway.cluster.becomes(phase="Running")
    await until(lambda: gateway.cluster.placed == ["gw-edgeagent-a"])


@pytest.mark.parametrize("running", [False, True])
async def test_what_is_wrong_with_a_module_is_an_event_at_its_pod_or_else_at_its_account(
    gateway: Gateway, running: bool
) -> None:
    await gateway.modules.deployment.create(spec("m", auth=LOGIN))
    await gateway.modules.deployment.run("m", running)
    await until(lambda: gateway.modules.not_ready() == [])
    gateway.cluster.others.add("gw-m-registry")
    gateway.modules.reprovision()
    await until(lambda: gateway.cluster.events)
    (event,) = gateway.cluster.events
    assert (event["type"], event["reason"]) == ("Warning", "ObjectsNotMade")
    assert event["message"] == "module m: API server: conflict with kubectl (409)"
    name = gateway.cluster.pod()["metadata"]["name"] if running else "gw-m"
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod" if running else "ServiceAccount",
        "name": name,
        "namespace": "edge-gw",
        "uid": f"uid of {name}",
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
    await until(lambda: gateway.modules.not_ready() == [] and "gw-m-a" in gateway.cluster.placed)


async def looked_at(gateway: Gateway) -> None:
    """Wait until everything was looked at once more."""
    gateway.cluster.applied.clear()
    gateway.modules.reprovision()
    await until(lambda: "ServiceAccount/gw-m" in gateway.cluster.applied)
    await until(lambda: not any("m:" in reason for reason in gateway.modules.not_ready()))


def name_of(gateway: Gateway, which: str = "gw-m-a") -> str:
    """The name of the one pod of a module in a slot."""
    return str(gateway.cluster.pod(which)["metadata"]["name"])


def exited(code: int) -> dict[str, str]:
    return {"exitTime": ENDED, "statusCode": str(code)}


@pytest.mark.parametrize(("code", "called"), [(0, "stopped"), (3, "failed")])
async def test_a_module_that_ended_stays_ended_with_its_pod_and_without_also_for_the_next_daemon(
    gateway: Gateway, tmp_path: Path, code: int, called: str
) -> None:
    def told(which: Gateway) -> dict[str, Any]:
        return which.modules.status("m", running=True).document()

    await running_module(gateway)
    pod_is(gateway, started=True)
    name = name_of(gateway)
    gateway.cluster.ends(code=code)
    await until(lambda: gateway.modules.deployment.ended("m"))
    expected = told(gateway)
    assert expected["runtimeStatus"]["status"] == called
    assert (expected["startTime"], expected["exitStatus"]) == (STARTED, exited(code))
    await looked_at(gateway)
    assert (name_of(gateway), told(gateway)) == (name, expected)
    again = Gateway(tmp_path, cluster=gateway.cluster)
    async with again.running():
        await looked_at(again)
        assert (name_of(again), told(again)) == (name, expected)
        assert again.modules.not_ready() == []
        # As a drain does, or who looks for what is over.
        again.cluster.lose()
        await until(lambda: again.modules.pods.of("m") == [])
        await looked_at(again)
        assert (again.cluster.placed, told(again)) == (["gw-edgeagent-a"], expected)
    last = Gateway(tmp_path, cluster=gateway.cluster)
    async with last.running():
        await looked_at(last)
        assert (last.cluster.placed, told(last)) == (["gw-edgeagent-a"], expected)
        assert await last.modules.deployment.run("m", True)
        await until(lambda: "gw-m-a" in last.cluster.placed)


async def test_an_end_while_no_daemon_was_there_is_one_too(gateway: Gateway, tmp_path: Path) -> None:
    await running_module(gateway)
    name, gateway.cluster._watch = name_of(gateway), lambda _kind, _pod: None
    gateway.cluster.ends(code=3)
    again = Gateway(tmp_path, cluster=gateway.cluster)
    async with again.running():
        await until(lambda: state(again) == ("failed", "Error"))
        await looked_at(again)
        assert name_of(again) == name
        assert again.modules.deployment.ended("m") is not None


async def test_a_module_that_ended_has_no_pod_that_waits_in_the_standby(tmp_path: Path) -> None:
    both = Gateway(tmp_path, "a,b")
    async with both.running():
        await running_module(both)
        await until(lambda: "gw-m-b" in both.cluster.placed)
        both.cluster.ends()
        await until(lambda: "gw-m-b" not in both.cluster.placed)
        await looked_at(both)
        assert both.cluster.placed == ["gw-edgeagent-a", "gw-edgeagent-b", "gw-m-a"]
    # The slot that works now has nothing to start.
    other = Gateway(tmp_path, "a,b", cluster=both.cluster, EDGEHA_SLOT="b")
    async with other.running():
        await looked_at(other)
        assert other.cluster.placed == ["gw-edgeagent-a", "gw-edgeagent-b"]
        assert state(other) == ("stopped", "Completed")
        await other.modules.deployment.restart("m")
        await until(lambda: {"gw-m-a", "gw-m-b"} <= set(other.cluster.placed))


@pytest.mark.parametrize("call", ["start", "restart", "update"])
@pytest.mark.parametrize("ended", [True, False])
async def test_each_start_gives_a_module_a_new_pod(gateway: Gateway, call: str, ended: bool) -> None:
    asked = gateway.modules.deployment
    await running_module(gateway)
    pod_is(gateway, started=True)
    name = name_of(gateway)
    if ended:
        gateway.cluster.ends(code=3)
        await until(lambda: asked.ended("m"))
    if call == "start":
        assert await asked.run("m", True) is ended, "one that runs is left alone"
    elif call == "restart":
        await asked.restart("m")
    else:
        await asked.update("m", spec("m"), start=True)
    if call == "start" and not ended:
        await looked_at(gateway)
        assert name_of(gateway) == name
        return
    await until(lambda: "gw-m-a" in gateway.cluster.placed and name_of(gateway) != name)
    await until(lambda: gateway.modules.not_ready() == [])
    assert state(gateway) == ("unknown", "its pod starts")
    assert gateway.cluster.deleted.count(("Pod", "gw-m-a")) == 1


async def test_a_quick_stop_and_start_gives_a_new_pod(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running_module(gateway)
    name = name_of(gateway)
    # Long enough for both to come before the daemon looks.
    monkeypatch.setattr(modules, "SETTLE_SECONDS", 0.3)
    assert await gateway.modules.deployment.run("m", False)
    assert await gateway.modules.deployment.run("m", True)
    await until(lambda: "gw-m-a" in gateway.cluster.placed and name_of(gateway) != name)


def evicted(cluster: FakeCluster) -> None:
    cluster.ends(code=137, conditions=[{"type": "DisruptionTarget", "status": "True"}])


def before_it_ran(cluster: FakeCluster) -> None:
    cluster.becomes(phase="Failed", reason="OutOfcpu")


TAKEN: dict[str, Callable[[FakeCluster], None]] = {
    "evicted": evicted,
    "its machine was away": lambda cluster: cluster.ends(code=137, reason="ContainerStatusUnknown"),
    "its runtime was away": lambda cluster: cluster.ends(code=255, reason="Unknown"),
    "refused by the kubelet": before_it_ran,
    "deleted": lambda cluster: cluster.lose(),
}


@pytest.mark.parametrize("how", TAKEN)
async def test_what_was_taken_from_a_module_is_made_again(gateway: Gateway, how: str) -> None:
    await running_module(gateway)
    name = name_of(gateway)
    TAKEN[how](gateway.cluster)
    await until(lambda: "gw-m-a" in gateway.cluster.placed and name_of(gateway) != name)
    await until(lambda: state(gateway) == ("unknown", "its pod starts"))
    assert gateway.modules.deployment.ended("m") is None


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("which", ["gw-edgeagent-a", "gw-own-a"])
async def test_a_finished_pod_of_the_chart_or_of_edge_agent_is_made_again(
    gateway: Gateway, which: str, code: int
) -> None:
    # The kubelet starts them, so one that is finished was ended with its machine.
    gateway.chart(AGENT, {"name": "own", "image": "i"})
    await until(lambda: gateway.modules.not_ready() == [] and which in gateway.cluster.placed)
    name = name_of(gateway, which)
    gateway.cluster.ends(which, code)
    await until(lambda: which in gateway.cluster.placed and name_of(gateway, which) != name)


@pytest.mark.parametrize("everything", [False, True])
async def test_an_end_between_listing_and_settling_is_not_missed(gateway: Gateway, everything: bool) -> None:
    await running_module(gateway)
    name, ended = name_of(gateway), []

    def end() -> None:
        gateway.cluster.listed = lambda: None
        gateway.cluster.ends(code=3)
        ended.append(True)

    gateway.cluster.listed = end
    if everything:
        gateway.modules.reprovision()
    else:
        # Something about its pods gives a reason to look at them.
        gateway.modules._pods_there(set())
    await until(lambda: ended)
    await until(lambda: gateway.modules.deployment.ended("m"))
    assert (state(gateway), name_of(gateway)) == (("failed", "Error"), name)


async def test_a_pod_that_is_lost_between_listing_and_settling_is_made_again(gateway: Gateway) -> None:
    await running_module(gateway)
    name = name_of(gateway)

    def lose() -> None:
        gateway.cluster.listed = lambda: None
        gateway.cluster.lose()

    gateway.cluster.listed = lose
    gateway.modules.reprovision()
    await until(lambda: "gw-m-a" in gateway.cluster.placed and name_of(gateway) != name)


async def test_a_pod_that_is_lost_while_those_of_the_other_slots_are_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "LOST_SECONDS", 0.0)
    both = Gateway(tmp_path, "a,b")
    async with both.running():
        await running_module(both)
        both.cluster.ends(code=3)
        await until(lambda: "gw-m-b" not in both.cluster.placed and not both.modules.not_ready())
        both.cluster.applied.clear()
        names = [name_of(both)]

        def refuse() -> None:
            if "Pod/gw-m-a" in both.cluster.applied:
                both.cluster.before = lambda: None
                names.append(name_of(both))
                before_it_ran(both.cluster)

        both.cluster.before = refuse
        await both.modules.deployment.restart("m")
        await until(lambda: len(names) == 2)
        await until(lambda: "gw-m-a" in both.cluster.placed and name_of(both) not in names)


async def test_an_end_that_cannot_be_noted_is_told_and_made_no_new_run_of(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running_module(gateway)
    name, keep = name_of(gateway), gateway.store.keep_deployment

    def full(_content: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gateway.store, "keep_deployment", full)
    gateway.cluster.ends(code=3)
    await until(lambda: any("No space left" in reason for reason in gateway.modules.not_ready()))
    assert (name_of(gateway), state(gateway)[0]) == (name, "failed")
    monkeypatch.setattr(gateway.store, "keep_deployment", keep)
    await until(lambda: gateway.modules.deployment.ended("m"))
    await until(lambda: gateway.modules.not_ready() == [])
    assert name_of(gateway) == name


def messages(gateway: Gateway, reason: str) -> list[str]:
    return [event["message"] for event in gateway.cluster.events if event["reason"] == reason]


async def test_what_the_api_server_refuses_is_the_modules_state(gateway: Gateway) -> None:
    wrong = ApiError(status=Status(code=422, message="spec.x: wrong"))
    gateway.cluster.failing["Pod/gw-m-a"] = wrong
    await gateway.modules.deployment.create(spec("m"))
    await gateway.modules.deployment.run("m", True)
    said = "API server: spec.x: wrong (422)"
    await until(lambda: state(gateway) == ("failed", f"its pod is not made: {said}"))
    assert gateway.modules.states()["m"] == "failed"
    gateway.cluster.failing.clear()
    await until(lambda: state(gateway) == ("unknown", "its pod starts"))
    pod_is(gateway, started=True)
    # A pod of before goes on, and the reason is told beside it.
    gateway.cluster.failing["Secret/gw-m-registry"] = wrong
    await gateway.modules.deployment.update("m", spec("m", auth=LOGIN), start=True)
    await until(lambda: state(gateway) == ("running", said))
    gateway.cluster.failing.clear()
    await until(lambda: state(gateway) == ("unknown", "its pod starts"))
    pod_is(gateway, started=True)
    assert state(gateway) == ("running", "")


async def test_a_refused_module_says_why(gateway: Gateway) -> None:
    await running_module(gateway)
    gateway.chart(AGENT, {"name": "M", "image": "i"})
    assert state(gateway)[0] == "failed"
    assert state(gateway)[1].startswith("refused: its object name gw-m belongs to module M too")


async def test_a_pod_that_the_cluster_does_not_make_is_told_until_it_does(gateway: Gateway) -> None:
    await running_module(gateway)
    gateway.cluster.failing["Pod/gw-m-a"] = ApiError(status=Status(code=403, message="violates PodSecurity"))
    gateway.cluster.lose()
    said = "API server: violates PodSecurity (403)"
    await until(lambda: state(gateway) == ("failed", f"its pod is not made: {said}"))
    told = f"module m: its pod in slot a is not made: {said}"
    await until(lambda: gateway.modules.not_ready() == [told])
    await until(lambda: messages(gateway, "ObjectsNotMade") == [told])
    gateway.cluster.failing.clear()
    await until(lambda: (state(gateway)[0], gateway.modules.not_ready()) == ("unknown", []))


async def test_a_standby_whose_pods_are_not_made_is_told(tmp_path: Path) -> None:
    made = Gateway(tmp_path, "a,b")
    async with made.running():
        await until(lambda: not made.modules.not_ready())
        quota = ApiError(status=Status(code=403, message="exceeded quota"))
        made.cluster.failing["Pod/gw-edgeagent-b"] = quota
        made.cluster.lose("gw-edgeagent-b")
        said = "its pod in slot b is not made: API server: exceeded quota (403)"
        await until(lambda: made.modules.not_ready() == [f"module edgeAgent: {said}"])
        assert state(made, "edgeAgent")[0] == "unknown", "the slot that works has nothing of it"


async def test_a_claim_that_cannot_bind_is_told(gateway: Gateway) -> None:
    await running_module(gateway)
    gateway.cluster.claims["gw-volume-data"] = "Pending"
    pod_is(gateway, claim="gw-volume-data")
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
    pod_is(gateway, claim="gw-volume-data", unfit="unbound claims")
    assert state(gateway) == ("failed", f"no node for it: unbound claims; {said}")
    gateway.cluster.claims["gw-volume-data"] = "Bound"
    pod_is(gateway, claim="gw-volume-data")
    await until(lambda: state(gateway) == ("unknown", "X"))
    assert gateway.modules.not_ready() == []
    gateway.cluster.claims["gw-volume-data"] = "Lost"
    await until(lambda: "lost its volume" in state(gateway)[1])


async def test_a_volume_that_is_not_mounted_is_told_until_the_module_runs(gateway: Gateway) -> None:
    await running_module(gateway)
    pod = f"Pod/{gateway.cluster.pod()['metadata']['name']}"
    gateway.cluster.warned[pod] = [("FailedMount", "no such export"), ("BackOff", "y")]
    pod_is(gateway)
    await until(
        lambda: state(gateway) == ("unknown", "its volumes are not there: FailedMount: no such export")
    )
    # A question that gets no answer takes nothing back, and ends nothing.
    for error in (httpx2.ReadTimeout("slow"), KeyError("Content-Type")):
        gateway.cluster.failing[pod] = error
        await asyncio.sleep(0.05)
    gateway.cluster.failing.clear()
    await until(lambda: "no such export" in state(gateway)[1])
    pod_is(gateway, started=True)
    assert state(gateway) == ("running", "")


async def test_a_module_on_another_machine_than_its_daemon_is_told_with_the_fix(gateway: Gateway) -> None:
    await running_module(gateway)
    pod_is(gateway, started=True)
    assert gateway.modules.elsewhere() == {"edgeAgent": "", "m": ""}
    pod_is(gateway, started=True, node="node-b")
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
    pod_is(gateway, unfit="0/3 nodes")
    assert bool(gateway.modules.elsewhere()["m"]) is bool(own)
    found, description = state(gateway)
    assert (found, description.startswith("no node for it: 0/3 nodes")) == ("failed", True)
    if own:
        assert "make its own nodeSelector and affinity fit that node" in description
        assert len(gateway.modules.not_ready()) == 1


async def test_an_end_counts_though_a_new_pod_would_be_another_one(tmp_path: Path) -> None:
    first = Gateway(tmp_path)
    async with first.running():
        await running_module(first)
    # Between two daemons, of which the next one has another sidecar.
    first.cluster._watch = lambda _kind, _pod: None
    first.cluster.ends(code=0)
    again = Gateway(tmp_path, cluster=first.cluster, EDGEHA_WORKLOAD_PROXY_IMAGE="r/workload-proxy:2")
    async with again.running():
        await until(lambda: again.modules.deployment.ended("m"))
        await looked_at(again)
        assert "gw-m-a" not in again.cluster.placed
        assert state(again) == ("stopped", "Completed")
        assert await again.modules.deployment.run("m", True)
        await until(lambda: "gw-m-a" in again.cluster.placed)


async def test_a_refused_module_stays_as_it_was_though_its_pod_is_taken(gateway: Gateway) -> None:
    gateway.chart(AGENT, {"name": "m", "image": "i"})
    await until(lambda: gateway.modules.not_ready() == [] and "gw-m-a" in gateway.cluster.placed)
    gateway.chart(AGENT, {"name": "m", "image": "i"}, {"name": "M", "image": "other"})
    await until(lambda: state(gateway)[1].startswith("refused"))
    before = name_of(gateway)
    gateway.cluster.lose()
    await until(lambda: "gw-m-a" in gateway.cluster.placed and name_of(gateway) != before)
    assert gateway.cluster.pod()["spec"]["containers"][0]["image"] == "i"


async def test_a_pod_whose_making_was_not_answered_does_not_stay_beside_another(gateway: Gateway) -> None:
    await running_module(gateway)
    pod = gateway.cluster.pod()
    late = "gw-m-a-000000"
    metadata = {**pod["metadata"], "name": late, "uid": "late", "creationTimestamp": ENDED}
    gateway.cluster.pods_there[late] = {**pod, "metadata": metadata}
    gateway.cluster._watch("ADDED", Pod.from_dict(gateway.cluster.pods_there[late]))
    await until(lambda: late not in gateway.cluster.pods_there)
    assert name_of(gateway) == pod["metadata"]["name"]
