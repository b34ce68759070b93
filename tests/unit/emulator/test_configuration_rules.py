# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configurations: content, precedence and what twins become."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iothub_emulator.configuration_rules import (
    APPLIED,
    TARGETED,
    Candidate,
    Kind,
    check_priority,
    condition_problem,
    lay,
    parse_content,
    rank,
)
from iothub_emulator.errors import HubError

AGENT = {"properties.desired": {"modules": {"a": {"image": "a:1"}}}}
BASE = {"modulesContent": {"$edgeAgent": AGENT, "$edgeHub": {"properties.desired": {"routes": {}}}}}


def layer(module: str, value: Any) -> dict[str, Any]:
    return {"modulesContent": {"$edgeAgent": {f"properties.desired.modules.{module}": value}}}


def candidate(name: str, priority: int, sequence: int, content: dict[str, Any]) -> Candidate:
    return Candidate(name, priority, sequence, parse_content(content))


def test_content_is_parsed() -> None:
    content = parse_content(BASE)
    assert (content.kind, content.is_base) == (Kind.EDGE, True)
    assert content.settings["$edgeAgent"] == {(): {"modules": {"a": {"image": "a:1"}}}}
    content = parse_content(layer("b", {"image": "b:1"}))
    assert not content.is_base
    assert content.settings["$edgeAgent"] == {("modules", "b"): {"image": "b:1"}}
    # Clients send the members that they do not use as null.
    content = parse_content({"deviceContent": {"properties.desired.fan": 3}, "modulesContent": None})
    assert (content.kind, content.settings) == (Kind.DEVICE, {"": {("fan",): 3}})
    assert parse_content({"moduleContent": {"properties.desired.fan": {"rpm": 3}}}).kind is Kind.MODULE


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ({}, "one of"),
        ({"deviceContent": {"properties.desired.a": 1}, **BASE}, "one only"),
        ({"modulesContent": {}}, "with content"),
        ({"modulesContent": []}, "with content"),
        ({"modulesContent": {"$edgeAgent": {}}}, "with content"),
        ({"modulesContent": {"m": {"properties.desired": {}}}}, "neither"),
        ({"modulesContent": {"$edgeHub": {"properties.desired": {}}}}, "neither"),
        ({"modulesContent": {"$edgeAgent": {"properties": {"desired": {}}}}}, "properties.desired"),
        ({"modulesContent": {"$edgeAgent": {"properties.reported": {}}}}, "properties.desired"),
        ({"modulesContent": {"$edgeAgent": {"properties.desired": 3}}}, "not a JSON object"),
        ({"modulesContent": {"$edgeAgent": {"properties.desired": {"a b": 1}}}}, "the key 'a b'"),
        ({"modulesContent": {"$edgeAgent": {"properties.desired.a..b": 1}}}, "the key ''"),
        ({"deviceContent": {"properties.desired.a": None}}, "null"),
        ({"modulesContent": {f"m{n}": {"properties.desired.a": 1} for n in range(51)}}, "51 modules"),
    ],
)
def test_bad_content(content: dict[str, Any], part: str) -> None:
    with pytest.raises(HubError) as error:
        parse_content(content)
    assert (error.value.status, error.value.code) == (400, "InvalidConfigurationContent")
    assert part in error.value.text


def test_the_highest_base_wins_and_layers_go_on_top() -> None:
    low, high, newest = (candidate(*args, BASE) for args in (("low", 1, 3), ("high", 5, 1), ("newest", 5, 2)))
    over = candidate("over", 9, 4, layer("b", {"image": "b:9"}))
    under = candidate("under", 0, 5, layer("b", {"image": "b:0"}))
    order, statuses = rank([over, low, under, high, newest])
    assert [one.id for one in order] == ["newest", "under", "over"]
    assert statuses == {
        "low": TARGETED,
        "high": TARGETED,
        "newest": APPLIED,
        "under": APPLIED,
        "over": APPLIED,
    }
    agent = lay({"old": 1}, [one.content.settings["$edgeAgent"] for one in order])
    assert agent == {"modules": {"a": {"image": "a:1"}, "b": {"image": "b:9"}}}


def test_a_layer_without_a_base_goes_on_what_is_there() -> None:
    order, statuses = rank([candidate("only", 1, 1, layer("b", 1))])
    assert statuses == {"only": APPLIED}
    agent = lay({"modules": {"x": 1}}, [one.content.settings["$edgeAgent"] for one in order])
    assert agent == {"modules": {"x": 1, "b": 1}}


def test_what_is_fully_covered_is_only_targeted() -> None:
    def device(name: str, priority: int, *paths: str) -> Candidate:
        content = {"deviceContent": {f"properties.desired.{path}": priority for path in paths}}
        return candidate(name, priority, priority, content)

    order, statuses = rank([device("a", 1, "fan.rpm"), device("b", 2, "fan"), device("c", 3, "fan.rpm")])
    assert statuses == {"a": TARGETED, "b": APPLIED, "c": APPLIED}
    assert [one.id for one in order] == ["b", "c"]
    _order, statuses = rank([device("a", 1, "fan", "pump"), device("b", 2, "fan")])
    assert statuses == {"a": APPLIED, "b": APPLIED}


@pytest.mark.parametrize("value", [-1, 2**31, 1.5, "1", True])
def test_priorities(value: object) -> None:
    assert check_priority(7) == 7
    assert check_priority(None) == 0
    with pytest.raises(HubError):
        check_priority(value)


def test_what_test_queries_says() -> None:
    assert condition_problem("tags.a = 1") is None
    assert "position 10" in (condition_problem("tags.a = ") or "")
    assert condition_problem("*") is not None


names = st.sampled_from("abc")
layers = st.dictionaries(
    st.lists(names, min_size=1, max_size=3).map(tuple), st.integers() | st.dictionaries(names, st.integers())
)


@given(st.dictionaries(names, st.dictionaries(names, st.integers())), st.lists(layers, max_size=3))
def test_laying_again_changes_nothing_and_the_last_layer_shows(
    desired: dict[str, Any], all_layers: list[dict[tuple[str, ...], Any]]
) -> None:
    before = repr(desired)
    result = lay(desired, all_layers)
    assert repr(desired) == before
    assert lay(result, all_layers) == result
    for path, value in all_layers[-1].items() if all_layers else ():
        if not any(other != path and other[: len(path)] == path for other in all_layers[-1]):
            found: Any = result
            for step in path:
                found = found[step]
            assert found == value
