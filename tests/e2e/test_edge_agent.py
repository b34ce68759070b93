# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A whole deployment: the hub gets it, edgeAgent carries it out by the daemon, edgeHub brings messages on."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import Observed, observed
from tests.e2e.lab import ROOT, Gateway, Lab, Message, wait_for
from tests.e2e.playbook import Playbooks, Run

MESSAGES_LIMIT_SECONDS = 60
AGAIN_LIMIT_SECONDS = 240
MANIFEST = json.loads((ROOT / "inventories/local/files/edge.json").read_text())


class Site:
    """A gateway with a deployment of its own that tests change."""

    def __init__(self, lab: Lab, playbooks: Playbooks, gateway: Gateway, file: Path) -> None:
        self.lab = lab
        self.gateway = gateway
        self._playbooks = playbooks
        self._file = file

    def run(self, *words: str, manifest: dict[str, Any] = MANIFEST, **more: Any) -> Run:
        """Run site.yml with a deployment. `more`: of the gateway's entry."""
        self._file.write_text(json.dumps(manifest))
        entry = {"name": self.gateway.name, "deployment": str(self._file), "standby": True, **more}
        return self._playbooks.run("site.yml", *words, variables={"edge_gateways": [entry]})

    def status(self, folder: Path, *words: str) -> Run:
        """Run status.yml."""
        entry = {"name": self.gateway.name, "deployment": str(self._file), "standby": True}
        variables = {"edge_gateways": [entry], "edge_status_folder": str(folder)}
        return self._playbooks.run("playbooks/status.yml", *words, variables=variables).finished()

    def twin(self, module: str) -> dict[str, Any]:
        """Properties of a module's twin."""
        found: dict[str, Any] = self.lab.hub("GET", f"/twins/{self.gateway.name}/modules/{module}")[
            "properties"
        ]
        return found

    def in_slot(self, slot: str) -> dict[str, dict[str, Any]]:
        """The pod of each module in a slot, by the module's name."""
        return {
            pod["metadata"]["annotations"]["net.azure-devices.edge.module-id"]: pod
            for pod in self.lab.pods(self.gateway, "module")
            if not pod["metadata"].get("deletionTimestamp")
            and pod["metadata"]["labels"]["iotedge.edgeha.io/slot"] == slot
        }

    def pods(self) -> dict[str, tuple[str, int]]:
        """Uid and restarts of each pod of a module that works, by the module's name."""
        return {
            name: (
                pod["metadata"]["uid"],
                sum(one["restartCount"] for one in pod["status"].get("containerStatuses", [])),
            )
            for name, pod in self.in_slot("a").items()
        }

    def messages(self, after: int, count: int = 3) -> list[Message]:
        """At least `count` messages of the gateway after one."""
        return wait_for(
            f"{count} messages at the hub",
            lambda: found if len(found := self.lab.messages(self.gateway.name, after)) >= count else None,
            MESSAGES_LIMIT_SECONDS,
        )

    def last(self) -> int:
        return max((message.seq for message in self.lab.messages(self.gateway.name)), default=0)


@pytest.fixture(scope="module")
def site(
    lab: Lab,
    playbooks: Playbooks,
    new_gateway: Callable[[str], Gateway],
    tmp_path_factory: pytest.TempPathFactory,
) -> Site:
    """The gateway, with its deployment carried out."""
    made = Site(lab, playbooks, new_gateway("e2e-agent"), tmp_path_factory.mktemp("edge") / "edge.json")
    made.run("-vvv", "--diff").finished()
    return made


def test_the_deployment_is_carried_out_and_messages_come_through_edge_hub(site: Site) -> None:
    reported = site.twin("$edgeAgent")["reported"]
    assert reported["lastDesiredStatus"] == {"code": 200, "description": ""}
    assert reported["lastDesiredVersion"] == site.twin("$edgeAgent")["desired"]["$version"]
    assert {"edgeAgent", "edgeHub", "sensor"} == set(site.pods())
    messages = site.messages(0)
    assert {message.module for message in messages} == {"sensor"}
    namespace = site.gateway.namespace
    sensor = site.in_slot("a")["sensor"]
    daemon, hub = (
        site.lab.get("service", f"e2e-agent-{name}", "--namespace", namespace)["spec"]["clusterIP"]
        for name in ("daemon", "gateway")
    )
    assert sensor["spec"]["hostAliases"] == [
        {"ip": daemon, "hostnames": ["e2e-agent-daemon.edge-e2e-agent.svc"]},
        {"ip": hub, "hostnames": ["e2e-agent"]},
    ]
    clients = site.twin("$edgeHub")["reported"]["clients"]
    assert clients["e2e-agent/sensor"] == {"status": "Connected"}


