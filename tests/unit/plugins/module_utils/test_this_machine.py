# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import node_look, this_machine


class Module:
    """Stands in for AnsibleModule; programs really run."""

    def get_bin_path(self, name: str, opt_dirs: list[str]) -> str | None:
        return shutil.which(name, path=":".join([os.environ["PATH"], *opt_dirs]))

    def run_command(self, words: list[str], executable: str, **_rest: Any) -> tuple[int, str, str]:
        done = subprocess.run(words, executable=executable, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr


MODULE = cast(AnsibleModule, Module())


def test_files_that_are_there_and_that_are_not(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert (this_machine.read(file), this_machine.text(file)) == (None, "")
    with pytest.raises(FileNotFoundError):
        this_machine.sha256(file)
    file.write_bytes(b"\xff\n" * 700_000)
    assert this_machine.text(file)[:2] == "\N{REPLACEMENT CHARACTER}\n"
    assert this_machine.sha256(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_programs_that_are_there_and_that_are_not(tmp_path: Path) -> None:
    assert this_machine.run(MODULE, "sh", "-c", "echo said; exit 3") == (3, "said\n")
    assert this_machine.run(MODULE, "no-such-program") == (this_machine.MISSING, "")
    assert this_machine.output(MODULE, "sh", "-c", "echo $0", executable="/bin/sh") == "sh\n"
    # It went between the look and the call.
    assert this_machine.output(MODULE, "gone", executable=str(tmp_path / "gone")) == ""


def test_a_folder_that_is_not_there_is_on_the_disk_of_the_one_above(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert node_look.folder_above(tmp_path / "a" / "b") == node_look.folder_above(file) == tmp_path
    assert node_look.space(tmp_path / "a")["total_bytes"] == node_look.space(tmp_path)["total_bytes"] > 0


def test_what_is_told_of_any_machine() -> None:
    look = node_look.look(lambda *words: this_machine.output(MODULE, *words))
    assert look["cpus"] >= 1
    assert look["memory_mib"] > 0
    assert look["os"]["id"]
    assert node_look.module_states(["no-such-module"]) == {"no-such-module": "missing"}
