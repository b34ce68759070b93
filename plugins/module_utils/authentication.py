# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a device or module proves who it is: the option ``authentication``, and the hub's form of it. Pure.

The hub's rules that shape this file: keys are base64 of 16 to 64 bytes, both or none (none: the hub makes
them); thumbprints are 40 or 64 hexadecimal digits; leaving ``authentication`` out of a PUT makes new keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_auth

# Name in the option: name at the hub.
TYPES = {"sas": "sas", "self_signed": "selfSigned", "certificate_authority": "certificateAuthority"}
_NAMES = {hub: option for option, hub in TYPES.items()}
_KEYS = ("primary_key", "secondary_key")
_THUMBPRINTS = ("primary_thumbprint", "secondary_thumbprint")
_THUMBPRINT = re.compile(r"(?:[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})")

# An option inside of a list's items cannot come out of a doc fragment: modules repeat this text (a test holds
# them to it).
DOCUMENTATION = r"""
description:
  - How it proves who it is. Left out, a new one gets V(sas) keys and one that is there keeps what
    it has.
type: dict
suboptions:
  type:
    description:
      - V(sas) is a pair of keys, V(self_signed) a certificate that is known by its thumbprint, and
        V(certificate_authority) one that is signed by an authority which the hub knows.
    type: str
    choices: [sas, self_signed, certificate_authority]
    default: sas
  primary_key:
    description:
      - Key in base64, 16 to 64 bytes, for V(sas). Give both keys or none.
      - Without keys the hub makes them, and those that are there are kept. Prefer that, such keys
        never leave the hub.
      - A key that is given here is hidden in every result of the task, with O(return_keys=true) too.
    type: str
  secondary_key:
    description:
      - The second key, as the first.
    type: str
  primary_thumbprint:
    description:
      - SHA-1 or SHA-256 thumbprint of the certificate for V(self_signed), 40 or 64 hexadecimal
        digits without separators.
    type: str
  secondary_thumbprint:
    description:
      - Thumbprint of the certificate that precedes or follows the first. Left out, there is none.
    type: str
"""


