# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The query language: what is selected, what is refused and where."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iothub_emulator.query_language import (
    Collection,
    Column,
    QuerySyntaxError,
    UnsupportedQueryError,
    parse_condition,
    parse_query,
)

TWIN: dict[str, Any] = {
    "deviceId": "gw-1",
    "status": "enabled",
    "connectionState": "Disconnected",
    "authenticationType": "sas",
    "capabilities": {"iotEdge": True},
    "statusReason": None,
    "tags": {"site": "north", "floor": 3, "on": True, "list": ["a", "b"], "my-key": 1, "it's": "q\"'\\é"},
    "properties": {
        "desired": {"speed": 1.5, "$version": 4},
        "reported": {"deep": {"er": [{"x": 1}, {"x": 2}]}, "speed": 1.5},
    },
    "configurations": {"base-1": {"status": "Applied"}},
}


WHERE = "SELECT * FROM devices WHERE "


def selects(condition: str) -> bool:
    return parse_query(WHERE + condition).matches(TWIN)


@pytest.mark.parametrize(
    "condition",
    [
        "deviceId = 'gw-1'",
        'deviceId = "gw-1"',
        "DeviceId = 'gw-1' AND STATUS = 'enabled'",
        "devices.deviceId = 'gw-1'",
        "tags.site = 'north'",
        "tags['site'] = 'north'",
        "tags.[[my-key]] = 1",
        "tags.[[it's]] = 'q\"\\'\\\\\\u00e9'",
        "tags.site != 'south'",
        "tags.site <> 'south'",
        "NOT tags.site = 'south'",
        "tags.floor > 2 and tags.floor >= 3 AND tags.floor < 4 And tags.floor <= 3",
        "tags.floor = 3.0 AND tags.floor = 0x3 AND tags.floor = 3e0 AND tags.floor > -1",
        "tags.site < 'o'",
        "tags.on = true AND tags.on",
        "capabilities.iotEdge = true",
        "Capabilities.iotedge",
        "statusReason = null AND is_null(statusReason) AND is_defined(statusReason)",
        "tags.site != null",
        "tags.site IN ['south', 'north']",
        "tags.site NIN ['south', 'west']",
        "tags.site NOT IN ['south', 'west']",
        "NOT tags.site IN ['south']",
        "'b' IN tags.list",
        "array_contains(tags.list, 'b')",
        "NOT array_contains(tags.list, 'c')",
        "tags.list[1] = 'b'",
        "NOT is_defined(tags.list[2])",
        "is_defined(tags.site) AND NOT is_defined(tags.nothing)",
        "startswith(deviceId, 'gw') AND starts_with(deviceId, 'gw-1')",
        "endswith(tags.site, 'th') AND contains(tags.site, 'ort')",
        "properties.reported.deep.er[1].x = 2",
        "Properties.Desired.speed = properties.reported.speed",
        "properties.desired.$version = 4",
        "configurations.[[base-1]].status = 'Applied'",
        "(tags.site = 'x' OR tags.floor = 3) AND status = 'enabled'",
        "tags.site = 'north' OR tags.site = 'x' AND tags.floor = 99",
        "tags.floor + 2 * 3 = 9 AND tags.floor % 2 = 1 AND 10 - 4 - 3 = tags.floor",
        "is_string(tags.site) AND is_number(tags.floor) AND is_bool(tags.on)",
        "is_array(tags.list) AND is_object(tags) AND is_primitive(tags.site) AND NOT is_primitive(tags)",
        "connectionState='Disconnected'AND authenticationType='sas'",
    ],
)
def test_true(condition: str) -> None:
    assert selects(condition)


