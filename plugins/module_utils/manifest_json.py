# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""JSON of manifests: read without surprises, named by paths, compared by meaning. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class ManifestError(ValueError):
    """The manifest cannot be used. errors: one line each, beginning with the JSON path."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


@dataclass
class Reader:
    """Keeps what is wrong with a document while it is read. errors: as in ManifestError."""

    errors: list[str] = field(default_factory=list)

    def refuse(self, path: str, text: str) -> None:
        self.errors.append(f"{path}: {text}")

    def mapping(self, parent: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any] | None:
        """Return an object that must be there; None, with an error, when it is not."""
        value = parent.get(key)
        if isinstance(value, Mapping):
            return value
        self.refuse(join(path, key), "missing" if key not in parent else "must be an object")
        return None

    def optional(self, parent: Mapping[str, Any], key: str, path: str) -> Mapping[str, Any]:
        """Return an object that may be left out."""
        return {} if parent.get(key) is None else self.mapping(parent, key, path) or {}


def join(path: str, key: str) -> str:
    """Return the JSON path of a key: ``$.a["b.c"]``."""
    return f"{path}.{key}" if re.fullmatch(r"[A-Za-z_$][\w$-]*", key) else f"{path}[{json.dumps(key)}]"


def read_json(text: str, path: str = "$") -> Any:
    """Read JSON; raises ManifestError for what is none, for NaN, and for a key that stands twice."""
    try:
        return json.loads(
            text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite
        )
    except json.JSONDecodeError as error:
        raise ManifestError(
            [f"{path}: not JSON: {error.msg} in line {error.lineno}, column {error.colno}"]
        ) from error
    except _DuplicateKeyError as error:
        raise ManifestError([f"{path}: the key {error.args[0]!r} stands twice in one object"]) from error
    except ValueError as error:
        raise ManifestError([f"{path}: not JSON: {error}"]) from error


def canonical(value: Any) -> str:
    """Return JSON text that is the same for values that mean the same: keys sorted, 2.0 as 2."""
    return json.dumps(_plain_numbers(value), sort_keys=True, separators=(",", ":"))


def _plain_numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _DuplicateKeyError(ValueError):
    pass


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _DuplicateKeyError(key)
        result[key] = value
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number
