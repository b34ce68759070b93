# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the management API tells of the machine that the daemon runs on.

Kernel, memory, processors and uptime are the machine's own (a container sees them in /proc); disks are those
that the daemon sees: its state volume, and the machine's disk under its container.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgeha_runtime import __version__

# How long processor time is measured for one answer, in seconds.
SAMPLE = 0.2
_STARTED = time.monotonic()
# How file systems call themselves in statfs is no text; /proc/self/mounts tells it.
_MOUNTS = Path("/proc/self/mounts")


def info(provisioning: str) -> dict[str, Any]:
    """The contract's SystemInfo. `provisioning` is the kind of provisioning, such as manual.sas."""
    kernel = os.uname()
    return {
        "osType": kernel.sysname,
        "architecture": kernel.machine,
        "version": __version__,
        "provisioning": {
            "type": provisioning,
            "dynamicReprovisioning": False,
            "alwaysReprovisionOnStartup": False,
        },
        "kernel_version": kernel.release,
        "operating_system": "Kubernetes",
        "cpus": os.cpu_count() or 0,
        "total_memory": _memory()["MemTotal"],
        "virtualized": "kubernetes",
    }


async def resources(state: Path) -> dict[str, Any]:
    """The contract's SystemResources: seconds, percent of all processors, bytes."""
    before = _processor()
    await asyncio.sleep(SAMPLE)
    busy, total = (now - then for now, then in zip(_processor(), before, strict=True))
    memory = _memory()
    return {
        "host_uptime": int(float(Path("/proc/uptime").read_text().split()[0])),
        "process_uptime": int(time.monotonic() - _STARTED),
        # The kernel may count waiting for disks backwards.
        "used_cpu": min(100.0, max(0.0, round(100 * busy / total, 2))) if total else 0.0,
        "used_ram": memory["MemTotal"] - memory["MemAvailable"],
        "total_ram": memory["MemTotal"],
        "disks": await asyncio.to_thread(_disks, (state, Path("/"))),
        # Docker's own statistics, which there are none of. Clients read a JSON list.
        "docker_stats": "[]",
    }


def _processor() -> tuple[int, int]:
    """Busy and total time of all processors, in ticks."""
    ticks = [int(part) for part in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # idle and iowait


def _memory() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    found = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _colon, value = line.partition(":")
        number, _space, unit = value.strip().partition(" ")
        found[name] = int(number) * (1024 if unit == "kB" else 1)
    return found


def _disks(folders: Iterable[Path]) -> list[dict[str, Any]]:
    mounts = [line.split(" ") for line in _MOUNTS.read_text().splitlines()]
    found = {}
    for folder in folders:
        inside = [
            fields for fields in mounts if folder == Path(fields[1]) or Path(fields[1]) in folder.parents
        ]
        if not inside:
            continue
        # Of two at one place the later one covers the other.
        device, mount, kind = max(reversed(inside), key=lambda fields: len(fields[1]))[:3]
        size = os.statvfs(folder)
        found[mount] = {
            "name": device,
            "available_space": size.f_bavail * size.f_frsize,
            "total_space": size.f_blocks * size.f_frsize,
            "file_system": kind,
            "file_type": "Unknown",
        }
    return list(found.values())
