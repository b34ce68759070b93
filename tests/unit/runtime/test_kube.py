# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Of a log no more is in memory than somebody takes, however long it is or a line of it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import httpx2
import pytest
from edgeha_runtime.daemon import kube
from edgeha_runtime.daemon.kube import MAX_PIECE, Cluster, describe
from hypothesis import given
from hypothesis import strategies as st
from lightkube import ApiError, AsyncClient
from lightkube.config.kubeconfig import KubeConfig

PART = 32 * 1024
CONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "t",
    "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
    "clusters": [{"name": "t", "cluster": {"server": "http://api.example"}}],
    "users": [{"name": "t", "user": {"token": "daemon"}}],
}


class Api(httpx2.AsyncByteStream):
    """An API server that has a log of `number` parts, and counts what it sent of it."""

    def __init__(self, part: bytes, number: int = 256, status: int = 200) -> None:
        self.part, self.number, self.status = part, number, status
        self.sent = 0
        self.closed = False
        self.asked: list[httpx2.Request] = []

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        headers = {"Content-Type": "text/plain" if self.status == 200 else "application/json"}
        return httpx2.Response(self.status, headers=headers, stream=self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number in range(self.number):
            self.sent = number + 1
            yield self.part

    async def aclose(self) -> None:
        self.closed = True

    def log(
        self, *, follow: bool = False, since: int | None = None, tail: int | None = None
    ) -> AsyncGenerator[str]:
        client = AsyncClient(
            config=KubeConfig.from_dict(CONFIG),
            timeout=httpx2.Timeout(10.0),
            transport=httpx2.MockTransport(self.handle),
        )
        return Cluster(client, "edge-gw").log("p", "module", follow=follow, since=since, tail=tail)


@pytest.mark.parametrize("follow", [False, True])
async def test_a_log_is_read_as_it_is_taken(follow: bool) -> None:
    api = Api((b"x" * 1023 + b"\n") * (PART // 1024))
    async with aclosing(api.log(follow=follow)) as lines:
        assert await anext(lines) == "x" * 1023 + "\n"
        assert (api.sent, api.closed) == (1, False)
        for number in range(1, 3 * PART // 1024):
            assert len(await anext(lines)) == 1024, number
        assert api.sent == 3
    assert api.closed, "and its connection is not left open"


@pytest.mark.parametrize("follow", [False, True])
async def test_a_line_without_an_end_comes_in_pieces(follow: bool) -> None:
    api = Api(b"x" * PART)
    size = 0
    async with aclosing(api.log(follow=follow)) as lines:
        async for piece in lines:
            assert len(piece) <= MAX_PIECE + 1
            size += len(piece)
            # What is not out yet is no more than a piece and what came last.
            assert api.sent * PART - size <= MAX_PIECE + PART
    assert size == 256 * PART + 1
    assert api.closed


async def test_a_log_that_is_not_followed_is_not_waited_for_without_end() -> None:
    api = Api(b"x\n", 1)
    assert [line async for line in api.log(since=60, tail=7)] == ["x\n"]
    assert [line async for line in api.log(follow=True)] == ["x\n"]
    once, followed = api.asked
    assert dict(once.url.params) == {
        "container": "module",
        "follow": "false",
        "sinceSeconds": "60",
        "tailLines": "7",
        "timestamps": "true",
    }
    assert dict(followed.url.params) == {"container": "module", "follow": "true", "timestamps": "true"}
    assert once.extensions["timeout"]["read"] == 10.0
    assert followed.extensions["timeout"] == {"connect": 10.0, "read": None, "write": 10.0, "pool": 10.0}


@pytest.mark.parametrize("follow", [False, True])
async def test_the_api_servers_reason_is_told(follow: bool) -> None:
    status = {"kind": "Status", "status": "Failure", "code": 400, "message": "container waits"}
    api = Api(json.dumps(status).encode(), 1, status=400)
    with pytest.raises(ApiError) as refused:
        await anext(api.log(follow=follow))
    assert describe(refused.value) == "API server: container waits (400)"
    assert api.closed


WRITTEN = st.lists(st.sampled_from([b"\n", b"a", b"bcdef", b"\r", b"\xff", "\u00e4\u2028".encode()]))


@given(parts=st.lists(WRITTEN.map(b"".join)), size=st.integers(1, 6))
async def test_what_was_written_comes_however_it_was_cut(parts: list[bytes], size: int) -> None:
    async def sent() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kube, "MAX_PIECE", size)
        found = [piece.encode(errors="surrogateescape") async for piece in kube.pieces(sent())]
    text = b"".join(parts)
    ended = text if text.endswith(b"\n") or not text else text + b"\n"
    assert b"".join(found) == ended
    assert all(len(piece) <= size + 1 for piece in found)
    # A piece that ends in no newline is as long as one may be; no newline is within one.
    assert all(len(piece) == size for piece in found if not piece.endswith(b"\n"))
    assert not any(b"\n" in piece[:-1] for piece in found)
