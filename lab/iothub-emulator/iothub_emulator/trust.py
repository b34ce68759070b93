# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of devices: authorities that the hub was given, and what a certificate proves.

An authority is a file DIR/device-ca/NAME.pem. It counts as verified, because who writes into the
state directory owns the hub. A running server sees a new one at once.
"""

import argparse
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from OpenSSL import crypto

from iothub_emulator.errors import unauthorized
from iothub_emulator.identity import Authentication
from iothub_emulator.state import State, StateError, write_private

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-._]{0,63}")


class DeviceAuthorities:
    """The authorities whose certificates prove devices, by name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def names(self) -> list[str]:
        return sorted(path.stem for path in self._directory.glob("*.pem"))

    def find(self, names: Iterable[str]) -> list[x509.Certificate]:
        """Those of `names` that are there; how a name is written does not matter to the service."""
        wanted = {name.lower() for name in names}
        return [
            x509.load_pem_x509_certificate(path.read_bytes())
            for path in sorted(self._directory.glob("*.pem"))
            if path.stem.lower() in wanted
        ]

    def all(self) -> list[x509.Certificate]:
        return self.find(self.names())

    def add(self, name: str, source: Path) -> x509.Certificate:
        """Keep the certificate in a PEM file. Raises StateError."""
        if not _NAME.fullmatch(name):
            raise StateError(f"--name {name!r} is not 1 to 64 letters, digits and -._")
        try:
            certificate = x509.load_pem_x509_certificate(source.read_bytes())
        except ValueError as error:
            raise StateError(f"{source} holds no PEM certificate ({error})") from None
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            constraints = None
        if constraints is None or not constraints.ca:
            raise StateError(f"{source} is not the certificate of an authority (basicConstraints CA:TRUE)")
        self._directory.mkdir(mode=0o700, exist_ok=True)
        write_private(self._path(name), certificate.public_bytes(serialization.Encoding.PEM))
        return certificate

    def remove(self, name: str) -> None:
        """Forget one. Raises StateError."""
        try:
            self._path(name).unlink()
        except FileNotFoundError:
            raise StateError(f"there is no authority {name!r}; known are {self.names()}") from None

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.pem"


def check_certificate(
    authentication: Authentication,
    chain: Sequence[x509.Certificate],
    name: str,
    authorities: DeviceAuthorities,
    now: float,
) -> None:
    """Raise UnauthorizedError unless the client's `chain` proves the identity that is called `name`."""
    own = chain[0]
    if authentication.type == "selfSigned":
        known = {authentication.primary_thumbprint, authentication.secondary_thumbprint}
        if not thumbprints(own) & {thumbprint.upper() for thumbprint in known if thumbprint}:
            raise unauthorized("the certificate has another thumbprint than the identity")
        check_dates(own, now)
    elif authentication.type == "certificateAuthority":
        check_common_name(own, name)
        check_chain(chain, authorities.all(), now)
    else:
        raise unauthorized(f"{authentication.type} authentication cannot connect with a certificate")


def thumbprints(certificate: x509.Certificate) -> set[str]:
    """SHA-1 and SHA-256 of the DER, in upper case."""
    return {certificate.fingerprint(kind).hex().upper() for kind in (hashes.SHA1(), hashes.SHA256())}  # noqa: S303 - the hub's contract


def check_dates(certificate: x509.Certificate, now: float) -> None:
    moment = datetime.fromtimestamp(now, UTC)
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        raise unauthorized(
            f"the certificate is good from {certificate.not_valid_before_utc} "
            f"to {certificate.not_valid_after_utc}, not at {moment}"
        )


def check_common_name(certificate: x509.Certificate, name: str) -> None:
    found = [attribute.value for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if found != [name]:
        raise unauthorized(f"the certificate is for {found}, not for {name!r}")


def check_chain(chain: Sequence[x509.Certificate], trusted: Iterable[x509.Certificate], now: float) -> None:
    """Raise UnauthorizedError unless `chain` leads from its first to a trusted certificate."""
    store = crypto.X509Store()
    for authority in trusted:
        store.add_cert(crypto.X509.from_cryptography(authority))
    # An authority that is itself issued by another is good enough.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    store.set_time(datetime.fromtimestamp(now, UTC))
    own, *above = (crypto.X509.from_cryptography(certificate) for certificate in chain)
    try:
        crypto.X509StoreContext(store, own, above).verify_certificate()
    except crypto.X509StoreContextError as error:
        raise unauthorized(f"the certificate leads to no known authority: {error}") from None


def run_command(state: State, options: argparse.Namespace) -> None:
    """The command `ca`. Raises StateError and OSError."""
    if not state.hub_file.exists():
        raise StateError(
            f"{state.directory} is not set up; run init --state {state.directory} --name NAME first"
        )
    authorities = DeviceAuthorities(state.device_ca)
    if options.action == "list":
        print("\n".join(authorities.names()))
        return
    if not options.name or (options.action == "add") != bool(options.file):
        raise StateError("ca add takes --name NAME and a file, ca remove takes --name NAME")
    if options.action == "add":
        certificate = authorities.add(options.name, options.file)
        print(f"{options.name}: {certificate.subject.rfc4514_string()}")
    else:
        authorities.remove(options.name)
