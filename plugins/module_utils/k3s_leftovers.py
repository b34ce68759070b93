# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What k3s leaves on a machine: processes, mounts, interfaces, rules, files. Pure functions over texts.

What is looked for is what k3s's own killall and uninstall scripts take away (docs.k3s.io, "Stopping K3s" and
"Uninstalling K3s").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from ansible_collections.edgeha.iotedge.plugins.module_utils import mount_table

# Folders outside of the data folder; all that is mounted under them is k3s's or its pods'.
MOUNT_ROOTS = ("/run/k3s", "/var/lib/kubelet", "/run/netns/cni-")
FOLDERS = (
    "/run/k3s",
    "/run/flannel",
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/rancher/k3s",
    "/etc/rancher/node",
)
UNITS = ("k3s", "k3s-agent")
LINKS = ("kubectl", "crictl", "ctr")
_INTERFACES = ("cni0", "flannel.1", "flannel-v6.1", "flannel-wg", "flannel-wg-v6", "kube-ipvs0")
_CHAIN = re.compile(r"(?:^:|(?:^|\s)-[ANgj] )(KUBE-|CNI-|FLANNEL-)|--comment \"?(?:kubernetes|flanneld|cni)")


def is_safe(data_dir: str) -> bool:
    """Whether a folder may be emptied: no folder of the system, and not a short way up to one."""
    path = PurePosixPath(data_dir)
    if not path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
        return False
    system = {"bin", "boot", "dev", "etc", "home", "lib", "proc", "root", "run", "sbin", "sys", "usr", "var"}
    # /srv/k3s will do, /var/lib will not.
    return len(path.parts) > (4 if path.parts[1] in system else 2) or path.name in ("k3s", "rancher")


def under(path: str, root: str) -> bool:
    """Whether a path is below a root; a root that ends in ``-`` is the beginning of a name."""
    return path.startswith(root) if root.endswith("-") else path.startswith(root.rstrip("/") + "/")


def mounts(table: str, data_dir: str, kept: Iterable[str]) -> list[str]:
    """Return mount points of k3s and its pods, the deepest first.

    table: text of /proc/self/mounts. kept: mount points of fstab, which are the machine's own.
    """
    own = set(kept)
    points = (entry.place for entry in mount_table.mounted(table))
    found = [
        point
        for point in points
        if point not in own and any(under(point, root) for root in (*MOUNT_ROOTS, data_dir))
    ]
    # The same place may be mounted on twice, and is then listed twice.
    return sorted(found, key=lambda point: point.count("/"), reverse=True)


def interfaces(masters: Mapping[str, str]) -> list[str]:
    """Return interfaces of k3s's networks. masters: each interface with its bridge, which may be empty."""
    found = [name for name, master in masters.items() if master == "cni0"]
    return sorted(found) + [name for name in _INTERFACES if name in masters]


def strip_rules(saved: str) -> tuple[str, int]:
    """Return the rules without those of Kubernetes, and how many lines went. saved: of iptables-save."""
    kept = []
    gone = 0
    for line in saved.splitlines():
        if _CHAIN.search(line):
            gone += 1
        else:
            kept.append(line)
    return "\n".join(kept) + "\n", gone


def processes(
    parents: Mapping[int, int],
    programs: Mapping[int, str],
    groups: Mapping[int, str],
    data_dir: str,
    binary: str,
) -> list[int]:
    """Return the processes of k3s and of its pods.

    parents: each process with its parent. programs: with its program's path. groups: with its control groups.
    """
    ours = {
        pid
        for pid, program in programs.items()
        if under(program, f"{data_dir}/data") or program.removesuffix(" (deleted)") == binary
    }
    # Where the machine is itself a pod of somebody else's cluster, the groups tell nothing.
    if "/kubepods" not in groups.get(1, ""):
        ours |= {pid for pid, text in groups.items() if "/kubepods" in text}
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in ours} - ours
        ours |= children
        grown = bool(children)
    return sorted(ours)
