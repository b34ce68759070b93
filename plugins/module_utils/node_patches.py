# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What differs between labels and taints that are wanted and those that nodes have. Pure.

Which labels and taints are ours stands in two annotations of a node, so that one that is no longer wanted is
removed and those of others never are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LABELS_ANNOTATION = "edgeha.io/managed-labels"
TAINTS_ANNOTATION = "edgeha.io/managed-taints"
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def parse_label(text: str) -> tuple[str, str]:
    """Return key and value of ``key=value``; raises ValueError."""
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise ValueError(f"the label {text!r} is not written as key=value")
    return key, value


def parse_taint(text: str) -> dict[str, str]:
    """Return ``{"key", "value", "effect"}`` of ``key=value:Effect`` or ``key:Effect``; raises ValueError."""
    rest, _separator, effect = text.rpartition(":")
    key, _separator, value = rest.partition("=")
    if not key or effect not in EFFECTS:
        effects = ", ".join(EFFECTS)
        raise ValueError(f"the taint {text!r} is not written as key=value:Effect, Effect being {effects}")
    return {"key": key, **({"value": value} if value else {}), "effect": effect}


def node_patches(
    nodes: Iterable[Mapping[str, Any]], wanted: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return for each node that differs its name, a JSON merge patch of the Node, and diff, lines for people.

    nodes:  name, labels, taints and annotations of the nodes that are there.
    wanted: name, labels (``key=value``) and taints (``key=value:Effect``). Names of no node are passed over.
    Raises ValueError for a label or taint that is none.
    """
    there = {node["name"]: node for node in nodes}
    found = []
    for entry in wanted:
        node = there.get(entry["name"])
        labels, label_diff, our_labels = _labels(node or {}, entry.get("labels") or [])
        taints, taint_diff, our_taints = _taints(node or {}, entry.get("taints") or [])
        if node is None:
            continue
        annotations = {
            name: keys
            for name, keys in ((LABELS_ANNOTATION, our_labels), (TAINTS_ANNOTATION, our_taints))
            if keys != (node.get("annotations") or {}).get(name)
        }
        metadata = {key: value for key, value in (("labels", labels), ("annotations", annotations)) if value}
        patch: dict[str, Any] = {"metadata": metadata} if metadata else {}
        if taints is not None:
            patch["spec"] = {"taints": taints}
        if patch:
            lines = label_diff + taint_diff or ["marks what is ours"]
            diff = [f"{entry['name']}: {line}" for line in lines]
            found.append({"name": entry["name"], "patch": patch, "diff": diff})
    return found


def _managed(node: Mapping[str, Any], name: str) -> list[str]:
    try:
        value = json.loads((node.get("annotations") or {}).get(name, "[]"))
    except ValueError:
        # Somebody has written something else there: then nothing is known to be ours.
        return []
    return [str(key) for key in value] if isinstance(value, list) else []


def _annotation(keys: Iterable[str]) -> str | None:
    """Return the value of an annotation; None, which removes it, when there is nothing of ours."""
    listed = sorted(keys)
    return json.dumps(listed) if listed else None


def _labels(
    node: Mapping[str, Any], texts: Sequence[str]
) -> tuple[dict[str, str | None], list[str], str | None]:
    wanted = dict(map(parse_label, texts))
    there = node.get("labels") or {}
    change: dict[str, str | None] = {
        key: value for key, value in sorted(wanted.items()) if there.get(key) != value
    }
    gone = [key for key in _managed(node, LABELS_ANNOTATION) if key not in wanted and key in there]
    change.update(dict.fromkeys(gone))
    lines = [f"label {key}: {_shown(there.get(key))} -> {_shown(value)}" for key, value in change.items()]
    return change, lines, _annotation(wanted)


def _shown(value: str | None) -> str:
    """Return a label's value for people; a label may be there and have none."""
    return "(none)" if value is None else value or '""'


def _taints(
    node: Mapping[str, Any], texts: Sequence[str]
) -> tuple[list[dict[str, Any]] | None, list[str], str | None]:
    """Return all taints of the node as they are to be, None when they are."""
    wanted = {_identity(taint): taint for taint in map(parse_taint, texts)}
    there = {_identity(taint): dict(taint) for taint in node.get("taints") or []}
    managed = set(_managed(node, TAINTS_ANNOTATION))
    kept = {name: taint for name, taint in there.items() if name not in managed or name in wanted}
    lines = [f"taint {_text(there[name])}: removed" for name in there if name not in kept]
    for name, taint in sorted(wanted.items()):
        if name not in kept:
            lines.append(f"taint {_text(taint)}: added")
        elif (kept[name].get("value") or "") != taint.get("value", ""):
            lines.append(f"taint {_text(kept[name])}: -> {_text(taint)}")
        else:
            continue
        kept[name] = taint
    return (list(kept.values()) if lines else None), lines, _annotation(wanted)


def _identity(taint: Mapping[str, Any]) -> str:
    return f"{taint['key']}:{taint['effect']}"


def _text(taint: Mapping[str, Any]) -> str:
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint['effect']}"
