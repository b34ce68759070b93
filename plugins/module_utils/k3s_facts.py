# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads what k3s and systemd leave on a machine: texts in, plain data out. Nothing here opens a file.

It runs on the machine itself, so it keeps to what Python 3.9 (RHEL 9) knows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

_VERSION = re.compile(r"^\S+ version (\S+)(?: \(([0-9a-f]+)\))?", re.MULTILINE)
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
# K10, the digest of the cluster's authority, and who the secret is for: https://docs.k3s.io/cli/token
_FULL_TOKEN = re.compile(r"^K10[0-9a-f]{64}::(?:[^:]*:)?(.*)$", re.DOTALL)
_NODE_USER = b"system:node:"
# States of systemd that no caller needs to tell apart.
_ACTIVE = {"reloading": "active", "deactivating": "inactive", "maintenance": "inactive"}
NO_UNIT: dict[str, Any] = {
    "name": "",
    "load": "absent",
    "active": "inactive",
    "enabled": False,
    "main_pid": 0,
    "started": 0.0,
    "exe_path": "",
    "exe_sha256": "",
    "exe_version": "",
    "exe_deleted": False,
}


def version(said: str) -> dict[str, str]:
    """Return version and commit of what `k3s --version` says, both empty when it says something else."""
    found = _VERSION.search(said)
    return {"version": found.group(1) if found else "", "commit": (found.group(2) or "") if found else ""}


def units(show: str) -> list[dict[str, Any]]:
    """Return the loaded units of `systemctl show`: name without .service, load, active, enabled, main_pid."""
    found = []
    for block in show.split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        if not values.get("Id") or values.get("LoadState") in (None, "not-found"):
            continue
        active = values.get("ActiveState", "")
        if active == "active" and values.get("Job", "0") not in ("", "0"):
            # A restart was asked for and has not begun: what still runs is the old process.
            active = "activating"
        found.append(
            {
                **NO_UNIT,
                "name": values["Id"].removesuffix(".service"),
                "load": "loaded",
                "active": _ACTIVE.get(active, active),
                "enabled": values.get("UnitFileState") == "enabled",
                "main_pid": int(values.get("MainPID") or 0),
            }
        )
    return found


