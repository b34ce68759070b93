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
from ansible_collections.edgeha.iotedge.plugins.filter import join_skew as plugin
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


@pytest.mark.parametrize(
    ("kind", "node", "api", "fact"),
    [
        ("kubeadm", "v1.34.9", "v1.34.4", ""),
        ("kubeadm", "v1.31.0", "v1.34.4", ""),
        ("kubeadm", "v1.35.0", "v1.34.4", "v1.35.0 is newer than the cluster, which runs v1.34.4"),
        ("kubeadm", "v1.30.9", "v1.34.4", "v1.30.9 is more than 3 minor versions older than the cluster"),
        ("kubeadm", "v1.24.1", "v1.27.0", "v1.24.1 is more than 2 minor versions older"),
        ("kubeadm", "v1.24.1", "v1.26.0", ""),
        ("k3s", "v1.34.4+k3s2", "v1.34.4+k3s1", ""),
        ("k3s", "v1.34.5+k3s1", "v1.34.4+k3s1", "v1.34.5+k3s1 is newer than the cluster"),
        ("k3s", "v1.33.9+k3s1", "v1.34.4+k3s1", ""),
        ("k3s", "v1.30.9+k3s1", "v1.34.4+k3s1", "more than 3 minor versions older"),
        # What is not known is not judged.
        ("kubeadm", "", "v1.34.4", ""),
        ("kubeadm", "v1.34.4", "", ""),
    ],
)
def test_versions_that_go_together(kind: str, node: str, api: str, fact: str) -> None:
    found = join_rules.skew(node, api, kind)
    if not fact:
        assert found is None
        return
    assert found is not None
    assert fact in found[0]
    wanted = (
        f"set edge_k3s_version: {api}" if kind == "k3s" else f"bring a kubelet of {api.rpartition('.')[0]}"
    )
    assert found[1].startswith(wanted)


def test_machines_that_join_with_a_version_of_their_own_or_with_that_of_the_cluster() -> None:
    def joining(version: str, kind: str = "k3s", api: str = "", seen: str = "v1.34.4+k3s1") -> list[str]:
        entries = [{"host": "gw1", "version": version, "api": api}]
        found = plugin.join_skew({"kind": kind, "machines": entries, "locked": ["v1.34.4+k3s1"]}, seen)
        return [f"{row['host']} {row['subject']} {row['fact']}" for row in found]

    assert joining("") == joining("v1.34.4+k3s1") == joining("", "kubeadm") == joining("", seen="") == []
    assert joining("v1.35.0", "kubeadm")[0].startswith("gw1 kubelet v1.35.0 is newer")
    assert joining("v1.35.0", "kubeadm", api="v1.35.1", seen="v1.34.4") == []
    assert (
        "would be that of the cluster, v1.33.1+k3s1, which is not in the lock"
        in joining("", seen="v1.33.1+k3s1")[0]
    )
