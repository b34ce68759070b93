# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client of the API against a server of the test's own, with TLS and a certificate of a client."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils.kube_api import KubeApi, KubeError, error_of


def make(folder: Path, name: str, *words: str) -> None:
    subprocess.run(
        ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-x509",
         "-days", "2", "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt", *words],
        check=True, capture_output=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("k3s")
    tls = root / "server" / "tls"
    tls.mkdir(parents=True)
    make(tls, "server-ca", "-subj", "/CN=ca")
    signed = ["-CA", f"{tls}/server-ca.crt", "-CAkey", f"{tls}/server-ca.key"]
    make(tls, "serving", "-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1", *signed)
    make(tls, "client-admin", "-subj", "/CN=admin", *signed)
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
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tls = data_dir / "server" / "tls"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "serving.crt", tls / "serving.key")
    context.load_verify_locations(tls / "server-ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    client = KubeApi.of_server(str(data_dir), 5.0, server.server_address[1])
    yield client
    client.close()
    server.shutdown()
    thread.join()
    server.server_close()


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
        KubeApi.of_server(str(data_dir), 2.0, 1).get("/")
    assert error.value.status == 0


def test_a_machine_that_is_no_server(tmp_path: Path) -> None:
    with pytest.raises(KubeError, match="no usable certificate"):
        KubeApi.of_server(str(tmp_path))


def test_an_error_without_json() -> None:
    assert error_of(503, b"starting\n").message == "HTTP 503: starting"
