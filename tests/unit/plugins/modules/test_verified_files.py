# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A file takes its place with the right content or not at all."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.modules import verified_files

CONTENT = b"the new program"


def entry(dest: Path, staged: Path | None, **other: Any) -> dict[str, Any]:
    return {
        "source": "https://mirror.example.org/k3s",
        "dest": str(dest),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "mode": "0755",
        "keep_previous": True,
        "staged": str(staged) if staged else None,
        **other,
    }


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    path = tmp_path / "staged"
    path.write_bytes(CONTENT)
    return path


def test_a_new_file_gets_content_mode_and_folder(tmp_path: Path, staged: Path) -> None:
    dest = tmp_path / "bin" / "k3s"
    verified_files.install(entry(dest, staged), "", None, 1)
    assert dest.read_bytes() == CONTENT
    assert dest.stat().st_mode & 0o7777 == 0o755
    assert not verified_files.differs(entry(dest, staged), verified_files.sha256_of(dest))
    assert [path.name for path in dest.parent.iterdir()] == ["k3s"]


def test_what_was_there_is_kept_under_its_other_name(tmp_path: Path, staged: Path) -> None:
    dest = tmp_path / "k3s"
    for old in (b"older", b"old"):
        dest.write_bytes(old)
        verified_files.install(entry(dest, staged), verified_files.sha256_of(dest), None, 1)
        assert (tmp_path / "k3s.previous").read_bytes() == old
    assert dest.read_bytes() == CONTENT


def test_other_content_than_expected_changes_nothing(tmp_path: Path, staged: Path) -> None:
    dest = tmp_path / "k3s"
    dest.write_bytes(b"old")
    staged.write_bytes(b"damaged")
    with pytest.raises(verified_files.FileError, match="expected is"):
        verified_files.install(entry(dest, staged), "before", None, 1)
    assert dest.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k3s", "staged"]


def test_a_mode_alone_is_set_without_fetching(tmp_path: Path) -> None:
    dest = tmp_path / "k3s"
    dest.write_bytes(CONTENT)
    dest.chmod(0o600)
    before = verified_files.sha256_of(dest)
    assert verified_files.differs(entry(dest, None), before)
    verified_files.install(entry(dest, None), before, None, 1)
    assert dest.stat().st_mode & 0o7777 == 0o755


def test_a_download_that_breaks_off_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [ConnectionResetError("reset"), io.BytesIO(CONTENT)]

    def answer(*arguments: Any, **options: Any) -> Any:
        item = answers.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    monkeypatch.setattr(verified_files, "open_url", answer)
    dest = tmp_path / "k3s"
    verified_files.install(entry(dest, None), "", None, 1)
    assert dest.read_bytes() == CONTENT
    assert answers == []
