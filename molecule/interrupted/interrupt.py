# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a playbook again and again, and kills it each time at a later place."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

# What is to be read one after the other, before the run is killed.
POINTS = {
    "while the program is fetched": [r"k3s_artifacts : Install the files of k3s"],
    "when the files of the founder are written": [
        r"Write configuration, token and unit",
        r"changed: \[server1\]",
    ],
    "while the founder starts": [r"k3s_service : Wait until it is ready"],
    "when a server that joins has its files": [
        r"Write configuration, token and unit",
        r"changed: \[server[23]\]",
    ],
    "while a server joins": [
        r"included: .*start\.yml for server[23]",
        r"k3s_service : Wait until it is ready",
    ],
}
LIMIT = 300.0


def run_until(point: str, patterns: list[str], command: list[str]) -> None:
    """Run the command, and kill all its processes once the patterns were read."""
    waiting = list(patterns)
    began = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if re.search(waiting[0], line):
                waiting.pop(0)
            if not waiting or time.monotonic() - began > LIMIT:
                break
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if waiting:
        sys.exit(f"'{point}' was not reached: {''.join(said)}")
    sys.stdout.write(f"killed {point}, after {time.monotonic() - began:.0f} s\n")


def main() -> None:
    for point, patterns in POINTS.items():
        run_until(point, patterns, ["ansible-playbook", *sys.argv[1:]])


if __name__ == "__main__":
    main()
