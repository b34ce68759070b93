# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a token and a version fit the cluster that they are for. Pure.

A finding is (variable, fact, fix). The token is compared here, on the controller: it reaches no machine.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.edgeha.iotedge.plugins.module_utils import value_formats
from ansible_collections.edgeha.iotedge.plugins.module_utils.problems import Problem

Finding = tuple[str, str, str]

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
# Kubernetes' rule: a kubelet is never newer than the API, and at most so many minor versions older, one less
# for those before 1.25.
_OLDER, _OLDER_ONCE, _SINCE = 3, 2, (1, 25)
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


def skew(version: str, api: str, kind: str) -> tuple[str, str] | None:
    """Return fact and fix when a node of a version does not go with the API of a cluster, or None.

    kind: ``k3s``, where an agent is not newer by a patch either, or ``kubeadm``. A version that is none is
    not judged.
    """
    node, server = _VERSION.search(version), _VERSION.search(api)
    if not node or not server:
        return None
    own, theirs = tuple(map(int, node.groups())), tuple(map(int, server.groups()))
    if kind == "k3s":
        newer, fix = own > theirs, f"set edge_k3s_version: {api}, or upgrade the cluster first"
    else:
        newer = own[:2] > theirs[:2]
        fix = f"bring a kubelet of v{theirs[0]}.{theirs[1]} (edge_join_source, or the repository of packages)"
    if newer:
        return f"{version} is newer than the cluster, which runs {api}", fix
    allowed = _OLDER if own[:2] >= _SINCE else _OLDER_ONCE
    if own[0] != theirs[0] or theirs[1] - own[1] > allowed:
        fact = f"{version} is more than {allowed} minor versions older than the cluster, which runs {api}"
        return fact, fix
    return None


def joining(
    machines: Iterable[Mapping[str, str]], kind: str, seen: str, locked: Sequence[str]
) -> list[Problem]:
    """Return a problem for each machine that is to join with a version that does not go with the cluster.

    machines: host, version (of k3s or the kubelet; empty when it is not known, or for that of the cluster),
              and api (the version that the cluster told the machine, or empty). seen: what its API told us.
    locked:   versions of k3s that can be installed.
    """
    found = []
    for machine in machines:
        api = machine["api"] or seen
        subject = "k3s version" if kind == "k3s" else "kubelet"
        wrong = skew(machine["version"], api, kind)
        if not wrong and kind == "k3s" and api and not machine["version"] and api not in locked:
            fact = f"would be that of the cluster, {api}, which is not in the lock file"
            wrong = fact, "set edge_k3s_version to one that is and is not newer, or add it to a lock of yours"
        if wrong:
            found.append(Problem(machine["host"], subject, *wrong))
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
