# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import item_list, twin_plan, twin_rules
from ansible_collections.edgeha.iotedge.plugins.module_utils.twin_plan import DesiredTwin
from hypothesis import given
from hypothesis import strategies as st

KEYS = st.sampled_from(["a", "b", "c"])
LEAVES = st.booleans() | st.integers(-2, 2) | st.text("xy", max_size=2) | st.lists(st.booleans(), max_size=2)


def documents(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.recursive(
        st.dictionaries(KEYS, leaves, max_size=3),
        lambda inner: st.dictionaries(KEYS, leaves | inner, max_size=3),
        max_leaves=10,
    )


PLAIN = documents(LEAVES)
WITH_NULLS = documents(LEAVES | st.none())


def hub_twin(tags: dict[str, Any], desired: dict[str, Any]) -> dict[str, Any]:
    """As a hub answers a GET."""
    metadata = {"$lastUpdated": "2026-01-31T08:15:00Z", "$lastUpdatedVersion": 3}
    return {
        "deviceId": "d",
        "etag": "AAAAAAAAAAE=",
        "version": 4,
        "tags": tags,
        "properties": {
            "desired": {**desired, "$metadata": metadata, "$version": 3},
            "reported": {"own": 1, "$metadata": metadata, "$version": 1},
        },
    }


def after(twin: dict[str, Any], plan: twin_plan.Plan) -> dict[str, Any]:
    """The twin after the patch that the plan sends, as a hub applies it (RFC 7396)."""
    sections = twin_plan.sections_of(twin)
    return hub_twin(
        twin_rules.apply_patch(sections["tags"], plan.body.get("tags", {})),
        twin_rules.apply_patch(sections["desired"], plan.body.get("properties", {}).get("desired", {})),
    )


@given(PLAIN, PLAIN, st.none() | PLAIN, st.none() | PLAIN)
def test_exact_leads_to_what_is_wanted_and_leaves_the_other_section(
    tags: Any, desired: Any, wanted_tags: Any, wanted_desired: Any
) -> None:
    actual = hub_twin(tags, desired)
    twin = DesiredTwin("d", tags=wanted_tags, desired=wanted_desired, exact=True)
    plan = twin_plan.plan(actual, twin)
    reached = twin_plan.sections_of(after(actual, plan))
    assert twin_rules.same(reached["tags"], tags if wanted_tags is None else wanted_tags)
    assert twin_rules.same(reached["desired"], desired if wanted_desired is None else wanted_desired)
    assert not twin_plan.plan(after(actual, plan), twin).changed


@given(PLAIN, WITH_NULLS)
def test_merge_reaches_the_goal_keeps_the_rest_and_is_done_once(actual_tags: Any, wanted: Any) -> None:
    actual = hub_twin(actual_tags, {"kept": 1})
    twin = DesiredTwin("d", tags=wanted)
    plan = twin_plan.plan(actual, twin)
    reached = twin_plan.sections_of(after(actual, plan))
    # RFC 7396: as if all that is wanted had been sent.
    assert twin_rules.same(reached["tags"], twin_rules.apply_patch(actual_tags, wanted))
    assert all(twin_rules.same(reached["tags"][key], actual_tags[key]) for key in actual_tags.keys() - wanted)
    assert reached["desired"] == {"kept": 1}
    assert not twin_plan.plan(after(actual, plan), twin).changed
    # The diff tells a change whenever there is one, and no other.
    assert plan.changed is not twin_rules.same(plan.before, plan.after)
    assert twin_rules.same(twin_plan.goal(actual, twin)["tags"], reached["tags"])


def test_diff_shows_what_a_merge_manages_and_nothing_else() -> None:
    actual = hub_twin({"site": "a", "old": 1, "other": {"x": 1, "y": 2}}, {"secret": "hidden"})
    twin = DesiredTwin("d", tags={"site": "b", "old": None, "other": {"x": 2}})
    plan = twin_plan.plan(actual, twin)
    assert plan.before == {"tags": {"site": "a", "old": 1, "other": {"x": 1}}}
    assert plan.after == {"tags": {"site": "b", "other": {"x": 2}}}
    assert plan.body == {"tags": {"site": "b", "old": None, "other": {"x": 2}}}
    assert plan.etag == "AAAAAAAAAAE="


def test_only_what_differs_is_sent() -> None:
    actual = hub_twin({"a": 1}, {"interval": 5, "limits": {"low": 1, "high": 2}})
    twin = DesiredTwin("d", tags={"a": 1}, desired={"interval": 5, "limits": {"high": 3}})
    assert twin_plan.plan(actual, twin).body == {"properties": {"desired": {"limits": {"high": 3}}}}
    exact = DesiredTwin("d", desired={"interval": 5}, exact=True)
    assert twin_plan.plan(actual, exact).body == {"properties": {"desired": {"limits": None}}}


def test_result_that_would_be_too_large_is_refused() -> None:
    actual = hub_twin({f"k{number}": "x" * 1000 for number in range(7)}, {})
    twin = DesiredTwin("d", tags={"more": "x" * 2000})
    assert twin_plan.list_errors([twin]) == []
    with pytest.raises(item_list.Refused, match="8192"):
        twin_plan.plan(actual, twin)
    # Replaced, it is small enough.
    assert twin_plan.plan(actual, DesiredTwin("d", tags={"more": "x" * 2000}, exact=True)).changed


def test_errors_of_a_list_name_the_item_and_the_path() -> None:
    errors = twin_plan.list_errors(
        [
            DesiredTwin("d", tags={"a": 1}),
            DesiredTwin("d d", tags={"a": 1}),
            DesiredTwin("d", "m/m", tags={"a": 1}),
            DesiredTwin("e"),
            DesiredTwin("f", desired={"a": {"b.c": 1}}),
            DesiredTwin("g", tags={"a": None}, exact=True),
            DesiredTwin("h", desired={str(number): "x" * 4000 for number in range(9)}),
            DesiredTwin("d", "$edgeAgent", tags={"a": None}),
            DesiredTwin("d", tags={"b": 1}),
        ]
    )
    assert [error.partition(":")[0] for error in errors] == [f"twins[{n}]" for n in (1, 2, 3, 4, 5, 6, 8)]
    assert "desired.a: the key 'b.c'" in errors[3]
    assert "tags.a: null" in errors[4]
    assert "32768" in errors[5]
    assert "twins[0]" in errors[6]
