# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import join_rules
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

TOKEN = "abcdef.0123456789abcdef"


def certificate(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def digest(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def signature(secret: str, content: str) -> str:
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "abcdef"}).encode()).rstrip(b"=")
    body = base64.urlsafe_b64encode(content.encode()).rstrip(b"=")
    made = hmac.new(secret.encode(), head + b"." + body, hashlib.sha256).digest()
    return f"{head.decode()}..{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_digest_of_an_authority(kind: str) -> None:
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    signed = {"abcdef": signature("0123456789abcdef", "text")}
    pem = certificate(key)
    assert join_rules.kubeadm(TOKEN, digest(key), "text", pem, signed) == []
    [(variable, fact, fix)] = join_rules.kubeadm(TOKEN, f"sha256:{'0' * 64}", "text", pem, signed)
    assert variable == "edge_join_ca_hash"
    assert "is not the digest" in fact
    assert fix


def test_token_that_the_cluster_does_not_know() -> None:
    [(variable, fact, _fix)] = join_rules.kubeadm(TOKEN, "", "text", b"", {"other1": "x..y"})
    assert variable == "edge_join_token"
    assert "expired" in fact


@pytest.mark.parametrize("made", [signature("another-secret00", "text"), "x..y", "", "e30..e30"])
def test_token_with_another_secret(made: str) -> None:
    [(_variable, fact, _fix)] = join_rules.kubeadm(TOKEN, "", "text", b"", {"abcdef": made})
    assert "another secret" in fact
    assert "0123456789abcdef" not in fact


def test_certificates_that_are_none() -> None:
    broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    assert join_rules.key_digests(broken) == []
    assert join_rules.key_digests(b"nothing") == []


def test_token_of_another_k3s() -> None:
    authority = "-----BEGIN CERTIFICATE-----\n"
    own = hashlib.sha256(authority.encode()).hexdigest()
    assert join_rules.k3s(f"K10{own}::server:secret", authority) == []
    assert join_rules.k3s("bare", authority) == []
    [(variable, fact, _fix)] = join_rules.k3s(f"K10{'0' * 64}::server:secret", authority)
    assert variable == "edge_join_token"
    assert "another cluster" in fact
