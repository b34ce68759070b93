# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that tests inject: which calls they meet and which are refused."""

from typing import Any

import pytest
from iothub_emulator.errors import HubError
from iothub_emulator.faults import parse_fault
from iothub_emulator.operations import OperationClass


def meets(body: dict[str, Any], method: str = "GET", path: str = "/devices/a", chance: float = 0.5) -> bool:
    fault = parse_fault({"status": 500} | body)
    return fault.meets(OperationClass.IDENTITY, method, path, lambda: chance)


def test_which_calls_are_met() -> None:
    assert meets({})
    assert meets({"operation": "identityRegistry", "method": "GET", "path": "/devices/?"})
    assert meets({"path": "/devices/*"}, path="/devices/a/modules/b")
    assert not meets({"operation": "queries"})
    assert not meets({"method": "PUT"})
    assert not meets({"path": "/devices"})
    assert not meets({"count": 0})
    assert not meets({"probability": 0.5}, chance=0.5)
    assert meets({"probability": 0.5}, chance=0.49)


def test_a_count_runs_out_with_calls_that_are_met_only() -> None:
    fault = parse_fault({"cut": True, "count": 2, "method": "PUT"})
    met = [
        fault.meets(OperationClass.IDENTITY, method, "/", lambda: 0.0)
        for method in ("GET", "PUT", "GET", "PUT", "PUT")
    ]
    assert met == [False, True, False, True, False]


def test_codes() -> None:
    assert parse_fault({"status": 429}).code == "ThrottlingException"
    assert parse_fault({"status": 418}).code == "InjectedFault"
    assert parse_fault({"status": 429, "code": "Mine"}).code == "Mine"


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"count": 1},
        {"status": 200},
        {"status": "500"},
        {"status": True},
        {"status": 500, "operation": "nothing"},
        {"status": 500, "code": "a\r\nb"},
        {"status": 500, "headers": {"a": "b\r\nc"}},
        {"status": 500, "headers": []},
        {"status": 500, "when": "later"},
        {"status": 500, "count": -1},
        {"status": 500, "probability": 2},
        {"delay": -1},
        {"delay": 1, "unknown": 1},
    ],
)
def test_bad_faults(body: Any) -> None:
    with pytest.raises(HubError):
        parse_fault(body)
