# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Microsoft Entra as far as a service needs it: one tenant, one application, one managed identity.

Tokens are JSON Web Tokens signed with a key of the state. Who holds one may do all that its audience
does; roles are not modelled.
"""

import json
import secrets
import uuid
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from iothub_emulator.errors import unauthorized
from iothub_emulator.state import State, StateError, write_private

HUB_AUDIENCE = "https://iothubs.azure.net"
DPS_AUDIENCE = "https://azure-devices-provisioning.net"
TOKEN_SECONDS = 3600
_ALGORITHM = "RS256"


@dataclass(frozen=True)
class Credentials:
    """What DIR/azure.json holds."""

    # The names are those of the file's members, so that it is read and written without a table of names.
    tenantId: str  # noqa: N815
    subscriptionId: str  # noqa: N815
    clientId: str  # noqa: N815
    clientSecret: str  # noqa: N815
    identityClientId: str  # noqa: N815
    identityHeader: str  # noqa: N815
    signingKey: str  # noqa: N815

    def __repr__(self) -> str:
        return f"Credentials(tenantId={self.tenantId!r}, clientId={self.clientId!r})"


class Entra:
    """Issues and checks tokens."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        key = serialization.load_pem_private_key(credentials.signingKey.encode(), password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise StateError("azure.json: 'signingKey' is no RSA key; remove the file for new credentials")
        self._key = key
        self._public = key.public_key()
        self.key_id = uuid.uuid5(uuid.UUID(credentials.tenantId), "signing key").hex

    @classmethod
    def load(cls, state: State) -> "Entra":
        """Read the credentials, made once. Raises StateError."""
        if not state.azure_file.exists():
            key = rsa.generate_private_key(65537, 2048)
            made = Credentials(
                tenantId=str(uuid.uuid4()),
                subscriptionId=str(uuid.uuid4()),
                clientId=str(uuid.uuid4()),
                clientSecret=secrets.token_urlsafe(30),
                identityClientId=str(uuid.uuid4()),
                identityHeader=secrets.token_hex(16),
                signingKey=key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                ).decode(),
            )
            write_private(state.azure_file, json.dumps(asdict(made), indent=2).encode() + b"\n")
        try:
            return cls(Credentials(**json.loads(state.azure_file.read_bytes())))
        except (ValueError, TypeError) as error:
            # What the file holds stays out of the text.
            raise StateError(
                f"{state.azure_file} is torn ({type(error).__name__}); restore the file, "
                "or remove it for new credentials"
            ) from None

    def issue(self, audience: str, client_id: str, issuer: str, now: float) -> str:
        """A token for `audience` in the name of `client_id`."""
        claims = {
            "aud": audience,
            "iss": issuer,
            "iat": int(now),
            "nbf": int(now),
            "exp": int(now) + TOKEN_SECONDS,
            "appid": client_id,
            "idtyp": "app",
            "oid": str(uuid.uuid5(uuid.UUID(client_id), "object")),
            "sub": str(uuid.uuid5(uuid.UUID(client_id), "object")),
            "tid": self.credentials.tenantId,
            "ver": "1.0",
        }
        return jwt.encode(claims, self._key, _ALGORITHM, headers={"kid": self.key_id})

    def check(self, token: str, audiences: Collection[str], now: float) -> str:
        """Return who holds the token. Raises UnauthorizedError."""
        try:
            # Time is the hub's, so it is looked at below.
            claims = jwt.decode(
                token,
                self._public,
                [_ALGORITHM],
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False},
            )
        except jwt.InvalidTokenError as error:
            raise unauthorized(f"no token of this tenant: {error}") from None
        audience = str(claims.get("aud", "")).rstrip("/")
        if audience not in audiences:
            raise unauthorized(f"token is for {audience!r}, not for {' or '.join(sorted(audiences))}")
        if not claims["nbf"] <= now < claims["exp"]:
            raise unauthorized(f"token is good from {claims['nbf']} to {claims['exp']}, not at {now:.0f}")
        return f"client {claims['appid']}"

    def key_set(self) -> dict[str, Any]:
        """The public key as clients look it up."""
        document = jwt.algorithms.RSAAlgorithm.to_jwk(self._public, as_dict=True)
        return {"keys": [document | {"kid": self.key_id, "use": "sig", "alg": _ALGORITHM}]}