def test_the_standby_waits_whole_on_the_other_machine(site: Site) -> None:
    def waits(pod: dict[str, Any]) -> bool:
        found = {one["name"]: one["state"] for one in pod["status"].get("initContainerStatuses", [])}
        return "running" in found.get("gate", {})

    active, standby = site.in_slot("a"), site.in_slot("b")
    assert active.keys() == standby.keys() == {"edgeAgent", "edgeHub", "sensor"}
    daemons = {
        pod["metadata"]["labels"]["iotedge.edgeha.io/slot"]: pod
        for pod in site.lab.pods(site.gateway, "daemon")
    }
    wait_for("the standby at its gate", lambda: all(map(waits, site.in_slot("b").values())), 60)
    assert waits(daemons["b"])
    for slot, pods in (("a", active), ("b", standby)):
        assert {pod["spec"]["nodeName"] for pod in pods.values()} == {daemons[slot]["spec"]["nodeName"]}
    assert daemons["a"]["spec"]["nodeName"] != daemons["b"]["spec"]["nodeName"]
    # Nothing of it writes, and nobody is led to it.
    for pod in standby.values():
        assert not [one for one in pod["status"]["containerStatuses"] if one["state"].get("running")]
    for name in ("daemon", "gateway"):
        slices = site.lab.get(
            "endpointslices",
            f"--namespace={site.gateway.namespace}",
            f"--selector=kubernetes.io/service-name=e2e-agent-{name}",
        )["items"]
        targets = {one["targetRef"]["name"] for found in slices for one in found["endpoints"]}
        assert targets <= {pod["metadata"]["name"] for pod in [*active.values(), daemons["a"]]}
        assert targets


def test_the_machine_of_either_slot_can_be_drained(site: Site) -> None:
    namespace = site.gateway.namespace
    for pod in site.lab.pods(site.gateway, "daemon"):
        name = pod["metadata"]["name"]
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"dryRun": ["All"]},
        }
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
        site.lab.kubectl("create", "--raw", path, "-f", "-", data=eviction)


def test_a_second_run_changes_nothing(site: Site) -> None:
    seen: Observed = observed(site.lab, lambda: site.run().finished())
    assert seen.run.changed == 0, seen.run.changed_tasks()
    # edgeAgent goes on reporting; what it reports is no object and no identity.
    assert seen.differences == []
    checked = site.run("--check", "--diff").finished()
    assert checked.changed == 0, checked.changed_tasks()


def test_status_tells_how_the_gateway_does(site: Site, tmp_path: Path) -> None:
    run = site.status(tmp_path)
    assert run.changed == 1, run.changed_tasks()  # the file
    (record,) = json.loads((tmp_path / "lab.json").read_text())
    assert record["problems"] == []
    assert record["modules"] == {"edgeAgent": "running", "edgeHub": "running", "sensor": "running"}
    assert record["deployment"]["code"] == 200
    assert record["waiting_messages"] is not None
    assert record["edge_ca_until"], "edgeHub has a certificate"
    assert 0 < record["state_available_bytes"] <= record["state_size_bytes"]
    assert "GATEWAY" in run.text
    assert "3 of 3" in run.text


