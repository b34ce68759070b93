# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub's certificate authority and its server certificate."""

import ipaddress
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from iothub_emulator.state import State, StateError, write_private

_CA_LIFE = timedelta(days=3650)
_SERVER_LIFE = timedelta(days=825)
_RENEW_BEFORE = timedelta(days=30)
# Clients in the lab may have clocks that are behind.
_BACKDATE = timedelta(days=1)


def ensure_certificates(state: State, names: list[str]) -> list[str]:
    """Make what is missing; returns the names of the files that were written.

    The authority is made once and kept, because clients hold it as their trust. The server
    certificate is issued again when the hub's names changed or its end comes near.
    """
    written: list[str] = []
    ca_exists = state.ca_certificate.exists(), state.ca_key.exists()
    if not any(ca_exists):
        _create_authority(state)
        written += [state.ca_key.name, state.ca_certificate.name]
    elif not all(ca_exists):
        present, missing = state.ca_certificate, state.ca_key
        if not ca_exists[0]:
            present, missing = missing, present
        raise StateError(
            f"{missing} is missing but {present} is there; restore it, or remove both for a new one"
        )
    if not _server_certificate_fits(state, names):
        _issue_server_certificate(state, names)
        written += [state.server_key.name, state.server_certificate.name]
    return written


def _create_authority(state: State) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "IoT Hub emulator CA")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    # The key first: a key without certificate is reported, a certificate without key could not sign.
    write_private(state.ca_key, _key_pem(key))
    write_private(state.ca_certificate, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _issue_server_certificate(state: State, names: list[str]) -> None:
    ca = x509.load_pem_x509_certificate(state.ca_certificate.read_bytes())
    ca_key = serialization.load_pem_private_key(state.ca_key.read_bytes(), password=None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise StateError(f"{state.ca_key} holds no elliptic curve key; restore the file this tool made")
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    # A common name longer than 64 characters is not allowed; clients read the alternative names.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(min(now + _SERVER_LIFE, ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(authority, critical=False)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    # A crash between the two writes leaves a pair that does not fit; the next init sees that.
    write_private(state.server_key, _key_pem(key))
    write_private(state.server_certificate, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _server_certificate_fits(state: State, names: list[str]) -> bool:
    if not (state.server_certificate.exists() and state.server_key.exists()):
        return False
    try:
        certificate = x509.load_pem_x509_certificate(state.server_certificate.read_bytes())
        key = serialization.load_pem_private_key(state.server_key.read_bytes(), password=None)
        present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    return (
        set(present) == set(_general_names(names))
        and certificate.public_key() == key.public_key()
        and certificate.not_valid_after_utc > datetime.now(UTC) + _RENEW_BEFORE
    )


def _general_names(names: list[str]) -> list[x509.GeneralName]:
    general: list[x509.GeneralName] = []
    for name in names:
        try:
            general.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            general.append(x509.DNSName(name))
    return general


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
