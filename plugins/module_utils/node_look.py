# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looks at what a machine is, for `node_probe` and `machine_check`. It changes nothing.

It keeps to what Python 3.9 (RHEL 9) knows.
"""

from __future__ import annotations

import os
import platform
import re
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import node_facts
from ansible_collections.edgeha.iotedge.plugins.module_utils.this_machine import Output, text


def container() -> str:
    """Return the kind of container that the machine is, empty for a real or virtual machine."""
    return node_facts.container(
        text("/proc/1/environ"), text("/run/systemd/container"), Path("/.dockerenv").exists()
    )


def os_release() -> dict[str, Any]:
    return node_facts.os_release(text("/etc/os-release") or text("/usr/lib/os-release"))


def look(output: Output) -> dict[str, Any]:
    """Return what both modules tell of any machine."""
    return {
        "hostname": socket.gethostname(),
        "machine_id": text("/etc/machine-id").strip(),
        "interfaces": node_facts.interfaces(output("ip", "-json", "address")),
        "os": os_release(),
        "kernel": {
            "release": platform.release(),
            "architecture": platform.machine(),
            "container": container(),
        },
        "cgroups": node_facts.cgroups(
            node_facts.filesystem_of(text("/proc/self/mounts"), "/sys/fs/cgroup"),
            text("/sys/fs/cgroup/cgroup.controllers"),
            text("/proc/cgroups"),
        ),
        "memory_mib": node_facts.memory_mib(text("/proc/meminfo")),
        "cpus": os.cpu_count() or 1,
    }


def kubelet_version(output: Output) -> str:
    """Return the version of the kubelet that is there, or that packages would bring; empty for neither."""
    found = re.search(r"v\d+\.\d+\.\d+", output("kubelet", "--version"))
    if found:
        return found[0]
    candidate = re.search(r"Candidate: (?:\d+:)?(\d+\.\d+\.\d+)", output("apt-cache", "policy", "kubelet"))
    return f"v{candidate[1]}" if candidate else ""


def packages(output: Output, family: str, wanted: Sequence[str]) -> dict[str, str | None]:
    """Return the version of each package, None when it is not installed."""
    if family == "redhat" and wanted:
        form = "%{NAME} %{VERSION}-%{RELEASE}\\n"
        return node_facts.rpm_versions(output("rpm", "-q", "--queryformat", form, *wanted), wanted)
    return node_facts.dpkg_versions(text("/var/lib/dpkg/status"), wanted)


def available_modules() -> set[str]:
    """Return the kernel modules that can be loaded."""
    return node_facts.module_names(text(f"/lib/modules/{platform.release()}/modules.dep"))


def module_states(names: Iterable[str]) -> dict[str, str]:
    """Return for each kernel module whether it is loaded, builtin, available or missing."""
    wanted = list(names)
    loaded = node_facts.first_words(text("/proc/modules"))
    builtin = node_facts.module_names(text(f"/lib/modules/{platform.release()}/modules.builtin"))
    available = available_modules()
    filesystems = node_facts.filesystem_names(text("/proc/filesystems"))
    signs = [node_facts.evidence(name.replace("-", "_")) for name in wanted]
    there = [sign for sign in signs if Path(sign).exists()]
    return {
        name: node_facts.module_state(name, loaded, builtin, available, filesystems, there) for name in wanted
    }


def folder_above(path: str | Path) -> Path:
    """Return the folder itself, or the nearest one above it that is there."""
    place = Path(path)
    while not place.is_dir():
        place = place.parent
    return place


def space(path: str | Path) -> dict[str, Any]:
    """Return room and file system of the disk on which a folder is, or would be."""
    place = folder_above(path)
    state = os.statvfs(place)
    return {
        "free_bytes": state.f_bavail * state.f_frsize,
        "total_bytes": state.f_blocks * state.f_frsize,
        "filesystem": node_facts.filesystem_of(text("/proc/self/mounts"), str(place)),
    }
