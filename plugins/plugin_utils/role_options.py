# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of our roles, which are known variables too when they begin like public ones."""

from __future__ import annotations

from pathlib import Path

import yaml
from ansible_collections.edgeha.iotedge.plugins.module_utils import public_variables

_ROLES = Path(__file__).resolve().parents[2] / "roles"


def names() -> set[str]:
    """Return the options that begin like public variables (``edge_runtime_timeout``)."""
    found: set[str] = set()
    for specs in _ROLES.glob("*/meta/argument_specs.yml"):
        if specs.parent.parent.name.startswith(public_variables.PREFIXES):
            for entry in (yaml.safe_load(specs.read_text("utf-8")).get("argument_specs") or {}).values():
                found |= set(entry.get("options") or {})
    return found
