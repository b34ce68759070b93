# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS between the sidecars of modules and the daemon: one certificate, which each sidecar is given and pins.

Key and certificate follow from the store's master key alone (Ed25519 signs the same text alike each time), so
they need no file of their own and are the same after a restart and on another node. The pinned certificate
has no end, and no clock can make it invalid; a store with another master key has another certificate.
"""

from __future__ import annotations

import os
import ssl
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Whom the certificate is for, wherever the daemon is reached.
SERVER_NAME = "edgeha-daemon"
_BEGIN = datetime(2000, 1, 1)
# RFC 5280, 4.1.2.5: no end.
_END = datetime(9999, 12, 31, 23, 59, 59)
_SERIAL_BYTES = 16


def derive(master: bytes) -> tuple[str, str]:
    """Return key and certificate, in PEM."""
    seed = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"edgeha transport 1").derive(master)
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(b"\x01" + public[: _SERIAL_BYTES - 1], "big"))
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        .sign(key, None)
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private.decode(), certificate.public_bytes(Encoding.PEM).decode()


def server_context(key: str, certificate: str) -> ssl.SSLContext:
    """TLS 1.3 for the daemon's port. The key never stands in a file: it passes through one in memory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    descriptor = os.memfd_create("edgeha-transport", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, f"{key}{certificate}".encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context
