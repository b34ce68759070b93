# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two gateways of one cluster, which enforces their policies for the time of these tests.

The same connections are tried before and then: what is closed was open, so that no wrong probe can pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.lab import ROOT, Gateway, Lab, is_ready, wait_for
from tests.e2e.playbook import Playbooks

MANIFEST = str(ROOT / "inventories/local/files/edge.json")
MESSAGES_LIMIT_SECONDS = 60
# With a build of the enforcer that is in no cache yet.
START_LIMIT_SECONDS = 600
ENFORCED_LIMIT_SECONDS = 60
MODULES = ("edgeAgent", "edgeHub", "sensor")
PORT = 8080
# Tries the addresses of standard input, all at once; prints for each whether it could be connected to.
PROBE = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def connects(place):
    try:
        socket.create_connection(place, timeout=3).close()
    except OSError:
        return False
    return True
places = json.load(sys.stdin)
with ThreadPoolExecutor(len(places)) as pool:
    print(json.dumps(list(pool.map(connects, places))))
"""
# Listens until its standard input ends, and says when it does.
LISTEN = f"""
import socket, threading, sys
server = socket.create_server(("", {PORT}), backlog=64)
def serve():
    while True:
        server.accept()[0].close()
threading.Thread(target=serve, daemon=True).start()
print("listens", flush=True)
sys.stdin.read()
"""
Places = dict[str, tuple[str, int]]


@dataclass(frozen=True)
class Pods:
    """Running pods of a gateway: its daemon's and each module's, by the module's name."""

    gateway: Gateway
    daemon: dict[str, Any]
    modules: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, lab: Lab, gateway: Gateway) -> Pods:
        def all_modules() -> dict[str, dict[str, Any]] | None:
            label = "net.azure-devices.edge.module"
            ready = [pod for pod in lab.pods(gateway, "module") if is_ready(pod)]
            found = {pod["metadata"]["labels"][label]: pod for pod in ready}
            return found if found.keys() == set(MODULES) else None

        modules = wait_for(f"all modules of {gateway.name}", all_modules, MESSAGES_LIMIT_SECONDS)
        return cls(gateway, lab.ready_pod(gateway, "daemon", MESSAGES_LIMIT_SECONDS), modules)

    def address(self, name: str) -> str:
        return str((self.daemon if name == "daemon" else self.modules[name])["status"]["podIP"])

    @property
    def service(self) -> str:
        """What the names of the gateway's Services end with, for the namespace."""
        return f"{self.gateway.namespace}.svc.cluster.local"

    def open_to_its_sensor(self) -> Places:
        return {
            "workload API": (self.address("daemon"), 35001),
            "workload API by Service": (f"{self.gateway.name}-daemon.{self.service}", 35001),
            "https": (self.address("edgeHub"), 443),
            "mqtts": (self.address("edgeHub"), 8883),
            "mqtts by Service": (f"{self.gateway.name}-gateway.{self.service}", 8883),
            "a port of a module": (self.address("sensor"), PORT),
            "a module by name": (f"sensor.{self.service}", PORT),
        }

    def management(self) -> Places:
        return {
            "management API": (self.address("daemon"), 35000),
            "management API by Service": (f"{self.gateway.name}-daemon.{self.service}", 35000),
        }

    def metrics(self) -> Places:
        return {
            "metrics": (self.address("daemon"), 35002),
            "edgeHub's metrics": (self.address("edgeHub"), 9600),
        }


def connected(lab: Lab, pods: Pods, module: str, places: Places) -> set[str]:
    """Names of the places that a module's pod connects to."""
    command = exec_in(pods, module, PROBE)
    answers = json.loads(lab.kubectl(*command, data=list(places.values())))
    return {name for name, answer in zip(places, answers, strict=True) if answer}


def exec_in(pods: Pods, module: str, program: str) -> list[str]:
    name = pods.modules[module]["metadata"]["name"]
    words = ["exec", "--stdin", name, f"--namespace={pods.gateway.namespace}", "--container=module", "--"]
    return [*words, "python3", "-c", program]


@pytest.fixture(scope="module")
def gateways(
    lab: Lab, playbooks: Playbooks, new_gateway: Callable[[str], Gateway]
) -> Iterator[tuple[Pods, Pods]]:
    """Two that work. In the sensor of each something listens, as in a module that serves others."""
    two = [new_gateway(f"e2e-{name}") for name in ("here", "there")]
    entries = [{"name": gateway.name, "deployment": MANIFEST} for gateway in two]
    playbooks.run("site.yml", variables={"edge_gateways": entries}).finished()
    here, there = (Pods.of(lab, gateway) for gateway in two)
    with (
        lab.running(*exec_in(here, "sensor", LISTEN)) as one,
        lab.running(*exec_in(there, "sensor", LISTEN)) as two,
    ):
        for listener in (one, two):
            assert listener.readline() == "listens\n"
        yield here, there


