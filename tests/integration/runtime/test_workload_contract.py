# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workload API against its published contract: made-up calls of every operation, answers checked."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from aiohttp import web
from edgeha_runtime.daemon import authority, sealing
from edgeha_runtime.daemon.authority import EdgeCa
from edgeha_runtime.daemon.callers import Callers, Review
from edgeha_runtime.daemon.keystore import KeyStore, Owner
from edgeha_runtime.daemon.trust import TrustBundle
from edgeha_runtime.daemon.workload import WorkloadApi

from tests.contracts import Contract, Seed, Server
from tests.integration.runtime.parts import API_VERSIONS, in_a_thread, refused_version

CONTRACT = Contract("edgelet-workload-2020-07-07.yaml", "EDGEHA_WORKLOAD_CONTRACT")
OWN = "/modules/{name}/genid/{genid}"
VECTOR = base64.b64encode(b"vector").decode()
SIGN: dict[str, Any] = {"keyId": "primary", "algo": "HMACSHA256", "data": "AA=="}
SERVER = {"commonName": "gateway.plant", "expiration": "2999-01-01T00:00:00Z"}
# For each operation calls that succeed; decrypt's is made of the store's key.
SEEDS = {
    ("GET", "/modules"): [Seed(200)],
    ("POST", f"{OWN}/sign"): [Seed(200, SIGN)],
    ("POST", f"{OWN}/encrypt"): [Seed(200, {"plaintext": "AA==", "initializationVector": VECTOR})],
    ("POST", "/modules/{name}/certificate/identity"): [Seed(201, {"expiration": SERVER["expiration"]})],
    ("POST", f"{OWN}/certificate/server"): [Seed(201, SERVER)],
    ("GET", "/trust-bundle"): [Seed(200)],
    ("GET", "/manifest-trust-bundle"): [Seed(200)],
}
NOT_TOLD = "a module is refused (403) whatever is not its own, whether it exists or not"


def test_the_contract_is_there() -> None:
    CONTRACT.require(8)


async def _review(token: str, audience: str) -> Review:
    """Every token is the module m's."""
    return Review(bool(token), "system:serviceaccount:ns:gw-m", (audience,))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    made = authority.quickstart("d", datetime.now(UTC))
    folder = tmp_path_factory.mktemp("store")
    kept = (made.key_pem(), made.pem())
    return KeyStore(folder, Owner("d", "h.example"), b"k" * 32, {"m": "1"}, kept)


@pytest.fixture(scope="module")
def url(store: KeyStore) -> Iterator[str]:
    """The API on a port, in a thread of its own: schemathesis calls it as any client does."""

    def application() -> web.Application:
        callers = Callers(
            _review, place=None, namespace="ns", audience="edgeha-gw", modules=lambda: {"gw-m": "m"}
        )
        edge_ca = EdgeCa(store, device_id="d", iothub_hostname="h.example")
        assert store.authority is not None
        return WorkloadApi(callers, store, TrustBundle(store.authority[1]), edge_ca).application()

    with in_a_thread(application) as found:
        yield found


@pytest.mark.parametrize(("method", "path"), CONTRACT.operations)
def test_operation(url: str, store: KeyStore, method: str, path: str) -> None:
    server = Server(
        url,
        query={"api-version": "2020-07-07"},
        headers={"Authorization": "Bearer t"},
        known={"name": "m", "genid": "1"},
        refusals=frozenset({400, 401, 403, 404, 413}),
    )
    sealed = sealing.seal(store.encryption_key("m", "1"), b"text", b"vector")
    body = {"ciphertext": base64.b64encode(sealed).decode(), "initializationVector": VECTOR}
    seeds = SEEDS | {("POST", f"{OWN}/decrypt"): [Seed(200, body)]}
    never = {404: NOT_TOLD} if "{name}" in path else {}
    CONTRACT.hold(server, method, path, seeds[method, path], never)


@pytest.mark.parametrize("version", API_VERSIONS)
def test_each_version_that_stock_clients_send_is_taken(url: str, version: str) -> None:
    headers = {"Authorization": "Bearer t"}
    answer = requests.get(f"{url}/trust-bundle", params={"api-version": version}, headers=headers, timeout=30)
    assert (answer.status_code, "certificate" in answer.json()) == (200, True)


def test_another_version_is_refused_with_the_one_to_use(url: str) -> None:
    said = refused_version(url, "/trust-bundle", {"api-version": "2017-01-01"})
    assert said == "api-version '2017-01-01' is not known; use 2022-08-03"
    assert refused_version(url, "/trust-bundle", {}) == "api-version missing; use 2022-08-03"
