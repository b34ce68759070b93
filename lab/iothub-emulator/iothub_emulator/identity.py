# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An identity, its ways to prove itself, and its row in the store."""

import re
import secrets
import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from iothub_emulator.clock import identity_time
from iothub_emulator.errors import argument_invalid, precondition_failed

_THUMBPRINT = re.compile(r"(?:[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})")


@dataclass(frozen=True)
class Authentication:
    """How an identity proves itself; `type` is sas, selfSigned, certificateAuthority or none."""

    type: str
    primary_key: str | None = None
    secondary_key: str | None = None
    primary_thumbprint: str | None = None
    secondary_thumbprint: str | None = None

    def __repr__(self) -> str:
        return f"Authentication(type={self.type!r})"

    def document(self) -> dict[str, Any]:
        return {
            "symmetricKey": {"primaryKey": self.primary_key, "secondaryKey": self.secondary_key},
            "x509Thumbprint": {
                "primaryThumbprint": self.primary_thumbprint,
                "secondaryThumbprint": self.secondary_thumbprint,
            },
            "type": self.type,
        }


WAITING_MESSAGES_COLUMN = """(
    SELECT count(*) FROM device_messages
    WHERE device_messages.device_id = identities.device_id AND identities.module_id = ''
) AS waiting_messages"""
IDENTITY_ROWS = f"SELECT *, {WAITING_MESSAGES_COLUMN} FROM identities"  # noqa: S608 - constants only
"""Rows of which `Identity.from_row` makes identities; a condition can follow."""


@dataclass
class Identity:
    """A device, or a module when `module_id` is not ''. Times in seconds since the epoch."""

    device_id: str
    module_id: str
    generation_id: str
    etag: str
    status: str
    status_reason: str | None
    status_updated: float
    connected: bool
    connection_updated: float
    last_activity: float
    authentication: Authentication
    edge: bool
    device_scope: str | None
    parent_scope: str | None
    managed_by: str | None
    waiting_messages: int = 0
    """Found when the identity is read, not written with it."""

    @property
    def connection_state(self) -> str:
        return "Connected" if self.connected else "Disconnected"

    def scopes(self) -> dict[str, Any]:
        """`deviceScope` and `parentScopes` as shown: left out when there is nothing to show."""
        shown: dict[str, Any] = {}
        if self.device_scope:
            shown["deviceScope"] = self.device_scope
        if self.parent_scope:
            shown["parentScopes"] = [self.parent_scope]
        return shown

    def document(self) -> dict[str, Any]:
        """The identity as the registry shows it."""
        common: dict[str, Any] = {
            "deviceId": self.device_id,
            "generationId": self.generation_id,
            "etag": self.etag,
            "connectionState": self.connection_state,
            "connectionStateUpdatedTime": identity_time(self.connection_updated),
            "lastActivityTime": identity_time(self.last_activity),
            "cloudToDeviceMessageCount": self.waiting_messages,
            "authentication": self.authentication.document(),
        }
        if self.module_id:
            return {"moduleId": self.module_id, "managedBy": self.managed_by} | common
        return (
            common
            | {
                "status": self.status,
                "statusReason": self.status_reason,
                "statusUpdatedTime": identity_time(self.status_updated),
                "capabilities": {"iotEdge": self.edge},
            }
            | self.scopes()
        )

    def save(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO identities VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                self.device_id,
                self.module_id,
                self.generation_id,
                self.etag,
                self.status,
                self.status_reason,
                self.status_updated,
                self.connected,
                self.connection_updated,
                self.last_activity,
                self.authentication.type,
                self.authentication.primary_key,
                self.authentication.secondary_key,
                self.authentication.primary_thumbprint,
                self.authentication.secondary_thumbprint,
                self.edge,
                self.device_scope,
                self.parent_scope,
                self.managed_by,
            ),
        )

    @classmethod
    def from_row(cls, row: sqlite3.Row) -> "Identity":
        values = dict(row)
        values["authentication"] = Authentication(
            values.pop("auth_type"),
            *(
                values.pop(column)
                for column in ("primary_key", "secondary_key", "primary_thumbprint", "secondary_thumbprint")
            ),
        )
        values["connected"] = bool(values["connected"])
        values["edge"] = bool(values["edge"])
        return cls(**{field.name: values[field.name] for field in fields(cls)})


