# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a Kubernetes API tells of its cluster, and what of it is a problem for a gateway. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import gateway_identity
from ansible_collections.edgeha.iotedge.plugins.module_utils.inventory_rules import nearest

# Provisioners whose volumes one node at a time can mount (from their own documentation). What is not named
# here
# is believed: a StorageClass does not say which access modes it can do.
SINGLE_NODE_PROVISIONERS = (
    "disk.csi.azure.com",
    "ebs.csi.aws.com",
    "kubernetes.io/azure-disk",
    "kubernetes.io/aws-ebs",
    "kubernetes.io/gce-pd",
    "kubernetes.io/vsphere-volume",
    "local.csi.openebs.io",
    "microk8s.io/hostpath",
    "openebs.io/local",
    "pd.csi.storage.gke.io",
    "topolvm.io",
)
# Of one node, unless its configuration names a path that all nodes share.
LOCAL_PATH_PROVISIONER = "rancher.io/local-path"
LOCAL_PATH_CONFIG = "local-path-config"
STATIC_PROVISIONER = "kubernetes.io/no-provisioner"
SHARED_MODE = "ReadWriteMany"
OUR_ANNOTATIONS = "edgeha.io/"


def distribution(git_version: str, api_groups: Iterable[str], nodes: Sequence[Mapping[str, Any]]) -> str:
    """Return ``openshift``, ``k3s``, ``rke2``, ``eks``, ``gke``, ``aks``, ``kind``, ``minikube`` or
    ``upstream``.

    git_version: of the API server. nodes: Node objects. OpenShift is known by its API groups.
    """
    if any(group.endswith(".openshift.io") for group in api_groups):
        return "openshift"
    for mark, name in (("+k3s", "k3s"), ("+rke2", "rke2"), ("-eks-", "eks"), ("-gke.", "gke")):
        if mark in git_version:
            return name
    for node in nodes:
        labels = (node.get("metadata") or {}).get("labels") or {}
        if str((node.get("spec") or {}).get("providerID", "")).startswith("kind://"):
            return "kind"
        if "minikube.k8s.io/name" in labels:
            return "minikube"
        if "kubernetes.azure.com/cluster" in labels:
            return "aks"
    return "upstream"


