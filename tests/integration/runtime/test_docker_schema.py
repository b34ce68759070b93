# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of Docker's own types is in our table, so that none is ignored in silence."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from edgeha_runtime.daemon.docker_schema import EXTENSIONS, OPTIONS, Verdict

CLIENTS = Path(__file__).resolve().parents[2] / "clients" / "go"
# Options of API 1.41 that Docker's present types no longer have.
GONE = {
    "HostConfig.KernelMemory",
    "HostConfig.KernelMemoryTCP",
    "MacAddress",
}
# What is inside of these is a value, which the translation reads as a whole.
WHOLE = {"HostConfig.PortBindings"}


def test_no_option_of_docker_is_missing_and_none_is_made_up() -> None:
    printed = subprocess.run(
        ["go", "run", "./dockerschema"],
        cwd=CLIENTS, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    known = set(json.loads(printed.stdout))
    assert len(known) > 150

    def is_inside(path: str) -> bool:
        """Whether an option above it says all about it."""
        above = path
        while "." in above:
            above = above.rpartition(".")[0]
            option = OPTIONS.get(above)
            if above in WHOLE or (option is not None and option.verdict is not Verdict.TRANSLATED):
                return True
        return False

    assert {path for path in known if path not in OPTIONS and not is_inside(path)} == set()
    ours = {path for path in OPTIONS if not path.startswith(EXTENSIONS)}
    assert ours - known == GONE
