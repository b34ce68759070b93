# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs other programs, with their output in a log file and its end in the error."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeha_lab.progress import LabError

_LINES_SHOWN = 15


def run(
    command: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    limit: float = 600,
) -> None:
    """Runs to the end, appending to `log`; a LabError carries the last lines on failure."""
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    with log.open("ab") as output:
        output.write(f"$ {' '.join(words)}\n".encode())
        output.flush()
        try:
            code = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=_environment(env),
                timeout=limit,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise LabError(
                f"{words[0]} was stopped after {limit:.0f} s; its log: {log}\n{tail(log)}"
            ) from None
        except FileNotFoundError:
            raise LabError(f"{words[0]} is not installed on this machine") from None
    if code:
        raise LabError(f"{Path(words[0]).name} ended with {code}; its log: {log}\n{tail(log)}")


def output(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    limit: float = 60,
    stdin: bytes | None = None,
) -> str:
    """What a short command prints; a LabError carries what it said on failure."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, capture_output=True, env=_environment(env), timeout=limit, check=False, input=stdin or b""
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(words[:3])} … gave no answer in {limit:.0f} s") from None
    except FileNotFoundError:
        raise LabError(f"{words[0]} is not installed on this machine") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise LabError(f"{' '.join(words[:4])} … ended with {done.returncode}: {said[-2000:]}")
    return done.stdout.decode(errors="replace")


def tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"    {line}" for line in lines[-_LINES_SHOWN:])


def _environment(extra: Mapping[str, str] | None) -> dict[str, str] | None:
    return {**os.environ, **extra} if extra else None
