# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Labels and taints of ours follow what is wanted, those of others stay."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils.node_patches import (
    LABELS_ANNOTATION,
    TAINTS_ANNOTATION,
    node_patches,
    parse_label,
    parse_taint,
)

OTHERS = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}


def node(**changes: Any) -> dict[str, Any]:
    labels = {"kubernetes.io/hostname": "gw1"}
    return {"name": "gw1", "labels": labels, "taints": [OTHERS], "annotations": {}, **changes}


def applied(before: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Return the node with a merge patch."""
    after = {**before, "taints": (patch.get("spec") or {}).get("taints", before["taints"])}
    for part in ("labels", "annotations"):
        merged = {**before[part], **(patch.get("metadata") or {}).get(part, {})}
        after[part] = {key: value for key, value in merged.items() if value is not None}
    return after


def wanted(labels: list[str], taints: list[str]) -> list[dict[str, Any]]:
    return [{"name": "gw1", "labels": labels, "taints": taints}]


def test_first_run_second_run_and_taking_away() -> None:
    want = wanted(["plant/camera=top", "empty="], ["plant/camera=top:NoSchedule"])
    (change,) = node_patches([node()], want)
    assert change["patch"]["metadata"]["labels"] == {"empty": "", "plant/camera": "top"}
    # A merge patch replaces the whole list, so those of others are in it as they were.
    assert change["patch"]["spec"]["taints"][0] == OTHERS
    assert "gw1: taint plant/camera=top:NoSchedule: added" in change["diff"]
    assert change["diff"][:2] == ['gw1: label empty: (none) -> ""', "gw1: label plant/camera: (none) -> top"]

    done = applied(node(), change["patch"])
    assert node_patches([done], want) == []

    (change,) = node_patches([done], wanted([], []))
    assert "gw1: label plant/camera: top -> (none)" in change["diff"]
    bare = applied(done, change["patch"])
    assert bare == node()
    assert node_patches([bare], wanted([], [])) == []


def test_changed_values() -> None:
    done = applied(node(), node_patches([node()], wanted(["a=1"], ["a=1:NoSchedule"]))[0]["patch"])
    (change,) = node_patches([done], wanted(["a=2"], ["a=2:NoSchedule"]))
    assert change["patch"] == {
        "metadata": {"labels": {"a": "2"}},
        "spec": {"taints": [OTHERS, {"key": "a", "value": "2", "effect": "NoSchedule"}]},
    }
    assert change["diff"] == ["gw1: label a: 1 -> 2", "gw1: taint a=1:NoSchedule: -> a=2:NoSchedule"]
    # Another effect is another taint.
    (change,) = node_patches([done], wanted(["a=1"], ["a=1:NoExecute"]))
    assert [taint["effect"] for taint in change["patch"]["spec"]["taints"]] == ["NoExecute", "NoExecute"]


def test_what_somebody_changed_is_set_again_and_what_he_took_away_too() -> None:
    done = applied(node(), node_patches([node()], wanted(["a=1"], ["a:NoSchedule"]))[0]["patch"])
    done = {**done, "labels": {**done["labels"], "a": "x"}, "taints": []}
    (change,) = node_patches([done], wanted(["a=1"], ["a:NoSchedule"]))
    assert change["patch"]["metadata"] == {"labels": {"a": "1"}}
    assert change["patch"]["spec"]["taints"] == [{"key": "a", "effect": "NoSchedule"}]


def test_labels_of_others_that_are_wanted_too_become_ours_without_a_change() -> None:
    (change,) = node_patches([node(labels={"a": "1"})], wanted(["a=1"], []))
    assert change["patch"] == {"metadata": {"annotations": {LABELS_ANNOTATION: '["a"]'}}}


def test_annotation_that_is_none_of_ours_removes_nothing() -> None:
    strange = node(labels={"a": "1"}, annotations={LABELS_ANNOTATION: "nonsense", TAINTS_ANNOTATION: "{}"})
    (change,) = node_patches([strange], wanted([], []))
    assert change["patch"] == {
        "metadata": {"annotations": {LABELS_ANNOTATION: None, TAINTS_ANNOTATION: None}}
    }


def test_machines_that_are_no_nodes_are_passed_over() -> None:
    assert node_patches([], wanted(["a=1"], [])) == []


@pytest.mark.parametrize("text", ["a", "=1", ""])
def test_labels_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="key=value"):
        parse_label(text)


@pytest.mark.parametrize("text", ["a=1", "a=1:Never", ":NoSchedule", "=1:NoSchedule", ""])
def test_taints_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="key=value:Effect"):
        parse_taint(text)
