# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Contracts that others published (Swagger 2), to hold our servers against.

They are not part of this repository: a variable of the environment names the file; without that it is looked
for beside the checkout, in ../shared/specs.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "specs"


class Contract:
    """The contract in `file`, which `variable` may name."""

    def __init__(self, file: str, variable: str) -> None:
        self.path = Path(os.environ.get(variable, _BESIDE / file))
        self._variable = variable

    @cached_property
    def document(self) -> dict[str, Any]:
        """The contract; empty where it is missing."""
        if not self.path.is_file():
            return {"paths": {}}
        # YAML reads JSON too.
        found: dict[str, Any] = yaml.safe_load(self.path.read_text())
        return found

    @property
    def operations(self) -> list[tuple[str, str]]:
        """Method and path of each operation."""
        paths = self.document["paths"]
        return [(method.upper(), path) for path, methods in paths.items() for method in methods]

    def require(self, least: int) -> None:
        """Skip loudly where the contract is missing; one that is there has so many operations or more."""
        if not self.operations:
            pytest.skip(f"THE CONTRACT WAS NOT TESTED: {self.path} is missing; name it in {self._variable}")
        assert len(self.operations) >= least