def test_status_tells_of_a_cluster_that_is_away_too(site: Site, tmp_path: Path) -> None:
    away = yaml.safe_load(site.lab.kubeconfig.read_text())
    # Nobody listens on the discard port.
    away["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(away))
    (tmp_path / "kubeconfig").chmod(0o600)
    host = {"edge_kubeconfig": str(tmp_path / "kubeconfig")}
    inventory = tmp_path / "away.yml"
    inventory.write_text(yaml.safe_dump({"all": {"children": {"edge_clusters": {"hosts": {"away": host}}}}}))
    run = site.status(tmp_path, "-i", str(ROOT / "inventories/local/hosts.yml"), "-i", str(inventory))
    (record,) = json.loads((tmp_path / "away.json").read_text())
    assert record["problems"][0].startswith("its cluster cannot be read: ")
    assert json.loads((tmp_path / "lab.json").read_text())[0]["problems"] == []
    assert run.text.count("WHAT IS WRONG") == 1, "one table over all clusters"


def test_an_update_of_one_module_leaves_the_others_alone(site: Site) -> None:
    before, last = site.pods(), site.last()
    manifest = copy.deepcopy(MANIFEST)
    modules = manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    modules["sensor"]["env"]["SEND_INTERVAL_SECONDS"]["value"] = "2"
    run = site.run(manifest=manifest).finished()
    assert run.changed == 1, run.changed_tasks()
    after = site.pods()
    assert after["sensor"][0] != before["sensor"][0]
    assert {name: after[name] for name in ("edgeAgent", "edgeHub")} == {
        name: before[name] for name in ("edgeAgent", "edgeHub")
    }
    site.messages(last)


def test_what_edge_hub_acknowledged_arrives_after_its_end(site: Site) -> None:
    last = site.last()
    namespace = site.gateway.namespace
    site.messages(last)
    (pod,) = [pod["metadata"]["name"] for name, pod in site.in_slot("a").items() if name == "edgeHub"]
    site.lab.kubectl(
        "delete", "pod", pod, "--namespace", namespace, "--grace-period=0", "--force", "--wait=false"
    )
    seen = site.last()
    messages = site.messages(seen, 5)
    whole = [
        message for message in site.lab.messages(site.gateway.name, last) if message.seq <= messages[-1].seq
    ]
    numbers = list(dict.fromkeys(message.sequence for message in whole if message.boot == whole[-1].boot))
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), (
        "no gap, each once or more, in order"
    )


def test_a_module_that_cannot_be_made_fails_the_run_with_its_reason(site: Site) -> None:
    before = site.pods()
    manifest = copy.deepcopy(MANIFEST)
    modules = manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    options = {"HostConfig": {"Nonsense": 1}}
    modules["broken"] = {
        **modules["sensor"],
        "settings": {**modules["sensor"]["settings"], "createOptions": options},
    }
    run = site.run("--extra-vars", "edge_verify_wait_timeout=25", manifest=manifest)
    assert run.code != 0
    assert (
        "edgeAgent reports 500: create broken: 400: createOptions.HostConfig.Nonsense: no such option"
        in run.text
    )
    assert "module broken: not reported" in run.text
    assert {name: uid for name, (uid, _restarts) in site.pods().items() if name != "sensor"} == {
        name: uid for name, (uid, _restarts) in before.items() if name != "sensor"
    }


def test_an_image_that_cannot_be_had_fails_the_run_and_the_module_goes_on_as_it_is(site: Site) -> None:
    before = site.pods()["sensor"]
    manifest = copy.deepcopy(MANIFEST)
    modules = manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    modules["sensor"]["settings"]["image"] = "registry.edgeha.test/lab/no-such-image:1"
    run = site.run("--extra-vars", "edge_verify_wait_timeout=40", manifest=manifest)
    assert run.code != 0
    assert "image registry.edgeha.test/lab/no-such-image:1 cannot be pulled on node" in run.text
    assert site.pods()["sensor"] == before
    site.messages(site.last())
    pod = site.in_slot("a")["sensor"]["metadata"]["name"]
    assert "ImageNotPulled" in site.lab.kubectl("describe", f"pod/{pod}", "-n", site.gateway.namespace)


def test_images_are_kept_on_every_machine(site: Site) -> None:
    def kept() -> bool:
        found = site.lab.get("daemonset", "e2e-agent-images", "--namespace", site.gateway.namespace)
        status = found["status"]
        wanted = {image["image"] for image in found["spec"]["template"]["spec"]["containers"]}
        running = {pod["image"] for one in site.in_slot("a").values() for pod in one["spec"]["containers"]}
        return running <= wanted and status.get("numberReady") == status["desiredNumberScheduled"] >= 2

    wait_for("the images on every worker", kept, 60)


# Ends well where it has a file and a folder of the machine.
BOUND = "import os, sys; sys.exit(not (os.path.isfile('/machine') and os.path.isdir('/missing')))"
# How a module ends, its policy, and whether a stock edgeAgent starts it again.
ENDS = {
    "done": (0, "never", False),
    "gave-up": (3, "never", False),
    "tries": (3, "on-failure", True),
    "again": (0, "always", True),
    "sick": (137, "on-unhealthy", True),
}


