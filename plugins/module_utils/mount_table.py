# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads /proc/self/mounts and /etc/fstab. Pure functions over texts.

It runs on the machine itself, so it keeps to what Python 3.9 (RHEL 9) knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


class Entry(NamedTuple):
    """What a line says; a column that is not there is empty."""

    source: str
    place: str
    kind: str
    options: str


def mounted(text: str) -> list[Entry]:
    """Return what /proc/self/mounts says, the last of those on one place being the one that is seen."""
    return _entries(line.split(" ") for line in text.split("\n"))


def fstab(text: str) -> list[Entry]:
    return _entries(line.split() for line in text.splitlines() if not line.lstrip().startswith("#"))


def _entries(lines: Iterable[list[str]]) -> list[Entry]:
    rows = ([*words, "", ""] for words in lines if len(words) > 1)
    return [Entry(row[0], _unescaped(row[1]), row[2], row[3]) for row in rows]


def _unescaped(word: str) -> str:
    # Blanks stand as octal numbers.
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), word)
