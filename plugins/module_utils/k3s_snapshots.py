# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names and ages of the snapshots in a folder. Pure functions.

k3s names a snapshot NAME-NODE-SECONDS, and packs it as .zip when told so; ours of SQLite are named alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
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
