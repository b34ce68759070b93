# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chart and daemon against a real Kubernetes control plane (etcd, API server, controller manager; no nodes).

No scheduler binds a pod, so one that is deleted goes at once.

Rights, server-side apply, admission by the restricted pod standard, token review and garbage collection are
judged by Kubernetes itself here. The binary is the lab's (`lab build`), or EDGEHA_KUBE_BINARY.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from edgeha_runtime.daemon.keystore import KeyStore, Owner

from tests.integration.modules.control_plane import HELM, kube_binary
from tests.integration.runtime.parts import Daemon, until
from tests.integration.runtime.standin_api import in_slot
from tests.ports import free_port

CHART = Path(__file__).parents[3] / "charts" / "edge-runtime"
SENSOR = {"name": "sensor", "image": "r/sensor:1"}
OTHER = {"name": "Other.One", "image": "r/other:1"}
NAMESPACE = "edge-gw"


@dataclass
class ControlPlane:
    """A control plane on loopback."""

    folder: Path
    binary: Path
    port: int = 0

    def config(self, token: str) -> str:
        user = {"name": "t", "user": {"token": token}}
        cluster = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self.folder / "pki/apiserver.crt"),
        }
        context = {"name": "t", "context": {"cluster": "t", "user": "t", "namespace": NAMESPACE}}
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "t",
                "contexts": [context],
                "clusters": [{"name": "t", "cluster": cluster}],
                "users": [user],
            }
        )

    def kubeconfig(self) -> str:
        """What the daemon's own ServiceAccount may do, and no more."""
        return self.config(self.kubectl("create", "token", "gw-daemon").strip())

    @property
    def admin(self) -> Path:
        return self.folder / "admin.kubeconfig"

    def run(self, *command: str | Path, data: str | None = None) -> str:
        done = subprocess.run(
            command, input=data, capture_output=True, text=True, timeout=60, check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "KUBECONFIG": str(self.admin)},
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def kubectl(self, *arguments: str, data: str | None = None) -> str:
        return self.run(self.binary, "kubectl", "-n", NAMESPACE, *arguments, data=data)

    def get(self, *what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", *what, "-o", "json"))
        return found

    def events(self, kind: str, name: str) -> str:
        """Reasons and messages of the events about an object, by its uid as `kubectl describe` finds them."""
        uid = self.get(kind, name)["metadata"]["uid"]
        found = self.get("events", "--field-selector", f"involvedObject.uid={uid}")["items"]
        return "\n".join(f"{event['reason']}: {event['message']}" for event in found)

    def pod(self, name: str) -> dict[str, Any]:
        """The one pod of a module in a slot (`gw-sensor-a`); {} where there is none."""
        found = self.get("pods", "-l", "app.kubernetes.io/component=module")["items"]
        (pod,) = [one for one in found if in_slot(one["metadata"]["name"]) == name] or [{}]
        return dict(pod)

    def placed(self) -> set[str]:
        """Modules in slots (`gw-sensor-a`) that have a pod."""
        return {in_slot(name) for name in self.listed("pods")}

    def listed(self, kind: str, labels: str = "app.kubernetes.io/component=module") -> set[str]:
        return {item["metadata"]["name"] for item in self.get(kind, "-l", labels)["items"]}

    def install(self, *modules: dict[str, Any]) -> None:
        values = {
            "gateway": {"deviceId": "gw-1", "iothubHostname": "hub.test"},
            "credential": {"existingSecret": "gw-credential"},
            "image": {"registry": "r"},
            "storage": {"className": "none"},
            "modules": list(modules),
        }
        command = ("upgrade", "--install", "gw", CHART, "--namespace", NAMESPACE, "--values", "-")
        self.run(HELM, *command, data=json.dumps(values))

    def uninstall(self) -> None:
        self.run(HELM, "uninstall", "gw", "--namespace", NAMESPACE)


@contextlib.contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """A running control plane with a namespace that enforces the restricted pod standard."""
    made = ControlPlane(folder, kube_binary(), free_port())
    etcd, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    for command in (
        ("openssl", "genrsa", "-out", "sa.key", "2048"),
        ("openssl", "rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub"),
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)
    (folder / "tokens.csv").write_text("admin-token,admin,1,system:masters\n")
    made.admin.write_text(made.config("admin-token"))
    made.admin.chmod(0o600)
    components = {
        "etcd": (
            "--data-dir=etcd", f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}", "--unsafe-no-fsync",
        ),
        "kube-apiserver": (
            f"--etcd-servers={etcd}", "--cert-dir=pki", f"--secure-port={made.port}",
            "--bind-address=127.0.0.1", "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-key-file=sa.pub",
            "--service-account-signing-key-file=sa.key", "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.99.0.0/24", "--token-auth-file=tokens.csv",
            "--endpoint-reconciler-type=none",
        ),
        "kube-controller-manager": (
            f"--kubeconfig={made.admin}", "--leader-elect=false", "--secure-port=0",
            "--controllers=deployment-controller,replicaset-controller,garbage-collector-controller,"
            "serviceaccount-controller,persistentvolume-binder-controller",
        ),
    }  # fmt: skip
    started: list[subprocess.Popen[bytes]] = []
    try:
        for name, flags in components.items():
            with (folder / f"{name}.log").open("wb") as log:
                process = subprocess.Popen([made.binary, name, *flags], cwd=folder, stdout=log, stderr=log)
            started.append(process)
            if name == "kube-apiserver":
                _wait_for_api(made, started)
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }
        made.kubectl("apply", "-f", "-", data=json.dumps(namespace))
        yield made
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            process.kill()
            process.wait(timeout=10)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("cluster")) as made:
        yield made


