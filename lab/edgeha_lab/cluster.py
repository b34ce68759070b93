# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`lab up --topology kind` and `lab down`: a real kind cluster in a network of its own."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from edgeha_lab import engine, hub, process
from edgeha_lab.build import Build
from edgeha_lab.cache import fingerprint
from edgeha_lab.paths import Instance
from edgeha_lab.progress import LabError, say, step, wait_for

_CREATE_LIMIT = 420.0
_READY_LIMIT = 90.0
_NETWORKS = [ipaddress.ip_network(f"172.29.{third}.0/24") for third in range(256)]
_WORKERS = 2
MACHINE_LABEL = "edgeha.lab.machine"
_SHARED_ON_NODE = "/srv/lab-shared-directory"


def up(instance: Instance, build: Build) -> None:
    """Makes the instance's cluster, or completes what an interrupted run left."""
    instance.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    instance.logs.mkdir(exist_ok=True)
    gateway = network(instance)
    record = {"topology": "kind", "gateway": gateway}
    write_record(instance, record | {"nodes": known(instance).get("nodes", {})})
    if not _is_whole(instance, build):
        _delete_cluster(instance, build.kind)
        _create(instance, build)
    write_record(instance, record | {"nodes": addresses(instance)})
    _load_modules(instance, build)
    _wait_until_it_works(instance, build)


def down(instance: Instance, kind: Path) -> None:
    """Removes everything the instance made: cluster, hub, network, files."""
    hub.stop(instance)
    if engine.is_running():
        if is_of_machines(instance):
            engine.remove_containers(nodes(instance))
        else:
            _delete_cluster(instance, kind)
        engine.remove_network(instance.network)
        engine.open_network(bridge(instance))
    shutil.rmtree(instance.folder, ignore_errors=True)


def known(instance: Instance) -> dict[str, Any]:
    file = instance.folder / "instance.json"
    document: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return document


def is_of_machines(instance: Instance) -> bool:
    """Whether the instance has bare machines, and no kind cluster."""
    return known(instance).get("topology") in ("k3s", "vm")


def nodes(instance: Instance) -> dict[str, str]:
    """State of each node's container by its name: running, exited, paused …"""
    label = MACHINE_LABEL if is_of_machines(instance) else "io.x-k8s.kind.cluster"
    rows = engine.docker_output(
        "ps", "--all", "--filter", f"label={label}={instance.cluster}", "--format", "{{.Names}} {{.State}}"
    )
    return dict(sorted(row.split() for row in rows.splitlines()))


def addresses(instance: Instance) -> dict[str, str]:
    """Address of each node in the instance's network."""
    template = '{{(index .NetworkSettings.Networks "' + instance.network + '").IPAddress}}'
    return {
        name: engine.docker_output("inspect", "--format", template, name).strip() for name in nodes(instance)
    }


def write_record(instance: Instance, record: dict[str, Any]) -> None:
    (instance.folder / "instance.json").write_text(json.dumps(record, indent=2) + "\n")


def _kind_environment(instance: Instance) -> dict[str, str]:
    return engine.environment() | {"KIND_EXPERIMENTAL_DOCKER_NETWORK": instance.network}


def network(instance: Instance) -> str:
    """The instance's network on a subnet that this machine does not use; returns the host's address in it."""
    listed = engine.docker_output("network", "ls", "--format", "{{.Name}}").split()
    if instance.network not in listed:
        routes = [line.split()[0] for line in process.output(["ip", "-4", "route", "show"]).splitlines()]
        used = [ipaddress.ip_network(route, strict=False) for route in routes if route[0].isdigit()]
        free = next((net for net in _NETWORKS if not any(net.overlaps(other) for other in used)), None)
        if free is None:
            raise LabError(
                f"every subnet of 172.29.0.0/16 is in use on this machine: {', '.join(map(str, used))}"
            )
        options = ["--opt", f"com.docker.network.bridge.name={bridge(instance)}"]
        options += ["--subnet", str(free), "--gateway", str(free[1])]
        engine.docker_output("network", "create", "--driver", "bridge", *options, instance.network)
    engine.close_network(bridge(instance))
    return engine.docker_output(
        "network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", instance.network
    ).strip()


def bridge(instance: Instance) -> str:
    """Name of the network's bridge on this host (15 characters at the most)."""
    return f"lab-{fingerprint(instance.name)[:8]}"


def _is_whole(instance: Instance, build: Build) -> bool:
    if not instance.kubeconfig.exists():
        return False
    states = nodes(instance)
    if len(states) != 1 + _WORKERS or set(states.values()) != {"running"}:
        return False
    images = {
        engine.docker_output("inspect", "--format", "{{.Config.Image}}", name).strip() for name in states
    }
    return images == {build.node_image} and _api_answers(instance, build)


def kubectl(instance: Instance, program: Path, *words: str, stdin: str = "", limit: float = 10) -> str:
    """What kubectl prints, as administrator of the instance's cluster. limit: seconds for a request."""
    command: list[str | Path] = [
        program,
        "--kubeconfig",
        instance.kubeconfig,
        f"--request-timeout={limit:.0f}s",
    ]
    # kubectl's cache would stay in the user's home when the lab is gone.
    cache = {"KUBECACHEDIR": str(instance.folder / "kube-cache")}
    return process.output([*command, *words], env=cache, stdin=stdin.encode(), limit=limit + 50)


