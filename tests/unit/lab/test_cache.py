# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds are kept by what they are made of, and an interrupted one never looks finished."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_the_same_inputs_build_once() -> None:
    from edgeha_lab.cache import cached

    builds: list[Path] = []
    first = cached("thing", "0" * 16, builds.append)
    second = cached("thing", "0" * 16, builds.append)
    assert (first[1], second[1], len(builds)) == (True, False, 1)
    assert first[0] == second[0]


def test_an_interrupted_build_is_made_again() -> None:
    from edgeha_lab.cache import cached

    def interrupted(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("thing", "1" * 16, interrupted)
    folder, built = cached("thing", "1" * 16, lambda folder: (folder / "whole").touch())
    assert built
    assert [file.name for file in folder.iterdir()] == ["whole"]


def test_only_the_newest_two_builds_stay(lab_home: Path) -> None:
    from edgeha_lab.cache import cached

    for digit in "2345":
        cached("thing", digit * 16, lambda _folder: None)
    other, _ = cached("thing-else", "6" * 16, lambda _folder: None)
    kept = sorted(folder.name for folder in (lab_home / "cache").iterdir())
    assert len(kept) == 3
    assert {"thing-5555555555555555", other.name} <= set(kept)


@pytest.mark.parametrize("change", ["content", "name", "mode", "more"])
def test_every_change_of_a_source_changes_its_fingerprint(tmp_path: Path, change: str) -> None:
    from edgeha_lab.cache import fingerprint

    source = tmp_path / "source"
    source.mkdir()
    (source / "main.go").write_text("package main\n")
    before = fingerprint(source, "flag")
    assert fingerprint(source, "flag") == before
    if change == "content":
        (source / "main.go").write_text("package other\n")
    elif change == "name":
        (source / "main.go").rename(source / "app.go")
    elif change == "mode":
        (source / "main.go").chmod(0o755)
    else:
        (source / "extra.go").touch()
    assert fingerprint(source, "flag") != before
    assert fingerprint(source, "other flag") != fingerprint(source, "flag")