def _wait_for_api(made: ControlPlane, started: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + 90
    while True:
        try:
            made.run(made.binary, "kubectl", "get", "--raw", "/readyz")
        except AssertionError as error:
            dead = [process.args for process in started if process.poll() is not None]
            assert not dead, f"ended: {dead}, see the logs in {made.folder}"
            if time.monotonic() > deadline:
                pytest.fail(f"API server not ready in 90 s: {error}")
            time.sleep(0.5)
        else:
            return


@pytest.fixture
async def gateway(cluster: ControlPlane, tmp_path: Path, certificates: Path) -> AsyncIterator[Daemon]:
    """The installed chart, and its daemon as a process with the rights of its ServiceAccount. Hub: away."""
    cluster.install(SENSOR, OTHER)
    daemon = Daemon(
        cluster=cluster,
        folder=tmp_path,
        hub=f"127.0.0.1:{free_port()}",
        device_key="ZGV2aWNlLWtleS1vZi10aGUtdGVzdHM=",
        trust=(certificates / "ca.crt").read_text(),
    )
    daemon.state.mkdir()
    store = KeyStore.open(daemon.state, Owner("gw-1", daemon.hub))
    store.remember("sensor", "1")
    store.remember("Other.One", "2")
    await daemon.start()
    await until("ready", daemon.is_ready)
    yield daemon
    if daemon.process is not None:
        await daemon.stop(signal.SIGKILL)


async def test_module_pods_pass_the_restricted_pod_standard(cluster: ControlPlane, gateway: Daemon) -> None:
    assert cluster.placed() == {"gw-sensor-a", "gw-other-one-a"}
    assert cluster.listed("deployments") == set()
    await until("a pod for each module and the daemon", lambda: len(cluster.get("pods")["items"]) == 3)


async def test_tokens_are_judged_by_the_api_server(cluster: ControlPlane, gateway: Daemon) -> None:
    def token(account: str, *options: str) -> str:
        return cluster.kubectl("create", "token", account, *options).strip()

    ours = "--audience=edgeha-gw"

    def pod(module: str) -> str:
        found = cluster.get("pods", "-l", f"net.azure-devices.edge.module={module}")["items"]
        return str(found[0]["metadata"]["name"])

    def of_pod(account: str, name: str) -> str:
        return token(account, ours, "--bound-object-kind=Pod", f"--bound-object-name={name}")

    def at(name: str, address: str) -> None:
        # What a kubelet tells.
        status = {"status": {"podIP": address, "podIPs": [{"ip": address}]}}
        cluster.kubectl("patch", "pod", name, "--subresource=status", "-p", json.dumps(status))

    bound = pod("sensor")
    at(bound, "127.0.0.1")
    mine = of_pod("gw-sensor", bound)
    cases = [
        (mine, 200),
        # Of no pod, so nobody knows from where it may come.
        (token("gw-sensor", ours), 403),
        (token("gw-sensor"), 401),
        (token("gw-sensor", "--audience=edgeha-other"), 401),
        (token("gw-other-one", ours), 403),
        (token("gw-daemon", ours), 403),
        (token("default", ours), 403),
        ("admin-token", 401),
    ]
    body = json.dumps({"keyId": "primary", "algo": "HMACSHA256", "data": "AA=="})
    url = "/modules/sensor/genid/1/sign?api-version=2020-07-07"

    async def asked(bearer: str, address: str = "127.0.0.1") -> int:
        headers = {"Authorization": f"Bearer {bearer}"}
        async with (
            gateway.session(address=address) as session,
            session.post(url, data=body, headers=headers) as answer,
        ):
            return answer.status

    assert [await asked(bearer) for bearer, _status in cases] == [status for _bearer, status in cases]
    assert await asked(mine, "127.0.0.2") == 403, "it was taken from its pod"
    other = pod("Other.One")
    theirs = of_pod("gw-other-one", other)
    assert await asked(theirs) == 503, "its pod has no address yet"
    at(other, "127.0.0.2")
    # Known, and not allowed what is the sensor's.
    assert await asked(theirs, "127.0.0.2") == 403
    assert "its own name" in gateway.log[-1]["reason"]


async def test_the_daemon_may_do_no_more_than_it_needs(cluster: ControlPlane, gateway: Daemon) -> None:
    me = f"--as=system:serviceaccount:{NAMESPACE}:gw-daemon"
    asked = {
        ("get", "secrets"): "no",
        ("get", "configmaps/gw-trust-bundle"): "no",
        ("get", "configmaps/gw-modules"): "yes",
        ("update", "configmaps/gw-modules"): "no",
        ("create", "pods"): "yes",
        ("create", "pods --subresource=exec"): "no",
        ("create", "serviceaccounts --subresource=token"): "no",
        ("delete", "persistentvolumeclaims"): "no",
        ("create", "tokenreviews.authentication.k8s.io"): "yes",
        ("list", "deployments"): "no",
        ("create", "deployments"): "no",
        ("list", "pods"): "yes",
        ("get", "pods"): "no",
        ("delete", "pods"): "yes",
        ("list", "events"): "yes",
        ("delete", "events"): "no",
        ("list", "persistentvolumeclaims"): "no",
    }
    for (verb, what), expected in asked.items():
        done = subprocess.run(
            [cluster.binary, "kubectl", "-n", NAMESPACE, "auth", "can-i", verb, *what.split(), me],
            env={"KUBECONFIG": str(cluster.admin), "HOME": str(cluster.folder)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.stdout.strip() == expected, f"{verb} {what}"


async def test_a_change_to_one_module_reaches_only_its_objects(
    cluster: ControlPlane, gateway: Daemon
) -> None:
    def version() -> Any:
        # Not the resource version of the daemon's: the deployment controller writes what it observed at a
        # time of its own.
        daemon, other = (cluster.get("deployment", "gw-daemon-a"), cluster.pod("gw-other-one-a"))
        assert other
        return [
            daemon["metadata"]["uid"],
            daemon["metadata"]["generation"],
            *(other["metadata"][name] for name in ("uid", "resourceVersion")),
        ]

    def image() -> str:
        found = cluster.pod("gw-sensor-a")
        return str(found["spec"]["containers"][0]["image"]) if found else ""

    before = version(), cluster.pod("gw-sensor-a")["metadata"]["uid"]
    cluster.install(SENSOR | {"image": "r/sensor:2"}, OTHER)
    await until("a new pod of the sensor", lambda: image() == "r/sensor:2")
    assert cluster.pod("gw-sensor-a")["metadata"]["uid"] != before[1]
    assert version() == before[0]
    cluster.install(SENSOR)
    await until("the other is gone", lambda: cluster.listed("serviceaccounts") == {"gw-sensor"})
    await until("the sensor is what it was", lambda: image() == "r/sensor:1")
    assert cluster.placed() == {"gw-sensor-a"}


RICH = {
    "name": "historian",
    "image": "r/historian:1",
    "createOptions": {
        "Cmd": ["--plant", "7"],
        "Labels": {"plant": "7"},
        "StopTimeout": 20,
        "ExposedPorts": {"8080/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "/check"], "Interval": 5_000_000_000},
        "HostConfig": {
            "Memory": 67108864,
            "NanoCpus": 500_000_000,
            "Binds": ["data:/data"],
            "Tmpfs": {"/run": "size=1m"},
            "PortBindings": {"443/tcp": [{"HostPort": "8443"}]},
            "ExtraHosts": ["plc:10.1.2.3"],
            "Dns": ["10.0.0.1"],
            "GroupAdd": ["44"],
            "ReadonlyRootfs": True,
        },
        "k8s-extensions": {
            "nodeSelector": {"plant": "7"},
            "tolerations": [{"key": "plant", "operator": "Exists"}],
        },
    },
}


async def test_create_options_make_objects_that_the_api_server_takes(
    cluster: ControlPlane, gateway: Daemon
) -> None:
    # The hub is away, so the module's identity has to be known already.
    await gateway.stop(signal.SIGKILL)
    KeyStore.open(gateway.state, Owner("gw-1", gateway.hub)).remember("historian", "3")
    cluster.install(SENSOR, OTHER, RICH)
    (gateway.folder / "daemon.log").write_text("")
    await gateway.start()
    await until("ready", gateway.is_ready)

    def pods() -> list[Any]:
        found: list[Any] = cluster.get("pods", "-l", "net.azure-devices.edge.module=historian")["items"]
        return found

    # The pod itself was admitted, by the restricted standard of the namespace.
    await until("a pod of the module", pods)
    spec = pods()[0]["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {"cpu": "500m", "memory": "67108864"}
    service = cluster.get("service", "gw-historian")
    assert [port["port"] for port in service["spec"]["ports"]] == [8443, 8080]
    named = cluster.get("service", "historian")["spec"]
    assert (named["clusterIP"], named["publishNotReadyAddresses"]) == ("None", True)
    claim = cluster.get("pvc", "gw-volume-data")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    # Without ports the Service goes, and the claim stays, whatever becomes of the module.
    cluster.install(SENSOR, OTHER, RICH | {"createOptions": {"HostConfig": {"Binds": ["data:/data"]}}})
    await until("no Service", lambda: "gw-historian" not in cluster.listed("services"))
    assert "historian" in cluster.listed("services"), "its name stays"
    cluster.install(SENSOR, OTHER)
    await until(
        "no module",
        lambda: not {"gw-historian", "historian"} & cluster.listed("serviceaccounts,services"),
    )
    assert not pods()
    assert cluster.get("pvc", "gw-volume-data")["metadata"]["uid"] == claim["metadata"]["uid"]


async def test_what_the_api_server_refuses_of_one_module_is_no_trouble_of_the_others(
    cluster: ControlPlane, gateway: Daemon
) -> None:
    bad = OTHER | {"createOptions": {"k8s-extensions": {"nodeSelector": {"not a label!": "x"}}}}
    cluster.install(SENSOR | {"image": "r/sensor:3"}, bad)

    async def told() -> bool:
        status, reasons = await gateway.ready()
        (line,) = [one for one in reasons.splitlines() if one.startswith("module Other.One: ")] or [""]
        said = "its pod in slot a is not made: API server: "
        return status == 503 and said in line and "not a label!" in line

    await until("the reason in /readyz", told)

    async def sensor_is_well() -> bool:
        return "module sensor" not in (await gateway.ready())[1]

    await until("the sensor's new pod", sensor_is_well)
    # It has no pod.
    await until(
        "an event at its account", lambda: "not a label!" in cluster.events("serviceaccount", "gw-other-one")
    )
    assert cluster.pod("gw-sensor-a")["spec"]["containers"][0]["image"] == "r/sensor:3"


async def test_why_a_pod_is_not_made_or_has_no_volume_is_told(cluster: ControlPlane, gateway: Daemon) -> None:
    # The namespace admits no such right, and nobody makes volumes without a class.
    privileged = OTHER | {"createOptions": {"HostConfig": {"CapAdd": ["NET_ADMIN"]}}}
    cluster.install(SENSOR | {"createOptions": {"HostConfig": {"Binds": ["lost:/lost"]}}}, privileged)

    async def told() -> bool:
        reasons = (await gateway.ready())[1].splitlines()
        other, sensor = (
            [line for line in reasons if line.startswith(f"module {name}: ")]
            for name in ("Other.One", "sensor")
        )
        return any(
            "its pod in slot a is not made: " in line and "PodSecurity" in line for line in other
        ) and any("its claim gw-volume-lost cannot be bound: FailedBinding" in line for line in sensor)

    await until("both reasons in /readyz", told, 60)
    await until(
        "an event at its account",
        lambda: "its pod in slot a is not made: " in cluster.events("serviceaccount", "gw-other-one"),
    )
    sensor = cluster.pod("gw-sensor-a")["metadata"]["name"]
    await until("an event at its pod", lambda: "VolumeNotThere" in cluster.events("pod", sensor))


async def test_uninstalling_takes_the_modules_and_leaves_the_claim(
    cluster: ControlPlane, gateway: Daemon
) -> None:
    claim = cluster.get("pvc", "gw-state")["metadata"]["uid"]
    # In life, the daemon's pod goes with its Deployment.
    await gateway.stop(signal.SIGKILL)
    cluster.uninstall()
    await until("the modules' objects are collected", lambda: not cluster.listed("pods,serviceaccounts"), 60)
    assert cluster.get("pvc", "gw-state")["metadata"]["uid"] == claim
    cluster.install(SENSOR)
    assert cluster.get("pvc", "gw-state")["metadata"]["uid"] == claim