def node_view(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of a Node object: name, ready, schedulable, version, architecture, labels, taints,
    annotations.

    schedulable: not cordoned, and no taint keeps ordinary pods away. annotations: ours only.
    """
    spec, status = node.get("spec") or {}, node.get("status") or {}
    metadata = node.get("metadata") or {}
    conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or []}
    repelled = any(t.get("effect") in ("NoSchedule", "NoExecute") for t in spec.get("taints") or [])
    info = status.get("nodeInfo") or {}
    return {
        "name": metadata.get("name"),
        "ready": conditions.get("Ready") == "True",
        "schedulable": not spec.get("unschedulable") and not repelled,
        "version": info.get("kubeletVersion"),
        "architecture": info.get("architecture"),
        "labels": dict(metadata.get("labels") or {}),
        "taints": [dict(taint) for taint in spec.get("taints") or []],
        "annotations": {
            key: value
            for key, value in (metadata.get("annotations") or {}).items()
            if key.startswith(OUR_ANNOTATIONS)
        },
    }


def version_tuple(text: str) -> tuple[int, int]:
    """Return (major, minor) of ``v1.34.4+k3s1`` and the like; raises ValueError for anything else."""
    match = re.match(r"v?(\d+)\.(\d+)", text)
    if not match:
        raise ValueError(f"{text!r} is not a version")
    return int(match[1]), int(match[2])


def version_problems(version: str, minimum: str | None) -> list[tuple[str, str]]:
    """Return (fact, fix) when the API server is older than wanted."""
    if minimum and version_tuple(version) < version_tuple(minimum):
        return [(f"runs Kubernetes {version}", f"upgrade it to {minimum} or newer")]
    return []


def node_problems(nodes: Sequence[Mapping[str, Any]], minimum: int) -> list[tuple[str, str]]:
    """Return (fact, fix) when too few nodes (see `node_view`) take pods."""
    usable = [node for node in nodes if node["ready"] and node["schedulable"]]
    if len(usable) >= minimum:
        return []
    not_ready = ", ".join(str(node["name"]) for node in nodes if not node["ready"])
    closed = ", ".join(str(node["name"]) for node in nodes if node["ready"] and not node["schedulable"])
    reasons = [
        f"not ready: {not_ready}" if not_ready else "",
        f"cordoned or tainted: {closed}" if closed else "",
    ]
    detail = "; ".join(filter(None, reasons)) or f"nodes in all: {len(nodes)}"
    return [
        (
            f"{len(usable)} of at least {minimum} nodes take pods ({detail})",
            "make nodes ready and schedulable (kubectl get nodes), or add some",
        )
    ]


def local_path_is_shared(config: str, storage_class: str) -> bool:
    """Return whether local-path-provisioner makes volumes for all nodes.

    config: its ``config.json``. A path of its own for the class counts before the common one.
    """
    try:
        document = json.loads(config)
    except ValueError:
        return False
    if not isinstance(document, dict):
        return False
    of_class = (document.get("storageClassConfigs") or {}).get(storage_class)
    return bool((document if of_class is None else of_class).get("sharedFileSystemPath"))


def storage_problems(
    name: str,
    classes: Sequence[Mapping[str, Any]],
    access_modes: Sequence[str],
    volumes: Sequence[Mapping[str, Any]] | None,
    local_path_configs: Sequence[str] | None = (),
) -> list[tuple[str, str]]:
    """Return (fact, fix) when a StorageClass is missing or cannot do what is asked of it.

    classes: StorageClass objects. volumes: PersistentVolume objects, None when they could not be listed.
    local_path_configs: ``config.json`` of each local-path-provisioner that was found, None when they could
        not be read: then what its classes can do is not known, and nothing is said against them.
    """
    names = sorted(str(entry["metadata"]["name"]) for entry in classes)
    found = next((entry for entry in classes if entry["metadata"]["name"] == name), None)
    if found is None:
        match = nearest(name, names)
        hint = f"did you mean {match}? " if match else ""
        return [
            (
                f"has no storage class {name}",
                f"{hint}set edge_storage_class to one that is there: {', '.join(names) or 'there is none'}",
            )
        ]
    provisioner = str(found.get("provisioner", ""))
    single = provisioner in SINGLE_NODE_PROVISIONERS
    if provisioner == LOCAL_PATH_PROVISIONER:
        single = local_path_configs is not None and not any(
            local_path_is_shared(config, name) for config in local_path_configs
        )
    if SHARED_MODE in access_modes and single:
        return [
            (
                f"the storage class {name} ({provisioner}) gives volumes that one node at a time can mount",
                f"use a class that can do {SHARED_MODE}, such as NFS, or ask for access_mode ReadWriteOnce",
            )
        ]
    if provisioner == STATIC_PROVISIONER and volumes is not None:
        fitting = [
            volume
            for volume in volumes
            if (volume.get("spec") or {}).get("storageClassName") == name
            and set(access_modes) <= set((volume.get("spec") or {}).get("accessModes") or [])
        ]
        if not fitting:
            return [
                (
                    f"the storage class {name} makes no volumes and has none with {', '.join(access_modes)}",
                    "create PersistentVolumes of this class, one for each gateway",
                )
            ]
    return []


def claim_view(claim: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"class", "access_modes", "size", "phase", "release"}`` of a PersistentVolumeClaim.

    size: as it was asked for, such as 1Gi. release: the Helm release that it belongs to, as
    ``NAMESPACE/NAME``; None when it belongs to none.
    """
    metadata, spec = claim.get("metadata") or {}, claim.get("spec") or {}
    notes, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    owner = f"{notes.get('meta.helm.sh/release-namespace')}/{notes.get('meta.helm.sh/release-name')}"
    owned = labels.get("app.kubernetes.io/managed-by") == "Helm" and "None" not in owner.split("/")
    return {
        "class": spec.get("storageClassName"),
        "access_modes": list(spec.get("accessModes") or []),
        "size": ((spec.get("resources") or {}).get("requests") or {}).get("storage"),
        "phase": (claim.get("status") or {}).get("phase"),
        "release": owner if owned else None,
    }


def claim_problems(
    gateway: Mapping[str, Any], storage: Mapping[str, str], expandable: Collection[str] = ()
) -> list[tuple[str, str]]:
    """Return (fact, fix) when the state that a gateway has cannot be what the inventory asks for.

    gateway: ``name``, ``namespace`` and ``claim`` (`claim_view`). storage: ``class`` (empty: the cluster's
    default), ``access_mode`` and ``size``. expandable: classes whose claims may grow. What else a claim is
    cannot be changed, so Helm would fail half-way.
    """
    claim, name = gateway.get("claim"), gateway["name"]
    if claim is None:
        return []
    own = f"gateway {name}: its claim {name}-state in {gateway['namespace']}"
    found = []
    if claim["release"] not in (None, f"{gateway['namespace']}/{name}"):
        found.append(
            (
                f"{own} belongs to the Helm release {claim['release']}",
                "give the gateway another name, or take the annotations meta.helm.sh/release-name and "
                "meta.helm.sh/release-namespace from the claim",
            )
        )
    if storage["class"] and claim["class"] != storage["class"]:
        found.append(
            (
                f"{own} is of the storage class {claim['class']}, and {storage['class']} is asked for",
                f"set storage.class of the gateway to {claim['class']}, or bring its state to a new claim",
            )
        )
    if claim["access_modes"] != [storage["access_mode"]]:
        modes = ", ".join(claim["access_modes"])
        found.append(
            (
                f"{own} is {modes}, and {storage['access_mode']} is asked for",
                f"set storage.access_mode of the gateway to {modes}, or bring its state to a new claim",
            )
        )
    there, asked = _bytes(claim["size"]), _bytes(storage["size"])
    if there and asked and (asked < there or (asked > there and claim["class"] not in expandable)):
        why = "claims do not shrink" if asked < there else f"claims of {claim['class']} do not grow"
        found.append(
            (
                f"{own} has {claim['size']}, and {storage['size']} is asked for, but {why}",
                f"set storage.size of the gateway to {claim['size']}, or bring its state to a new claim",
            )
        )
    if claim["phase"] == "Lost":
        found.append(
            (f"{own} has lost its volume", "bring the volume back, or restore the state to a new claim")
        )
    return found


_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    f"{letter}i": 1024**power for power, letter in enumerate("KMGT", 1)
}


