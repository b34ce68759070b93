# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Contracts that others published (Swagger 2), to hold our servers against.

They are not part of this repository: a variable of the environment names the file; without that it is looked
for beside the checkout, in ../shared/specs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import response_schema_conformance

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "specs"


@dataclass(frozen=True)
class Seed:
    """A call that answers `status`, after the calls `first` (method, path, body) have made its state.

    `holds` is in the body of the answer.
    """

    status: int
    body: object = None
    query: Mapping[str, str] = field(default_factory=dict)
    holds: bytes = b""
    first: Sequence[tuple[str, str, Any]] = ()


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

    def hold(
        self,
        server: Server,
        method: str,
        path: str,
        seeds: Sequence[Seed] = (),
        never: Mapping[int, str] | None = None,
    ) -> None:
        """Call an operation as `seeds` say, then with made-up requests, good and bad; check each answer.

        Every status that the contract lists has to come, but for those in `never`, which has the reasons.
        """
        operation = self._schema[path][method]
        listed = {int(status) for status in operation.definition.raw["responses"] if status != "default"}
        never = never or {}
        assert never.keys() <= listed, "the contract lists no such status"
        modes = [
            operation.as_strategy(generation_mode=mode, query=server.query)
            for mode in schemathesis.GenerationMode
        ]
        answered: set[int] = set()

        def check(case: Any) -> tuple[int, bytes]:
            response = case.call(base_url=server.url, headers=server.headers, timeout=30)
            status: int = response.status_code
            answered.add(status)
            if status not in listed:
                assert status in server.refusals | {405}, (status, response.text)
                assert list(response.json()) == ["message"]
            elif method != "HEAD":
                case.validate_response(response, checks=[response_schema_conformance])
            return status, response.content

        for seed in seeds:
            for verb, route, body in seed.first:
                self._prepare(server, verb, route, body)
            more = {} if seed.body is None else {"body": seed.body, "media_type": "application/json"}
            known = {name: value for name, value in server.known.items() if f"{{{name}}}" in path}
            case = operation.Case(path_parameters=known, query={**server.query, **seed.query}, **more)
            status, content = check(case)
            assert status == seed.status, (seed, content)
            assert seed.holds in content, (seed, content)

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
            check(case)

        call()
        assert listed - answered == never.keys(), "statuses that the contract lists and that never came"
        assert answered & server.refusals or "{" not in path, "nothing that was made up was refused"

    @staticmethod
    def _prepare(server: Server, method: str, path: str, body: Any) -> None:
        """Make a state by a call of the server's own, which has to succeed."""
        url = f"{server.url}{path}"
        answer = requests.request(
            method, url, params=server.query, headers=server.headers, json=body, timeout=30
        )
        assert answer.ok, (method, path, answer.status_code, answer.text)

    @cached_property
    def _schema(self) -> Any:
        load_all_checks()
        return schemathesis.openapi.from_dict(self.document)
