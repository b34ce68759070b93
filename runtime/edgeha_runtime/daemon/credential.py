# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the device proves itself to the cloud: by a symmetric key, or by a certificate.

Files are looked at for each request, so a rotated Secret works without a restart. Rules: "Control access to
IoT Hub by using shared access signatures", "Authenticate identities with X.509 certificates".
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ssl
import urllib.parse
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from .hub_errors import HubError
from .settings import Settings

TOKEN_TTL = 600


def quoted(text: str) -> str:
    """`text` as one segment of a path."""
    return urllib.parse.quote(text, safe="")


def sas_token(resource: str, key: bytes, expiry: int) -> str:
    """Shared access signature for `resource` (host and path, not encoded), valid until `expiry` (Unix s)."""
    encoded = quoted(resource)
    digest = hmac.digest(key, f"{encoded}\n{expiry}".encode(), "sha256")
    signature = quoted(base64.b64encode(digest).decode())
    return f"SharedAccessSignature sr={encoded}&sig={signature}&se={expiry}"


class Credential:
    """The device's credential. `tls`: settings of the connections that it is used on.

    Raises HubError, which says what to put into the Secret.
    """

    def __init__(self, settings: Settings, tls: ssl.SSLContext) -> None:
        self._settings = settings
        self._loaded: tuple[bytes, bytes] | None = None
        self.tls = tls

    @property
    def is_certificate(self) -> bool:
        """Whether it is a certificate, which needs no token."""
        return self._settings.device_certificate_file is not None

    @property
    def kind(self) -> str:
        """What systeminfo calls it."""
        if self._settings.dps is None:
            return "manual.x509" if self.is_certificate else "manual.sas"
        return "dps.x509" if self.is_certificate else "dps.symmetric_key"

    @property
    def expires(self) -> datetime | None:
        """When the certificate ends; None where there is none, or none that can be read."""
        own = self._own()
        return own.not_valid_after_utc if own else None

    def not_ready(self) -> list[str]:
        """That the certificate has ended, where it has."""
        expires = self.expires
        if expires is None or expires > datetime.now(UTC):
            return []
        return [f"the device's certificate ended at {expires:%Y-%m-%dT%H:%M:%SZ}: renew it in the Secret"]

    def headers(self, resource: str, now: float, suffix: str = "") -> dict[str, str]:
        """The headers that a request for `resource` (host and path) takes now (Unix s)."""
        if self._settings.device_certificate_file is not None:
            self._load(self._settings.device_certificate_file, self._settings.device_private_key_file)
            return {}
        token = sas_token(resource, self._key(), int(now) + TOKEN_TTL)
        return {"Authorization": f"{token}{suffix}"}

    def doubts(self) -> str:
        """What may be wrong with it when the hub refuses the device."""
        path = self._settings.device_certificate_file
        if path is None:
            return "wrong device key in the Secret"
        own = self._own()
        if own is None:
            return f"no certificate in {path}"
        thumbprint = own.fingerprint(hashes.SHA256()).hex().upper()
        until = own.not_valid_after_utc.strftime("%Y-%m-%d")
        return f"another certificate than the hub knows (SHA-256 {thumbprint}, good until {until})"

    def _own(self) -> x509.Certificate | None:
        path = self._settings.device_certificate_file
        try:
            return x509.load_pem_x509_certificate(path.read_bytes()) if path else None
        except (OSError, ValueError):
            return None

    def _key(self) -> bytes:
        """The device's own key; that of an enrollment group is only what it is derived from."""
        key = _read_key(self._settings.device_key_file)
        if self._settings.dps is None or not self._settings.dps.group:
            return key
        return hmac.digest(key, self._settings.dps.registration_id.encode(), "sha256")

    def _load(self, certificate: Path, key: Path | None) -> None:
        """Take a certificate that is new for connections from now on."""
        way_out = "Put the device's certificate (with those above it) and its key into the Secret"
        try:
            found = certificate.read_bytes(), (key or certificate).read_bytes()
            if found == self._loaded:
                return
            # One that cannot be taken leaves none in its place.
            self._loaded = None
            self.tls.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
            raise HubError(f"device certificate {certificate}: {reason}. {way_out}") from error
        self._loaded = found


def _read_key(path: Path | None) -> bytes:
    """The symmetric key in a file."""
    if path is None:
        raise HubError("no device key: EDGEHA_DEVICE_KEY_FILE is not set")
    try:
        text = path.read_text(encoding="ascii").strip()
        key = base64.b64decode(text, validate=True)
    except (OSError, UnicodeDecodeError, binascii.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "not base64"
        raise HubError(
            f"device key {path}: {reason}. Put the device's symmetric key into the Secret"
        ) from error
    if not 16 <= len(key) <= 64:
        raise HubError(
            f"device key {path} has {len(key)} bytes: IoT Hub keys have 16 to 64. Check the Secret"
        )
    return key
