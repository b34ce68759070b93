# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a hub takes as tags and desired properties of a twin, and the patches between two of them. Pure.

Source: "Understand and use device twins in IoT Hub" (Microsoft Learn), and RFC 7396 for merge patches.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

# Bytes of compact JSON.
LIMITS = {"tags": 8 * 1024, "desired": 32 * 1024}
_MAX_DEPTH = 10
_MAX_STRING_BYTES = 4096
_MAX_KEY_BYTES = 1024
_INTEGERS = range(-(2**52), 2**52)
_BAD_IN_KEY = re.compile(r"[\x00-\x1f\x7f-\x9f.$# ]")


def errors(document: Mapping[str, Any] | None, section: str, *, nulls: bool) -> list[str]:
    """Return everything a hub would refuse, each beginning with the path.

    section: a key of LIMITS. nulls: whether null is allowed as the value of a key, as in a patch, where it
    removes the key. None has no errors.
    """
    if document is None:
        return []
    found = list(_value_errors(document, section, 0, nulls))
    size = len(
        json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    )
    if size > LIMITS[section]:
        found.append(f"{section}: {size} bytes as JSON; a hub takes at most {LIMITS[section]}")
    return found


def _value_errors(value: Any, path: str, depth: int, nulls: bool) -> Iterator[str]:
    if isinstance(value, Mapping):
        if depth > _MAX_DEPTH:
            yield f"{path}: nested deeper than {_MAX_DEPTH} levels"
            return
        for key, member in value.items():
            if not isinstance(key, str) or not key or _BAD_IN_KEY.search(key):
                yield (
                    f"{path}: the key {key!r} holds a control character, a space, '.', '$' or '#', "
                    "or is empty"
                )
            elif len(key.encode("utf-8", "surrogatepass")) > _MAX_KEY_BYTES:
                yield f"{path}: the key {key[:20]!r}... is longer than {_MAX_KEY_BYTES} bytes"
            yield from _value_errors(member, f"{path}.{key}", depth + 1, nulls)
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            yield from _value_errors(member, f"{path}[{index}]", depth + 1, False)
    elif isinstance(value, str):
        if len(value.encode("utf-8", "surrogatepass")) > _MAX_STRING_BYTES:
            yield f"{path}: a text of more than {_MAX_STRING_BYTES} bytes"
    elif value is None:
        if not nulls:
            yield f"{path}: null is not allowed here"
    elif isinstance(value, int) and not isinstance(value, bool) and value not in _INTEGERS:
        yield f"{path}: {value} is outside of -2^52 to 2^52-1"


def merge_patch(actual: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the smallest merge patch that makes ``actual`` hold ``wanted``.

    A value None in ``wanted`` asks for the key's removal. Keys that ``wanted`` does not name stay.
    """
    patch: dict[str, Any] = {}
    for key, value in wanted.items():
        if value is None:
            if key in actual:
                patch[key] = None
        elif isinstance(value, Mapping):
            there = actual.get(key)
            if not isinstance(there, Mapping):
                # Leaves with None need no removal from something that is not there.
                patch[key] = apply_patch({}, value)
                continue
            inner = merge_patch(there, value)
            if inner:
                patch[key] = inner
        elif key not in actual or not same(actual[key], value):
            patch[key] = value
    return patch


def exact_patch(actual: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the smallest merge patch that makes ``actual`` into ``wanted``, which holds no None."""
    patch: dict[str, Any] = dict.fromkeys(key for key in actual if key not in wanted)
    for key, value in wanted.items():
        there = actual.get(key)
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            inner = exact_patch(there, value)
            if inner:
                patch[key] = inner
        elif key not in actual or not same(there, value):
            patch[key] = value
    return patch


def apply_patch(actual: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``actual`` after a merge patch."""
    result = dict(actual)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            there = result.get(key)
            result[key] = apply_patch(there if isinstance(there, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def same(left: Any, right: Any) -> bool:
    """Return whether two JSON values are equal; unlike in Python, true is not 1."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return type(left) is type(right) and bool(left == right)
    return bool(left == right)
