# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ansible-playbook on an inventory, and the table of problems that it ends with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.machines.machines import ROOT

BIN = Path(sys.executable).parent
_LIMIT_SECONDS = 120
_RECAP = re.compile(r"^(\S+)\s*: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """A row of preflight's table; in a pattern each cell but the first is searched, not matched."""

    host: str
    subject: str
    fact: str
    fix: str

    def fits(self, pattern: Row) -> bool:
        # Where a cell was broken into lines is no matter, not even inside of a word.
        pairs = ((self.subject, pattern.subject), (self.fact, pattern.fact), (self.fix, pattern.fix))
        return self.host == pattern.host and all(
            re.search(wanted.replace(" ", ""), cell.replace(" ", "")) for cell, wanted in pairs
        )


@dataclass(frozen=True)
class Run:
    """A finished run. text: all that was printed."""

    code: int
    text: str

    @property
    def changed(self) -> int:
        return sum(int(found[1]) for found in _RECAP.findall(self.text))

    @property
    def failed(self) -> set[str]:
        return {host for host, _changed, away, failed in _RECAP.findall(self.text) if int(away) + int(failed)}

    def rows(self) -> list[Row]:
        """Return the rows of the first table of problems."""
        lines = self.text.splitlines()
        rules = [n for n, line in enumerate(lines) if re.fullmatch(r"\s*(-+ +){3}-+", line.rstrip())]
        if not rules:
            return []
        starts = [match.start() for match in re.finditer("-+", lines[rules[0]])]
        found: list[list[str]] = []
        for line in lines[rules[0] + 1 :]:
            if not line.strip() or line.startswith(("Origin:", "ok:")):
                break
            cells = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], len(line) + 1], strict=True)]
            if cells[0]:
                found.append(cells)
            else:
                found[-1] = [" ".join(filter(None, pair)) for pair in zip(found[-1], cells, strict=True)]
        return [Row(*cells) for cells in found]


def play(folder: Path, inventory: dict[str, Any], *options: str, playbook: str = "site.yml") -> Run:
    """Write an inventory into a folder of its own and run a playbook of the checkout on it."""
    (folder / "home").mkdir(parents=True)
    path = folder / "hosts.yml"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump({"all": inventory}, sort_keys=False))
    environment = {
        "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_NOCOLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # The connections of ssh are shared between runs.
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder.parent / "ssh"),
    }
    if "EDGEHA_LAB_HOME" in os.environ:
        environment["EDGEHA_LAB_HOME"] = os.environ["EDGEHA_LAB_HOME"]
    command = [str(BIN / "ansible-playbook"), playbook, "-i", str(path), *options]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=_LIMIT_SECONDS,
    )  # fmt: skip
    return Run(done.returncode, done.stdout)
