# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attestations: what is kept of them, and what is shown."""

import base64
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from iothub_emulator.dps_attestation import (
    certificate_info,
    derived_key,
    keep_certificates,
    kept_certificates,
    parse_attestation,
    read_certificate,
    shown,
)
from iothub_emulator.dps_errors import DpsError


@pytest.fixture(scope="module")
def certificate() -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Contoso"),
            x509.NameAttribute(NameOID.COMMON_NAME, "root"),
        ]
    )
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(0xABC).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256())


def forms(certificate: x509.Certificate) -> list[str]:
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    der = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
    lines = "\r\n".join(der[start : start + 64] for start in range(0, len(der), 64))
    return [pem.decode(), base64.b64encode(pem).decode(), der, lines]


def test_a_certificate_is_read_in_every_form(certificate: x509.Certificate) -> None:
    assert [read_certificate(form) for form in forms(certificate)] == [certificate] * 4


@given(st.text(max_size=100))
def test_no_text_breaks_the_reader(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever the libraries say
        read_certificate(text)


def test_info_of_a_certificate(certificate: x509.Certificate) -> None:
    info = certificate_info(certificate)
    assert info["subjectName"] == "CN=root, O=Contoso"
    assert info["notBeforeUtc"] == "2026-01-02T03:04:05.0000000Z"
    assert (info["serialNumber"], info["version"]) == ("ABC", 3)
    assert (len(info["sha1Thumbprint"]), len(info["sha256Thumbprint"])) == (40, 64)


def test_a_repeated_certificate_is_kept(certificate: x509.Certificate) -> None:
    given: dict[str, Any] = {"primary": {"certificate": forms(certificate)[0]}}
    first = parse_attestation({"type": "x509", "x509": {"signingCertificates": given}}, group=True)
    assert kept_certificates(first) == [certificate]
    repeated = shown(first, keys=True)
    assert "BEGIN" not in str(repeated)
    again = parse_attestation(repeated, group=True)
    assert kept_certificates(again) == []
    keep_certificates(again, first)
    assert kept_certificates(again) == [certificate]
    assert shown(again, keys=False) == repeated


def test_keys_are_made_and_hidden() -> None:
    made = [parse_attestation({"type": "symmetricKey"}, group=group) for group in (False, True)]
    keys = {key for attestation in made for key in attestation["symmetricKey"].values()}
    assert len(keys) == 4
    for attestation in made:
        assert shown(attestation, keys=True) == attestation
        assert shown(attestation, keys=False)["symmetricKey"] == {"primaryKey": None, "secondaryKey": None}


def test_derived_key_of_the_documentation() -> None:
    """The example of "How to use symmetric keys with enrollment groups"."""
    group = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw=="
    assert derived_key(group, "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6") == (
        "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc="
    )


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
names = st.sampled_from(
    [
        "type",
        "tpm",
        "x509",
        "symmetricKey",
        "primaryKey",
        "clientCertificates",
        "primary",
        "info",
        "certificate",
    ]
)
values = st.sampled_from(["tpm", "x509", "symmetricKey", "eA=="]) | scalars
documents = st.recursive(values, lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=12)


@given(documents, st.booleans())
def test_no_document_breaks_the_parser(document: object, group: bool) -> None:
    with suppress(DpsError):
        parsed = parse_attestation(document, group=group)
        assert parse_attestation(shown(parsed, keys=True), group=group)["type"] == parsed["type"]