def _bytes(size: Any) -> int | None:
    """Return a size such as 1Gi in bytes; None for one that is written in another way."""
    match = re.fullmatch(r"([0-9]+)([kMGT]|[KMGT]i)?", str(size))
    return int(match[1]) * _FACTORS[match[2] or ""] if match else None


def right_problems(missing: Sequence[tuple[str, str, str, str]]) -> list[tuple[str, str]]:
    """Return (fact, fix) for missing rights, given as (group, resource, verb, namespace).

    The verbs of one resource in one namespace make one line; every missing one is named.
    """
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for group, resource, verb, namespace in missing:
        grouped.setdefault((group, resource, namespace), []).append(verb)
    found = []
    for (group, resource, namespace), verbs in grouped.items():
        full = f"{resource}.{group}" if group else resource
        where = f"in the namespace {namespace}" if namespace else "in the whole cluster"
        scope = f"-n {namespace}" if namespace else "-A"
        found.append(
            (
                f"the user of the kubeconfig may not {', '.join(verbs)} {full} {where}",
                f"grant it (Role or ClusterRole); look with: kubectl auth can-i {verbs[0]} {full} {scope}",
            )
        )
    return found


def rollout(deployments: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return ``{"ready": bool, "refused": str | None}`` of the Deployments of a gateway's daemon, one a slot.

    ready: one of them is available, and all run what they are to; a standby's waits and is not available.
    refused: why the cluster makes no pod, such as a policy or a quota.
    """
    available, refused, current = False, None, True
    for deployment in deployments:
        status, spec = deployment.get("status") or {}, deployment.get("spec") or {}
        wanted = spec.get("replicas", 1)
        newest = (deployment.get("metadata") or {}).get("generation", 0)
        current = current and (
            status.get("observedGeneration", 0) >= newest
            and (status.get("updatedReplicas") or 0) >= wanted
            and (status.get("replicas") or 0) <= wanted
        )
        available = available or (status.get("availableReplicas") or 0) >= max(1, wanted)
        for condition in status.get("conditions") or []:
            if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
                refused = str(condition.get("message") or condition.get("reason"))
    return {"ready": available and current, "refused": refused}


def secret_problems(gateway: Mapping[str, Any], credential: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (fact, fix) when the Secret that a gateway is to take its credential from does not have it.

    gateway: ``name``, ``namespace`` and ``secrets``. credential: ``type``, ``source`` and ``secret``.
    """
    if credential["source"] != gateway_identity.SECRET:
        return []
    names = gateway_identity.SECRET_ENTRIES[credential["type"]]
    secret, there = credential["secret"], gateway["secrets"]
    own = f"gateway {gateway['name']}: the Secret {secret} of its credential"
    if secret not in there:
        return [
            (
                f"{own} is not in the namespace {gateway['namespace']}",
                f"create it with {' and '.join(names)}, or correct credential.secret",
            )
        ]
    missing = [name for name in names if name not in there[secret]]
    if missing:
        return [(f"{own} has no {' and no '.join(missing)}", f"put {' and '.join(missing)} into it")]
    return []


def pod_view(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return what matters of a gateway's Pod.

    ``{"name", "component", "module", "slot", "standby", "node", "phase", "ready", "trouble"}``. standby: it
    waits at its gate, as it is to. trouble: why it is not ready, as far as the pod tells, in one line; None
    when it tells nothing, and of a standby.
    """
    metadata, status = pod.get("metadata") or {}, pod.get("status") or {}
    labels = metadata.get("labels") or {}
    conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or []}
    return {
        "name": metadata.get("name"),
        "component": labels.get("app.kubernetes.io/component"),
        "module": labels.get("net.azure-devices.edge.module"),
        "slot": labels.get("iotedge.edgeha.io/slot"),
        "standby": _waits_at_gate(status),
        "node": (pod.get("spec") or {}).get("nodeName"),
        "phase": status.get("phase"),
        "ready": conditions.get("Ready") == "True" and not metadata.get("deletionTimestamp"),
        "trouble": None if _waits_at_gate(status) else _trouble(status),
    }


def _waits_at_gate(status: Mapping[str, Any]) -> bool:
    return any(
        container.get("name") == "gate" and (container.get("state") or {}).get("running") is not None
        for container in status.get("initContainerStatuses") or []
    )


def _trouble(status: Mapping[str, Any]) -> str | None:
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for container in containers:
        state = container.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        last = (container.get("lastState") or {}).get("terminated") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            exit_code = f" (last exit code {last['exitCode']})" if "exitCode" in last else ""
            return f"container {container.get('name')}: {waiting['reason']}{exit_code}"
        if ended.get("exitCode"):
            return f"container {container.get('name')}: ended with exit code {ended['exitCode']}"
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"not scheduled: {condition.get('message') or condition.get('reason')}"
    running = [
        c.get("name")
        for c in containers
        if (c.get("state") or {}).get("running") is not None and not c.get("ready")
    ]
    return f"running but not ready: {', '.join(map(str, running))}" if running else None
