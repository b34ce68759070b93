# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The call that changes a token, against a server of the test's own."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.modules import k3s_token

from tests.tls import issue, serving

OLD, NEW = "K10" + "a" * 64 + "::server:old-secret", "new-secret"


class Handler(BaseHTTPRequestHandler):
    status = 200
    body = b""
    seen: list[tuple[str, str, Any]] = []  # noqa: RUF012 - emptied by the fixture

    def log_message(self, *_: Any) -> None:
        return

    def do_PUT(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        user = base64.b64decode(self.headers["Authorization"].split()[1]).decode()
        self.seen.append((self.path, user, sent))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)


@pytest.fixture
def params(tmp_path: Path) -> Iterator[dict[str, Any]]:
    tls = tmp_path / "server" / "tls"
    tls.mkdir(parents=True)
    chain, key = issue("k3s", ca=True, address="127.0.0.1").write(tls, "server-ca")
    Handler.seen.clear()
    Handler.status, Handler.body = 200, b""
    with serving(Handler, chain, key) as port:
        yield {"token": OLD, "new_token": NEW, "data_dir": str(tmp_path), "port": port, "limit": 5}


def test_the_call_that_k3s_itself_makes(params: dict[str, Any]) -> None:
    k3s_token.rotate(params)
    assert Handler.seen == [("/v1-k3s/token", "server:old-secret", {"newToken": "new-secret"})]


def test_a_token_that_does_not_hold(params: dict[str, Any]) -> None:
    Handler.status = 401
    with pytest.raises(k3s_token.Refused, match="correct edge_k3s_token"):
        k3s_token.rotate(params)


def test_what_the_server_says_is_told_without_tokens(params: dict[str, Any]) -> None:
    Handler.status, Handler.body = 500, b"cannot write new-secret over old-secret"
    with pytest.raises(k3s_token.Refused) as error:
        k3s_token.rotate(params)
    assert str(error.value).endswith("cannot write *** over ***")


def test_a_server_that_does_not_answer(params: dict[str, Any]) -> None:
    with pytest.raises(k3s_token.Refused, match="does not answer"):
        k3s_token.rotate({**params, "port": 1})
