# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the lab says when something does not come, does not run, or is not there."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_a_wait_that_is_in_vain_names_what_never_came() -> None:
    from edgeha_lab.progress import LabError, wait_for

    with pytest.raises(LabError, match="waited 0 s for the moon"):
        wait_for("the moon", lambda: False, limit=0, pause=0)


def test_a_failed_program_shows_the_end_of_its_log(tmp_path: Path) -> None:
    from edgeha_lab import process
    from edgeha_lab.progress import LabError

    log = tmp_path / "log"
    with pytest.raises(LabError) as failed:
        process.run(["sh", "-c", "echo first; echo the reason >&2; exit 3"], log=log)
    assert "ended with 3" in str(failed.value)
    assert "the reason" in str(failed.value)
    assert str(log) in str(failed.value)


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    from edgeha_lab import process
    from edgeha_lab.progress import LabError

    with pytest.raises(LabError, match="was stopped after"):
        process.run(["sleep", "60"], log=tmp_path / "log", limit=0.2)


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    from edgeha_lab import process
    from edgeha_lab.progress import LabError

    with pytest.raises(LabError, match="no-such-program is not installed"):
        process.output(["no-such-program"])


@pytest.mark.parametrize("name", ["Demo", "a_b", "a-", "a" * 21, "", "../x"])
def test_names_that_no_cluster_can_have_are_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from edgeha_lab.cli import main

    with pytest.raises(SystemExit) as refused:
        main(["--name", name, "status"])
    assert refused.value.code == 2
    assert "is not a lab's name" in capsys.readouterr().err


def test_a_hub_without_a_lab_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from edgeha_lab.cli import main

    assert main(["--name", "nowhere", "hub"]) == 1
    assert "lab nowhere is not up" in capsys.readouterr().err
