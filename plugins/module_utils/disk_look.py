# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looks at disks on the machine that has them, for `disk_probe` and `machine_check`. It changes nothing.

It keeps to what Python 3.9 (RHEL 9) knows.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import disk_rules
from ansible_collections.edgeha.iotedge.plugins.module_utils.this_machine import text

# Runs a program and returns its code and what it printed.
Runner = Callable[..., tuple[int, str]]


def look(run: Runner, devices: Iterable[str], mounts: Iterable[str]) -> dict[str, Any]:
    """Return devices, labels and mounts as the module ``disk_probe`` tells them."""
    mounted = disk_rules.mounts(text("/proc/self/mounts"))
    entries = disk_rules.fstab(text("/etc/fstab"))
    return {
        "devices": {device: _device(run, device, mounted) for device in devices},
        "labels": _labels(run),
        "mounts": {place: _place(place, mounted, entries) for place in mounts},
    }


def _is_busy(path: str) -> bool:
    """Whether the kernel lets nobody have the device alone: it is mounted, swap, or part of something."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def _holders(path: str) -> list[str]:
    try:
        return sorted(entry.name for entry in Path(f"/sys/class/block/{Path(path).name}/holders").iterdir())
    except OSError:
        return []


def _device(run: Runner, device: str, mounted: Mapping[str, list[str]]) -> dict[str, Any]:
    path = os.path.realpath(device)
    state: dict[str, Any] = {
        "path": path,
        "exists": Path(path).exists(),
        "block": False,
        "read": False,
        "busy": False,
        "signatures": [],
        "children": [],
        "holders": [],
        "mounts": [],
    }
    if not state["exists"]:
        return state
    state["block"] = stat.S_ISBLK(Path(path).stat().st_mode)
    if not state["block"]:
        return state
    code, listed = run("wipefs", "--no-act", "--json", path)
    children_code, children = run("lsblk", "--json", "--output", "NAME,PATH", path)
    state["read"] = code == 0 and children_code == 0
    if state["read"]:
        state["signatures"] = disk_rules.signatures(listed)
        state["children"] = disk_rules.members(children)
    state["holders"] = _holders(path)
    state["mounts"] = sorted(
        place
        for source, places in mounted.items()
        if os.path.realpath(source) in (path, *state["children"])
        for place in places
    )
    state["busy"] = _is_busy(path)
    return state


def _labels(run: Runner) -> dict[str, list[str]]:
    """Return the paths of file systems by their label. blkid reads what it does not remember."""
    found: dict[str, list[str]] = {}
    _code, listed = run("blkid", "-c", "/dev/null", "-s", "LABEL")
    for path, label in re.findall(r'(?m)^(/\S+): LABEL="([^"]*)"', listed):
        found.setdefault(label, []).append(os.path.realpath(path))
    return found


def _place(
    place: str, mounted: Mapping[str, list[str]], entries: Mapping[str, dict[str, str]]
) -> dict[str, Any]:
    sources = [source for source, places in mounted.items() if place in places]
    files: list[str] = []
    if not sources:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            files = disk_rules.hidden_files(entry.name for entry in Path(place).iterdir())
    return {
        "source": os.path.realpath(sources[-1]) if sources else "",
        "fstab": entries.get(place),
        "files": files[:20],
        "folder": Path(place).is_dir() or not Path(place).exists(),
    }
