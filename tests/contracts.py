# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Contracts that others published (Swagger 2), to hold our servers against.

They are not part of this repository: a variable of the environment names the file; without that it is looked
for beside the checkout, in ../shared/specs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import response_schema_conformance

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "specs"


@dataclass(frozen=True)
class Server:
    """What is held against a contract. `known` are values of path parameters that exist there.

    `refusals` are the statuses that may be answered beside success; contracts call them "default".
    """

    url: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    known: Mapping[str, str]
    refusals: frozenset[int]
    examples: int = 40


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

    def hold(self, server: Server, method: str, path: str) -> None:
        """Call an operation with made-up requests, good and bad ones, and check each answer."""
        operation = self._schema[path][method]
        listed = {int(status) for status in operation.definition.raw["responses"] if status != "default"}
        modes = [
            operation.as_strategy(generation_mode=mode, query=server.query)
            for mode in schemathesis.GenerationMode
        ]
        answered = set()

        @settings(
            max_examples=server.examples,
            database=None,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=st.one_of(modes), known=st.booleans())
        def call(case: Any, known: bool) -> None:
            # Made-up names alone would all be refused.
            if known and case.path_parameters:
                own = {name: value for name, value in server.known.items() if name in case.path_parameters}
                case.path_parameters |= own
            response = case.call(base_url=server.url, headers=server.headers, timeout=30)
            answered.add(response.status_code)
            if response.status_code not in listed:
                assert response.status_code in server.refusals | {405}, (response.status_code, response.text)
                assert list(response.json()) == ["message"]
            elif method != "HEAD":
                case.validate_response(response, checks=[response_schema_conformance])

        call()
        assert answered & server.refusals or "{" not in path, "nothing that was made up was refused"

    @cached_property
    def _schema(self) -> Any:
        load_all_checks()
        return schemathesis.openapi.from_dict(self.document)
