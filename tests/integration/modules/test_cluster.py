# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What needs a cluster: rights, storage classes and check mode, judged by a real control plane."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.integration.modules import control_plane
from tests.integration.modules.control_plane import HELM, ControlPlane
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.integration.modules.conftest import Hub, Run

ROOT = Path(__file__).resolve().parents[3]
HELM_LIMIT_SECONDS = 60
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "machine-1", "labels": {"kubernetes.io/hostname": "machine-1"}},
}
NODE_STATUS = {
    "status": {
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        "nodeInfo": {"kubeletVersion": "v1.34.4", "architecture": "amd64"},
    }
}
CLASSES = [
    {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": provisioner,
    }
    for name, provisioner in (("nfs-client", "nfs.csi.k8s.io"), ("one-node", "rancher.io/local-path"))
]
READER = [
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}},
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "reader"},
        "rules": [
            {"apiGroups": ["", "apps"], "resources": ["*"], "verbs": ["get", "list"]},
            {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["list"]},
        ],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}],
    },
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    ports = (free_port(), free_port(), free_port())
    with control_plane.running(tmp_path_factory.mktemp("cluster"), ports) as made:
        yield made


@pytest.fixture
def machine(cluster: ControlPlane) -> ControlPlane:
    """A control plane with a machine that says it is ready, storage classes, and a user who may only read."""
    objects = {"apiVersion": "v1", "kind": "List", "items": [NODE, *CLASSES, *READER]}
    cluster.kubectl("apply", "-f", "-", data=objects)
    cluster.kubectl("patch", "node", "machine-1", "--subresource=status", "-p", json.dumps(NODE_STATUS))
    # The API server taints a new node until its kubelet reports; here nobody does.
    cluster.kubectl("patch", "node", "machine-1", "-p", '{"spec": {"taints": null}}')
    return cluster


@pytest.fixture
def inventory(hub: Hub, machine: ControlPlane, tmp_path: Path) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        (tmp_path / "gw.json").write_text((ROOT / "inventories/local/files/demo.json").read_text())
        variables = {
            "edge_cluster_mode": "existing",
            "edge_kubeconfig": str(machine.admin),
            "edge_storage_backend": "class",
            "edge_storage_class": "nfs-client",
            "edge_image_registry": "registry.example",
            "edge_ca_bundle": hub.ca_file,
            "edge_runtime_helm_binary": HELM,
            "iothub_hostname": hub.hostname,
            "iothub_policy_key": hub.keys["iothubowner"],
            "edge_gateways": [{"name": "gw-1", "deployment": "gw.json"}],
            **changes,
        }
        path = tmp_path / "hosts.yml"
        groups: dict[str, Any] = {"edge_clusters": {"hosts": {"plant07": {}}}}
        path.write_text(yaml.safe_dump({"all": {"children": groups, "vars": variables}}))
        return path

    return write


@pytest.fixture
def site(run_playbook: Callable[..., Run], inventory: Callable[..., Path]) -> Callable[..., Run]:
    """Return a function that runs site.yml with these variables changed."""

    def run(*options: str, environment: dict[str, str] | None = None, **changes: Any) -> Run:
        return run_playbook(["-i", str(inventory(**changes)), "site.yml", *options], **(environment or {}))

    return run


def one_error(run: Run, *words: str) -> None:
    assert run.code != 0
    assert run.changed == 0
    text = " ".join(run.failures[0].split())
    assert text.startswith("Preflight found 1 problem(s)"), run.failures[0]
    missing = [part for word in words for part in word.split() if part not in text]
    assert not missing, run.failures[0]


def test_unknown_storage_class(hub: Hub, site: Callable[..., Run]) -> None:
    one_error(
        site(edge_storage_class="nfs-cleint"), "has no storage class nfs-cleint", "did you mean nfs-client?"
    )
    assert hub.device_ids() == []


def test_storage_class_of_one_node(site: Callable[..., Run]) -> None:
    one_error(site(edge_storage_class="one-node"), "one-node rancher.io/local-path one node at a time")


def test_no_machine_takes_pods(machine: ControlPlane, site: Callable[..., Run]) -> None:
    machine.kubectl("cordon", "machine-1")
    one_error(site(), "0 of at least 1 nodes take pods", "cordoned or tainted: machine-1")
    machine.kubectl("uncordon", "machine-1")


def test_each_missing_right_is_named(
    machine: ControlPlane, site: Callable[..., Run], tmp_path: Path, hub: Hub
) -> None:
    kubeconfig = tmp_path / "reader"
    kubeconfig.write_text(machine.config(machine.kubectl("create", "token", "reader").strip()))
    run = site(edge_kubeconfig=str(kubeconfig))
    assert run.code != 0
    assert run.changed == 0
    text = " ".join(run.failures[0].split())
    for right in (
        "namespaces in the whole cluster",
        "priorityclasses.scheduling.k8s.io in the whole",
        "deployments.apps in the",
        "secrets in the namespace edge-gw-1",
        "rolebindings.rbac.authorization.k8s.io",
    ):
        assert all(part in text for part in right.split()), (right, run.failures[0])
    # What the user may do is not complained about.
    assert "may not list nodes" not in text
    assert hub.device_ids() == []


