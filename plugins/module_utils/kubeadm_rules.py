# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a machine needs to be a worker of a cluster of kubeadm, by what it is now. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

KUBELET_CONF = "/etc/kubernetes/kubelet.conf"
BOOTSTRAP_CONF = "/etc/kubernetes/bootstrap-kubelet.conf"
AUTHORITY = "/etc/kubernetes/pki/ca.crt"
UNIT_FILE = "/etc/systemd/system/kubelet.service"
PROXY_FILE = "/etc/systemd/system/containerd.service.d/edgeha-proxy.conf"
PROXY_ENV = "/etc/kubernetes/edgeha-proxy.env"
# Says that a containerd was installed by the role, which then looks after its configuration.
OUR_MARK = "# Written by edgeha.iotedge."
CONTAINERD_FILE = "/etc/containerd/config.toml"
# The role node_prepare writes it last when it changes what the machine trusts.
TRUST_LIST = "/etc/edgeha/trusted"
SUMS_FILE = "SHA256SUMS"
PROGRAMS = ("kubelet", "kubeadm")
PROGRAM_FOLDER = "/usr/local/bin"
CNI_FOLDER = "/opt/cni/bin"
SOCKETS = ("/run/containerd/containerd.sock", "/run/crio/crio.sock")
# The kubelet's settings are kubeadm's: it reads them from the cluster and writes them where this unit looks.
KUBELET_UNIT = f"""[Unit]
Description=The node's agent of Kubernetes
Wants=network-online.target
After=network-online.target containerd.service crio.service
ConditionPathExists=/var/lib/kubelet/config.yaml
StartLimitIntervalSec=0

[Service]
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart={PROGRAM_FOLDER}/kubelet --bootstrap-kubeconfig={BOOTSTRAP_CONF} --kubeconfig={KUBELET_CONF} \\
  --config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
Restart=always
RestartSec=10

[Install]
WantedBy=multi-user.target
"""
# Only for a containerd that the role installs: one that is there is its owner's.
CONTAINERD_CONFIG = f"""version = 2

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{CNI_FOLDER}"
  conf_dir = "/etc/cni/net.d"
"""


def endpoint(url: str) -> str:
    """Return host:port of a cluster's API from a URL or host[:port]; raises ValueError."""
    parts = urlsplit(url if "://" in url else f"https://{url}")
    if not parts.hostname:
        raise ValueError(f"{url!r} names no host")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port or 6443}"


def sums(text: str) -> dict[str, str]:
    """Return the SHA-256 of each file that a SHA256SUMS names; raises ValueError for a line that is none."""
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(\S+)", line.strip())
        if not match or ".." in match[2].split("/"):
            raise ValueError(f"line {number} of {SUMS_FILE} is not 'SHA-256, two blanks, name'")
        found[match[2]] = match[1].lower()
    return found


def release(version: str) -> tuple[int, int]:
    """Return (major, minor) of v1.34.4; (0, 0) for anything else."""
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def join_configuration(wanted: Mapping[str, Any], version: str, socket: str) -> str:
    """Return kubeadm's configuration of a join, as JSON. It holds the token.

    version: that of kubeadm, which decides the form of the configuration.
    """
    newer = release(version) >= (1, 31)
    arguments = {"node-ip": wanted["node_ip"]} if wanted["node_ip"] else {}
    registration: dict[str, Any] = {
        "name": wanted["node_name"],
        "criSocket": f"unix://{socket}",
        "kubeletExtraArgs": (
            [{"name": name, "value": value} for name, value in arguments.items()] if newer else arguments
        ),
    }
    if wanted["ignore"]:
        registration["ignorePreflightErrors"] = list(wanted["ignore"])
    return json.dumps(
        {
            "apiVersion": f"kubeadm.k8s.io/{'v1beta4' if newer else 'v1beta3'}",
            "kind": "JoinConfiguration",
            "discovery": {
                "bootstrapToken": {
                    "apiServerEndpoint": endpoint(wanted["url"]),
                    "token": wanted["token"],
                    "caCertHashes": [wanted["ca_hash"]],
                },
                "tlsBootstrapToken": wanted["token"],
            },
            "nodeRegistration": registration,
        }
    )


