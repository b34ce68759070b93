# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads files and asks programs of the machine that a module runs on.

It keeps to what Python 3.9 (RHEL 9) knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

# Runs a program and returns what it printed.
Output = Callable[..., str]
# The code of a program that is not there, as a shell says it.
MISSING = 127
_CHUNK = 1 << 20


def read(path: str | Path) -> str | None:
    """Return the text of a file, None when it is not there or says nothing."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return None


def text(path: str | Path) -> str:
    """Return the text of a file, empty when it is not there or says nothing."""
    return read(path) or ""


def expanded(paths: Iterable[str]) -> list[str]:
    """Return paths with patterns replaced by the files that match, each once."""
    found: list[str] = []
    for path in paths:
        place = Path(path)
        found += sorted(map(str, place.parent.glob(place.name))) if "*" in place.name else [path]
    return list(dict.fromkeys(found))


def sha256(path: str | Path) -> str:
    """Return the digest of a file of any size. Raises OSError when it cannot be read."""
    found = hashlib.sha256()
    with Path(path).open("rb") as source:
        while part := source.read(_CHUNK):
            found.update(part)
    return found.hexdigest()


def run(module: AnsibleModule, *words: str, executable: str = "") -> tuple[int, str]:
    """Return code and output of a program; MISSING and nothing when it is not there, or gone meanwhile.

    executable: the file, when it is called by another name than its own.
    """
    # The path of those who use sudo may lack the last.
    program = executable or module.get_bin_path(words[0], opt_dirs=["/usr/local/bin"])
    if not program:
        return MISSING, ""
    try:
        code, said, _errors = module.run_command(
            list(words), executable=program, environ_update={"LC_ALL": "C"}, handle_exceptions=False
        )
    except OSError:
        return MISSING, ""
    return int(code), str(said)


def output(module: AnsibleModule, *words: str, executable: str = "") -> str:
    """Return what a program prints, nothing when it is not there."""
    return run(module, *words, executable=executable)[1]