def test_token_that_is_refused(machine: ControlPlane, site: Callable[..., Run], tmp_path: Path) -> None:
    kubeconfig = tmp_path / "stranger"
    kubeconfig.write_text(machine.config("no-such-token"))
    one_error(site(edge_kubeconfig=str(kubeconfig)), "refuses the credentials of the kubeconfig")


def test_check_mode_on_a_bare_cluster_changes_nothing_and_says_what_would(
    hub: Hub, machine: ControlPlane, site: Callable[..., Run]
) -> None:
    run = site("--check", "--diff", "-vvv")
    assert (run.code, run.failures) == (0, []), run.text
    # A device, a namespace and a release; the Secret's namespace is only pretended to be there.
    assert run.changed == 3
    assert run.results["Create the gateways' namespaces"]["changed"]
    assert run.results["Store the devices' keys"].get("skipped")
    assert "edge-gw-1" not in machine.kubectl("get", "namespaces", "-o", "name")
    assert hub.device_ids() == []


def test_keys_stay_in_the_secret(hub: Hub, machine: ControlPlane, site: Callable[..., Run]) -> None:
    """The wait ends, because no machine runs the pod; all that comes before it is real."""
    run = site("-vvv", "--diff", edge_runtime_timeout="3s")
    assert run.code != 0
    assert "Gateway gw-1" in run.failures[-1]
    assert hub.device_ids() == ["gw-1"]
    secret = json.loads(machine.kubectl("get", "secret", "gw-1-device", "-n", "edge-gw-1", "-o", "json"))
    encoded = secret["data"]["device-key"]
    key = base64.b64decode(encoded).decode()
    release = helm(machine, "get", "all", "gw-1", "-n", "edge-gw-1")
    assert "deviceId: gw-1" in release
    for where in (run.text, release):
        for secret_text in (key, encoded, hub.keys["iothubowner"]):
            assert secret_text not in where

    # The next run sees that the daemon is not ready, though its release is as wanted, and tells so again.
    again = site("--diff", edge_runtime_timeout="3s")
    seen = again.results["Look at the cluster"]["cluster"]["gateways"][0]
    assert (seen["release"]["status"], seen["release"]["revision"]) == ("deployed", 1)
    assert seen["ready"] is False
    assert seen["identity_etag"] == again.results["Check the hub"]["devices"][0]["identity_etag"]
    assert again.results["Register the gateways' devices"]["skipped"]
    assert "Gateway gw-1" in again.failures[-1]


@pytest.mark.parametrize("by", ["inventory", "environment"])
def test_helm_finishes_what_was_left_in_the_cluster_of_the_context(
    machine: ControlPlane, site: Callable[..., Run], tmp_path: Path, by: str
) -> None:
    """The kubeconfig's own context is another cluster, where nobody listens; K8S_AUTH_CONTEXT names ours."""
    document = json.loads(machine.admin.read_text())
    away = {"name": "away", "cluster": {"server": f"https://127.0.0.1:{free_port()}"}}
    context = {"name": "away", "context": {"cluster": "away", "user": "t"}}
    document["clusters"].append(away)
    document["contexts"].append(context)
    document["current-context"] = "away"
    kubeconfig = tmp_path / "two"
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(json.dumps(document))
    name = f"gw-{by}"
    environment = {"K8S_AUTH_CONTEXT": "t"}
    changes: dict[str, Any] = {
        "edge_gateways": [{"name": name, "deployment": "gw.json"}],
        "edge_runtime_timeout": "3s",
        "edge_kubeconfig": str(kubeconfig) if by == "inventory" else "",
    }
    if by == "environment":
        environment["K8S_AUTH_KUBECONFIG"] = str(kubeconfig)
    # Nothing runs the daemon here, so each run ends with that.
    assert site(environment=environment, **changes).failures[-1:] != []
    assert revisions(machine, name) == ["deployed"]
    leave_half_way(machine, name)
    assert revisions(machine, name) == ["deployed", "pending-upgrade"]

    run = site(environment=environment, **changes)
    finished = run.results["Finish what an earlier run left half-way"]
    assert not finished.get("failed"), finished
    assert f"Gateway {name}" in run.failures[-1]
    assert revisions(machine, name)[-1] == "deployed"
    assert "left half-way" not in helm(machine, "get", "values", name, "-n", f"edge-{name}")


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_removal_that_was_left_half_way(
    machine: ControlPlane, site: Callable[..., Run], state: str
) -> None:
    name = f"gw-{state}"
    gateway = {"name": name, "deployment": "gw.json"}
    site(edge_gateways=[gateway], edge_runtime_timeout="3s")
    namespace = ("-n", f"edge-{name}")
    # Helm waits for what does not go, and is killed meanwhile.
    service = ("patch", "service", f"{name}-daemon", *namespace, "--type=merge", "-p")
    machine.kubectl(*service, '{"metadata": {"finalizers": ["edgeha.test/stays"]}}')
    left(machine, name, "uninstalling", "uninstall", name, "--wait")
    machine.kubectl(*service, '{"metadata": {"finalizers": null}}')
    assert revisions(machine, name) == ["uninstalling"]

    run = site(edge_gateways=[{**gateway, "state": state}], edge_confirm="plant07", edge_runtime_timeout="3s")
    services = machine.kubectl("get", "services", *namespace, "-o", "name").split()
    if state == "absent":
        assert (run.code, services) == (0, []), run.text
        assert "sh.helm.release" not in machine.kubectl("get", "secrets", *namespace, "-o", "name")
        assert f"{name}-state" in machine.kubectl("get", "pvc", *namespace, "-o", "name")
        again = site(edge_gateways=[{**gateway, "state": state}], edge_confirm="plant07")
        assert (again.code, again.changed) == (0, 0), again.text
    else:
        assert f"Gateway {name}" in run.failures[-1]
        assert revisions(machine, name)[-1] == "deployed"
        assert f"service/{name}-daemon" in services


