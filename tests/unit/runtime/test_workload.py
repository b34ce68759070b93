# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workload API answers whatever is sent with the contract's shapes, and never with 500."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from edgeha_runtime.daemon import authority
from edgeha_runtime.daemon.authority import EdgeCa
from edgeha_runtime.daemon.callers import Callers, Review
from edgeha_runtime.daemon.keystore import KeyStore, Owner
from edgeha_runtime.daemon.trust import TrustBundle
from edgeha_runtime.daemon.workload import WorkloadApi
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

_CA = authority.quickstart("d", datetime.now(UTC))
STORE = KeyStore(Path("/nowhere"), Owner("d", "h"), b"k" * 32, {"m": "1"}, (_CA.key_pem(), _CA.pem()))


async def review(token: str, audience: str) -> Review:
    """Every token is the module m's."""
    return Review(bool(token), "system:serviceaccount:ns:gw-m", (audience,))


class Served:
    """The API on a real port, driven from synchronous code, as hypothesis wants it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        callers = Callers(
            review, place=None, namespace="ns", audience="edgeha-gw", modules=lambda: {"gw-m": "m"}
        )
        edge_ca = EdgeCa(STORE, device_id="d", iothub_hostname="h")
        self.server = TestServer(WorkloadApi(callers, STORE, TrustBundle("PEM"), edge_ca).application())
        self.loop.run_until_complete(self.server.start_server())
        self.session = self.loop.run_until_complete(self._session())

    async def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    def ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, object]:
        async def call() -> tuple[int, object]:
            url = URL(f"http://127.0.0.1:{self.server.port}{path}", encoded=True)
            async with self.session.request(method, url, data=body, headers=headers) as answer:
                return answer.status, json.loads(await answer.read() or b"null")

        return self.loop.run_until_complete(call())

    def close(self) -> None:
        self.loop.run_until_complete(self.session.close())
        self.loop.run_until_complete(self.server.close())
        self.loop.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
SIGN = st.fixed_dictionaries(
    {}, optional={"keyId": JSON, "algo": st.just("HMACSHA256") | JSON, "data": st.just("AA==") | JSON}
)
SEAL = st.fixed_dictionaries(
    {},
    optional={name: st.just("AA==") | JSON for name in ("plaintext", "ciphertext", "initializationVector")},
)
CERTIFICATE = st.fixed_dictionaries(
    {},
    optional={
        "commonName": st.just("gw.example") | JSON,
        "expiration": st.just("2999-01-01T00:00:00Z")
        | st.text("0123456789-:TZ+.", max_size=30)
        | st.datetimes().map(lambda time: time.isoformat())
        | JSON,
    },
)
BODY = st.binary(max_size=200) | (SIGN | SEAL | CERTIFICATE | JSON).map(
    lambda value: json.dumps(value).encode()
)
PART = st.sampled_from(
    ["m", "1", "..", "", "%2e%2e", "%00", "%ff", "a%2Fb", "modules", "genid", "sign", "trust-bundle"]
)
ROUTES = [
    "/modules",
    "/trust-bundle",
    "/manifest-trust-bundle",
    "/modules/m/certificate/identity",
    *(f"/modules/m/genid/1/{name}" for name in ("sign", "encrypt", "decrypt", "certificate/server")),
]
PATH = st.lists(PART, max_size=6).map(lambda parts: "/" + "/".join(parts)) | st.sampled_from(ROUTES)
QUERY = st.sampled_from(
    ["?api-version=2020-07-07", "", "?api-version=", "?api-version=%ff&api-version=2020-07-07"]
)


@settings(max_examples=300, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
    path=PATH,
    query=QUERY,
    body=BODY,
)
def test_whatever_is_sent_the_answer_is_one_of_the_contract(
    served: Served, method: str, path: str, query: str, body: bytes
) -> None:
    status, answer = served.ask(method, path + query, body, {"Authorization": "Bearer t"})
    if status in (200, 201):
        assert isinstance(answer, dict)
        assert set(answer) in (
            {"digest"}, {"certificate"}, {"ciphertext"}, {"plaintext"}, {"modules"},
            {"privateKey", "certificate", "expiration"},
        )  # fmt: skip
        assert "2020-07-07" in query
    else:
        assert status in (400, 403, 404, 405), answer
        assert isinstance(answer, dict)
        assert list(answer) == ["message"]


@settings(max_examples=100, deadline=None)
@given(
    header=st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_categories=["Cc"]), max_size=40)
)
def test_no_header_but_a_bearer_token_gets_in(served: Served, header: str) -> None:
    status, _ = served.ask("GET", "/trust-bundle?api-version=2020-07-07", b"", {"Authorization": header})
    bearer = header.strip().lower().startswith("bearer ") and header.strip().isascii()
    assert status == 401 or (status == 200 and bearer)