def proxy_environment(proxy: str, no_proxy: str) -> str:
    """Return the environment of containerd, which fetches images."""
    names = (("HTTP_PROXY", proxy), ("HTTPS_PROXY", proxy), ("NO_PROXY", no_proxy))
    return "".join(f'{name}="{value}"\n' for name, value in names if value)


def files(wanted: Mapping[str, Any], own_runtime: bool) -> list[dict[str, Any]]:
    """Return the files that are to be there. own_runtime: whether containerd is the role's own."""
    found = []
    if wanted["sums"]:
        found.append({"path": UNIT_FILE, "content": KUBELET_UNIT, "mode": "0644"})
    if own_runtime:
        content = f"{OUR_MARK}\n{wanted['containerd_config'] or CONTAINERD_CONFIG}"
        found.append({"path": CONTAINERD_FILE, "content": content, "mode": "0644"})
    if wanted["proxy"]:
        # A proxy may want a password, so it stands where only root reads it.
        environment = proxy_environment(wanted["proxy"], wanted["no_proxy"])
        found.append({"path": PROXY_ENV, "content": environment, "mode": "0600"})
        drop_in = f"[Service]\nEnvironmentFile=-{PROXY_ENV}\n"
        found.append({"path": PROXY_FILE, "content": drop_in, "mode": "0644"})
    return found


