# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Twin documents: merge patches and their metadata."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from iothub_emulator.messages import parse_property_bag
from iothub_emulator.twins import difference, merge, stamp, without_nulls

leaf = st.integers() | st.text(max_size=5) | st.booleans()
keys = st.sampled_from("abc")
documents = st.recursive(
    st.dictionaries(keys, leaf, max_size=3),
    lambda inner: st.dictionaries(keys, leaf | inner, max_size=3),
    max_leaves=8,
)
patches = st.recursive(
    st.dictionaries(keys, leaf | st.none(), max_size=3),
    lambda inner: st.dictionaries(keys, leaf | st.none() | inner, max_size=3),
    max_leaves=8,
)


def has_null(document: object) -> bool:
    return document is None or (isinstance(document, dict) and any(map(has_null, document.values())))


def shape(document: object) -> object:
    """The members of a document, and of a $metadata, without what they carry."""
    if not isinstance(document, dict):
        return {}
    return {key: shape(value) for key, value in document.items() if not key.startswith("$")}


def test_rfc_7386() -> None:
    original = {"a": "b", "c": {"d": "e", "f": "g"}}
    assert merge(original, {"a": "z", "c": {"f": None}}) == {"a": "z", "c": {"d": "e"}}
    assert merge({"e": None}, {"a": 1}) == {"e": None, "a": 1}
    assert merge({"a": [{"b": "c"}]}, {"a": [1]}) == {"a": [1]}
    assert merge({}, {"a": {"bb": {"ccc": None}}}) == {"a": {"bb": {}}}


@given(documents, patches)
def test_a_merge_leaves_no_null_and_does_not_touch_its_input(
    document: dict[str, Any], patch: dict[str, Any]
) -> None:
    before = repr(document)
    merged = merge(document, patch)
    assert not has_null(merged)
    assert merge(merged, patch) == merged, "applying a patch twice is applying it once"
    assert repr(document) == before


@given(documents, documents)
def test_a_replacement_told_as_a_patch_gives_the_replacement(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    assert merge(old, difference(old, new)) == without_nulls(new)


@given(documents, st.lists(patches, min_size=1, max_size=4))
def test_metadata_has_the_documents_members(start: dict[str, Any], writes: list[dict[str, Any]]) -> None:
    document: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    for version, patch in enumerate([start, *writes], 1):
        document = merge(document, patch)
        metadata = stamp(metadata, document, patch, {"$v": version})
        assert shape(metadata) == shape(document)
        for key in document:
            if key in patch:
                assert metadata[key]["$v"] == version


def test_property_bag() -> None:
    system, properties = parse_property_bag("%24.mid=a%2Fb&$.on=out&x=1%2B2+3&empty=&flag&%C3%A4=%E2%9C%93&")
    assert system == {"message-id": "a/b", "output-name": "out"}
    assert properties == {"x": "1+2+3", "empty": "", "flag": None, "ä": "✓"}
    assert parse_property_bag("") == ({}, {})
