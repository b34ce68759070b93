# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge CA of a gateway: the certificates of its modules come from here.

Either the operator's own CA, read from files, or the quickstart CA, which is made when it is first needed and
stands on the claim. The quickstart CA is renewed with the same key and name, so what it signed before stays
valid for whoever trusts the new certificate, and the other way round as long as the old one lives.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .logs import fields
from .threads import to_the_end

# As stock daemons do it: leaves live for 90 days at the most.
MAX_LIFETIME = timedelta(days=90)
# Modules read the trust bundle when they start, and nothing restarts them for a new certificate of the CA.
QUICKSTART_LIFETIME = timedelta(days=3650)
# The quickstart CA gets a new certificate after this part of its life.
RENEW_AFTER = 0.8
LOOK_SECONDS = 60.0
# Clocks of devices run a little behind.
_BACKDATED = timedelta(hours=1)
_RSA_BITS = 2048
_MAX_COMMON_NAME = 64  # ub-common-name of RFC 5280
_DNS_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_NOT_DNS = re.compile(r"[^a-z0-9-]+")

_log = logging.getLogger(__name__)
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)
CaKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class AuthorityError(Exception):
    """No certificate can be issued now; the message says why and what to do."""


class AuthorityFileError(Exception):
    """What was read is no CA that can sign; the message says why, without the name of a file."""


class NameRefusedError(ValueError):
    """A common name that no server certificate can carry."""


@dataclass(frozen=True)
class Authority:
    """A CA that can sign: its key, and its certificate followed by those above it."""

    key: CaKey
    chain: tuple[x509.Certificate, ...]

    @property
    def certificate(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def expires(self) -> datetime:
        """Until when all of the chain is valid: clients ask that of each certificate in it."""
        return min(certificate.not_valid_after_utc for certificate in self.chain)

    def pem(self) -> str:
        """The chain in PEM."""
        return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in self.chain)

    def key_pem(self) -> str:
        """The private key in PEM (PKCS #8)."""
        return _key_pem(self.key)


@dataclass(frozen=True)
class Issued:
    """A new certificate. `chain` and `key` are PEM, the chain begins with the certificate itself."""

    chain: str
    key: str
    expiration: datetime


class AuthorityStore(Protocol):
    """Where the quickstart CA stands: key and chain in PEM. Writing raises OSError."""

    @property
    def authority(self) -> tuple[str, str] | None: ...

    def keep_authority(self, key: str, chain: str) -> None: ...


def parse(key_pem: bytes, chain_pem: bytes) -> Authority:
    """Read a CA.

    Raises AuthorityFileError, in words for an operator, for what is no PEM, for a certificate that may not
    sign certificates, and for a key that is another certificate's.
    """
    try:
        chain = tuple(x509.load_pem_x509_certificates(chain_pem))
    except ValueError:
        raise AuthorityFileError("the certificate is not PEM") from None
    try:
        key = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError):
        raise AuthorityFileError("the key is not PEM without a password") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise AuthorityFileError("the key is neither RSA nor of an elliptic curve")
    if key.public_key() != chain[0].public_key():
        raise AuthorityFileError("the key is not that of the first certificate")
    constraints = _extension(chain[0], x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise AuthorityFileError("the first certificate is not that of a CA (basicConstraints)")
    usage = _extension(chain[0], x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise AuthorityFileError("the first certificate may not sign certificates (keyUsage)")
    return Authority(key, chain)


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def quickstart(device_id: str, now: datetime, key: CaKey | None = None) -> Authority:
    """Make the quickstart CA of a device, or a new certificate for its `key`."""
    key = key or rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    # A device id may be longer than a common name; what was cut off is told apart by its digest.
    text = f"edgeha quickstart CA {device_id}"
    if len(text) > _MAX_COMMON_NAME:
        text = f"{text[:55]}-{hashlib.sha256(device_id.encode()).hexdigest()[:8]}"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + QUICKSTART_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Authority(key, (certificate,))


def server_names(module: str, common_name: str) -> list[x509.GeneralName]:
    """Return whom a server certificate speaks for: the common name and the module.

    Raises NameRefusedError when the common name is neither a DNS name nor an address.
    """
    names: list[x509.GeneralName] = []
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(common_name)))
    except ValueError:
        if not _DNS_NAME.fullmatch(common_name) or ".." in common_name:
            raise NameRefusedError("commonName is neither a DNS name nor an IP address") from None
        names.append(x509.DNSName(common_name))
    own = _NOT_DNS.sub("", module.lower()).strip("-")[:63]
    if own and own != common_name.lower():
        names.append(x509.DNSName(own))
    return names


