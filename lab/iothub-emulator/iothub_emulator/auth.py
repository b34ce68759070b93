# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared access signatures: what a token says, whom it proves, and what that one may do.

Rules: "Control access to IoT Hub using shared access signatures" of the IoT Hub documentation. The
signature is checked over the resource exactly as received, because clients encode it differently.
"""

import hashlib
import hmac
from base64 import b64decode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Flag, auto
from urllib.parse import unquote

from iothub_emulator.errors import unauthorized

_SCHEME = "SharedAccessSignature "


class Right(Flag):
    """What a policy may allow."""

    REGISTRY_READ = auto()
    REGISTRY_WRITE = auto()
    SERVICE_CONNECT = auto()
    DEVICE_CONNECT = auto()
    PROVISIONING = auto()


POLICY_RIGHTS = {
    "iothubowner": Right.REGISTRY_READ | Right.REGISTRY_WRITE | Right.SERVICE_CONNECT | Right.DEVICE_CONNECT,
    "service": Right.SERVICE_CONNECT,
    "device": Right.DEVICE_CONNECT,
    "registryRead": Right.REGISTRY_READ,
    "registryReadWrite": Right.REGISTRY_READ | Right.REGISTRY_WRITE,
    # Of the provisioning service, and no policy of the hub.
    "provisioningserviceowner": Right.PROVISIONING,
}


@dataclass(frozen=True)
class SasToken:
    """A parsed token: `resource` as received (still encoded), `expiry` in seconds since the epoch,
    `policy` None for a token signed with a device's or module's key."""

    resource: str
    signature: bytes
    expiry: int
    policy: str | None

    def __repr__(self) -> str:
        # The signature is a secret until it expires.
        return f"SasToken(resource={self.resource!r}, expiry={self.expiry}, policy={self.policy!r})"

    @classmethod
    def parse(cls, text: str) -> "SasToken":
        """Read `SharedAccessSignature sr=..&sig=..&se=..[&skn=..]`, fields in any order.

        Raises UnauthorizedError.
        """
        if not text.startswith(_SCHEME):
            raise unauthorized("no shared access signature")
        fields: dict[str, str] = {}
        for part in text[len(_SCHEME) :].strip().split("&"):
            key, separator, value = part.partition("=")
            if not separator or key in fields:
                raise unauthorized("malformed shared access signature")
            fields[key] = value
        if not {"sr", "sig", "se"} <= fields.keys() <= {"sr", "sig", "se", "skn"}:
            raise unauthorized("shared access signature without sr, sig and se, or with unknown fields")
        try:
            signature = b64decode(unquote(fields["sig"]), validate=True)
            expiry = int(fields["se"])
        except ValueError:
            raise unauthorized("shared access signature with a bad sig or se") from None
        return cls(fields["sr"], signature, expiry, unquote(fields.get("skn", "")) or None)

    def signed_by(self, keys: Iterable[str | None]) -> bool:
        """Whether one of the base64 keys made the signature."""
        message = f"{self.resource}\n{self.expiry}".encode()
        matches = [
            hmac.compare_digest(hmac.digest(b64decode(key), message, hashlib.sha256), self.signature)
            for key in keys
            if key
        ]
        return any(matches)


class Authenticator:
    """Checks tokens against the hub's names, policies and clock."""

    def __init__(self, names: Sequence[str], policies: dict[str, str]) -> None:
        self._names = {name.lower() for name in names}
        self._policies = policies

    def is_own_name(self, host: str) -> bool:
        """Whether `host` or `host:port` is one of the hub's names."""
        host = host.lower()
        name, separator, port = host.rpartition(":")
        return host in self._names or bool(separator and port.isdecimal() and name.strip("[]") in self._names)

    def check_validity(self, token: SasToken, path: Sequence[str], now: float) -> None:
        """Raise UnauthorizedError when the token has expired or is not for `path`.

        A token is good for its resource and everything below it, segment by segment.
        """
        if token.expiry <= now:
            raise unauthorized(f"token expired {now - token.expiry:.0f} s ago by the hub's clock")
        host, *segments = unquote(token.resource).split("/")
        if not self.is_own_name(host):
            raise unauthorized(f"token is for the host {host!r}, which is not a name of this hub")
        wanted = list(path[: len(segments)])
        # Some clients encode the ids once more before they encode the whole resource.
        if segments != wanted and [unquote(segment) for segment in segments] != wanted:
            raise unauthorized(f"token is for {'/'.join(segments)!r}, not for {'/'.join(path)!r}")

    def check_policy(self, token: SasToken, right: Right) -> str:
        """Raise UnauthorizedError unless the token's policy exists, signed it and holds `right`.

        Returns the policy's name.
        """
        name = token.policy or ""
        key = self._policies.get(name)
        if key is None:
            raise unauthorized(f"unknown policy {name!r}")
        if not token.signed_by([key]):
            raise unauthorized(f"wrong key for policy {name!r}")
        if right not in POLICY_RIGHTS[name]:
            raise unauthorized(f"policy {name!r} lacks the right {right.name}")
        return name