@pytest.mark.parametrize(
    "condition",
    [
        "tags.site = 'North'",
        "tags.Site = 'north'",
        "tags.nothing != 'x'",
        "NOT tags.nothing = 'x'",
        "tags.nothing = undefined",
        "tags.nothing = null",
        "tags.nothing NIN ['x']",
        "tags.floor = '3'",
        "tags.floor != '3'",
        "tags.on = 1",
        "tags.floor < 'z'",
        "tags.list = ['a', 'b']",
        "tags = tags",
        "tags.site",
        "'true'",
        "1",
        "null",
        "tags.floor / 0 = 1",
        "tags.nothing = 'x' AND true",
        "tags.nothing = 'x' OR false",
        "moduleId = 'gw-1'",
        "properties.reported.deep.er.x = 2",
        "startswith(tags.floor, '3')",
        "tags.site IN tags.site",
        "tags.floor IN ['3']",
        "tags.site = 'x' AND tags.floor = 99 OR tags.site = 'y'",
    ],
)
def test_not_true(condition: str) -> None:
    assert not selects(condition)


def test_what_is_decided_is_not_undone_by_undefined() -> None:
    assert selects("tags.nothing = 1 OR true")
    assert selects("NOT (tags.nothing = 1 AND false)")


def test_columns_groups_and_top() -> None:
    query = parse_query("SELECT TOP 5 DeviceId, tags.site AS place, tags.nothing FROM devices")
    assert query.top == 5
    assert query.project(TWIN) == {"deviceId": "gw-1", "place": "north"}
    assert not query.aggregates

    query = parse_query("select count() as n, tags.site from devices.modules group by tags.site;")
    assert query.collection is Collection.MODULES
    assert query.columns == (Column("n", None), Column("site", ("tags", "site")))
    assert query.group_by == (("tags", "site"),)
    assert query.aggregates
    assert parse_query("SELECT COUNT() FROM devices").columns == (Column("count", None),)


@pytest.mark.parametrize(
    ("text", "position", "part"),
    [
        ("", 1, "SELECT"),
        ("DELETE FROM devices", 1, "SELECT"),
        ("SELECT * FROM", 14, "devices"),
        ("SELECT * FROM device", 15, "devices"),
        ("SELECT * FROM devices.things", 15, "devices.modules"),
        ("SELECT * FROM devices WHERE", 28, "a member"),
        ("SELECT * FROM devices WHERE tags.a = ", 38, "a member"),
        ("SELECT * FROM devices WHERE tags.a = 'x", 38, "closing quote"),
        ("SELECT * FROM devices WHERE tags.a = \"x'", 38, "closing quote"),
        ("SELECT * FROM devices WHERE tags.a = 'a\\q'", 38, "escape"),
        ("SELECT * FROM devices WHERE (tags.a = 1", 40, "')'"),
        ("SELECT * FROM devices WHERE tags.a = 1)", 39, "the end"),
        ("SELECT * FROM devices WHERE tags.a == 1", 37, "a member"),
        ("SELECT * FROM devices WHERE tags. = 1", 35, "name of a member"),
        ("SELECT * FROM devices WHERE tags.a IN [1, ]", 43, "a member"),
        ("SELECT * FROM devices WHERE explode(tags.a)", 29, "unknown function"),
        ("SELECT * FROM devices WHERE is_defined(a, b)", 29, "takes 1 argument"),
        ("SELECT * FROM devices ORDER BY deviceId", 23, "the end"),
        ("SELECT * FROM devices WHERE a = 1 GROUP BY a", 1, "grouped"),
        ("SELECT a, COUNT() AS n FROM devices", 1, "neither grouped"),
        ("SELECT deviceId status FROM devices", 17, "FROM"),
        (WHERE + "(" * 60 + "a" + ")" * 60, 79, "nested"),
        (f"{WHERE}a = {'+'.join('1' * 60)}", 0, "operands"),
        (WHERE + "NOT " * 9000 + "a", 8193, "at most"),
    ],
)
def test_refused_with_a_position(text: str, position: int, part: str) -> None:
    with pytest.raises(QuerySyntaxError, match=re.escape(part)) as error:
        parse_query(text)
    if position:
        assert error.value.position == position
    assert f"at position {error.value.position}" in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["SELECT * FROM devices.jobs", "SELECT AVG(tags.a) AS a FROM devices", "SELECT max(a) FROM devices"],
)
def test_known_and_not_built(text: str) -> None:
    with pytest.raises(UnsupportedQueryError):
        parse_query(text)


