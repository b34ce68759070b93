# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulator against the hub's published contract: made-up calls of every operation, answers checked."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import response_schema_conformance

from tests.contracts import Contract
from tests.integration.hub.conftest import API_VERSION, Hub, free_address

CONTRACT = Contract("iothub-service-2021-04-12.json", "EDGEHA_IOTHUB_CONTRACT")
SECONDS = 50.0
EXAMPLES = 20

# What the hub answers beside what the contract lists, always in its form for errors.
REFUSALS = {400, 401, 404, 409, 412, 413, 501}
# Listed as an object, and read as an array of jobs by the hub's own clients.
LISTED_WRONG = {("GET", "/jobs/v2/query")}
KNOWN_IDS = ("edge", "leaf", "config")


def test_the_contract_is_there() -> None:
    CONTRACT.require(31)


def _as_practised(node: Any) -> Any:
    """The contract as real hubs keep it: null for what is not set, times without a zone, and members of
    twins that are no objects."""
    if isinstance(node, list):
        return [_as_practised(item) for item in node]
    if not isinstance(node, dict):
        return node
    changed = {key: _as_practised(value) for key, value in node.items() if value != "date-time"}
    if changed.get("additionalProperties") == {"type": "object"}:
        changed["additionalProperties"] = True
    properties = changed.get("properties")
    if changed.get("type") == "object" and isinstance(properties, dict):
        for member in properties.values():
            if "type" in member:
                member["x-nullable"] = True
    return changed


@pytest.fixture(scope="module")
def contract() -> Any:
    load_all_checks()
    return schemathesis.openapi.from_dict(_as_practised(CONTRACT.document))


@pytest.fixture(scope="module")
def filled_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    hub = Hub(tmp_path_factory.mktemp("contract"), free_address()).start()
    yield hub
    hub.stop()
    failures = [event for event in hub.events() if event["level"] == "error"]
    assert not failures, failures[0]


@pytest.fixture(scope="module")
def deadline() -> float:
    """All operations together take no longer; what is left then is tried with fewer calls."""
    return time.monotonic() + SECONDS


def _fill(hub: Hub) -> None:
    """Something for the calls to find, made again when one of them deleted it."""
    hub.request("PUT", "/devices/edge", body={"capabilities": {"iotEdge": True}})
    hub.request("PUT", "/devices/leaf", body={})
    hub.request("PUT", "/devices/leaf/modules/part", body={})
    content = {"deviceContent": {"properties.desired.fan": {"rpm": 1}}}
    hub.request("PUT", "/configurations/config", body={"content": content, "targetCondition": "*"})


@pytest.mark.parametrize(("method", "path"), CONTRACT.operations)
def test_operation(contract: Any, filled_hub: Hub, deadline: float, method: str, path: str) -> None:
    operation = contract[path][method]
    listed = {int(status) for status in operation.definition.raw["responses"]}
    _fill(filled_hub)
    query = {"api-version": API_VERSION}
    modes = [operation.as_strategy(generation_mode=mode, query=query) for mode in schemathesis.GenerationMode]

    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=st.one_of(modes), ids=st.lists(st.none() | st.sampled_from(KNOWN_IDS), min_size=2, max_size=2)
    )
    def call(case: Any, ids: list[str | None]) -> None:
        if time.monotonic() > deadline:
            return
        # Made-up ids alone would meet nothing that exists.
        for name, known in zip(case.path_parameters or {}, ids, strict=False):
            if known is not None:
                case.path_parameters[name] = known if name != "mid" else "part"
        response = case.call(
            base_url=f"https://{filled_hub.host}",
            headers={"Authorization": filled_hub.token(policy="iothubowner")},
            verify=str(filled_hub.state / "ca.pem"),
            timeout=10,
        )
        if response.status_code in listed:
            if (method, path) not in LISTED_WRONG:
                case.validate_response(response, checks=[response_schema_conformance])
            return
        assert response.status_code in REFUSALS | {405}, (response.status_code, response.text)
        if method != "HEAD":
            code = response.headers["iothub-errorcode"][0]
            assert response.json()["Message"].startswith(f"ErrorCode:{code};")
            assert (response.status_code == 501) == (code == "NotImplemented")

    call()
