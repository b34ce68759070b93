# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of SQLite by SQLite's means, of etcd by a program in the place of k3s."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_snapshots
from ansible_collections.edgeha.iotedge.plugins.modules import k3s_snapshot

K3S = """#!/bin/sh
set -e
[ "$1 $5 $7" = "etcd-snapshot --data-dir --etcd-snapshot-dir" ] || [ "$2" = delete ]
case $2 in
  save) mkdir -p "$8"; echo data > "$8/$4-gw1-17000000$(ls "$8" | wc -l | tr -d ' ')0" ;;
  delete) rm "$7/$3" ;;
esac
"""


def store(data_dir: Path, **params: Any) -> k3s_snapshot.Store:
    given = {"name": "backup", "keep": 0, "folder": None, "data_dir": str(data_dir), "limit": 20, **params}

    def run_command(command: list[str]) -> tuple[int, str, str]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    return k3s_snapshot.Store(SimpleNamespace(params=given, run_command=run_command))  # type: ignore[arg-type]


@pytest.fixture
def sqlite(tmp_path: Path) -> Path:
    folder = tmp_path / "server" / "db"
    folder.mkdir(parents=True)
    with sqlite3.connect(folder / "state.db") as database:
        database.execute("CREATE TABLE kine (name TEXT)")
        database.execute("INSERT INTO kine VALUES ('gw1')")
    return tmp_path


@pytest.fixture
def etcd(tmp_path: Path) -> Path:
    (tmp_path / "server" / "db" / "etcd" / "member").mkdir(parents=True)
    program = tmp_path / "k3s"
    program.write_text(K3S)
    program.chmod(0o755)
    return tmp_path


def test_a_database_is_copied_whole_and_for_root_only(sqlite: Path) -> None:
    found = store(sqlite).take()
    path = Path(found["path"])
    assert path.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(path) as copy:
        assert copy.execute("SELECT name FROM kine").fetchall() == [("gw1",)]
    assert [entry["name"] for entry in store(sqlite).listed()] == [found["name"]]


def test_a_damaged_database_leaves_no_copy(sqlite: Path) -> None:
    (sqlite / "server" / "db" / "state.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(k3s_snapshot.Refused, match="SQLite could not copy"):
        store(sqlite).take()
    assert list((sqlite / "server" / "db" / "snapshots").iterdir()) == []


def test_k3s_takes_that_of_etcd_and_the_oldest_go(etcd: Path) -> None:
    task = store(etcd, binary=str(etcd / "k3s"), keep=2)
    names = [task.take()["name"] for _ in range(3)]
    assert task.prune("gw1") == names[:1]
    assert [entry["name"] for entry in task.listed()] == names[1:]


def test_what_k3s_says_of_a_failure_is_told(etcd: Path) -> None:
    (etcd / "k3s").write_text("#!/bin/sh\necho 'no leader' >&2\nexit 1\n")
    with pytest.raises(k3s_snapshot.Refused, match="save' failed: no leader"):
        store(etcd, binary=str(etcd / "k3s")).take()


def test_a_machine_without_a_datastore_is_refused(tmp_path: Path) -> None:
    with pytest.raises(k3s_snapshot.Refused, match="neither etcd nor SQLite"):
        store(tmp_path).require()


@pytest.mark.parametrize("name", ["", "-a", "Upper", "a/b", "a b", "x" * 64])
def test_names_that_k3s_would_not_take(etcd: Path, name: str) -> None:
    with pytest.raises(k3s_snapshot.Refused, match="cannot begin"):
        store(etcd, name=name).require()


def test_only_snapshots_of_the_same_name_and_node_are_surplus() -> None:
    files = [
        "a-gw1-1700000003",
        "a-gw1-1700000001",
        "a-gw2-1700000000",
        "a-b-gw1-1700000000",
        "a-gw1-1700000002.zip",
    ]
    assert k3s_snapshots.surplus(files, "a", "gw1", 2) == ["a-gw1-1700000001"]
    assert k3s_snapshots.surplus(files, "a", "gw1", 0) == []


def test_the_newest() -> None:
    found = [
        {"name": name, "taken": k3s_snapshots.taken_at(name)}
        for name in ("b-gw1-1700000001", "a-gw2-1700000002")
    ]
    assert k3s_snapshots.newest(found) == "a-gw2-1700000002"
    assert k3s_snapshots.newest([]) == ""


HELD = {"gw1": ["a-gw1-1700000001"], "gw2": ["a-gw2-1700000002"], "gw3": []}


def choice(source: str, is_file: bool = False, **held: list[str]) -> dict[str, Any]:
    machines = [
        {"host": host, "server": True, "state": {"data": {"snapshots": names}}}
        for host, names in (held or HELD).items()
    ]
    return k3s_snapshots.choose(machines, source, is_file, "/data")


def test_the_server_that_holds_a_snapshot_takes_it() -> None:
    assert choice("a-gw2-1700000002")["host"] == "gw2"
    assert choice("newest") == {
        "host": "gw2",
        "path": "/data/server/db/snapshots/a-gw2-1700000002",
        "upload": False,
        "problem": "",
    }


def test_a_file_of_the_controller_is_sent_to_a_server() -> None:
    found = choice("/backups/plant07/a-gw9-1690000000", True, gw2=[])
    assert (found["host"], found["upload"]) == ("gw2", True)
    assert found["path"] == "/data/server/db/snapshots/a-gw9-1690000000"


def test_a_snapshot_that_nobody_has_is_told_with_those_that_are_there() -> None:
    assert choice("b")["problem"].endswith("the servers hold: a-gw1-1700000001, a-gw2-1700000002")
    assert choice("")["problem"].startswith("it is not given")
    assert choice("newest", gw1=[])["problem"].endswith("hold: none")
