# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluation of configurations on a store, where it has to go on whatever a twin says."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from iothub_emulator import registry
from iothub_emulator.configurations import evaluate_changed, put
from iothub_emulator.store import open_database
from iothub_emulator.twins import Twin


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_database(tmp_path / "hub.sqlite3")) as connection:
        yield connection


def configure(store: sqlite3.Connection, name: str, content: dict[str, Any]) -> None:
    body = {"content": {"deviceContent": content}, "targetCondition": "*"}
    put(store, name, body, None, limit=100, now=1000.0)


def desired(store: sqlite3.Connection, device_id: str) -> dict[str, Any]:
    return Twin.load(store, registry.get_device(store, device_id)).desired


def evaluate(store: sqlite3.Connection) -> int:
    """Evaluate until nothing is left; returns the number of twins that were written."""
    written, more = 0, True
    while more:
        notices, more = evaluate_changed(store, 1001.0)
        written += len(notices)
    assert store.execute("SELECT count(*) FROM changed_devices").fetchone()[0] == 0
    return written


def test_a_twin_that_would_become_too_large_does_not_stop_the_others(store: sqlite3.Connection) -> None:
    for device_id in ("full", "free"):
        registry.put_device(store, device_id, {}, None, 1000.0)
    twin = Twin.load(store, registry.get_device(store, "full"))
    large = {f"k{number}": "x" * 4000 for number in range(8)}
    twin.write({"properties": {"desired": large}}, replace=False, if_match=None, now=1000.0)
    twin.save(store)
    configure(store, "more", {"properties.desired.more": {"text": "x" * 3000}})
    assert evaluate(store) == 1
    assert "more" not in desired(store, "full")
    assert "more" in desired(store, "free")


def test_nothing_is_written_twice_and_all_devices_get_their_turn(store: sqlite3.Connection) -> None:
    for number in range(60):
        registry.put_device(store, f"d{number}", {}, None, 1000.0)
    configure(store, "one", {"properties.desired.flag": True})
    assert evaluate(store) == 60
    assert evaluate(store) == 0
    twin = Twin.load(store, registry.get_device(store, "d7"))
    # 1 equals True in Python and not in JSON.
    twin.write({"properties": {"desired": {"flag": 1}}}, replace=False, if_match=None, now=1000.0)
    twin.save(store)
    assert evaluate(store) == 1
    assert desired(store, "d7") == {"flag": True}
