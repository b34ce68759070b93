# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Texts as k3s, systemd and the kernel write them, and what is read in them."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_facts
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

SHOW = """Id=k3s.service
LoadState=loaded
ActiveState={server}
UnitFileState=enabled
MainPID=4711

Id=k3s-agent.service
LoadState={agent_load}
ActiveState={agent}
UnitFileState=disabled
MainPID=0
"""


def show(server: str = "active", agent: str = "inactive", agent_load: str = "not-found") -> str:
    return SHOW.format(server=server, agent=agent, agent_load=agent_load)


@pytest.mark.parametrize(
    ("said", "version", "commit"),
    [
        ("k3s version v1.34.4+k3s1 (1a2b3c4d)\ngo version go1.24.12\n", "v1.34.4+k3s1", "1a2b3c4d"),
        ("k3s version v1.34.4+k3s1\n", "v1.34.4+k3s1", ""),
        ("Segmentation fault\n", "", ""),
        ("", "", ""),
    ],
)
def test_version_of_a_program(said: str, version: str, commit: str) -> None:
    assert k3s_facts.version(said) == {"version": version, "commit": commit}


def test_units_that_are_there() -> None:
    (unit,) = k3s_facts.units(show())
    assert (unit["name"], unit["load"], unit["active"]) == ("k3s", "loaded", "active")
    assert (unit["enabled"], unit["main_pid"]) == (True, 4711)
    assert k3s_facts.role(unit) == "server"
    assert k3s_facts.units("") == []
    (asked,) = k3s_facts.units(show().replace("MainPID=4711", "MainPID=4711\nJob=123"))
    assert asked["active"] == "activating"
    assert k3s_facts.role(k3s_facts.choose([])) == "none"


@pytest.mark.parametrize(
    ("server", "agent", "role", "active"),
    [
        ("active", "inactive", "server", "active"),
        ("inactive", "active", "agent", "active"),
        ("failed", "activating", "agent", "activating"),
        ("inactive", "inactive", "server", "inactive"),
        ("reloading", "failed", "server", "active"),
        ("deactivating", "failed", "agent", "failed"),
    ],
)
def test_the_unit_that_runs_counts(server: str, agent: str, role: str, active: str) -> None:
    unit = k3s_facts.choose(k3s_facts.units(show(server, agent, "loaded")))
    assert (k3s_facts.role(unit), unit["active"]) == (role, active)


def test_start_of_a_process() -> None:
    fields = " ".join(["S", *(str(number) for number in range(4, 22)), "250", "99"])
    assert k3s_facts.started_ns(f"4711 (k3s-server) {fields}", 10**18, 100) == 10**18 + 2_500_000_000
    assert k3s_facts.started_ns(f"4711 (a) b) c) {fields}", 10**18, 100) == 10**18 + 2_500_000_000
    assert k3s_facts.started_ns("", 10**18, 100) == 0


def test_configuration_of_files_and_of_a_process() -> None:
    first = (
        '# ours\nserver: "https://10.7.0.11:6443"\ncluster-init: false\ntls-san:\n  - server: x\n'
        "node-name: 'gw1' # as named\n"
    )
    assert k3s_facts.config([first, "cluster-init: true\nnode-label+:\n  - a=b\n"]) == {
        "server": "https://10.7.0.11:6443",
        "cluster_init": True,
        "node_name": "gw1",
        "external": False,
    }
    assert k3s_facts.config(['"datastore-endpoint": postgres://u:p@h/d\n'])["external"] is True
    running = k3s_facts.arguments(
        "/usr/local/bin/k3s\0server\0--cluster-init\0--node-name\0gw2\0", "K3S_URL=https://vip:6443\0A=b\0"
    )
    assert running == {
        "server": "https://vip:6443", "cluster_init": True, "node_name": "gw2", "external": False
    }  # fmt: skip
    assert k3s_facts.arguments("k3s\0server\0--server=https://a:6443\0", "")["server"] == "https://a:6443"
    assert k3s_facts.arguments("", "")["cluster_init"] is False
    merged = k3s_facts.merged(k3s_facts.config(["node-name: gw1\n"]), running)
    assert (merged["node_name"], merged["server"]) == ("gw1", "https://vip:6443")


@pytest.mark.parametrize(
    ("member", "sqlite", "credentials", "external", "kind"),
    [
        (True, True, True, True, "etcd"),
        (False, True, True, False, "sqlite"),
        (False, False, True, True, "external"),
        (False, False, True, False, "none"),
        (False, False, False, True, "none"),
    ],
)
def test_datastore(member: bool, sqlite: bool, credentials: bool, external: bool, kind: str) -> None:
    assert k3s_facts.datastore(member, sqlite, credentials, external) == kind


def test_members_leave_out_what_is_none() -> None:
    bucket = {b"1": b"no json", b"2": b"[1]", b"3": json.dumps({"name": "b", "peerURLs": []}).encode()}
    assert k3s_facts.members(bucket) == [{"name": "b", "peer": "", "learner": False}]


SECRET = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1)