def _kubectl(instance: Instance, build: Build, *words: str) -> str:
    return kubectl(instance, build.kubectl, *words)


def _api_answers(instance: Instance, build: Build) -> bool:
    try:
        return _kubectl(instance, build, "get", "--raw", "/readyz") == "ok"
    except LabError:
        return False


def _delete_cluster(instance: Instance, kind: Path) -> None:
    if nodes(instance):
        with step(f"removing cluster {instance.cluster}"):
            process.output(
                [kind, "delete", "cluster", "--name", instance.cluster, "--kubeconfig", instance.kubeconfig],
                env=_kind_environment(instance),
                limit=_CREATE_LIMIT,
            )


def _create(instance: Instance, build: Build) -> None:
    instance.shared.mkdir(exist_ok=True)
    instance.shared.chmod(0o755)
    config = instance.folder / "kind.yaml"
    config.write_text(yaml.safe_dump(_kind_config(instance), sort_keys=False))
    log = instance.logs / "kind.log"
    with step(f"creating kind cluster {instance.cluster} (1 control plane, {_WORKERS} workers)", log):
        process.run(
            [build.kind, "create", "cluster", "--name", instance.cluster, "--image", build.node_image,
             "--config", config, "--kubeconfig", instance.kubeconfig, "--retain", "--wait", "0s"],
            env=_kind_environment(instance),
            log=log,
            limit=_CREATE_LIMIT,
        )  # fmt: skip
    instance.kubeconfig.chmod(0o600)


def _kind_config(instance: Instance) -> dict[str, Any]:
    mounts = [{"hostPath": str(instance.shared), "containerPath": _SHARED_ON_NODE}]
    kubelet = {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "cgroupDriver": "cgroupfs",
        # Forgives writes to rlimits and oom_score_adj that a restricted host forbids.
        "featureGates": {"KubeletInUserNamespace": True},
    }
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "kubeadmConfigPatches": [yaml.safe_dump(kubelet)],
        "nodes": [
            {"role": role, "extraMounts": mounts} for role in ["control-plane"] + ["worker"] * _WORKERS
        ],
    }


def import_images(node: str, images: Path) -> None:
    """Gives the images of an archive to a node."""
    with images.open("rb") as archive:
        done = subprocess.run(
            ["docker", "exec", "-i", node, "ctr", "--namespace", "k8s.io", "images", "import", "-"],
            stdin=archive,
            capture_output=True,
            env={**os.environ, **engine.environment()},
            check=False,
            timeout=_READY_LIMIT,
        )
    if done.returncode:
        raise LabError(f"{node}: importing {images} failed: {done.stderr.decode()[-500:]}")


def _load_modules(instance: Instance, build: Build) -> None:
    """Puts the images of gateway and stand-ins on every node that does not have them yet."""
    key = build.module_images.parent.name
    marker = "/var/lib/lab-modules"

    def load(node: str) -> None:
        import_images(node, build.module_images)
        engine.docker_output("exec", node, "sh", "-c", f"echo {key} > {marker}")

    def lacks(node: str) -> bool:
        return (
            engine.docker_output("exec", node, "sh", "-c", f"cat {marker} 2>/dev/null || true").strip() != key
        )

    behind = [node for node in nodes(instance) if lacks(node)]
    if behind:
        with step(f"loading the module images on {', '.join(behind)}"), ThreadPoolExecutor() as pool:
            list(pool.map(load, behind))


def _wait_until_it_works(instance: Instance, build: Build) -> None:
    """Nodes Ready, cluster DNS and the storage provisioner available."""

    def kubectl(*words: str) -> str:
        return _kubectl(instance, build, *words)

    def all_ready() -> bool:
        ready = kubectl(
            "get", "nodes", "-o", 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}'
        ).split()
        # A node is Ready a moment before the taint goes that keeps pods away from it.
        taints = kubectl("get", "nodes", "-o", "jsonpath={.items[*].spec.taints[*].key}").split()
        return ready == ["True"] * (1 + _WORKERS) and "node.kubernetes.io/not-ready" not in taints

    def available(namespace: str, name: str) -> bool:
        query = 'jsonpath={.status.conditions[?(@.type=="Available")].status}'
        return kubectl("-n", namespace, "get", "deployment", name, "-o", query) == "True"

    with step("waiting for nodes, cluster DNS and storage"):
        wait_for("all nodes to be Ready", all_ready, _READY_LIMIT, pause=1)
        wait_for("CoreDNS", lambda: available("kube-system", "coredns"), _READY_LIMIT, pause=1)
        wait_for(
            "the storage provisioner",
            lambda: available("lab-storage", "local-path-provisioner"),
            _READY_LIMIT,
            pause=1,
        )
    say(f"cluster {instance.cluster} works: export KUBECONFIG={instance.kubeconfig}")
