# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import activity

NOON = datetime(2026, 2, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-02-01T12:00:00Z", NOON),
        ("2026-02-01T12:00:00.0000000Z", NOON),
        ("2026-02-01T12:00:00.1234567Z", NOON.replace(microsecond=123456)),
        ("2026-02-01T13:00:00+01:00", NOON),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        (None, None),
        ("yesterday", None),
    ],
)
def test_times_of_the_hub(text: object, expected: datetime | None) -> None:
    assert activity.parse_time(text) == expected


def state(**identity: object) -> activity.ModuleState:
    [found] = activity.states("gw", [{"moduleId": "sensor", **identity}], ["sensor"])
    return found


def test_ready_is_connected_and_active_since() -> None:
    connected = {"connectionState": "Connected", "lastActivityTime": "2026-02-01T12:00:00Z"}
    assert state(**connected).ready(NOON)
    assert not state(**connected).ready(NOON.replace(second=1))
    assert not state(**{**connected, "connectionState": "Disconnected"}).ready(NOON)
    assert not state(connectionState="Connected").ready(NOON)


def test_module_that_does_not_exist_is_not_ready() -> None:
    [found] = activity.states("gw", [], ["sensor"])
    assert not found.exists
    assert not found.ready(NOON)


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        ({"connectionState": "Disconnected"}, "is not connected (never active)"),
        ({"connectionState": "Connected"}, "sent nothing since 2026-02-01T12:00:00Z (last active never)"),
    ],
)
def test_explanation_names_device_module_and_what_was_seen(identity: dict[str, object], text: str) -> None:
    line = activity.explain(state(**identity), NOON)
    assert line.startswith("device gw, module sensor: ")
    assert text in line


def test_modules_of_an_info_are_all_that_exist() -> None:
    found = activity.states("gw", [{"moduleId": "b"}, {"moduleId": "a"}])
    assert [entry.module_id for entry in found] == ["a", "b"]