def plan(look: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be done on a machine. Only the content of a file may hold a secret, that of a proxy.

    look:   what the module ``kubeadm_probe`` tells as ``kubeadm``.
    wanted: url, ca_hash, source and sums (the text of its SHA256SUMS, empty for packages), runtime_packages,
            proxy, no_proxy, containerd_config. The token is not needed here.

    ``action``: V(join), V(start) (the kubelet), V(restart) (the node has vanished from the API), or V(keep).
    ``clean``:  files (for node_files) of a join that was interrupted, which are in the way of the next one.
    ``install``: for verified_files; ``write``: for node_files; ``images``: names in the source.
    ``packages``, ``link_cni``: what is missing of the distribution's.
    ``restart_runtime``, ``restart_kubelet``: whether what runs reads something that is written now.
    ``reasons``: why, as texts; empty when all is as wanted. ``problems``: with subject, fact and fix.
    """
    wanted = {**wanted, "sums": sums(wanted["sums"])}
    problems = _problems(look, wanted)
    joined = look["kubelet_conf"]["exists"]
    reasons: list[str] = []
    action = "keep"
    if not joined:
        action = "join"
        reasons.append(f"is no node of the cluster at {wanted['url']} yet")
    elif look["kubelet"]["active"] != "active" or look["kubelet"]["enabled"] not in ("enabled", "static"):
        action = "start"
        reasons.append("kubelet.service does not run, or not at start-up")
    elif look["node"]["found"] is False:
        action = "restart"
        reasons.append(f"the cluster has no node {look['node']['name']} any more")

    own_runtime = not look["sockets"] or look["runtime_is_ours"]
    packages = (
        [] if look["sockets"] else [name for name in wanted["runtime_packages"] if name in look["missing"]]
    )
    if not wanted["sums"]:
        packages += [name for name in PROGRAMS if name in look["missing"]]
    install = _install(look, wanted, joined, reasons)
    write = []
    for entry in files(wanted, own_runtime):
        digest = hashlib.sha256(entry["content"].encode()).hexdigest()
        seen = look["files"].get(entry["path"]) or {}
        if (seen.get("sha256"), seen.get("mode")) != (digest, entry["mode"]):
            write.append({**entry, "state": "present"})
            reasons.append(f"{entry['path']} differs")
    gone = [] if wanted["proxy"] else [path for path in (PROXY_FILE, PROXY_ENV) if look["files"].get(path)]
    reasons += [f"{path} is to go" for path in gone]
    write += [{"path": path, "state": "absent"} for path in gone]
    written = {entry["path"] for entry in write}
    stale = bool(look["runtime_is_stale"] and own_runtime and look["sockets"])
    if stale:
        reasons.append(f"containerd has been running since before a change of {TRUST_LIST}")
    changes_runtime = stale or bool(written & {CONTAINERD_FILE, PROXY_ENV, PROXY_FILE})
    return {
        "action": action,
        "problems": problems,
        "reasons": reasons,
        "clean": [{"path": path, "state": "absent"} for path in look["half"]] if action == "join" else [],
        "packages": packages,
        "install": install,
        "images": sorted(name for name in wanted["sums"] if name.startswith("images/"))
        if action == "join"
        else [],
        "sums": wanted["sums"],
        "link_cni": look["link_cni"] and not any(name.startswith("cni/") for name in wanted["sums"]),
        "write": write,
        "restart_runtime": changes_runtime and bool(look["sockets"]),
        "restart_kubelet": action == "restart" or (action == "keep" and UNIT_FILE in written),
        "socket": look["sockets"][0] if look["sockets"] else SOCKETS[0],
    }


def _install(
    look: Mapping[str, Any], wanted: Mapping[str, Any], joined: bool, reasons: list[str]
) -> list[dict[str, Any]]:
    found = []
    for name, digest in sorted(wanted["sums"].items()):
        if name in PROGRAMS:
            dest = f"{PROGRAM_FOLDER}/{name}"
        elif name.startswith("cni/"):
            dest = f"{CNI_FOLDER}/{name[4:]}"
        else:
            continue
        seen = (look["files"].get(dest) or {}).get("sha256")
        # Another version on a node is an upgrade, which belongs to the cluster's own way of upgrading.
        if seen == digest or (joined and seen):
            continue
        found.append({"source": f"{wanted['source']}/{name}", "dest": dest, "sha256": digest, "mode": "0755"})
        reasons.append(f"{dest} is not that of the source")
    return found


def _problems(look: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[dict[str, str]]:
    found: list[tuple[str, str, str]] = []
    missing = [name for name in PROGRAMS if wanted["sums"] and name not in wanted["sums"]]
    if missing:
        fact = f"{SUMS_FILE} does not name {', '.join(missing)}"
        found.append(
            ("variable edge_join_source", fact, f"put them and their SHA-256 into {wanted['source']}")
        )
    if look["k3s"]:
        fact = f"is a node of k3s ({look['k3s']})"
        fix = "reset it by that cluster's inventory (playbook edgeha.iotedge.reset), or take it out here"
        found.append(("cluster", fact, fix))
    if look["control_plane"]:
        fact = "is a control plane of a cluster of its own"
        found.append(("cluster", fact, "take it out of this inventory, or run kubeadm reset on it"))
    conf = look["kubelet_conf"]
    if conf["exists"] and not look["control_plane"]:
        other = bool(conf["ca_hashes"]) and wanted["ca_hash"] not in conf["ca_hashes"]
        if other:
            fact = f"belongs to another cluster, at {conf['server']}"
            fix = "drain it there and run kubeadm reset on it, or take it out of this inventory"
            found.append(("cluster", fact, fix))
        elif look["node"]["status"] in (401, 403):
            fact = f"the cluster no longer knows its certificate (HTTP {look['node']['status']})"
            found.append(("cluster", fact, "run kubeadm reset on it; the next run joins it again"))
        elif conf["problem"]:
            found.append(("cluster", f"{KUBELET_CONF}: {conf['problem']}", "run kubeadm reset on it"))
    if not conf["exists"] and not look["sockets"] and look["family"] not in ("debian", "redhat"):
        found.append(("runtime", "there is no container runtime", "install containerd or CRI-O"))
    return [{"subject": subject, "fact": fact, "fix": fix} for subject, fact, fix in found]
