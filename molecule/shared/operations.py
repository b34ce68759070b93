# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of operations do with a cluster: run playbooks, ask machines, watch who answers meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from machines import EPHEMERAL, INVENTORY, LAB, PROJECT, SCENARIO, addresses, administrator, recap, vip
from watch import Target, Watch

CLUSTER = "plant07"
OLD, NEW = "v1.34.4+k3s1", "v1.34.5+k3s1"
CONFIRM = f"edge_confirm={CLUSTER}"
NODE_PORT = 30080
_PLAYBOOK_LIMIT = 600

WORKLOAD = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, labels: {{app: web}}}}
spec:
  replicas: 4
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 10
      topologySpreadConstraints:
        - {{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule,
           labelSelector: {{matchLabels: {{app: web}}}}}}
      containers:
        - name: web
          image: registry.edgeha.test/lab/workload:1
          imagePullPolicy: IfNotPresent
          readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}
          # It goes on answering until nobody is sent to it any more.
          lifecycle: {{preStop: {{sleep: {{seconds: 3}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080, nodePort: {NODE_PORT}}}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: web}}
spec: {{minAvailable: 2, selector: {{matchLabels: {{app: web}}}}}}
"""


def lab(*words: str) -> str:
    done = subprocess.run(
        [PROJECT / "lab" / "lab", "--name", LAB, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def servers() -> list[str]:
    return [name for name in addresses() if name.startswith("server")]


def ssh(name: str, command: str, text: str = "", check: bool = True) -> str:
    values = yaml.safe_load(INVENTORY.read_text())["all"]["vars"]
    words = ["ssh", "-i", values["ansible_ssh_private_key_file"], "-o", "ConnectTimeout=10"]
    words += [*shlex.split(values["ansible_ssh_common_args"]), f"root@{addresses()[name]}", command]
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=180, check=False)
    assert not check or done.returncode == 0, f"{name}: {command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def kubectl(words: str, text: str = "", via: str = "") -> str:
    return ssh(via or servers()[0], f"k3s kubectl {words}", text)


def nodes(via: str = "") -> dict[str, dict[str, Any]]:
    """Return what the cluster says of its nodes: ready, voter, version, whether one is cordoned, our mark."""
    found = {}
    for item in json.loads(kubectl("get nodes -o json", via=via))["items"]:
        conditions = {entry["type"]: entry["status"] for entry in item["status"]["conditions"]}
        found[item["metadata"]["name"]] = {
            "ready": conditions.get("Ready") == "True",
            "voter": conditions.get("EtcdIsVoter") == "True",
            "version": item["status"]["nodeInfo"]["kubeletVersion"],
            "cordoned": bool(item["spec"].get("unschedulable")),
            "marked": "edgeha.io/cordoned-by" in item["metadata"].get("annotations", {}),
        }
    return found


def all_is_well(via: str = "") -> bool:
    """Whether each machine is a node that is ready and takes pods, and each server a voter."""
    found = nodes(via)
    return (
        set(found) == set(addresses())
        and all(node["ready"] and not node["cordoned"] and not node["marked"] for node in found.values())
        and all(found[name]["voter"] for name in servers())
    )


def started() -> dict[str, str]:
    """Return process and start of k3s on each machine."""
    command = "systemctl show --property=MainPID,ExecMainStartTimestampMonotonic k3s k3s-agent"
    return {name: ssh(name, command) for name in addresses()}


def authorities() -> set[str]:
    return {ssh(name, "sha256sum < /var/lib/rancher/k3s/server/tls/server-ca.crt") for name in servers()}


class Playbook:
    """A run of a playbook of the collection, in the background; all that it says is kept in a log."""

    def __init__(self, name: str, *options: str) -> None:
        self.log = EPHEMERAL / f"{name}-{time.monotonic_ns()}.log"
        # Where molecule put the scenario's inventory, and the variables of the lab beside it.
        inventory = EPHEMERAL / "inventory" / "hosts"
        command = ["ansible-playbook", "--inventory", str(inventory), f"edgeha.iotedge.{name}"]
        with self.log.open("w") as target:
            self._process = subprocess.Popen(
                [*command, *options], cwd=SCENARIO, stdout=target, stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": f"{PROJECT}/.collections",
                     "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_LOG_PATH": f"{self.log}.ansible"},
            )  # fmt: skip

    def said(self) -> str:
        return self.log.read_text()

    def kill(self) -> None:
        """End it with its workers, at once: it has no time to tidy up."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def is_over(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> int:
        return self._process.wait(_PLAYBOOK_LIMIT)


def play(name: str, *options: str) -> str:
    """Run a playbook that must go well; returns what it said."""
    run = Playbook(name, *options)
    assert run.end() == 0, run.said()[-4000:]
    return run.said()


def refused(name: str, *options: str) -> str:
    """Run a playbook that must refuse, and change nothing; returns what it said, in one line."""
    run = Playbook(name, *options)
    assert run.end() != 0, run.said()[-4000:]
    assert set(changes(run.said()).values()) <= {0}, run.said()[-4000:]
    return " ".join(run.said().split())


def changes(said: str) -> dict[str, int]:
    """Return how much a playbook changed on each machine."""
    return {name: row.changed for name, row in recap(said).items()}


def wait(what: str, holds: Callable[[], bool], limit: float = 120.0) -> None:
    """Wait for something; a server that does not answer yet is a reason to ask again."""
    end = time.monotonic() + limit
    while True:
        with contextlib.suppress(AssertionError):
            if holds():
                return
        assert time.monotonic() < end, f"waited {limit} s for {what}"
        time.sleep(0.5)


def deploy_workload() -> None:
    kubectl("apply -f -", WORKLOAD)
    kubectl("rollout status deployment/web --timeout=120s")


def watch() -> Watch:
    """Ask API and workload through the cluster's address, as its administrator and as anybody."""
    with tempfile.TemporaryDirectory(prefix="edgeha-watch-") as folder:
        context = administrator(ssh(servers()[0], "cat /etc/rancher/k3s/k3s.yaml"), Path(folder))
    return Watch(
        api=Target(f"https://{vip()}:6443/api/v1/namespaces/default", context),
        workload=Target(f"http://{vip()}:{NODE_PORT}/"),
    )


def report(name: str, figures: dict[str, Any]) -> None:
    """Print figures as JSON, and keep them with those of other benchmarks."""
    folder = PROJECT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps({name: figures}))  # noqa: T201 - it is for the log of the run
