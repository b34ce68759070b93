# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cut a lock file down to what some packages need, for an image's requirements.txt.

    python3 lock_subset.py --lock requirements/requirements.lock --roots runtime/requirements.in

prints it. The lock is one in pip's format with hashes and "# via" lines, as uv and pip-compile write it; they
tell what needs what. So versions and hashes keep standing in one place only.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(\[[^]]*\])?==")
_VIA = re.compile(r"^\s+#\s+(?:via\s+)?(.+?)\s*$")


class LockError(Exception):
    """The lock does not hold what was asked for."""


@dataclass(frozen=True)
class Pin:
    """One package of the lock: its lines, and who needs it."""

    lines: tuple[str, ...]
    needed_by: frozenset[str]


def _name(text: str) -> str:
    """Normal form of a package name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", text.split("[")[0].strip()).lower()


def read_lock(text: str) -> dict[str, Pin]:
    """Packages of a lock by normal name."""
    pins: dict[str, Pin] = {}
    name, lines, needed_by = "", list[str](), set[str]()
    for line in [*text.splitlines(), "end=="]:
        found = _PIN.match(line)
        if found or line == "end==":
            if name:
                pins[name] = Pin(tuple(lines), frozenset(needed_by))
            name, lines, needed_by = _name(found.group(1)) if found else "", [line], set()
        elif name and (via := _VIA.match(line)):
            if via.group(1) != "via":
                needed_by.add(_name(via.group(1)))
        elif name and line.strip():
            lines.append(line)
    return pins


def subset(lock: str, roots: list[str]) -> str:
    """The lock's lines for `roots` and all they need. Raises LockError for a root the lock does not have."""
    pins = read_lock(lock)
    missing = [root for root in roots if _name(root) not in pins]
    if missing:
        raise LockError(f"not in the lock: {', '.join(missing)}. Add them to its sources and make it anew")
    kept = {_name(root) for root in roots}
    while more := {name for name, pin in pins.items() if name not in kept and pin.needed_by & kept}:
        kept |= more
    return "".join("\n".join(pins[name].lines) + "\n" for name in sorted(kept))


def main() -> int:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="requirements of an image, from the lock")
    parser.add_argument("--lock", type=Path, required=True)
    parser.add_argument("--roots", type=Path, required=True)
    arguments = parser.parse_args()
    lines = arguments.roots.read_text(encoding="utf-8").splitlines()
    roots = [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    try:
        sys.stdout.write(subset(arguments.lock.read_text(encoding="utf-8"), roots))
    except LockError as error:
        sys.stderr.write(f"{arguments.lock}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