def choose(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the unit that counts: one that runs before one that does not; NO_UNIT without any."""
    order = {"active": 0, "activating": 1, "failed": 2}
    ranked = sorted(found, key=lambda unit: order.get(unit["active"], 3))
    return dict(ranked[0]) if ranked else dict(NO_UNIT)


def role(unit: Mapping[str, Any]) -> str:
    """Return V(server), V(agent) or V(none) by the name of the unit."""
    if unit["load"] != "loaded":
        return "none"
    return "agent" if unit["name"].endswith("-agent") else "server"


def started_ns(stat: str, boot_ns: int, ticks_per_second: int) -> int:
    """Return when a process started, in ns since 1970, by /proc/PID/stat; 0 when there is none.

    boot_ns: when the machine started, by the clock as it is now.
    """
    # The name of the program stands in brackets and may hold blanks and brackets itself.
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20:
        return 0
    return boot_ns + int(fields[19]) * 1_000_000_000 // ticks_per_second


def config(texts: Iterable[str]) -> dict[str, Any]:
    """Return server, cluster_init, node_name and whether there is an external datastore, by files of config.

    texts: config.yaml, then config.yaml.d in the order of names; the last one wins. Only plain values at the
    beginning of a line are read, which is all that a file of ours has for these keys.
    """
    values: dict[str, str] = {}
    for text in texts:
        for line in text.splitlines():
            name, separator, value = line.partition(":")
            if separator and re.fullmatch(r"[a-z][a-z0-9-]*", name.strip('"')):
                values[name.strip('"')] = _scalar(value)
    return {
        "server": values.get("server", ""),
        "cluster_init": values.get("cluster-init", "").lower() == "true",
        "node_name": values.get("node-name", ""),
        "external": bool(values.get("datastore-endpoint")),
    }


def _scalar(value: str) -> str:
    value = value.strip()
    if value[:1] in ('"', "'"):
        return value[1:].partition(value[0])[0]
    return value.partition(" #")[0].strip()


def arguments(cmdline: str, environ: str) -> dict[str, Any]:
    """Return the same as `config`, from /proc/PID/cmdline and /proc/PID/environ of a running k3s."""
    words = [word for word in cmdline.split("\0") if word]
    settings = dict(entry.partition("=")[::2] for entry in environ.split("\0"))

    def option(name: str) -> str:
        for index, word in enumerate(words):
            if word.startswith(f"{name}="):
                return word.partition("=")[2]
            if word == name:
                following = words[index + 1] if index + 1 < len(words) else ""
                return "true" if following.startswith("-") or not following else following
        return ""

    init = option("--cluster-init") or settings.get("K3S_CLUSTER_INIT", "")
    return {
        "server": option("--server") or option("-s") or settings.get("K3S_URL", ""),
        "cluster_init": init.lower() == "true",
        "node_name": option("--node-name") or settings.get("K3S_NODE_NAME", ""),
        "external": bool(option("--datastore-endpoint") or settings.get("K3S_DATASTORE_ENDPOINT")),
    }


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return for each key the value of first, or that of second where first has none."""
    return {name: first[name] or second[name] for name in first}


def datastore(etcd_member: bool, sqlite: bool, credentials: bool, external: bool) -> str:
    """Return what holds the cluster's state, as k3s itself decides: etcd's log before everything else.

    credentials: whether the server made or got the cluster's keys. Without a datastore of its own that means
    an external one when its configuration names one, and otherwise a start that was interrupted.
    """
    if etcd_member:
        return "etcd"
    if sqlite:
        return "sqlite"
    return "external" if external and credentials else "none"


def members(bucket: Mapping[bytes, bytes]) -> list[dict[str, Any]]:
    """Return name, peer and learner of each member in etcd's bucket, sorted by name.

    A member that was added and did not come up yet has no name.
    """
    found = []
    for content in bucket.values():
        try:
            entry = json.loads(content)
        except ValueError:
            continue
        if not isinstance(entry, dict):
            continue
        peers = entry.get("peerURLs")
        found.append(
            {
                "name": str(entry.get("name", "")),
                "peer": str(peers[0]) if isinstance(peers, list) and peers else "",
                "learner": bool(entry.get("isLearner", False)),
            }
        )
    return sorted(found, key=lambda member: (member["name"], member["peer"]))


def token_secret(token: str) -> str:
    """Return the secret of a token, without what k3s puts before it."""
    text = token.strip()
    found = _FULL_TOKEN.match(text)
    return found.group(1) if found else text


def token_digest(token: str) -> str:
    """Return what two tokens with the same secret have in common, empty for an empty one."""
    secret = token_secret(token)
    return hashlib.sha256(secret.encode()).hexdigest()[:16] if secret else ""


def certificates(pem: str) -> list[str]:
    """Return the beginning of the SHA-256 of each certificate, sorted: rotated authorities share some."""
    digests = []
    for body in _CERTIFICATE.findall(pem):
        try:
            content = base64.b64decode("".join(body.split()), validate=True)
        except (ValueError, binascii.Error):
            continue
        digests.append(hashlib.sha256(content).hexdigest()[:16])
    return sorted(set(digests))


def node_of_certificate(pem: str) -> str:
    """Return the name of the node that a kubelet's certificate is for, empty when there is none."""
    found = _CERTIFICATE.search(pem)
    if not found:
        return ""
    try:
        content = base64.b64decode("".join(found.group(1).split()))
    except (ValueError, binascii.Error):
        return ""
    place = content.rfind(_NODE_USER)
    if place < 1:
        return ""
    # The byte before a text in DER is its length.
    end = place + content[place - 1]
    return content[place + len(_NODE_USER) : end].decode(errors="replace")


def readyz_problem(status: int, body: str) -> str:
    """Return which checks of /readyz?verbose failed, empty when the API is ready."""
    if status == 200:
        return ""
    failed = [line[3:].partition(" ")[0] for line in body.splitlines() if line.startswith("[-]")]
    what = f" ({', '.join(failed)})" if failed else ""
    return f"HTTP {status}{what}"


def condition(node: Mapping[str, Any], kind: str) -> bool:
    """Return whether a condition of a node is true."""
    entries = (node.get("status") or {}).get("conditions") or []
    return any(entry.get("type") == kind and entry.get("status") == "True" for entry in entries)


def node_view(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tasks need of a Node object."""
    metadata = node.get("metadata") or {}
    spec = node.get("spec") or {}
    return {
        "name": metadata.get("name", ""),
        "address": _internal_address(node),
        "ready": condition(node, "Ready"),
        "schedulable": not spec.get("unschedulable", False),
        "kubelet": ((node.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion", ""),
        "voter": condition(node, "EtcdIsVoter"),
        "labels": dict(metadata.get("labels") or {}),
        "annotations": {
            name: value
            for name, value in (metadata.get("annotations") or {}).items()
            if name.startswith("edgeha.io/")
        },
        "taints": [dict(taint) for taint in spec.get("taints") or []],
    }


def _internal_address(node: Mapping[str, Any]) -> str:
    for entry in (node.get("status") or {}).get("addresses") or []:
        if entry.get("type") == "InternalIP":
            return str(entry.get("address", ""))
    return ""


def etcd_members(nodes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return name, node, peer, voter and healthy of the nodes that k3s marks as members of etcd."""
    found = []
    for node in nodes:
        metadata = node.get("metadata") or {}
        annotations = metadata.get("annotations") or {}
        labels = metadata.get("labels") or {}
        if labels.get("node-role.kubernetes.io/etcd") != "true":
            continue
        found.append(
            {
                "name": annotations.get("etcd.k3s.cattle.io/node-name", ""),
                "node": metadata.get("name", ""),
                "peer": annotations.get("etcd.k3s.cattle.io/node-address", ""),
                "voter": condition(node, "EtcdIsVoter"),
                "healthy": condition(node, "Ready"),
            }
        )
    return sorted(found, key=lambda member: str(member["node"]))


def unpacked_from(exe_path: str) -> str:
    """Return the digest of the archive that a running k3s was unpacked from, empty for any other program.

    k3s's own binary unpacks itself to DATA_DIR/data/DIGEST/bin and goes on from there, so what runs is never
    the file that was installed; the file holds the digest as the name of its archive.
    """
    found = re.search(r"/data/([0-9a-f]{64})/bin/", exe_path)
    return found.group(1) if found else ""


def stale(files: Mapping[str, Mapping[str, Any]], started: int, now: int, binary_differs: bool) -> list[str]:
    """Return what is newer than the running process: paths of files, and V(binary).

    started and now: ns since 1970; started 0 means that nothing runs, so nothing is stale. A file from the
    future says that the clock was set back, and nothing of what it was before.
    """
    if not started:
        return []
    found = [
        path for path, state in sorted(files.items()) if state["exists"] and started < state["mtime"] <= now
    ]
    return [*found, "binary"] if binary_differs else found
