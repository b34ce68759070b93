# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role public_variables makes of the variables of an operator, to hold others against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROLE = Path(__file__).resolve().parents[1] / "roles" / "public_variables"
TEXT = "\n".join(path.read_text() for path in sorted((ROLE / "vars" / "main").glob("*.yml")))


def mapping() -> dict[str, Any]:
    """Return all variables of the role, as they are written."""
    found: dict[str, Any] = {}
    for document in yaml.safe_load_all(TEXT):
        assert not found.keys() & document.keys(), "a variable stands in one file only"
        found |= document
    return found