@dataclass(frozen=True)
class Authentication:
    """How an identity proves itself. type: a key of TYPES (or, of what is there, another of the hub's).

    Wanted without keys, ``sas`` means: those that are there, or else the hub's. Thumbprints mean themselves.
    """

    type: str = "sas"
    primary_key: str | None = field(default=None, repr=False)
    secondary_key: str | None = field(default=None, repr=False)
    primary_thumbprint: str | None = None
    secondary_thumbprint: str | None = None

    @classmethod
    def from_body(cls, member: Mapping[str, Any] | None) -> Authentication:
        """Read the member ``authentication`` of an identity."""
        member = member or {}
        keys, prints = member.get("symmetricKey") or {}, member.get("x509Thumbprint") or {}
        return cls._of_hub(
            member.get("type"),
            keys.get("primaryKey"),
            keys.get("secondaryKey"),
            prints.get("primaryThumbprint"),
            prints.get("secondaryThumbprint"),
        )

    @classmethod
    def from_twin(cls, twin: Mapping[str, Any]) -> Authentication:
        """Read what a twin tells, which is all but the keys; thumbprints are capitalised there."""
        prints = twin.get("x509Thumbprint") or {}
        return cls._of_hub(
            twin.get("authenticationType"),
            None,
            None,
            prints.get("PrimaryThumbprint") or prints.get("primaryThumbprint"),
            prints.get("SecondaryThumbprint") or prints.get("secondaryThumbprint"),
        )

    @classmethod
    def _of_hub(cls, kind: Any, *values: Any) -> Authentication:
        name = str(kind or "sas")
        return cls(_NAMES.get(name, name), *(value or None for value in values))

    @property
    def has_keys(self) -> bool:
        return bool(self.primary_key and self.secondary_key)

    def keys(self) -> dict[str, str | None]:
        """Return the keys: secrets."""
        return {name: getattr(self, name) for name in _KEYS}

    def thumbprints(self) -> dict[str, str | None]:
        """Return the thumbprints of ``self_signed``, nothing for the other types."""
        if self.type != "self_signed":
            return {}
        return {name: getattr(self, name) or None for name in _THUMBPRINTS}

    def view(self) -> dict[str, Any]:
        """Return what may be shown: type and thumbprints."""
        return {"type": self.type, **self.thumbprints()}

    def without_keys(self) -> Authentication:
        return replace(self, primary_key=None, secondary_key=None)

    def differs(self, actual: Authentication) -> bool:
        """Return whether ``actual`` has to change to be this; keys count where both are known."""
        if self.type != actual.type:
            return True
        if self.has_keys and actual.has_keys:
            return _stripped(self.keys()) != _stripped(actual.keys())
        # The hub keeps the case of what it was given, and it means nothing.
        return _lower(self.thumbprints()) != _lower(actual.thumbprints())

    def body(self) -> dict[str, Any]:
        """Return the member ``authentication`` that makes an identity prove itself like this.

        Empty keys make the hub mint a pair: they never exist anywhere before it did. To keep keys that are
        there, send back what was read instead.
        """
        member: dict[str, Any] = {"type": TYPES[self.type]}
        if self.type == "sas":
            keys = _stripped(self.keys())
            member["symmetricKey"] = {
                "primaryKey": keys["primary_key"],
                "secondaryKey": keys["secondary_key"],
            }
        elif self.type == "self_signed":
            member["x509Thumbprint"] = {
                "primaryThumbprint": self.primary_thumbprint or None,
                "secondaryThumbprint": self.secondary_thumbprint or None,
            }
        return member

    def errors(self) -> list[str]:
        """Return everything that is wrong with it as a wish; no message holds a key."""
        if self.type not in TYPES:
            return [f"authentication.type is {self.type!r}; it can be {', '.join(TYPES)}"]
        found = []
        keys = [name for name in _KEYS if getattr(self, name)]
        thumbprints = [name for name in _THUMBPRINTS if getattr(self, name)]
        if self.type != "sas" and keys:
            found.append(f"authentication of type {self.type} takes no {' and '.join(keys)}")
        elif len(keys) == 1:
            found.append(
                f"authentication.{keys[0]} stands alone; give both keys or none (then the hub makes them)"
            )
        if self.type != "self_signed" and thumbprints:
            found.append(f"authentication of type {self.type} takes no {' and '.join(thumbprints)}")
        elif self.type == "self_signed" and not thumbprints:
            found.append(
                "authentication of type self_signed needs primary_thumbprint or secondary_thumbprint"
            )
        for names, check in ((keys, key_error), (thumbprints, thumbprint_error)):
            for name in names:
                error = check(getattr(self, name))
                if error:
                    found.append(f"authentication.{name}: {error}")
        return found


def argument_spec(keys: bool = True) -> dict[str, Any]:
    """Return the option ``authentication`` for an argument spec. keys: whether it may name keys."""
    return {
        "type": "dict",
        "options": {
            "type": {"type": "str", "choices": list(TYPES), "default": "sas"},
            **{name: {"type": "str", "no_log": True} for name in _KEYS if keys},
            **{name: {"type": "str"} for name in _THUMBPRINTS},
        },
    }


def parse(option: Mapping[str, Any] | None) -> Authentication | None:
    """Return the option as a value, None when it is not given."""
    if option is None:
        return None
    return Authentication(
        type=str(option.get("type") or "sas"), **{name: option.get(name) for name in _KEYS + _THUMBPRINTS}
    )


def key_error(key: str) -> str | None:
    """Return what is wrong with a symmetric key, None when it is valid; never the key."""
    try:
        iothub_auth.decode_key(key)
    except iothub_auth.CredentialError as error:
        return str(error)
    return None


def thumbprint_error(thumbprint: str) -> str | None:
    """Return what is wrong with a thumbprint, None when it is valid."""
    if _THUMBPRINT.fullmatch(thumbprint):
        return None
    return (
        f"{thumbprint[:70]!r} is no thumbprint: it takes 40 (SHA-1) or 64 (SHA-256) hexadecimal digits "
        f"without separators, this has {len(thumbprint)} characters"
    )


def _stripped(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: (value or "").strip() for name, value in values.items()}


def _lower(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: (value or "").lower() for name, value in values.items()}
