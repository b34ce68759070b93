# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shared access signatures and connection strings of Azure IoT Hub.

Source of the rules: "Control access to IoT Hub with shared access signatures" (Microsoft Learn).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from urllib.parse import quote

# A token is minted again when less than this is left, so that one never runs out during a request.
RENEW_BEFORE_SECONDS = 300
DEFAULT_TTL_SECONDS = 3600


class CredentialError(ValueError):
    """A key or a connection string that cannot be used; the message never holds the value."""


def decode_key(key: str) -> bytes:
    """Return the bytes of a base64 shared access key.

    Raises CredentialError when the text is not base64 or holds fewer than 16 or more than 64 bytes
    (the hub's own limits).
    """
    try:
        raw = base64.b64decode(key.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise CredentialError("the shared access key is not base64") from error
    if not 16 <= len(raw) <= 64:
        raise CredentialError(f"the shared access key holds {len(raw)} bytes, a hub's key holds 16 to 64")
    return raw


def sign(resource: str, key: str, expiry: int, policy: str | None = None) -> str:
    """Return a SharedAccessSignature token.

    resource: what is signed, not yet URL encoded (for a service: the host name, with its port if any).
    key:      base64 key.  expiry: Unix time in seconds.  policy: name of the hub's policy; None for devices.
    """
    encoded = quote(resource, safe="")
    digest = hmac.new(decode_key(key), f"{encoded}\n{expiry}".encode(), hashlib.sha256).digest()
    signature = quote(base64.b64encode(digest).decode(), safe="")
    token = f"SharedAccessSignature sr={encoded}&sig={signature}&se={expiry}"
    return f"{token}&skn={quote(policy, safe='')}" if policy else token


@dataclass(frozen=True)
class SasPolicy:
    """A shared access policy of a hub: its name and one of its keys."""

    name: str
    key: str = field(repr=False)

    def authorization(self, hostname: str, now: float) -> tuple[str, float]:
        """Return a token and when it ends; see rest_client.Credential. hostname and now as in `token`."""
        return self.token(hostname, now), now + DEFAULT_TTL_SECONDS

    def token(self, hostname: str, now: float, ttl: int = DEFAULT_TTL_SECONDS) -> str:
        """Return a token for the hub ``hostname``; now is Unix time, ttl is seconds."""
        return sign(hostname, self.key, int(now) + ttl, self.name)


def parse_connection_string(text: str) -> dict[str, str]:
    """Split ``HostName=...;SharedAccessKeyName=...;SharedAccessKey=...`` into its parts.

    Raises CredentialError for a part without ``=``, a repeated part, or no HostName.
    """
    parts: dict[str, str] = {}
    for position, part in enumerate(filter(None, text.strip().split(";")), start=1):
        name, separator, value = part.partition("=")
        if not separator or not name.strip():
            raise CredentialError(f"part {position} of the connection string is not of the form Name=value")
        if name.strip() in parts:
            raise CredentialError(f"the connection string has {name.strip()} twice")
        parts[name.strip()] = value.strip()
    if not parts.get("HostName"):
        raise CredentialError("the connection string has no HostName")
    return parts


def service_connection(text: str) -> tuple[str, SasPolicy]:
    """Return (host name, policy) of a service connection string.

    Raises CredentialError when a part is missing.
    """
    parts = parse_connection_string(text)
    missing = [name for name in ("SharedAccessKeyName", "SharedAccessKey") if not parts.get(name)]
    if missing:
        raise CredentialError(f"the connection string lacks {' and '.join(missing)}")
    return parts["HostName"], SasPolicy(parts["SharedAccessKeyName"], parts["SharedAccessKey"])