@pytest.fixture(scope="module")
def enforced(lab: Lab, gateways: tuple[Pods, Pods]) -> Iterator[None]:
    """The cluster enforces policies; before, every place was open."""
    here, there = gateways
    for pods in gateways:
        places = {**pods.open_to_its_sensor(), **pods.management(), **pods.metrics()}
        assert connected(lab, here, "sensor", places) == places.keys()
    try:
        lab.lab("network-policy", limit=START_LIMIT_SECONDS)
        # The enforcers of the nodes write their rules one after another.
        for one, other in ((here, there), (there, here)):
            closed = {**other.open_to_its_sensor(), **other.management()}
            wait_for(
                f"{other.gateway.name} to be closed to {one.gateway.name}",
                lambda one=one, closed=closed: not connected(lab, one, "sensor", closed),
                ENFORCED_LIMIT_SECONDS,
            )
        yield
    finally:
        lab.lab("network-policy", "stop")


def test_a_gateway_reaches_nothing_of_another_but_its_metrics(
    lab: Lab, gateways: tuple[Pods, Pods], enforced: None
) -> None:
    here, there = gateways
    places = {**there.open_to_its_sensor(), **there.management(), **there.metrics()}
    for module in MODULES:
        assert connected(lab, here, module, places) == there.metrics().keys(), module


def test_it_reaches_what_is_its_own_and_the_hub(
    lab: Lab, gateways: tuple[Pods, Pods], enforced: None
) -> None:
    hub: Places = {"hub": (lab.hostname, 443), "hub's MQTT": (lab.hostname, 8883)}
    for pods in gateways:
        own = {**pods.open_to_its_sensor(), **pods.metrics(), **hub}
        places = {**own, **pods.management()}
        assert connected(lab, pods, "sensor", places) == own.keys()
        assert connected(lab, pods, "edgeAgent", places) == places.keys()


def test_a_pod_of_no_gateway_reaches_edge_hub_as_a_device_does(
    lab: Lab, gateways: tuple[Pods, Pods], enforced: None
) -> None:
    (sensor,) = [c for c in gateways[0].modules["sensor"]["spec"]["containers"] if c["name"] == "module"]
    namespace, name = gateways[1].gateway.namespace, "device"
    container = {"name": "module", "image": sensor["image"], "command": ["sleep", "600"]}
    lab.kubectl("create", "--filename=-", f"--namespace={namespace}", data={
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    })  # fmt: skip
    lab.kubectl("wait", f"--namespace={namespace}", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
    device = Pods(gateways[1].gateway, {}, {name: lab.get("pod", name, f"--namespace={namespace}")})
    for pods in gateways:
        places = {**pods.open_to_its_sensor(), **pods.management(), **pods.metrics()}
        edge_hub = {"https", "mqtts", "mqtts by Service"}
        assert connected(lab, device, name, places) == edge_hub | pods.metrics().keys()
    lab.kubectl("delete", "pod", name, f"--namespace={namespace}")


def test_gateways_go_on_and_are_asked_how_they_do(
    lab: Lab, gateways: tuple[Pods, Pods], enforced: None
) -> None:
    for pods in gateways:
        last = max(message.seq for message in lab.messages(pods.gateway.name))
        wait_for(
            f"more messages of {pods.gateway.name}",
            lambda name=pods.gateway.name, last=last: lab.messages(name, after=last),
            MESSAGES_LIMIT_SECONDS,
        )
        # The API's proxy comes from the machine of the API, the kubelet's probes from the pod's own.
        for pod, port in ((pods.daemon, 35002), (pods.modules["edgeHub"], 9600)):
            path = f"/api/v1/namespaces/{pods.gateway.namespace}/pods/{pod['metadata']['name']}:{port}/proxy"
            assert "# TYPE" in lab.kubectl("get", "--raw", f"{path}/metrics")
        now = Pods.of(lab, pods.gateway)
        before = [pods.daemon, *(pods.modules[name] for name in MODULES)]
        after = [now.daemon, *(now.modules[name] for name in MODULES)]
        for one, other in zip(before, after, strict=True):
            assert one["metadata"]["uid"] == other["metadata"]["uid"]
            statuses = [pod["status"]["containerStatuses"] for pod in (one, other)]
            assert len({tuple(s["restartCount"] for s in status) for status in statuses}) == 1


def test_a_new_pod_of_the_daemon_finds_its_modules_and_they_find_it(
    lab: Lab, gateways: tuple[Pods, Pods], enforced: None
) -> None:
    """Rules follow pods: what has a new address is open to its own and closed to others, as before."""
    here, there = gateways
    lab.kubectl("delete", "pod", here.daemon["metadata"]["name"], f"--namespace={here.gateway.namespace}")
    now = Pods.of(lab, here.gateway)
    assert now.daemon["metadata"]["uid"] != here.daemon["metadata"]["uid"]
    own: Places = {"workload API": (now.address("daemon"), 35001)}
    wait_for(
        "the new daemon to be open to its own sensor and to no other",
        lambda: connected(lab, now, "sensor", own) and not connected(lab, there, "sensor", own),
        ENFORCED_LIMIT_SECONDS,
    )
