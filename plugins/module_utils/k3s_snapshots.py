# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names and ages of the snapshots in a folder. Pure functions.

k3s names a snapshot NAME-NODE-SECONDS, and packs it as .zip when told so; ours of SQLite are named alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SQLITE_SUFFIX = ".sqlite"
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_TAKEN = re.compile(r"-(\d{9,11})(?:\.zip|\.sqlite)?$")


def is_name(text: str) -> bool:
    """Whether a text can be the name that snapshots begin with: what a name of Kubernetes may be."""
    return bool(_NAME.fullmatch(text))


def taken_at(file: str) -> int:
    """Return when a snapshot was taken, in seconds since 1970, by its name; 0 when it does not say."""
    found = _TAKEN.search(file)
    return int(found.group(1)) if found else 0


def file_name(name: str, node: str, now: float) -> str:
    return f"{name}-{node}-{int(now)}{SQLITE_SUFFIX}"


def belongs(file: str, name: str, node: str) -> bool:
    """Whether a file is a snapshot that was taken under a name on a node."""
    return bool(re.fullmatch(rf"{re.escape(name)}-{re.escape(node)}-\d+(\.zip|\.sqlite)?", file))


def surplus(files: Iterable[str], name: str, node: str, keep: int) -> list[str]:
    """Return the snapshots under a name that are more than ``keep``, the oldest first."""
    ours = sorted((file for file in files if belongs(file, name, node)), key=taken_at)
    return ours[: max(0, len(ours) - keep)] if keep > 0 else []


def newest(found: Iterable[Mapping[str, Any]]) -> str:
    """Return the name of the newest of snapshots with name and taken; empty when there is none."""
    ordered = sorted(found, key=lambda entry: (entry["taken"], entry["name"]))
    return str(ordered[-1]["name"]) if ordered else ""


def choose(
    machines: Sequence[Mapping[str, Any]], source: str, is_file: bool, data_dir: str
) -> dict[str, Any]:
    """Tell which server takes a snapshot, and from where.

    machines: dicts with host, server and state (what k3s_probe returned, empty when it did not answer).
    source:   a file of the controller (then ``is_file``), the name of a snapshot on a server, or ``newest``.
    Returns host, path (on that server), upload (whether the file has to be sent there) and problem.
    """
    servers = [machine for machine in machines if machine["server"] and machine.get("state")]
    held = {
        machine["host"]: list((machine["state"].get("data") or {}).get("snapshots") or [])
        for machine in servers
    }
    folder = f"{data_dir}/server/db/snapshots"
    if source and is_file and servers:
        name = source.rsplit("/", 1)[-1]
        return {"host": servers[0]["host"], "path": f"{folder}/{name}", "upload": True, "problem": ""}
    entries = [{"name": name, "taken": taken_at(name)} for names in held.values() for name in names]
    name = newest(entries) if source == "newest" else source.rsplit("/", 1)[-1]
    for host, names in held.items():
        if name and name in names:
            return {"host": host, "path": f"{folder}/{name}", "upload": False, "problem": ""}
    there = ", ".join(sorted({entry["name"] for entry in entries})) or "none"
    what = (
        f"{source} is no file of the controller and no snapshot of a server" if source else "it is not given"
    )
    return {"host": "", "path": "", "upload": False, "problem": f"{what}; the servers hold: {there}"}