def _issuer_key(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The name of a CA's key, as the CA has it: clients compare the two, and it is made in many ways."""
    try:
        own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        key: Any = ca.public_key()  # RSA or EC, see parse
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def issue(
    authority: Authority,
    *,
    common_name: str,
    names: list[x509.GeneralName],
    usage: x509.ObjectIdentifier,
    now: datetime,
    until: datetime | None,
) -> Issued:
    """Issue a certificate with a key of its own, until `until`, MAX_LIFETIME or the end of the CA's chain.

    Raises AuthorityError when the CA, or one above it, is not valid now.
    """
    ca = authority.certificate
    _check_time(authority, now)
    end = min(filter(None, (until, now + MAX_LIFETIME, authority.expires)))
    key = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    fits = len(common_name) <= _MAX_COMMON_NAME
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if fits else []
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - _BACKDATED, ca.not_valid_before_utc))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        # Without a subject the names are all there is (RFC 5280, 4.2.1.6).
        .add_extension(x509.SubjectAlternativeName(names), critical=not fits)
        .add_extension(_issuer_key(ca), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    chain = certificate.public_bytes(Encoding.PEM).decode() + authority.pem()
    return Issued(chain, _key_pem(key), certificate.not_valid_after_utc)


class EdgeCa:
    """Issues certificates for the modules of one device.

    `certificate_file`, `key_file`: the operator's own CA. They are read for each certificate, so that a
    replaced Secret counts at once; without them the quickstart CA is used.
    """

    def __init__(
        self,
        store: AuthorityStore,
        *,
        device_id: str,
        iothub_hostname: str,
        certificate_file: Path | None = None,
        key_file: Path | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._device_id = device_id
        self._iothub_hostname = iothub_hostname
        self._files = (key_file, certificate_file) if key_file and certificate_file else None
        self._clock = clock
        self._making = asyncio.Lock()
        self._trouble = ""
        # Read from the store once: each sidecar that starts asks for it every second.
        self._made: Authority | None = None
        self.expires: datetime | None = None

    async def server(self, module: str, common_name: str, until: datetime | None) -> Issued:
        """A certificate with which a module serves TLS. Raises NameRefusedError, AuthorityError."""
        return await self._issue(
            common_name, server_names(module, common_name), ExtendedKeyUsageOID.SERVER_AUTH, until
        )

    async def identity(self, module: str, until: datetime | None) -> Issued:
        """A certificate that says of its owner which module it is. Raises AuthorityError."""
        uri = f"azureiot://{self._iothub_hostname}/devices/{self._device_id}/modules/{module}"
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri)]
        return await self._issue(module, names, ExtendedKeyUsageOID.CLIENT_AUTH, until)

    async def roots(self) -> str:
        """What clients need besides the trust bundle, in PEM: the quickstart CA. Raises AuthorityError."""
        return "" if self._files else (await self._authority()).pem()

    def not_ready(self) -> list[str]:
        """Why the CA cannot be used, as it was last looked at; empty when it can."""
        return [self._trouble] if self._trouble else []

    async def follow(self) -> None:
        """Look at the CA now and then, so that its end is not first told by a module. Never returns.

        A quickstart CA is renewed so too, but not made before somebody asks for it.
        """
        while True:
            trouble = ""
            try:
                if self._files is not None or self._store.authority is not None:
                    _check_time(await self._authority(), self._clock())
            except AuthorityError as error:
                trouble = str(error)
            except Exception:
                # What a library makes of an odd certificate ends no daemon that signs for running modules.
                _log.exception("the edge CA cannot be used")
                trouble = "the edge CA cannot be used: see the daemon's log"
            if trouble and trouble != self._trouble:
                _log.error(trouble)
            self._trouble = trouble
            await asyncio.sleep(LOOK_SECONDS)

    async def _issue(
        self,
        common_name: str,
        names: list[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        until: datetime | None,
    ) -> Issued:
        authority = await self._authority()
        # Making a key takes a tenth of a second of a processor, in which others are signed for.
        return await asyncio.to_thread(
            issue,
            authority,
            common_name=common_name,
            names=names,
            usage=usage,
            now=self._clock(),
            until=until,
        )

    async def _authority(self) -> Authority:
        found = await self._found()
        self.expires = found.expires
        return found

    async def _found(self) -> Authority:
        if self._files is not None:
            key_file, certificate_file = self._files
            try:
                return await asyncio.to_thread(_read, key_file, certificate_file)
            except OSError as error:
                raise AuthorityError(f"{error.filename} cannot be read: {error.strerror}") from error
            except AuthorityFileError as error:
                raise AuthorityError(f"{certificate_file}: {error}. Correct the edge CA") from error
        async with self._making:
            return await to_the_end(self._quickstart)

    def _quickstart(self) -> Authority:
        now, found, valid = self._clock(), self._made, False
        kept = self._store.authority
        if found is None and kept is not None:
            found = parse(kept[0].encode(), kept[1].encode())
        if found is not None:
            begin, end = found.certificate.not_valid_before_utc, found.certificate.not_valid_after_utc
            # One that begins later was made while the clock was ahead.
            valid = begin <= now < end
            if begin <= now < begin + (end - begin) * RENEW_AFTER:
                self._made = found
                return found
        made = quickstart(self._device_id, now, found.key if found else None)
        try:
            self._store.keep_authority(made.key_pem(), made.pem())
        except OSError as error:
            why = f"the quickstart CA cannot be stored: {error.strerror}. Free the volume or make it writable"
            if found is None or not valid:
                raise AuthorityError(why) from error
            _log.warning("the quickstart CA is not renewed yet", extra=fields(reason=why))
            return found
        self._made = made
        _log.warning(
            "renewed the quickstart CA" if found else "made a quickstart CA, which is for trying out",
            extra=fields(until=made.certificate.not_valid_after_utc.isoformat()),
        )
        return made


def _check_time(authority: Authority, now: datetime) -> None:
    """Raise AuthorityError when a CA, or one that stands above it in its file, is not valid now."""
    for ca in authority.chain:
        what = "the edge CA" if ca is authority.certificate else "the CA above the edge CA,"
        name, begin, end = ca.subject.rfc4514_string(), ca.not_valid_before_utc, ca.not_valid_after_utc
        if end <= now:
            raise AuthorityError(
                f"{what} {name} expired at {end:%Y-%m-%d %H:%M} UTC. Replace it, or correct this node's clock"
            )
        if begin > now:
            raise AuthorityError(
                f"{what} {name} is valid from {begin:%Y-%m-%d %H:%M} UTC on. Correct this node's clock, or "
                "replace the CA"
            )


def _read(key_file: Path, certificate_file: Path) -> Authority:
    return parse(key_file.read_bytes(), certificate_file.read_bytes())


def _key_pem(key: CaKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
