# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workload API against its published contract: made-up calls of every operation, answers checked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from aiohttp import web
from edgeha_runtime.daemon import authority
from edgeha_runtime.daemon.authority import EdgeCa
from edgeha_runtime.daemon.callers import Callers, Review
from edgeha_runtime.daemon.keystore import KeyStore, Owner
from edgeha_runtime.daemon.trust import TrustBundle
from edgeha_runtime.daemon.workload import WorkloadApi

from tests.contracts import Contract, Server
from tests.integration.runtime.parts import in_a_thread

CONTRACT = Contract("edgelet-workload-2020-07-07.yaml", "EDGEHA_WORKLOAD_CONTRACT")


def test_the_contract_is_there() -> None:
    CONTRACT.require(8)


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

    def application() -> web.Application:
        callers = Callers(_review, namespace="ns", audience="edgeha-gw", modules=lambda: {"gw-m": "m"})
        edge_ca = EdgeCa(store, device_id="d", iothub_hostname="h.example")
        return WorkloadApi(callers, store, TrustBundle(made.pem()), edge_ca).application()

    with in_a_thread(application) as found:
        yield found


@pytest.mark.parametrize(("method", "path"), CONTRACT.operations)
def test_operation(url: str, method: str, path: str) -> None:
    server = Server(
        url,
        query={"api-version": "2020-07-07"},
        headers={"Authorization": "Bearer t"},
        known={"name": "m", "genid": "1"},
        refusals=frozenset({400, 401, 403, 404, 413}),
    )
    CONTRACT.hold(server, method, path)
