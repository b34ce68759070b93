# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What chart and daemon make, held by kubeconform against the schemas that Kubernetes itself serves.

An API server prunes a field that it does not know; here that is an error.
"""

from __future__ import annotations

import copy
import fcntl
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from edgeha_runtime.daemon import images, manifests, moduleset
from edgeha_runtime.daemon.manifests import Addresses, OwnerReference
from edgeha_runtime.daemon.settings import from_environment

from tests.integration.runtime.test_chart import AGENT, STANDBY, objects, template
from tests.integration.runtime.test_real_api import control_plane, kube_binary
from tests.unit.runtime.parts import ENVIRONMENT

LAB = Path(__file__).parents[3] / "lab"
if str(LAB) not in sys.path:
    sys.path.insert(0, str(LAB))
cache = importlib.import_module("edgeha_lab.cache")
paths = importlib.import_module("edgeha_lab.paths")
# The first run fetches and builds.
BUILD_SECONDS = 600
NO_DEVICE = ('gateway.deviceId=""', 'gateway.iothubHostname=""')
CERTIFICATE = '"-----BEGIN CERTIFICATE-----"'
# Beside the least that a gateway needs, by what they are about.
VALUES: dict[str, tuple[str, ...]] = {
    "least": (),
    "no-modules": ("modules=[]",),
    "agent": ('edgeAgent={"image":"r/agent:1.6","env":{"UpstreamProtocol":"MqttWs"}}',),
    "standby": (AGENT, STANDBY),
    "dps": (*NO_DEVICE, 'dps={"idScope":"0ne1","registrationId":"plant07","key":"group"}'),
    "x509": ('credential.type="x509"',),
    "dps-x509": (
        *NO_DEVICE,
        'credential.type="x509"',
        'dps={"idScope":"0ne1","registrationId":"plant07"}',
    ),
    "secret-store": ('credential={"existingSecret":"","secretProviderClass":"vault"}',),
    "edge-ca": ('edgeCa.existingSecret="plant-ca"',),
    "trust": (f"trustBundle={CERTIFICATE}", f"manifestTrustBundle={CERTIFICATE}"),
    "address": (AGENT, 'exposure={"address":"10.0.0.5","annotations":{"plant":"7"}}'),
    "node-port": (AGENT, 'exposure.type="NodePort"'),
    "load-balancer": (AGENT, STANDBY, 'exposure={"type":"LoadBalancer","address":"10.0.0.5"}'),
    "nested": (AGENT, 'gateway.parentHostname="parent.plant"', 'gateway.gatewayHostname="line.plant"'),
    "gateways-below": (AGENT, 'networkPolicy.gatewaysBelow=[{"name":"line","namespace":"edge-line"}]'),
    "no-policies": (AGENT, "networkPolicy.enabled=false"),
    "proxy": (AGENT, 'network={"httpsProxy":"http://proxy:3128","noProxy":".plant"}'),
    "machines": (
        STANDBY,
        'nodeSelector={"plant":"7"}',
        "tolerationSeconds=0",
        'imagePullSecrets=["one","two"]',
        'chartDigest="sha256:1"',
    ),
    "one-node": (
        'storage={"className":"","accessMode":"ReadWriteOnce"}',
        'moduleImages={"keep":false,"pullSeconds":0}',
        "callers.checkAddress=false",
    ),
}


def build_kubeconform(folder: Path) -> None:
    subprocess.run(
        ["go", "build", "-trimpath", "-mod=readonly", "-ldflags", "-s -w", "-o", f"{folder}/", "tool"],
        cwd=LAB / "kubeconform",
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local"},
        check=True,
        timeout=BUILD_SECONDS,
    )


def write_schemas(folder: Path) -> None:
    """A schema of each kind, named as kubeconform asks for it, from what the API server serves."""
    control = folder / "control-plane"
    control.mkdir()
    with control_plane(control) as cluster:
        definitions = json.loads(cluster.kubectl("get", "--raw", "/openapi/v2"))["definitions"]
    shutil.rmtree(control)
    # OpenAPI v2 has one type for each value and leaves objects open.
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"] = ["number", "string"]
    for definition in definitions.values():
        if definition.get("format") == "int-or-string":
            definition["type"] = ["integer", "string"]
        if "properties" in definition:
            definition.setdefault("additionalProperties", False)
    (folder / "_definitions.json").write_text(json.dumps({"definitions": definitions}))
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            parts = (kind["kind"].lower(), kind["group"].partition(".")[0], kind["version"])
            file = folder / f"{'-'.join(part for part in parts if part)}.json"
            file.write_text(json.dumps({"$ref": f"_definitions.json#/definitions/{name}"}))


@dataclass
class Kubeconform:
    """The program, and a folder with schemas."""

    program: Path
    schemas: Path

    def report(self, folder: Path) -> dict[str, Any]:
        """What it says of the YAML files in a folder: `resources` that are not valid, and a `summary`."""
        location = f"{self.schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
        done = subprocess.run(
            [self.program, "-strict", "-summary", "-output", "json", "-schema-location", location, folder],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def finds_valid(self, folder: Path, count: int) -> None:
        """Fail with what is not valid in a folder that holds `count` objects."""
        report = self.report(folder)
        wrong = [
            f"{Path(one['filename']).stem}: {one['kind']} {one['name']}: {one['msg']}"
            for one in report.get("resources") or []
        ]
        assert not wrong, "\n".join(wrong)
        assert report["summary"] == {"valid": count, "invalid": 0, "errors": 0, "skipped": 0}


@pytest.fixture(scope="module")
def kubeconform() -> Kubeconform:
    """Both are made once; other test processes wait meanwhile."""

    def made(name: str, key: str, make: Callable[[Path], None]) -> Path:
        return Path(cache.cached(name, key, make)[0])

    go = subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout
    paths.cache().mkdir(parents=True, exist_ok=True)
    with (paths.cache() / "kubeconform.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = made("kubeconform", cache.fingerprint(LAB / "kubeconform", go), build_kubeconform)
        key = cache.fingerprint(kube_binary().resolve(), Path(__file__))
        return Kubeconform(folder / "kubeconform", made("kubeconform-schemas", key, write_schemas))


def test_the_chart_is_what_kubernetes_knows_whatever_its_values(
    kubeconform: Kubeconform, tmp_path: Path
) -> None:
    count = 0
    for name, sets in VALUES.items():
        done = template(*sets)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        (tmp_path / f"{name}.yaml").write_text(done.stdout)
        count += sum(bool(document) for document in yaml.safe_load_all(done.stdout))
    kubeconform.finds_valid(tmp_path, count)


OPTIONS = {
    "Labels": {"plant": "7"},
    "User": "0",
    "ExposedPorts": {"8080/tcp": {}},
    "HostConfig": {
        "Memory": 67108864,
        "Binds": ["Data:/data", "/dev/plc:/plc:ro"],
        "PortBindings": {"443/tcp": [{"HostPort": "8443"}]},
        "GroupAdd": ["44"],
        "Sysctls": {"net.core.somaxconn": "512"},
    },
    "k8s-extensions": {
        "tolerations": [{"key": "plant", "operator": "Exists"}],
        "serviceOptions": {"type": "LoadBalancer"},
    },
}
ON_HOST = {"HostConfig": {"NetworkMode": "host"}}


def test_what_the_daemon_makes_is_what_kubernetes_knows(kubeconform: Kubeconform, tmp_path: Path) -> None:
    settings = from_environment(
        ENVIRONMENT
        | {
            "EDGEHA_IMAGE": "r/edge-runtime:1",
            "EDGEHA_IMAGE_PULL_SECRETS": "one,two",
            "EDGEHA_STORAGE_CLASS": "shared",
        }
    )
    owner = OwnerReference("gw-daemon", "uid-1")
    auth = {"serveraddress": "r", "username": "u", "password": "p"}
    deployed = {"image": "r/m:1", "createOptions": json.dumps(OPTIONS), "auth": auth}
    spec = {"name": "deployed", "type": "docker", "config": {"settings": deployed}}
    parsed = [
        moduleset.from_spec(spec, "gw", running=True),
        moduleset.from_entry({"name": "edgeAgent", "image": "r/agent:1"}, 0, "gw"),
        moduleset.from_entry({"name": "sensor", "image": "r/m:1", "createOptions": OPTIONS}, 0, "gw"),
        moduleset.from_entry({"name": "onHost", "image": "r/m:1", "createOptions": ON_HOST}, 0, "gw"),
    ]
    modules = [one.module for one in parsed if one.module]
    assert len(modules) == len(parsed)
    addresses = Addresses("10.0.0.1", "10.0.0.2")
    made: list[manifests.Manifest | None] = [images.keeper(modules, settings, owner)]
    for module in modules:
        made += [
            manifests.pod(module, "637", settings, owner, "PEM", addresses, "a"),
            manifests.service_account(module, settings, owner),
            manifests.service(module, settings, owner),
            manifests.name_service(module, settings, owner),
            manifests.pull_secret(module, settings, owner),
            images.puller("gw-pull-m", module, settings, owner),
            *manifests.claims(module, settings),
        ]
    documents = [one for one in made if one]
    kinds = {"DaemonSet", "PersistentVolumeClaim", "Pod", "Secret", "Service", "ServiceAccount"}
    assert {one["kind"] for one in documents} == kinds
    # As JSON, which is YAML, and has no anchors for what two objects share.
    (tmp_path / "daemon.yaml").write_text("\n---\n".join(map(json.dumps, documents)))
    kubeconform.finds_valid(tmp_path, len(documents))


def test_what_kubernetes_does_not_know_or_take_is_found(kubeconform: Kubeconform, tmp_path: Path) -> None:
    def unknown(spec: dict[str, Any]) -> None:
        spec["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRoot"] = True

    def wrong_type(spec: dict[str, Any]) -> None:
        spec["template"]["spec"]["containers"][0]["env"][0]["value"] = 7

    deployment = objects()[("Deployment", "gw-daemon-a")]
    for change in (unknown, wrong_type):
        changed = copy.deepcopy(deployment)
        change(changed["spec"])
        (tmp_path / f"{change.__name__}.yaml").write_text(json.dumps(changed))
    unheard = {"apiVersion": "apps/v1", "kind": "Unheard", "metadata": {"name": "m"}}
    (tmp_path / "unheard.yaml").write_text(json.dumps(unheard))
    report = kubeconform.report(tmp_path)
    assert report["summary"] == {"valid": 0, "invalid": 2, "errors": 1, "skipped": 0}
    told = {Path(one["filename"]).stem: one["msg"] for one in report["resources"]}
    assert "'readOnlyRoot' not allowed" in told["unknown"]
    assert "got number, want string" in told["wrong_type"]
    assert "could not find schema for Unheard" in told["unheard"]
