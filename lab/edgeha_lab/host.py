# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Kernel limits of this host that several clusters on one machine run into.

Every node runs systemd, containerd and a kubelet, and each takes inotify instances of
the one root user: the usual 128 last for two clusters. `raise_limits` lifts what is too
low while a lab is up; `restore_limits` puts the old values back with the last lab.
The same goes for what a kubelet sets of a kernel, and expects when it is told to leave the
kernel alone: a node in a container must not, and often cannot, set it itself.
"""

from __future__ import annotations

import json
from pathlib import Path

from edgeha_lab import paths
from edgeha_lab.progress import say

_WANTED = {
    "fs/inotify/max_user_instances": 1024,
    "fs/inotify/max_user_watches": 524288,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "vm/overcommit_memory": 1,
}


def _memory() -> Path:
    return paths.home() / "run" / "host-limits.json"


def raise_limits() -> None:
    memory = _memory()
    before = json.loads(memory.read_text()) if memory.exists() else {}
    for name, wanted in _WANTED.items():
        setting = Path("/proc/sys") / name
        value = int(setting.read_text())
        if value < wanted:
            # Remembered before it is changed: an interrupted run can still be put right.
            before.setdefault(name, value)
            memory.parent.mkdir(parents=True, exist_ok=True)
            memory.write_text(json.dumps(before))
            setting.write_text(str(wanted))
            say(f"raised {name.replace('/', '.')} from {value} to {wanted} while labs are up")


def restore_limits() -> None:
    memory = _memory()
    if memory.exists():
        for name, value in json.loads(memory.read_text()).items():
            (Path("/proc/sys") / name).write_text(str(value))
        memory.unlink()