def test_target_conditions() -> None:
    assert parse_condition(" * ") == (Collection.DEVICES, None)
    collection, condition = parse_condition("tags.site='north' AND capabilities.iotEdge=true")
    assert collection is Collection.DEVICES
    assert condition is not None
    assert condition.evaluate(TWIN) is True
    collection, condition = parse_condition("FROM devices.modules WHERE moduleId='m'")
    assert collection is Collection.MODULES
    assert condition is not None
    assert condition.evaluate({"moduleId": "m"}) is True
    assert parse_condition("from devices.modules") == (Collection.MODULES, None)
    for text in ("", "*.*", "tags.a = 1 FROM devices", "SELECT * FROM devices"):
        with pytest.raises(QuerySyntaxError):
            parse_condition(text)


def test_long_chains_are_no_deep_recursion() -> None:
    assert not selects(" OR ".join(["tags.floor=9"] * 500))
    assert selects("NOT " * 1001 + "false")


# Conditions with what they have to give: text and value, built together.

values = st.none() | st.booleans() | st.integers(-9, 9) | st.text("abé'\"\\ ", max_size=3)
NOT_THERE = object()


@st.composite
def members(draw: st.DrawFn) -> tuple[str, Any]:
    name = draw(st.sampled_from(["a", "b", "nothing"]))
    return f"tags.{name}", name


def literal(value: Any) -> str:
    return json.dumps(value)


def compare(sign: str, left: Any, right: Any) -> bool | None:
    """The rules again, in another way: None is undefined."""
    if left is NOT_THERE:
        return None
    if left is None or right is None:
        return {"=": left is right, "!=": left is not right}.get(sign)
    if type(left) is not type(right):
        return None
    return {
        "=": left == right,
        "!=": left != right,
        "<": left < right,
        ">=": left >= right,
    }[sign]


@st.composite
def conditions(draw: st.DrawFn, depth: int = 3) -> tuple[str, Any]:
    """(text, function of the tags)"""
    if depth == 0 or draw(st.booleans()):
        text, name = draw(members())
        sign = draw(st.sampled_from(["=", "!=", "<", ">="]))
        value = draw(values)
        return (
            f"{text} {sign} {literal(value)}",
            lambda tags: compare(sign, tags.get(name, NOT_THERE), value),
        )
    if draw(st.integers(0, 3)) == 0:
        text, function = draw(conditions(depth - 1))
        return f"NOT ({text})", lambda tags: None if function(tags) is None else not function(tags)
    (left, is_left), (right, is_right) = draw(conditions(depth - 1)), draw(conditions(depth - 1))
    if draw(st.booleans()):
        return (
            f"({left}) AND ({right})",
            lambda tags: (
                False
                if False in (is_left(tags), is_right(tags))
                else None
                if None in (is_left(tags), is_right(tags))
                else True
            ),
        )
    return (
        f"({left}) OR ({right})",
        lambda tags: (
            True
            if True in (is_left(tags), is_right(tags))
            else None
            if None in (is_left(tags), is_right(tags))
            else False
        ),
    )


@given(conditions(), st.dictionaries(st.sampled_from("ab"), values, max_size=2))
def test_any_condition_gives_what_its_parts_give(condition: tuple[str, Any], tags: dict[str, Any]) -> None:
    text, function = condition
    query = parse_query(WHERE + text)
    assert query.matches({"tags": tags}) is (function(tags) is True)


words = st.sampled_from(
    [
        *("SELECT ", " FROM devices", " WHERE ", " AND ", " OR ", " NOT ", " IN ", " GROUP BY ", " AS "),
        *("tags", "[[", "]]", "count()", "is_defined(", "!=", "0x", "1e", "true", "devices.", " TOP "),
        *"()[].,*=<>-+'\"\\; 1a",
    ]
)


@given(st.text(max_size=30) | st.lists(words, max_size=12).map("".join))
def test_any_text_is_a_query_or_refused_with_a_position(text: str) -> None:
    for query in (text, WHERE + text):
        position = 1
        try:
            parsed = parse_query(query)
        except QuerySyntaxError as error:
            position = error.position
        except UnsupportedQueryError:
            pass
        else:
            parsed.matches(TWIN)
            parsed.project(TWIN)
            parsed.condition_paths()
        assert 1 <= position <= len(query) + 1
