# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs tasks of a test over hosts that are all this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
# What makes a host this machine, as long as its own variables do not say otherwise.
HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
_LIMIT_SECONDS = 180


def run_play(
    place: Path,
    hosts: Mapping[str, Mapping[str, Any]],
    tasks: Sequence[Mapping[str, Any]],
    *options: str,
    variables: Mapping[str, Any] | None = None,
    files: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run them, and return how it ended.

    place: folder for what is written for it. hosts, variables: of each, and of all. files: vars_files.
    """
    inventory = {"all": {"hosts": hosts, "vars": {**HERE, **(variables or {})}}}
    play = {"hosts": "all", "gather_facts": False, "vars_files": list(map(str, files)), "tasks": tasks}
    (place / "hosts.json").write_text(json.dumps(inventory))
    (place / "play.json").write_text(json.dumps([play]))
    program = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [program, "--inventory", place / "hosts.json", *options, place / "play.json"],
        cwd=ROOT, capture_output=True, text=True, timeout=_LIMIT_SECONDS, check=False,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_HOME": str(place / "home"),
             "ANSIBLE_FORCE_COLOR": "0", **(environment or {})},
    )  # fmt: skip
