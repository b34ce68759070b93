# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A running lab, seen from outside of the collection: its cluster, its hub, its faults."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[2]
COMMAND_LIMIT_SECONDS = 120
DELETE_LIMIT_SECONDS = 60
HUB_API = "2021-04-12"
DPS_API = "2021-10-01"
DPS_PORT = 8444
T = TypeVar("T")

# Everything that a run makes, and what it would change by accident.
_KINDS = (
    "namespaces,nodes,serviceaccounts,secrets,configmaps,services,persistentvolumeclaims,persistentvolumes,"
    "deployments,replicasets,statefulsets,daemonsets,pods,roles,rolebindings,clusterroles,"
    "clusterrolebindings,priorityclasses,storageclasses"
)


def wait_for(what: str, look: Callable[[], T | None], limit: float, pause: float = 0.5) -> T:
    """Return the first answer of `look` that is true; fail after `limit` seconds and say what never came."""
    deadline = time.monotonic() + limit
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"waited {limit:g} s for {what}"
        time.sleep(pause)


@dataclass(frozen=True)
class Gateway:
    """A gateway of these tests; the device has the gateway's name."""

    name: str

    @property
    def namespace(self) -> str:
        return f"edge-{self.name}"


@dataclass(frozen=True)
class Lab:
    """A lab that is up. state: its folder, named like the lab itself."""

    state: Path

    @property
    def name(self) -> str:
        return self.state.name

    @property
    def home(self) -> Path:
        return self.state.parents[1]

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def hostname(self) -> str:
        """Host name of the hub."""
        return (self.state / "hub" / "hostname").read_text().strip()

    @property
    def ca_file(self) -> Path:
        return self.state / "hub" / "ca.pem"

    @property
    def policy_keys(self) -> dict[str, str]:
        """Keys of the hub's policies by name."""
        return dict(json.loads((self.state / "hub" / "policies.json").read_text()))

    @property
    def dps_host(self) -> str:
        """Where the provisioning service listens."""
        return f"{self.hostname}:{DPS_PORT}"

    @property
    def id_scope(self) -> str:
        return str(json.loads((self.state / "hub" / "dps.json").read_text())["idScope"])

    # Programs

    def _output(
        self, command: list[str], what: str, data: str | None = None, limit: float = COMMAND_LIMIT_SECONDS
    ) -> str:
        done = subprocess.run(
            command,
            input=data,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
            env={**os.environ, "EDGEHA_LAB_HOME": str(self.home)},
        )
        assert done.returncode == 0, f"{what} ended with {done.returncode}: {done.stderr or done.stdout}"
        return done.stdout

    def _kubectl(self, *words: str) -> list[str]:
        program = str(self.home / "cache" / "bin" / "kubectl")
        return [program, "--kubeconfig", str(self.kubeconfig), *words]

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[IO[str]]:
        """Run kubectl with a standard input that ends with the block; the block is given what it prints."""
        command = self._kubectl(*words)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin
            assert process.stdout
            try:
                yield process.stdout
            finally:
                process.stdin.close()
                try:
                    process.wait(DELETE_LIMIT_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()

    def kubectl(self, *words: str, data: Any = None) -> str:
        """Run kubectl as administrator; data is given to it as JSON."""
        command = self._kubectl("--request-timeout=60s", *words)
        return self._output(command, f"kubectl {' '.join(words)}", None if data is None else json.dumps(data))

    def get(self, *words: str) -> dict[str, Any]:
        """Return what `kubectl get` finds."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *words, "--output", "json"))
        return found

    def helm(self, *words: str) -> str:
        """Run helm as administrator."""
        program = str(self.home / "cache" / "bin" / "helm")
        command = [program, "--kubeconfig", str(self.kubeconfig), *words]
        return self._output(command, f"helm {' '.join(words)}")

    def lab(self, *words: str, limit: float = COMMAND_LIMIT_SECONDS) -> str:
        """Run the lab's own command. limit: seconds."""
        command = [str(ROOT / "lab" / "lab"), "--name", self.name, *words]
        return self._output(command, f"lab {' '.join(words)}", limit=limit)

    # The hub, asked with a client of our own: what a module of the collection believes is not proof.

    @cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        trust = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(self.ca_file)))
        return urllib.request.build_opener(urllib.request.ProxyHandler({}), trust)

    def hub(self, method: str, path: str, if_match: str = "", body: Any = None) -> Any:
        """Call the hub's REST API as iothubowner; None where there is no such thing."""
        request = self._request(method, path, self.hostname, "iothubowner", HUB_API, body)
        if if_match:
            request.add_header("If-Match", if_match)
        try:
            with self._opener.open(request, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            # Under SAS a hub answers 401 for modules of a device that is missing.
            if error.code == 404 or (error.code == 401 and "/modules" in path):
                return None
            raise AssertionError(f"{method} {path}: HTTP {error.code} {error.read().decode()}") from error
        return json.loads(text) if text else None

    def enroll(self, group: str, key: str) -> None:
        """Make an enrollment group of edge devices with a symmetric key."""
        attestation = {"type": "symmetricKey", "symmetricKey": {"primaryKey": key, "secondaryKey": key}}
        body = {
            "enrollmentGroupId": group, "attestation": attestation, "capabilities": {"iotEdge": True},
        }  # fmt: skip
        owner = "provisioningserviceowner"
        path = f"/enrollmentGroups/{group}"
        with self._opener.open(self._request("PUT", path, self.dps_host, owner, DPS_API, body), timeout=30):
            pass

    def _request(
        self, method: str, path: str, host: str, policy: str, version: str, body: Any
    ) -> urllib.request.Request:
        """A call that a policy signs."""
        expiry = int(time.time()) + 600
        resource = quote(host, safe="")
        key = base64.b64decode(self.policy_keys[policy])
        signature = quote(
            base64.b64encode(hmac.digest(key, f"{resource}\n{expiry}".encode(), "sha256")), safe=""
        )
        token = f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn={policy}"
        return urllib.request.Request(
            f"https://{host}{path}{'&' if '?' in path else '?'}api-version={version}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": token, "Content-Type": "application/json"},
        )

    def devices(self) -> dict[str, str]:
        """Version (etag) of each identity at the hub, by device or device/module."""
        found = {}
        for device in self.hub("GET", "/devices?top=1000"):
            found[device["deviceId"]] = device["etag"]
            for module in self.hub("GET", f"/devices/{quote(device['deviceId'], safe='')}/modules") or []:
                found[f"{device['deviceId']}/{module['moduleId']}"] = module["etag"]
        return found

    def module(self, device: str, module: str) -> dict[str, Any]:
        """Identity of a module, with its keys."""
        found = self.hub("GET", f"/devices/{device}/modules/{module}")
        assert found, f"the hub has no module {device}/{module}"
        return dict(found)

    def messages(self, device: str, after: int = 0) -> list[Message]:
        """Messages of a device in order of arrival, those after a number of the hub's."""
        text = self.lab("hub", "log", "--json", "--device", device, "--after", str(after))
        return [Message.parse(line) for line in text.splitlines()]

    # The cluster

    def objects(self) -> dict[str, str]:
        """Version of each object by kind/namespace/name, so that two looks can be compared.

        What a controller writes by itself does not count: leases, status, and the versions that come with it.
        """
        found = {}
        for item in self.get(_KINDS, "--all-namespaces")["items"]:
            meta = item["metadata"]
            name = f"{item['kind']}/{meta.get('namespace', '')}/{meta['name']}"
            if item["kind"] == "Pod":
                restarts = [c["restartCount"] for c in item["status"].get("containerStatuses", [])]
                found[name] = f"{meta['uid']} {restarts}"
            elif item["kind"] in ("Node", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"):
                # The annotations of a node tell what its kubelet does.
                notes = {} if item["kind"] == "Node" else meta.get("annotations", {})
                found[name] = json.dumps([meta["uid"], item["spec"], meta.get("labels"), notes])
            else:
                found[name] = f"{meta['uid']} {meta['resourceVersion']}"
        return found

    def pods(self, gateway: Gateway, component: str) -> list[dict[str, Any]]:
        """Pods of a gateway that are the daemon's (daemon) or the modules' (module), also those that go."""
        items: list[dict[str, Any]] = self.get(
            "pods",
            f"--namespace={gateway.namespace}",
            f"--selector=app.kubernetes.io/instance={gateway.name},app.kubernetes.io/component={component}",
        )["items"]
        return items

    def ready_pod(self, gateway: Gateway, component: str, limit: float) -> dict[str, Any]:
        """The one pod of a component that is Ready and stays."""

        def look() -> dict[str, Any] | None:
            ready = [pod for pod in self.pods(gateway, component) if is_ready(pod)]
            return ready[0] if len(ready) == 1 else None

        return wait_for(f"one ready pod of {gateway.name}'s {component}", look, limit, pause=1)

    def state_folder(self, gateway: Gateway) -> Path:
        """The daemon's state on this host: the claim's volume in the shared directory."""
        claim = self.get("persistentvolumeclaims", f"{gateway.name}-state", "--namespace", gateway.namespace)
        volume = self.get("persistentvolumes", claim["spec"]["volumeName"])["spec"]
        return self._shared(volume) / "daemon"

    def remove(self, *gateways: Gateway) -> None:
        """Make the lab as if these had never been there: releases, namespaces, volumes, devices."""
        namespaces = {gateway.namespace for gateway in gateways}
        for release in json.loads(self.helm("list", "--all-namespaces", "--all", "--output", "json")):
            if release["namespace"] in namespaces:
                # Objects that are in no namespace go with the release only.
                self.helm("uninstall", release["name"], "--namespace", release["namespace"])
        limit = f"--timeout={DELETE_LIMIT_SECONDS}s"
        self.kubectl("delete", "namespaces", *namespaces, "--ignore-not-found", limit)
        for volume in self.get("persistentvolumes")["items"]:
            if volume["spec"]["claimRef"]["namespace"] in namespaces:
                self.kubectl("delete", "persistentvolume", volume["metadata"]["name"], limit)
                shutil.rmtree(self._shared(volume["spec"]))
        for gateway in gateways:
            self.hub("DELETE", f"/devices/{gateway.name}", if_match="*")

    def _shared(self, volume: Mapping[str, Any]) -> Path:
        """A volume's folder in the directory that all nodes share with this host."""
        return self.state / "shared" / Path((volume.get("hostPath") or volume["local"])["path"]).name


@dataclass(frozen=True)
class Message:
    """A message of the stand-in sensor at the hub.

    seq: the hub's own number. boot: the process that sent it. sequence: its count in that process.
    """

    seq: int
    module: str
    boot: str
    sequence: int
    node: str

    @classmethod
    def parse(cls, line: str) -> Message:
        raw = json.loads(line)
        body = json.loads(raw["body"])
        return cls(raw["seq"], raw["module"], body["boot"], body["sequence"], body["node"])


def is_ready(pod: Mapping[str, Any]) -> bool:
    conditions: Iterable[Mapping[str, str]] = pod["status"].get("conditions", [])
    stays = "deletionTimestamp" not in pod["metadata"]
    return stays and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def digest(path: Path) -> str:
    """SHA-256 of a file, so that a key can be compared without being shown."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_lab() -> Lab | str:
    """The lab that EDGEHA_LAB_STATE names, or in one line why there is none."""
    named = os.environ.get("EDGEHA_LAB_STATE")
    fix = "start one with 'lab/lab --name e2e up', then: eval $(lab/lab --name e2e env)"
    if not named:
        return f"EDGEHA_LAB_STATE is not set: {fix}"
    lab = Lab(Path(named).expanduser().resolve())
    if not (lab.state / "instance.json").exists():
        return f"EDGEHA_LAB_STATE is {named}, and no lab is there: {fix}"
    with contextlib.suppress(AssertionError):
        report = json.loads(lab.lab("status", "--json"))["labs"].get(lab.name, {})
        states = report.get("nodes", {})
        if report.get("hub") and states and set(states.values()) == {"running"}:
            return lab
    return f"the lab {lab.name} does not run whole (see 'lab/lab --name {lab.name} status'): {fix}"
