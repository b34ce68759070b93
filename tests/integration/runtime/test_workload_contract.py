# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workload API against its published contract: made-up calls of every operation, answers checked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import schemathesis
from aiohttp.test_utils import TestServer
from edgeha_runtime.daemon import authority
from edgeha_runtime.daemon.authority import EdgeCa
from edgeha_runtime.daemon.callers import Callers, Review
from edgeha_runtime.daemon.keystore import KeyStore, Owner
from edgeha_runtime.daemon.trust import TrustBundle
from edgeha_runtime.daemon.workload import WorkloadApi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import response_schema_conformance

from tests.contracts import Contract

CONTRACT = Contract("edgelet-workload-2020-07-07.yaml", "EDGEHA_WORKLOAD_CONTRACT")
EXAMPLES = 40
# What a caller may be answered beside success; the contract knows them all as "default".
REFUSALS = {400, 401, 403, 404, 413}


def test_the_contract_is_there() -> None:
    CONTRACT.require(8)


@pytest.fixture(scope="module")
def contract() -> Any:
    load_all_checks()
    return schemathesis.openapi.from_dict(CONTRACT.document)


async def _review(token: str, audience: str) -> Review:
    """Every token is the module m's."""
    return Review(bool(token), "system:serviceaccount:ns:gw-m", (audience,))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API on a port, in a thread of its own: schemathesis calls it as any client does."""
    made = authority.quickstart("d", datetime.now(UTC))
    folder = tmp_path_factory.mktemp("store")
    kept = (made.key_pem(), made.pem())
    store = KeyStore(folder, Owner("d", "h.example"), b"k" * 32, {"m": "1"}, kept)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> TestServer:
        callers = Callers(_review, namespace="ns", audience="edgeha-gw", modules=lambda: {"gw-m": "m"})
        edge_ca = EdgeCa(store, device_id="d", iothub_hostname="h.example")
        server = TestServer(WorkloadApi(callers, store, TrustBundle(made.pem()), edge_ca).application())
        await server.start_server()
        return server

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    yield f"http://127.0.0.1:{server.port}"
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.mark.parametrize(("method", "path"), CONTRACT.operations)
def test_operation(contract: Any, url: str, method: str, path: str) -> None:
    operation = contract[path][method]
    listed = {int(status) for status in operation.definition.raw["responses"] if status != "default"}
    query = {"api-version": "2020-07-07"}
    modes = [operation.as_strategy(generation_mode=mode, query=query) for mode in schemathesis.GenerationMode]
    answered = set()

    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of(modes), known=st.booleans())
    def call(case: Any, known: bool) -> None:
        # Made-up names alone would all be refused.
        if known and case.path_parameters:
            case.path_parameters |= {
                name: value for name, value in (("name", "m"), ("genid", "1")) if name in case.path_parameters
            }
        response = case.call(base_url=url, headers={"Authorization": "Bearer t"}, timeout=30)
        answered.add(response.status_code)
        if response.status_code not in listed:
            assert response.status_code in REFUSALS | {405}, (response.status_code, response.text)
            assert list(response.json()) == ["message"]
        elif method != "HEAD":
            case.validate_response(response, checks=[response_schema_conformance])

    call()
    assert answered & REFUSALS or "{" not in path, "nothing that was made up was refused"
