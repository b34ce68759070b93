# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every module that takes a list promises, shown with items that are words."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import item_list, rest_client
from ansible_collections.edgeha.iotedge.plugins.module_utils.item_list import Plan, Refused, Steps

STALE = rest_client.ServiceResponseError("IoT Hub h", 412, "PreconditionFailed", "etag")


class Left(Exception):  # noqa: N818 - leaving is no error
    """The module ended, with this result."""


class Module:
    def __init__(self, check_mode: bool = False) -> None:
        self.check_mode = check_mode
        self.params: dict[str, Any] = {}
        self.result: dict[str, Any] = {}

    def exit_json(self, **result: Any) -> None:
        self.result = result
        raise Left

    fail_json = exit_json


class Service:
    """Words that are there; `stale` and `unread` name those whose write or read fails."""

    def __init__(self, *there: str, stale: str = "", unread: str = "") -> None:
        self.there, self.stale, self.unread = set(there), stale, unread

    def steps(self) -> Steps[str, bool]:
        return Steps("words", str, self.read, self.plan, lambda word, _p, state: {word: state}, self.write)

    def read(self, word: str) -> bool:
        if word == self.unread:
            raise rest_client.ServiceResponseError("IoT Hub h", 401, "Unauthorized", "no")
        return word in self.there

    def plan(self, word: str, there: bool) -> Plan:
        if word == "never":
            raise Refused("it cannot be")
        return Plan("none") if there else Plan("create", after={"word": word})

    def write(self, word: str, _plan: Plan, _state: bool) -> bool:
        if word == self.stale:
            raise STALE
        self.there.add(word)
        return True


def run(service: Service, *words: str, check_mode: bool = False, errors: tuple[str, ...] = ()) -> Any:
    module: Any = Module(check_mode)
    with pytest.raises(Left):
        item_list.run(module, words, errors, service.steps)
    return module.result


def test_what_differs_is_written_and_told() -> None:
    service = Service("a")
    result = run(service, "a", "b")
    assert result["changed"]
    assert result["words"] == [{"a": True, "action": "none"}, {"b": True, "action": "create"}]
    assert result["diff"] == {"before": {"b": {}}, "after": {"b": {"word": "b"}}}
    assert service.there == {"a", "b"}
    assert run(service, "a", "b")["changed"] is False


def test_check_mode_promises_and_writes_nothing() -> None:
    service = Service()
    checked = run(service, "a", check_mode=True)
    assert service.there == set()
    done = run(service, "a")
    assert (checked["changed"], checked["diff"]) == (done["changed"], done["diff"])


def test_nothing_is_asked_or_changed_while_an_item_is_wrong() -> None:
    service = Service(unread="a")
    assert run(service, "a", "b", errors=("words[1]: bad",))["msg"] == "Nothing was changed. words[1]: bad"
    refused = run(Service(), "a", "never", "never")
    assert refused["errors"] == ["words[1] never: it cannot be", "words[2] never: it cannot be"]
    unread = run(service, "b", "a")
    assert "words[1] a: IoT Hub h: HTTP 401" in unread["msg"]
    assert "rights of the policy" in unread["msg"]
    assert service.there == set()


def test_an_item_that_fails_is_named_and_the_others_are_done() -> None:
    service = Service("d", stale="b")
    result = run(service, "a", "b", "c", "d")
    assert service.there == {"a", "c", "d"}
    assert result["changed"]
    assert result["errors"] == [result["msg"].partition(". Changed all the same")[0]]
    assert result["msg"].startswith("words[1] b: ")
    assert "Somebody else changed it meanwhile" in result["msg"]
    assert "2 of words" in result["msg"]


def test_errors_name_items_and_repetitions() -> None:
    assert item_list.by_item("words", [[], ["x", "y"]]) == ["words[1]: x", "words[1]: y"]
    assert item_list.repeated("words", ["a", "b", "a", "a"], ["A", "B", "A", "A"]) == [
        "words[2]: A is already in words[0]; list each of them once",
        "words[3]: A is already in words[0]; list each of them once",
    ]