def find(connection: sqlite3.Connection, device_id: str, module_id: str = "") -> Identity | None:
    row = connection.execute(
        f"{IDENTITY_ROWS} WHERE device_id = ? AND module_id = ?", (device_id, module_id)
    ).fetchone()
    return None if row is None else Identity.from_row(row)


def check_if_match(if_match: str | None, etag: str) -> None:
    """Raise HubError 412 unless If-Match is absent, `*` or the etag; each may stand in quotes."""
    if if_match is None:
        return
    wanted = if_match.strip()
    if len(wanted) >= 2 and wanted[0] == wanted[-1] == '"':
        wanted = wanted[1:-1]
    if wanted not in ("*", etag):
        raise precondition_failed("Precondition failed: the etag in If-Match is not the current one.")


def parse_authentication(value: object, *, module: bool) -> Authentication:
    """Read the `authentication` member. Left out, or sas with empty keys, means: make new keys."""
    if value is None:
        return Authentication("sas", new_key(), new_key())
    if not isinstance(value, dict):
        raise argument_invalid("authentication is not a JSON object")
    keys = _member_pair(value, "symmetricKey", "primaryKey", "secondaryKey")
    thumbprints = _member_pair(value, "x509Thumbprint", "primaryThumbprint", "secondaryThumbprint")
    kind = value.get("type") or ("selfSigned" if any(thumbprints) and not any(keys) else "sas")
    if kind == "sas":
        if any(thumbprints):
            raise argument_invalid("authentication of type sas takes no thumbprints")
        if not any(keys):
            return Authentication("sas", new_key(), new_key())
        if not all(keys):
            raise argument_invalid("give both the primary and the secondary key, or neither")
        for key in keys:
            _check_key(key)
        return Authentication("sas", *keys)
    if any(keys):
        raise argument_invalid(f"authentication of type {kind} takes no symmetric keys")
    if kind == "selfSigned":
        if not any(thumbprints):
            raise argument_invalid("authentication of type selfSigned needs a thumbprint")
        for thumbprint in filter(None, thumbprints):
            if not _THUMBPRINT.fullmatch(thumbprint):
                raise argument_invalid("a thumbprint is 40 or 64 hexadecimal digits without separators")
        return Authentication("selfSigned", None, None, *thumbprints)
    if any(thumbprints):
        raise argument_invalid(f"authentication of type {kind} takes no thumbprints")
    if kind == "certificateAuthority" or (kind == "none" and module):
        return Authentication(kind)
    raise argument_invalid(f"authentication type {kind!r} is not valid here")


def _member_pair(value: Mapping[str, Any], member: str, first: str, second: str) -> list[str | None]:
    pair = value.get(member)
    if pair is None:
        return [None, None]
    if not isinstance(pair, dict):
        raise argument_invalid(f"authentication.{member} is not a JSON object")
    found: list[str | None] = []
    for name in (first, second):
        text = pair.get(name)
        if text is not None and not isinstance(text, str):
            raise argument_invalid(f"authentication.{member}.{name} is not a string")
        # Some clients send "" and mean: not given.
        found.append(text or None)
    return found


def _check_key(key: str | None) -> None:
    try:
        length = len(b64decode(key or "", validate=True))
    except ValueError:
        length = 0
    if not 16 <= length <= 64:
        # The key itself stays out of the answer.
        raise argument_invalid("a symmetric key is the base64 of 16 to 64 bytes")


def new_key() -> str:
    return b64encode(secrets.token_bytes(32)).decode()