@given(SECRET, st.sampled_from(["server:", "node:", ""]))
def test_tokens_with_the_same_secret_have_the_same_fingerprint(secret: str, user: str) -> None:
    full = f"K10{'a1' * 32}::{user}{secret}\n"
    if user:
        assert k3s_facts.token_secret(full) == secret
        assert k3s_facts.token_digest(full) == k3s_facts.token_digest(secret)
    assert k3s_facts.token_digest(f"{secret}x") != k3s_facts.token_digest(secret)


def test_fingerprint_tells_nothing_of_an_empty_token() -> None:
    assert k3s_facts.token_digest(" \n") == ""
    assert len(k3s_facts.token_digest("secret")) == 16


def certificate(name: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, name),
        ]
    )
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "k3s-client-ca@1")]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_node_by_its_certificate() -> None:
    assert k3s_facts.node_of_certificate(certificate("system:node:gw1.plant07")) == "gw1.plant07"
    assert k3s_facts.node_of_certificate(certificate("system:admin")) == ""
    assert k3s_facts.node_of_certificate("") == ""
    broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"
    assert k3s_facts.node_of_certificate(broken) == ""
    assert k3s_facts.certificates(broken) == []


def test_rotated_authorities_share_a_certificate() -> None:
    old, new = certificate("a"), certificate("b")
    assert set(k3s_facts.certificates(old)) < set(k3s_facts.certificates(new + old))
    assert not set(k3s_facts.certificates(old)) & set(k3s_facts.certificates(new))


READYZ = "[+]ping ok\n[-]etcd failed: withheld\n[-]informer-sync failed: withheld\nreadyz check failed\n"


def test_what_is_not_ready() -> None:
    assert k3s_facts.readyz_problem(500, READYZ) == "HTTP 500 (etcd, informer-sync)"
    assert k3s_facts.readyz_problem(200, READYZ) == ""
    assert k3s_facts.readyz_problem(401, '{"kind": "Status"}') == "HTTP 401"


NODE: dict[str, Any] = {
    "metadata": {
        "name": "gw1",
        "labels": {"node-role.kubernetes.io/etcd": "true", "site": "plant07"},
        "annotations": {
            "etcd.k3s.cattle.io/node-name": "gw1-1a2b3c4d",
            "etcd.k3s.cattle.io/node-address": "10.7.0.11",
            "edgeha.io/managed-labels": '["site"]',
        },
    },
    "spec": {"unschedulable": True, "taints": [{"key": "a", "effect": "NoSchedule"}]},
    "status": {
        "nodeInfo": {"kubeletVersion": "v1.34.4+k3s1"},
        "addresses": [
            {"type": "Hostname", "address": "gw1"},
            {"type": "InternalIP", "address": "10.7.0.11"},
        ],
        "conditions": [
            {"type": "Ready", "status": "Unknown"},
            {"type": "EtcdIsVoter", "status": "True"},
        ],
    },
}


def test_node_and_member_of_etcd() -> None:
    assert k3s_facts.node_view(NODE) == {
        "name": "gw1",
        "address": "10.7.0.11",
        "ready": False,
        "schedulable": False,
        "kubelet": "v1.34.4+k3s1",
        "voter": True,
        "labels": NODE["metadata"]["labels"],
        "annotations": {"edgeha.io/managed-labels": '["site"]'},
        "taints": [{"key": "a", "effect": "NoSchedule"}],
    }
    assert k3s_facts.etcd_members([NODE, {"metadata": {"name": "agent"}}]) == [
        {"name": "gw1-1a2b3c4d", "node": "gw1", "peer": "10.7.0.11", "voter": True, "healthy": False}
    ]
    assert k3s_facts.node_view({})["ready"] is False


def test_a_program_that_unpacked_itself() -> None:
    digest = "0f" * 32
    assert k3s_facts.unpacked_from(f"/var/lib/rancher/k3s/data/{digest}/bin/k3s") == digest
    assert k3s_facts.unpacked_from("/usr/local/bin/k3s") == ""


def test_what_is_newer_than_the_process() -> None:
    files = {
        name: {"exists": exists, "mtime": mtime}
        for name, exists, mtime in [
            ("/b", True, 101), ("/a", True, 150), ("/old", True, 100), ("/gone", False, 150),
            ("/future", True, 201),
        ]
    }  # fmt: skip
    assert k3s_facts.stale(files, 100, 200, False) == ["/a", "/b"]
    assert k3s_facts.stale(files, 160, 200, True) == ["binary"]
    # What does not run has nothing to be restarted for.
    assert k3s_facts.stale(files, 0, 200, True) == []


@given(st.text(), st.binary(), st.dictionaries(st.binary(), st.binary()))
def test_no_text_breaks_a_parser(text: str, content: bytes, bucket: dict[bytes, bytes]) -> None:
    pem = f"-----BEGIN CERTIFICATE-----{base64.b64encode(content).decode()}-----END CERTIFICATE-----"
    k3s_facts.version(text)
    k3s_facts.units(text)
    k3s_facts.config([text])
    k3s_facts.arguments(text, text)
    k3s_facts.certificates(text)
    k3s_facts.node_of_certificate(pem)
    k3s_facts.token_digest(text)
    k3s_facts.readyz_problem(500, text)
    k3s_facts.members(bucket)
