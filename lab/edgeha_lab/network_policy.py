# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`lab network-policy`: what enforces NetworkPolicies in a kind cluster, kube-router's controller for them.

It is no part of every cluster: most networks that a gateway meets enforce nothing, and its rules are written
with each pod that comes or goes.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from edgeha_lab import build, cluster, engine, paths
from edgeha_lab.cache import cached, fingerprint
from edgeha_lab.paths import Instance
from edgeha_lab.progress import LabError, say, step, wait_for

_SOURCE = paths.LAB_SOURCES / "network-policy"
_MANIFEST = _SOURCE / "manifest.yaml"
_PROGRAM = "network-policy"
_OBJECTS = ("daemonset", "serviceaccount", "clusterrolebinding", "clusterrole")
# Beginnings of the names of kube-router's chains.
_CHAINS = ("KUBE-ROUTER-", "KUBE-NWPLCY-", "KUBE-POD-FW-")
_READY_LIMIT = 90.0
_STOP_LIMIT = 90.0


@dataclass(frozen=True)
class Enforcer:
    """An image and the archive that it is in."""

    image: str
    archive: Path


def make() -> Enforcer:
    """Builds what is missing."""
    paths.cache().mkdir(parents=True, exist_ok=True)
    program = _program()
    engine.ensure(build.tool_programs() / "oci-shim")
    base = build.make_base_image(build.make_base_system())
    container = _SOURCE / "Containerfile"
    key = fingerprint(program.name, container, base, Path(__file__))
    image = f"{build.REGISTRY}/lab/network-policy:{key}"

    def pack(folder: Path) -> None:
        log = paths.cache() / "logs" / "network-policy-image.log"
        with step("making the image of what enforces network policies", log):
            context = folder / "context"
            context.mkdir()
            for file in (container, program / _PROGRAM):
                shutil.copy2(file, context)
            build.docker_build(context, image, log, BASE_IMAGE=base)
            engine.docker("save", "--output", folder / "image.tar", image, log=log)
            shutil.rmtree(context)

    return Enforcer(image, cached("network-policy-image", key, pack)[0] / "image.tar")


def _program() -> Path:
    sources = [_SOURCE / name for name in ("main.go", "go.mod", "go.sum")]

    def compile_it(folder: Path) -> None:
        log = paths.cache() / "logs" / "network-policy.log"
        with step("building kube-router's enforcement of network policies from Go modules", log):
            build.go_build(_SOURCE, ["."], folder, "", log)

    return cached(
        "network-policy", fingerprint(*sources, build.go_version(), build.architecture()), compile_it
    )[0]


def start(instance: Instance, enforcer: Enforcer) -> None:
    """Enforces policies in the instance's cluster from now on; returns when every node's enforcer runs."""
    if cluster.known(instance).get("topology") != "kind":
        raise LabError(f"lab {instance.name} has no kind cluster: 'lab up' makes one")
    nodes = cluster.nodes(instance)

    def lacks(node: str) -> bool:
        listed = ["exec", node, "ctr", "--namespace", "k8s.io", "images", "list", "--quiet"]
        return enforcer.image not in engine.docker_output(*listed).split()

    behind = [node for node in nodes if lacks(node)]
    if behind:
        with step("loading the enforcer of network policies"), ThreadPoolExecutor() as pool:
            list(pool.map(lambda node: cluster.import_images(node, enforcer.archive), behind))
    kubectl = paths.binaries() / "kubectl"
    text = _MANIFEST.read_text().replace("IMAGE", enforcer.image)
    cluster.kubectl(instance, kubectl, "apply", "--filename", "-", stdin=text)

    def all_run() -> bool:
        found = cluster.kubectl(
            instance, kubectl, "-n", "kube-system", "get", "daemonset", _PROGRAM, "--output", "json"
        )
        status = json.loads(found)["status"]
        return bool(status.get("numberReady") == status.get("updatedNumberScheduled") == len(nodes))

    with step("waiting for the enforcer of network policies"):
        wait_for("the enforcer of network policies on each node", all_run, _READY_LIMIT, pause=1)
    say(f"cluster {instance.cluster} enforces network policies")


def stop(instance: Instance) -> None:
    """Takes it away with its rules; a LabError names the node where one is left."""
    kubectl = paths.binaries() / "kubectl"
    names = [f"{kind}/{_PROGRAM}" for kind in _OBJECTS]
    with step("taking the enforcer of network policies away"):
        # The DaemonSet goes when its pods have gone.
        command = ["-n", "kube-system", "delete", "--ignore-not-found", "--cascade=foreground"]
        cluster.kubectl(instance, kubectl, *command, *names, limit=_STOP_LIMIT)
    for node in cluster.nodes(instance):
        rules = engine.docker_output("exec", node, "iptables-save", "-t", "filter")
        left = [line for line in rules.splitlines() if any(chain in line for chain in _CHAINS)]
        if left:
            raise LabError(
                f"{node}: {len(left)} rules of network policies are left, such as {left[0]}: 'lab down'"
            )
