# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client of the API against a server of the test's own, with TLS and a certificate of a client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_api
from ansible_collections.edgeha.iotedge.plugins.module_utils.kube_api import KubeApi, KubeError, error_of

from tests.tls import issue, serving


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of a server, with keys of an administrator."""
    root = tmp_path_factory.mktemp("k3s")
    tls = root / "server" / "tls"
    tls.mkdir(parents=True)
    authority = issue("ca", ca=True)
    authority.write(tls, "server-ca")
    issue("server", authority, address="127.0.0.1").write(tls, "serving")
    issue("admin", authority).write(tls, "client-admin")
    return root


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, Any]] = []  # noqa: RUF012 - emptied by the fixture

    def log_message(self, *_: Any) -> None:
        return

    def _answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.command, self.path, json.loads(raw) if raw else None))
        status, body = 200, b'{"kind": "Node"}'
        if self.path.startswith("/pages"):
            more = "continue=" not in self.path
            body = json.dumps(
                {"items": [{"n": more}], "metadata": {"continue": "x"} if more else {}}
            ).encode()
        elif self.path == "/missing":
            status, body = 404, b'{"kind": "Status", "reason": "NotFound", "message": "no such thing"}'
        elif self.path == "/readyz":
            body = b"ok"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PATCH = do_POST = do_DELETE = _answer  # noqa: N815 - named by the library


@pytest.fixture
def api(data_dir: Path) -> Iterator[KubeApi]:
    Handler.seen.clear()
    tls = data_dir / "server" / "tls"
    with serving(Handler, tls / "serving.crt", tls / "serving.key", tls / "server-ca.crt") as port:
        client = k3s_api.connect(k3s_api.of_data_dir(str(data_dir), port))
        yield client
        client.close()


def test_a_patch_is_a_merge_patch(api: KubeApi) -> None:
    assert api.patch("/api/v1/nodes/a", {"spec": {"unschedulable": None}}) == {"kind": "Node"}
    assert Handler.seen == [("PATCH", "/api/v1/nodes/a", {"spec": {"unschedulable": None}})]


def test_a_list_is_read_to_its_end(api: KubeApi) -> None:
    assert api.items("/pages", fieldSelector="spec.nodeName=a") == [{"n": True}, {"n": False}]
    assert Handler.seen[1][1] == "/pages?limit=500&fieldSelector=spec.nodeName%3Da&continue=x"


def test_what_is_not_there_is_no_error_when_it_is_looked_for(api: KubeApi) -> None:
    assert api.find("/missing") is None
    with pytest.raises(KubeError, match="no such thing") as error:
        api.get("/missing")
    assert (error.value.status, error.value.reason) == (404, "NotFound")


def test_text_is_told_as_it_is(api: KubeApi) -> None:
    assert api.text("/readyz") == "ok"


def test_an_address_where_nobody_listens(data_dir: Path) -> None:
    with pytest.raises(KubeError, match="does not answer") as error:
        k3s_api.connect(k3s_api.of_data_dir(str(data_dir), 1), 2.0).get("/")
    assert error.value.status == 0


def test_a_machine_that_is_no_server(tmp_path: Path) -> None:
    with pytest.raises(KubeError, match=rf"cannot be read \({tmp_path}/server/tls/"):
        k3s_api.connect(k3s_api.of_data_dir(str(tmp_path)))


def test_an_error_without_json() -> None:
    assert error_of(503, b"starting\n").message == "HTTP 503: starting"