def test_what_becomes_of_a_module_that_ends_is_its_restart_policys(site: Site) -> None:
    manifest = copy.deepcopy(MANIFEST)
    modules = manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    sensor = modules["sensor"]
    for name, (code, policy, _again) in ENDS.items():
        options: dict[str, Any] = {
            "Entrypoint": ["python3", "-c", f"import sys; print('ran'); sys.exit({code})"],
            "StopTimeout": 1,
        }
        if name == "done":
            # As on Docker, a bind takes a file as it is, and what is missing is made as a folder.
            options |= {
                "Entrypoint": ["python3", "-c", BOUND],
                "HostConfig": {"Binds": ["/etc/hostname:/machine:ro", "/var/lib/e2e-missing:/missing"]},
            }
        if name == "sick":
            second = 1_000_000_000
            options |= {
                "Entrypoint": ["python3", "-c", "import time; time.sleep(3600)"],
                "Healthcheck": {"Test": ["CMD", "false"], "Interval": second, "Retries": 2},
            }
        settings = {**sensor["settings"], "createOptions": options}
        modules[name] = {**sensor, "restartPolicy": policy, "settings": settings}
    # Those that start again and again never run for long, so there is nothing to wait for.
    assert site.run("--extra-vars", "edge_verify_wait_timeout=1", manifest=manifest).code != 0

    def state(name: str) -> tuple[str, int, bool] | None:
        told = site.twin("$edgeAgent")["reported"]["modules"].get(name)
        return told and (told["runtimeStatus"], told["exitCode"], told["restartCount"] > 0)

    def started_again(name: str) -> bool:
        found = state(name)
        return found is not None and found[2]

    again = [name for name, end in ENDS.items() if end[2]]
    wait_for("the restarts", lambda: all(map(started_again, again)), AGAIN_LIMIT_SECONDS)
    assert state("done") == ("stopped", 0, False)
    assert state("gave-up") == ("failed", 3, False)
    run = site.run("--extra-vars", "edge_verify_wait_timeout=1", manifest=manifest)
    assert run.code != 0
    assert "module gave-up: failed" in run.text
    assert "module done: " not in run.text, "it did what it had to"
    before = site.in_slot("a")
    for name in ("done", "gave-up"):
        assert before[name]["status"]["phase"] in ("Succeeded", "Failed")
        assert name not in site.in_slot("b"), "nothing of it waits for a takeover"
        # Its pod is a record and no more: without it the module stays ended.
        site.lab.kubectl(
            "delete", "pod", before[name]["metadata"]["name"], "--namespace", site.gateway.namespace
        )
    # What was taken from a module comes back at once.
    uid, pod = site.pods()["sensor"][0], before["sensor"]["metadata"]["name"]
    site.lab.kubectl("delete", "pod", pod, "--namespace", site.gateway.namespace)
    wait_for("another pod of the sensor", lambda: site.pods().get("sensor", (uid, 0))[0] != uid, 60)
    site.messages(site.last())
    assert not site.pods().keys() & {"done", "gave-up"}
    assert state("done") == ("stopped", 0, False)
    site.run().finished()


def test_another_name_of_the_gateway_reaches_all_modules(site: Site) -> None:
    name = "edge.plant.test"
    site.run(hostname=name).finished()
    pods = site.in_slot("a")
    for module, variable in (("sensor", "IOTEDGE_GATEWAYHOSTNAME"), ("edgeHub", "EdgeDeviceHostName")):
        (container,) = [one for one in pods[module]["spec"]["containers"] if one["name"] == "module"]
        assert {"name": variable, "value": name} in container["env"]
    # The sensor believes edgeHub by the new name.
    site.messages(site.last())
    site.run().finished()
    site.messages(site.last())


def test_a_module_that_leaves_the_deployment_takes_everything_but_its_volume(site: Site) -> None:
    manifest = copy.deepcopy(MANIFEST)
    del manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]["sensor"]
    site.run(manifest=manifest).finished()
    namespace = site.gateway.namespace
    wait_for("the sensor is gone", lambda: "sensor" not in site.pods(), 60)
    assert site.lab.hub("GET", "/devices/e2e-agent/modules/sensor") is None
    claims = site.lab.get("persistentvolumeclaims", "--namespace", namespace)["items"]
    assert {claim["metadata"]["name"] for claim in claims} == {
        "e2e-agent-state",
        "e2e-agent-volume-edgehub-store",
    }
