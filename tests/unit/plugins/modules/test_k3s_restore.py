# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What becomes of a server's datastore, with a program in the place of k3s."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.edgeha.iotedge.plugins.modules import k3s_restore

# Like k3s, it keeps the old data beside the new, and refuses a second reset without a start.
K3S = """#!/bin/sh
db=$5/server/db
[ ! -e $db/reset-flag ] || { echo 'was previously reset' >&2; exit 1; }
grep -q token-file $3 || { echo 'no token' >&2; exit 1; }
[ ! -d $db/etcd ] || mv $db/etcd $db/etcd-old-1
mkdir -p $db/etcd/member
cp "${7#--cluster-reset-restore-path=}" $db/etcd/member/snap
touch $db/reset-flag
"""


def server(root: Path, snapshot: Path | None = None, check: bool = False) -> k3s_restore.Server:
    def run_command(command: list[str]) -> tuple[int, str, str]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    params = {
        "snapshot": str(snapshot) if snapshot else None,
        "data_dir": str(root),
        "config": str(root / "config.yaml"),
        "binary": str(root / "k3s"),
        "limit": 20,
    }
    module = SimpleNamespace(params=params, check_mode=check, run_command=run_command)
    return k3s_restore.Server(module)  # type: ignore[arg-type]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "server" / "db" / "snapshots").mkdir(parents=True)
    (tmp_path / "config.yaml").write_text("token-file: /etc/rancher/k3s/token\n")
    program = tmp_path / "k3s"
    program.write_text(K3S)
    program.chmod(0o755)
    return tmp_path


@pytest.fixture
def snapshot(root: Path) -> Path:
    path = root / "server" / "db" / "snapshots" / "a-gw1-1700000000"
    path.write_bytes(whole(b"state"))
    return path


def whole(content: bytes) -> bytes:
    """Return what etcd would write: whole pages, and their digest."""
    pages = content.ljust(512, b"\0")
    return pages + hashlib.sha256(pages).digest()


def test_etcd_is_restored_once_and_the_old_one_kept(root: Path, snapshot: Path) -> None:
    old = root / "server" / "db" / "etcd" / "member"
    old.mkdir(parents=True)
    task = server(root, snapshot)
    assert not task.is_restored()
    assert task.restore() == str(root / "server" / "db" / "etcd-old-1")
    assert (old / "snap").read_bytes() == whole(b"state")
    assert task.is_restored()


def test_another_snapshot_after_one_that_was_never_started(root: Path, snapshot: Path) -> None:
    server(root, snapshot).restore()
    other = snapshot.with_name("b-gw1-1700000009")
    other.write_text("later")
    task = server(root, other)
    assert not task.is_restored()
    task.restore()
    assert (root / "server" / "db" / "etcd" / "member" / "snap").read_text() == "later"


def test_what_k3s_says_is_told(root: Path, snapshot: Path) -> None:
    (root / "config.yaml").write_text("")
    with pytest.raises(k3s_restore.Refused, match="no token"):
        server(root, snapshot).restore()


def test_sqlite_is_replaced_with_all_its_files(root: Path, snapshot: Path) -> None:
    db = root / "server" / "db"
    (db / "state.db").write_text("old")
    (db / "state.db-wal").write_text("old")
    copy = snapshot.with_name("a-gw1-1700000000.sqlite")
    copy.write_text("state")
    kept = Path(server(root, copy).restore())
    assert (db / "state.db").read_text() == "state"
    assert (db / "state.db").stat().st_mode & 0o777 == 0o600
    assert not (db / "state.db-wal").exists()
    assert sorted(path.name for path in kept.iterdir()) == ["state.db", "state.db-wal"]
    assert server(root, copy).is_restored()
    (db / "state.db").write_text("went on")
    assert not server(root, copy).is_restored()


def test_a_datastore_is_set_aside_and_snapshots_stay(root: Path, snapshot: Path) -> None:
    db = root / "server" / "db"
    (db / "etcd" / "member").mkdir(parents=True)
    assert server(root, check=True).set_aside() == "etcd"
    kept = server(root).set_aside()
    assert server(root).datastores() == []
    assert (Path(kept) / "etcd" / "member").is_dir()
    assert snapshot.exists()
    assert server(root).set_aside() == ""


def test_a_snapshot_that_is_not_there_or_not_whole(root: Path, snapshot: Path) -> None:
    with pytest.raises(k3s_restore.Refused, match="no snapshot"):
        server(root, root / "none").require_snapshot()
    server(root, snapshot).require_snapshot()
    for content in (whole(b"state")[:-1], whole(b"state")[1:] + b"x", b"text", b"x" * 544):
        snapshot.write_bytes(content)
        with pytest.raises(k3s_restore.Refused, match="damaged or none"):
            server(root, snapshot).require_snapshot()


def test_a_snapshot_of_sqlite_begins_like_one(root: Path) -> None:
    copy = root / "a.sqlite"
    copy.write_bytes(b"SQLite format 3\0 and so on")
    assert k3s_restore.is_whole(copy)
    copy.write_bytes(b"text")
    assert not k3s_restore.is_whole(copy)
