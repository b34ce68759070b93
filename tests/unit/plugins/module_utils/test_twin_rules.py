# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import twin_rules
from hypothesis import given
from hypothesis import strategies as st

KEYS = st.sampled_from(["a", "b", "c", "d"])
LEAVES = st.one_of(
    st.booleans(), st.integers(-3, 3), st.text(max_size=3), st.lists(st.booleans(), max_size=2)
)
DOCUMENTS = st.recursive(
    st.dictionaries(KEYS, LEAVES, max_size=4),
    lambda inner: st.dictionaries(KEYS, st.one_of(LEAVES, inner), max_size=4),
    max_leaves=12,
)
PATCHES = st.recursive(
    st.dictionaries(KEYS, st.one_of(st.none(), LEAVES), max_size=4),
    lambda inner: st.dictionaries(KEYS, st.one_of(st.none(), LEAVES, inner), max_size=4),
    max_leaves=12,
)


@given(DOCUMENTS, DOCUMENTS)
def test_exact_patch_leads_to_what_is_wanted(actual: dict[str, Any], wanted: dict[str, Any]) -> None:
    patch = twin_rules.exact_patch(actual, wanted)
    assert twin_rules.same(twin_rules.apply_patch(actual, patch), wanted)
    assert bool(patch) is not twin_rules.same(actual, wanted)


@given(DOCUMENTS, PATCHES)
def test_merge_patch_does_what_the_whole_patch_does(actual: dict[str, Any], wanted: dict[str, Any]) -> None:
    goal = twin_rules.apply_patch(actual, wanted)
    patch = twin_rules.merge_patch(actual, wanted)
    assert twin_rules.same(twin_rules.apply_patch(actual, patch), goal)
    # The second time nothing is left to do.
    assert twin_rules.merge_patch(goal, wanted) == {}


@pytest.mark.parametrize(
    ("document", "fact"),
    [
        ({"a": {"b.c": 1}}, "tags.a: the key 'b.c' holds"),
        ({"$a": 1}, "tags: the key '$a' holds"),
        ({"": 1}, "is empty"),
        ({"a": "x" * 4097}, "tags.a: a text of more than 4096 bytes"),
        ({"a": [1, None]}, "tags.a[1]: null is not allowed here"),
        ({"a": 2**52}, "tags.a: 4503599627370496 is outside"),
        ({str(number): "x" * 1000 for number in range(9)}, "bytes as JSON; a hub takes at most 8192"),
    ],
)
def test_what_a_hub_refuses_is_named_with_its_path(document: dict[str, Any], fact: str) -> None:
    [error] = twin_rules.errors(document, "tags", nulls=True)
    assert fact in error


def test_depth_and_nulls() -> None:
    deep: dict[str, Any] = {}
    for _level in range(11):
        deep = {"a": deep}
    assert "nested deeper than 10 levels" in twin_rules.errors(deep, "desired", nulls=True)[0]
    assert twin_rules.errors(deep["a"], "desired", nulls=True) == []
    assert twin_rules.errors({"a": None}, "tags", nulls=True) == []
    assert twin_rules.errors({"a": None}, "tags", nulls=False) == ["tags.a: null is not allowed here"]


def test_true_is_not_one() -> None:
    assert twin_rules.merge_patch({"a": 1, "b": [True]}, {"a": True, "b": [1]}) == {"a": True, "b": [1]}
