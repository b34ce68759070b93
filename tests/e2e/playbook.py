# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ansible-playbook, as an operator starts it, with nothing of this shell's settings."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.lab import ROOT, Lab

BIN = Path(sys.executable).parent
RUN_LIMIT_SECONDS = 600
# A run that hears Ctrl-C ends within half a second.
HEARD_LIMIT_SECONDS = 3
WORKERS_LIMIT_SECONDS = 60
_RECAP = re.compile(r"^(\S+)\s*: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """A finished run. text: all that was printed. started: Unix time."""

    code: int
    text: str
    started: float

    @property
    def recap(self) -> dict[str, tuple[int, int]]:
        """(changed, failed or unreachable) by host."""
        hosts = _RECAP.findall(self.text)
        return {host: (int(changed), int(away) + int(failed)) for host, changed, away, failed in hosts}

    @property
    def changed(self) -> int:
        """Tasks that changed something; a run that says nothing about it is an error."""
        assert "lab" in self.recap, self.text
        return sum(changed for changed, _ in self.recap.values())

    def changed_tasks(self) -> list[str]:
        """Names of these tasks, for messages."""
        name, found = "", []
        for line in self.text.splitlines():
            if line.startswith("TASK ["):
                name = line.partition("[")[2].rpartition("]")[0]
            elif line.startswith("changed:"):
                found.append(name)
        return found

    def finished(self) -> Run:
        """Fail with the end of the output unless the run ended well."""
        assert self.code == 0, self.text[-6000:]
        return self


class Playbooks:
    """Runs playbooks against a lab. folder: where homes and temporary files of the runs are."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab = lab
        self.folder = folder
        self._count = 0
        for name in ("home", "tmp"):
            (folder / name).mkdir(mode=0o700)

    def environment(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        """What a run sees: nothing of Ansible's, Helm's or Kubernetes' settings in this shell."""
        return {
            "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_NOCOLOR": "1",
            "EDGEHA_LAB_HOME": str(self._lab.home),
            "EDGEHA_LAB_STATE": str(self._lab.state),
            **(extra or {}),
        }

    def run(self, *words: str, cwd: Path = ROOT, **options: Any) -> Run:
        """Run to the end. Keywords as for `start`."""
        with self.start(*words, cwd=cwd, **options) as run:
            return run.wait()

    @contextlib.contextmanager
    def start(
        self,
        *words: str,
        cwd: Path = ROOT,
        variables: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
    ) -> Iterator[Started]:
        """Start a run in a process group of its own, which is gone when the block ends.

        variables: extra variables, given in a file that only this user can read.
        """
        self._count += 1
        log = self.folder / f"run-{self._count}.log"
        command = [str(BIN / "ansible-playbook"), *words]
        if variables is not None:
            given = self.folder / f"run-{self._count}.json"
            given.touch(mode=0o600)
            given.write_text(json.dumps(variables))
            command += ["--extra-vars", f"@{given}"]
        began = time.time()
        with log.open("wb") as output:
            process = psutil.Popen(
                command, cwd=cwd, env=self.environment(environment), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        started = Started(process, log, began)
        try:
            yield started
        finally:
            started.end()


@dataclass(frozen=True)
class Problem:
    """A row of preflight's table."""

    host: str
    subject: str
    fact: str
    fix: str


def problems(run: Run) -> list[Problem]:
    """Return the rows of the one error that a run ended with."""
    assert run.code != 0
    assert run.recap["lab"] == (0, 1), run.text
    _, head, rest = run.text.partition("Preflight found ")
    assert head, run.text
    lines = rest.splitlines()
    rule = next(number for number, line in enumerate(lines) if re.fullmatch(r"(-+ +){3}-+", line.strip()))
    starts = [match.start() for match in re.finditer("-+", lines[rule])]
    rows: list[list[str]] = []
    for line in lines[rule + 1 :]:
        if not line.strip() or line.startswith("Origin:"):
            break
        cells = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], len(line)], strict=True)]
        if cells[0]:
            rows.append(cells)
        else:
            rows[-1] = [" ".join(filter(None, pair)) for pair in zip(rows[-1], cells, strict=True)]
    assert lines[0] == f"{len(rows)} problem(s). Nothing was changed.", lines[0]
    return [Problem(*row) for row in rows]


@dataclass
class Started:
    """A run that goes on."""

    process: psutil.Popen
    log: Path
    began: float

    def wait(self, limit: float = RUN_LIMIT_SECONDS) -> Run:
        try:
            code = self.process.wait(limit)
        except psutil.TimeoutExpired:
            raise AssertionError(f"the run did not end in {limit:g} s:\n{self._text()[-6000:]}") from None
        return Run(code, self._text(), self.began)

    def interrupt(self) -> None:
        """What Ctrl-C does: SIGINT to the terminal's foreground group. A second one where the first was lost.

        Ansible's handler raises KeyboardInterrupt. If the signal came while a worker was forked, Python calls
        the handler among the callbacks of `os.register_at_fork`, and what is raised there goes nowhere: the
        run goes on. Of 44 runs that was one. The next signal finds the default action, of which workers are
        not told: they end what they do.
        """
        os.killpg(self.process.pid, signal.SIGINT)
        with contextlib.suppress(psutil.TimeoutExpired):
            self.process.wait(HEARD_LIMIT_SECONDS)
            return
        workers = self.process.children(recursive=True)
        os.killpg(self.process.pid, signal.SIGINT)
        _ended, left = psutil.wait_procs(workers, WORKERS_LIMIT_SECONDS)
        assert not left, f"waited {WORKERS_LIMIT_SECONDS} s for the workers of the run to end: {left}"

    def end(self) -> None:
        """Kill whatever there is of the run. Ansible's workers are in sessions of their own."""
        family = [self.process]
        with contextlib.suppress(psutil.NoSuchProcess):
            family += self.process.children(recursive=True)
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait(10)

    def _text(self) -> str:
        return self.log.read_text(errors="replace")
