# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kept database is brought up to date and loses nothing."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from iothub_emulator.store import _CORE, SchemaPart, open_database

ONE = SchemaPart("extra", ("CREATE TABLE extra (a);",))
TWO = SchemaPart("extra", (*ONE.steps, "ALTER TABLE extra ADD COLUMN b; UPDATE extra SET b = a + 1;"))


def version_1(path: Path) -> None:
    """A database as the first release of the emulator left it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(f"BEGIN;{_CORE.steps[0]}PRAGMA user_version=1;COMMIT;")
        connection.execute("INSERT INTO mqtt_sessions VALUES ('gw', '', '{}')")


def test_a_database_of_version_1_is_migrated_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite3"
    version_1(path)
    for _again in range(2):
        with closing(open_database(path, [ONE])) as connection:
            assert connection.execute("SELECT device_id FROM mqtt_sessions").fetchone()[0] == "gw"
            versions = dict(connection.execute("SELECT name, version FROM parts").fetchall())
            assert versions == {"core": len(_CORE.steps), "extra": 1}


def test_a_migrated_database_has_the_layout_of_a_new_one(tmp_path: Path) -> None:
    version_1(tmp_path / "old")
    layouts = []
    for name in ("old", "new"):
        with closing(open_database(tmp_path / name)) as connection:
            layouts.append(connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall())
    assert [tuple(row) for row in layouts[0]] == [tuple(row) for row in layouts[1]]


def test_a_part_takes_its_missing_steps_only(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite3"
    with closing(open_database(path, [ONE])) as connection:
        connection.execute("INSERT INTO extra VALUES (1)")
    with closing(open_database(path, [TWO])) as connection:
        assert tuple(connection.execute("SELECT * FROM extra").fetchone()) == (1, 2)


def test_a_step_that_fails_leaves_the_part_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite3"
    with closing(open_database(path, [ONE])):
        pass
    bad = SchemaPart("extra", (*ONE.steps, "CREATE TABLE more (a); CREATE TABLE more (a);"))
    with pytest.raises(sqlite3.Error, match="already exists"):
        open_database(path, [bad])
    with closing(open_database(path, [TWO])) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema WHERE name = 'more'").fetchone() is None


def test_a_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite3"
    with closing(open_database(path, [TWO])):
        pass
    with pytest.raises(sqlite3.DatabaseError, match="another --state"):
        open_database(path, [ONE])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(sqlite3.DatabaseError, match="another --state"):
        open_database(path, [TWO])
