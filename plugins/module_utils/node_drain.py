# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of a node, and which of its pods have to leave it. Pure functions over objects of the API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Who cordoned a node: only a cordon that carries it is taken back.
CORDON_ANNOTATION = "edgeha.io/cordoned-by"
_MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
_SERVER_LABELS = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_ETCD_LABEL = "node-role.kubernetes.io/etcd"


def view(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return what matters of a Node.

    name, ready, version (of its kubelet), server, voter (None where there is no etcd), unschedulable,
    cordoned_by ("" when the cordon is not ours or there is none), addresses.
    """
    metadata, status = node.get("metadata") or {}, node.get("status") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    conditions = {entry.get("type"): entry.get("status") for entry in status.get("conditions") or []}
    etcd = str(labels.get(_ETCD_LABEL, "")).lower() == "true" or "EtcdIsVoter" in conditions
    return {
        "name": metadata.get("name", ""),
        "ready": conditions.get("Ready") == "True",
        "version": (status.get("nodeInfo") or {}).get("kubeletVersion", ""),
        "server": etcd or any(label in labels for label in _SERVER_LABELS),
        "voter": conditions.get("EtcdIsVoter") == "True" if etcd else None,
        "unschedulable": bool((node.get("spec") or {}).get("unschedulable")),
        "cordoned_by": annotations.get(CORDON_ANNOTATION, ""),
        "addresses": [entry.get("address", "") for entry in status.get("addresses") or []],
    }


def not_well(nodes: Iterable[Mapping[str, Any]], names: Iterable[str]) -> list[str]:
    """Return what keeps the named nodes (views) from carrying the cluster while another one is away."""
    there = {node["name"]: node for node in nodes}
    found = []
    for name in names:
        node = there.get(name)
        if node is None:
            found.append(f"{name} is no node of the cluster")
        elif not node["ready"]:
            found.append(f"{name} is not Ready")
        elif node["voter"] is False:
            found.append(f"{name} is no voter of etcd")
    return found


@dataclass
class Plan:
    """Pods of a node by what a drain does with them; texts are ``namespace/name``.

    evict:     pods to evict, as (namespace, name).
    leaving:   pods that end already.
    unmanaged: pods that nobody would make again elsewhere.
    """

    evict: list[tuple[str, str]] = field(default_factory=list)
    leaving: list[str] = field(default_factory=list)
    unmanaged: list[str] = field(default_factory=list)


def plan(
    pods: Iterable[Mapping[str, Any]], leave: Iterable[Mapping[str, str]] = (), force: bool = False
) -> Plan:
    """Tell what a drain does with pods.

    Pods of DaemonSets and of files on the node belong to it and stay; finished pods do no work.
    leave: sets of labels; a pod that carries all labels of one of them stays too.
    """
    result = Plan()
    for pod in sorted(pods, key=text_of):
        metadata = pod.get("metadata") or {}
        labels = metadata.get("labels") or {}
        owners = [owner for owner in metadata.get("ownerReferences") or [] if owner.get("controller")]
        if _MIRROR_ANNOTATION in (metadata.get("annotations") or {}):
            continue
        if any(owner.get("kind") == "DaemonSet" for owner in owners):
            continue
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        if any(wanted and wanted.items() <= labels.items() for wanted in leave):
            continue
        if metadata.get("deletionTimestamp"):
            result.leaving.append(text_of(pod))
        elif owners or force:
            result.evict.append((metadata.get("namespace", ""), metadata.get("name", "")))
        else:
            result.unmanaged.append(text_of(pod))
    return result


def text_of(pod: Mapping[str, Any]) -> str:
    metadata = pod.get("metadata") or {}
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"


def blocked_by(message: str, status: Mapping[str, Any]) -> str:
    """Return which budget refuses an eviction, from the Status object of the answer 429."""
    causes = [
        str(cause.get("message", ""))
        for cause in (status.get("details") or {}).get("causes") or []
        if cause.get("reason") == "DisruptionBudget"
    ]
    return "; ".join(causes) or message


def parse_leave(texts: Iterable[str]) -> list[dict[str, str]]:
    """Return sets of labels from texts such as ``a=b`` or ``a=b,c=d``; raises ValueError for other texts."""
    found = []
    for text in texts:
        labels = dict(part.partition("=")[::2] for part in text.split(","))
        if not all(labels) or "" in labels.values():
            raise ValueError(f"{text!r} is no list of labels such as 'app=store' or 'app=store,tier=data'")
        found.append(labels)
    return found