def test_what_a_credential_of_another_kind_left_in_the_secret_goes(
    machine: ControlPlane, site: Callable[..., Run]
) -> None:
    changes = {"edge_gateways": [{"name": "gw-key", "deployment": "gw.json"}], "edge_runtime_timeout": "3s"}
    site(**changes)
    secret = ("secret", "gw-key-device", "-n", "edge-gw-key")
    left_there = {"stringData": {"tls.crt": "a certificate", "tls.key": "its key", "theirs": "stays"}}
    machine.kubectl("patch", *secret, "-p", json.dumps(left_there))
    for changed in (True, False):
        run = site(**changes)
        assert run.results["Store the devices' keys"]["changed"] == changed, run.text
        data = json.loads(machine.kubectl("get", *secret, "-o", "json"))["data"]
        assert sorted(data) == ["device-key", "theirs"]


def test_what_is_printed_of_a_release_that_fails_holds_no_environment(
    machine: ControlPlane, inventory: Callable[..., Path], tmp_path: Path
) -> None:
    document = json.loads((ROOT / "inventories/local/files/demo.json").read_text())
    modules = document["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"]
    for module in modules.values():
        module["env"] = {"PASSWORD": {"value": "of-a-module"}}
    (tmp_path / "secretive.json").write_text(json.dumps(document))
    machine.kubectl("create", "namespace", "edge-gw-taken")
    machine.kubectl("create", "service", "clusterip", "gw-taken-daemon", "--tcp=1", "-n", "edge-gw-taken")
    gateways = [{"name": "gw-taken", "deployment": "secretive.json"}]
    hosts = inventory(edge_gateways=gateways, edge_runtime_timeout="3s")
    # As people see it: the output that other tests read is all that a task returns.
    run = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", hosts, "site.yml"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    text = " ".join((run.stdout + run.stderr).split())
    assert "Gateway gw-taken: Error:" in text
    assert "cannot be imported into the current release" in text
    assert "of-a-module" not in text


def leave_half_way(machine: ControlPlane, name: str) -> None:
    """Begin an upgrade of a release as an earlier run did, and kill Helm while it waits."""
    chart = str(ROOT / "charts/edge-runtime")
    change = "--set-string=trustBundle=left half-way"
    left(machine, name, "pending-upgrade", "upgrade", name, chart, "--reuse-values", "--wait", change)


def left(machine: ControlPlane, name: str, status: str, *words: str) -> None:
    """Run Helm until the release has a status, and kill it."""
    command = [HELM, *words, "-n", f"edge-{name}", "--kubeconfig", str(machine.admin)]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + HELM_LIMIT_SECONDS
        while status not in revisions(machine, name):
            assert process.poll() is None, f"it is over, and was never {status}"
            assert time.monotonic() < deadline, f"not {status} in {HELM_LIMIT_SECONDS} s"
            time.sleep(0.1)
        process.kill()


def revisions(machine: ControlPlane, name: str) -> list[str]:
    """Status of each revision of a release, oldest first."""
    history = json.loads(helm(machine, "history", name, "-n", f"edge-{name}", "--output=json"))
    return [str(entry["status"]) for entry in history]


def helm(machine: ControlPlane, *words: str) -> str:
    done = subprocess.run(
        [HELM, *words, "--kubeconfig", str(machine.admin)],
        capture_output=True,
        text=True,
        timeout=HELM_LIMIT_SECONDS,
        check=True,
    )
    return done.stdout
