# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""createOptions of modules: one JSON value at the operator's, parts of text in a twin. Pure.

Source: "Understand and use module twins" (Microsoft Learn), and how stock tools cut the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils.manifest_json import (
    ManifestError,
    join,
    read_json,
)

# Twins took values of 512 characters once, and stock tools still cut createOptions there.
PART_CHARACTERS = 512
MAX_PARTS = 8
_PART = re.compile(r"createOptions\d{2}")


def is_create_options(key: str) -> bool:
    """Say whether a key of a module's settings is createOptions or one of its further parts."""
    return key == "createOptions" or bool(_PART.fullmatch(key))


def join_create_options(settings: Mapping[str, Any], path: str) -> Any:
    """Return the createOptions of a module's settings as JSON value, from all its parts; ``{}`` when empty.

    path: of the settings. Raises ManifestError.
    """
    where = join(path, "createOptions")
    first = settings.get("createOptions", "")
    further = sorted(key for key in settings if _PART.fullmatch(str(key)))
    if isinstance(first, Mapping):
        if further:
            raise ManifestError([f"{join(path, further[0])}: createOptions is an object, so it has no parts"])
        return first
    parts = [first, *(settings[key] for key in further)]
    if not all(isinstance(part, str) for part in parts):
        raise ManifestError([f"{where}: must be an object, or a text that holds one"])
    for number, key in enumerate(further, start=1):
        if key != _part_name(number):
            raise ManifestError([f"{join(path, key)}: the part {_part_name(number)} before it is missing"])
    text = "".join(parts)
    options = read_json(text, where) if text.strip() else {}
    if not isinstance(options, Mapping):
        raise ManifestError([f"{where}: must be an object, or a text that holds one"])
    return options


def split_create_options(options: Any) -> dict[str, str]:
    """Return createOptions as edgeAgent reads them: compact text, cut into createOptions, createOptions01...

    A part has at most PART_CHARACTERS characters as the runtime (.NET) counts them: those beyond the first
    65536 count twice. The result may have more than MAX_PARTS parts.
    """
    text = json.dumps(options, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair is allowed in JSON, but only when escaped.
        text = json.dumps(options, separators=(",", ":"))
    parts, start, length = [], 0, 0
    for position, character in enumerate(text):
        width = 2 if ord(character) > 0xFFFF else 1
        if length + width > PART_CHARACTERS:
            parts.append(text[start:position])
            start, length = position, 0
        length += width
    parts.append(text[start:])
    return {_part_name(number): part for number, part in enumerate(parts)}


def _part_name(number: int) -> str:
    return f"createOptions{number:02}" if number else "createOptions"
