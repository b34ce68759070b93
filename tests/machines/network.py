# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What machines meet on the network: a mirror of k3s's files, and clusters that could be joined."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from tests.tls import issue

VERSIONS = ("v1.32.1+k3s1", "v1.34.4+k3s1", "v1.35.1+k3s1")
PROGRAM = b"no program at all"
TOKEN_ID, TOKEN_SECRET = "abcdef", "0123456789abcdef"


@dataclass(frozen=True)
class Neighbours:
    """mirror: address of files. tls: the same with a certificate that nobody trusts, and as a k3s to join.

    kubeadm: a cluster that was made by kubeadm. ca_hash, k3s_hash: what tokens for them name.
    """

    mirror: str
    tls: str
    kubeadm: str
    ca_hash: str
    k3s_hash: str
    folder: Path
    lock: Path
    proxy: str


@contextmanager
def neighbours(address: str, folder: Path) -> Iterator[Neighbours]:
    """Serve all of them at an address of this host."""
    digest = hashlib.sha256(PROGRAM).hexdigest()
    pages: dict[str, bytes] = {}
    for version in VERSIONS:
        place = folder / "k3s" / version
        place.mkdir(parents=True)
        (place / "k3s").write_bytes(PROGRAM)
        pages[f"/{version.replace('+', '%2B')}/k3s"] = PROGRAM
    lock = folder / "lock.yml"
    lock.write_text(
        "\n".join(f"{name}: {{k3s: {{amd64: {digest}}}}}" for name in (*VERSIONS, "v1.34.9+k3s1"))
    )
    certificate, key_hash = _certificate(address, folder / "tls.pem")
    kubeconfig = json.dumps(
        {"clusters": [{"cluster": {"certificate-authority-data": base64.b64encode(certificate).decode()}}]}
    )
    info = {"data": {"kubeconfig": kubeconfig, f"jws-kubeconfig-{TOKEN_ID}": _signature(kubeconfig)}}
    joined = {
        "/cacerts": certificate,
        "/version": b'{"gitVersion": "v1.34.4+k3s1"}',
        "/api/v1/namespaces/kube-public/configmaps/cluster-info": json.dumps(info).encode(),
    }
    with _serve(address, pages) as plain, _serve(address, pages | joined, folder / "tls.pem") as secure:
        yield Neighbours(
            mirror=f"http://{address}:{plain}",
            tls=f"https://{address}:{secure}",
            kubeadm=f"https://{address}:{secure}",
            ca_hash=key_hash,
            k3s_hash=hashlib.sha256(certificate).hexdigest(),
            folder=folder / "k3s",
            lock=lock,
            proxy=f"http://{address}:1",
        )


def _signature(content: str) -> str:
    def packed(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = packed(json.dumps({"alg": "HS256", "kid": TOKEN_ID}).encode())
    text = f"{head}.{packed(content.encode())}".encode()
    return f"{head}..{packed(hmac.new(TOKEN_SECRET.encode(), text, hashlib.sha256).digest())}"


def _certificate(address: str, path: Path) -> tuple[bytes, str]:
    """Write key and certificate; return the certificate and the digest of its key."""
    own = issue("neighbours", address=address)
    path.write_text(own.key_pem + own.pem)
    public = own.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return own.pem.encode(), f"sha256:{hashlib.sha256(public).hexdigest()}"


@contextmanager
def _serve(address: str, pages: Mapping[str, bytes], certificate: Path | None = None) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            page = pages.get(self.path)
            self.send_response(404 if page is None else 200)
            self.send_header("Content-Length", str(len(page or b"")))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(pages.get(self.path, b""))

        def log_message(self, *_words: object) -> None:
            return

    server = ThreadingHTTPServer((address, 0), Handler)
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
