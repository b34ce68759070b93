# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a token fits the cluster that it is for, by what that cluster tells everybody. Pure.

A finding is (variable, fact, fix). The token is compared here, on the controller: it reaches no machine.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping

from ansible_collections.edgeha.iotedge.plugins.module_utils import value_formats

Finding = tuple[str, str, str]

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE = 0x30
_VERSION_TAG = 0xA0


def k3s(token: str, authority: str) -> list[Finding]:
    """Judge the token for a k3s whose /cacerts says ``authority``."""
    pinned = value_formats.k3s_token_hash(token)
    if pinned and pinned != hashlib.sha256(authority.encode()).hexdigest():
        fact = "is for another cluster: it names another authority than the one at edge_join_url has"
        return [("edge_join_token", fact, "copy server/node-token from a server of that cluster")]
    return []


def kubeadm(
    token: str, ca_hash: str, kubeconfig: str, authority: bytes, signatures: Mapping[str, str]
) -> list[Finding]:
    """Judge token and digest for a cluster by its cluster-info.

    kubeconfig: its text as it is signed. authority: the certificate in it, PEM. signatures: by token id.
    """
    found: list[Finding] = []
    fix = "make a token with 'kubeadm token create --print-join-command'"
    token_id, _dot, secret = token.partition(".")
    signature = signatures.get(token_id)
    if signature is None:
        found.append(("edge_join_token", "is not known to the cluster, or it has expired", fix))
    elif not _signed(signature, kubeconfig, secret):
        found.append(("edge_join_token", "has an id that the cluster knows, and another secret", fix))
    digests = {f"sha256:{digest}" for digest in key_digests(authority)}
    if ca_hash and ca_hash not in digests:
        fact = "is not the digest of the authority of the cluster at edge_join_url"
        found.append(("edge_join_ca_hash", fact, fix))
    return found


def key_digests(pem: bytes) -> list[str]:
    """Return the SHA-256 of the public key of each certificate; what is none is left out."""
    found = []
    for body in _CERTIFICATE.findall(pem.decode(errors="replace")):
        try:
            key = _public_key(base64.b64decode("".join(body.split()), validate=True))
        except (binascii.Error, ValueError, IndexError):
            continue
        found.append(hashlib.sha256(key).hexdigest())
    return found


def _signed(signature: str, content: str, secret: str) -> bool:
    """Whether a detached signature (HS256) was made over a text with a secret."""
    head, _dot, tail = signature.partition("..")
    try:
        algorithm = json.loads(_unpadded(head)).get("alg")
        given = _unpadded(tail)
    except (ValueError, AttributeError):
        return False
    body = base64.urlsafe_b64encode(content.encode()).rstrip(b"=").decode()
    made = hmac.new(secret.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    return algorithm == "HS256" and hmac.compare_digest(made, given)


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _public_key(der: bytes) -> bytes:
    """Return SubjectPublicKeyInfo of a certificate, with its own header."""
    body = _content(der, 0)
    tbs = _content(der, body)
    place = tbs
    if der[place] == _VERSION_TAG:
        place = _end(der, place)
    # Serial number, algorithm, issuer, validity, subject; then the key.
    for _field in range(5):
        place = _end(der, place)
    if der[place] != _SEQUENCE:
        raise ValueError("no certificate")
    return der[place : _end(der, place)]


def _header(der: bytes, place: int) -> tuple[int, int]:
    """Return where the content of the element at ``place`` begins, and its length."""
    first = der[place + 1]
    if first < 0x80:
        return place + 2, first
    count = first & 0x7F
    return place + 2 + count, int.from_bytes(der[place + 2 : place + 2 + count], "big")


def _content(der: bytes, place: int) -> int:
    if der[place] != _SEQUENCE:
        raise ValueError("no certificate")
    return _header(der, place)[0]


def _end(der: bytes, place: int) -> int:
    begin, length = _header(der, place)
    return begin + length
