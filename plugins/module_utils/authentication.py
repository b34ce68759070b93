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
from dataclasses import dataclass, field
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
  - How it proves who it is. Left out, a new one gets V(sas) keys and one that is there keeps what it has.
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
      - Without keys the hub makes them, and those that are there are kept. Prefer that, such keys never leave
        the hub.
      - A key that is given here is hidden in every result of the task, with O(return_keys=true) too.
    type: str
  secondary_key:
    description:
      - The second key, as the first.
    type: str
  primary_thumbprint:
    description:
      - SHA-1 or SHA-256 thumbprint of the certificate for V(self_signed), 40 or 64 hexadecimal digits without
        separators.
      - Left out, the one that is there is kept. An empty text removes it.
    type: str
  secondary_thumbprint:
    description:
      - Thumbprint of the certificate that follows or precedes the first.
      - Left out, the one that is there is kept. An empty text removes it.
    type: str
"""


@dataclass(frozen=True)
class Authentication:
    """The option as given. type: a key of TYPES. None: keep what is there; an empty thumbprint: none."""

    type: str = "sas"
    primary_key: str | None = field(default=None, repr=False)
    secondary_key: str | None = field(default=None, repr=False)
    primary_thumbprint: str | None = None
    secondary_thumbprint: str | None = None


def argument_spec() -> dict[str, Any]:
    """Return the option ``authentication`` for an argument spec."""
    return {
        "type": "dict",
        "options": {
            "type": {"type": "str", "choices": list(TYPES), "default": "sas"},
            **{name: {"type": "str", "no_log": True} for name in _KEYS},
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


def errors(wanted: Authentication | None) -> list[str]:
    """Return everything that is wrong with it; no message holds a key."""
    if wanted is None:
        return []
    found = []
    keys = [name for name in _KEYS if getattr(wanted, name)]
    thumbprints = [name for name in _THUMBPRINTS if getattr(wanted, name) is not None]
    if wanted.type not in TYPES:
        return [f"authentication.type is {wanted.type!r}; it can be {', '.join(TYPES)}"]
    if wanted.type != "sas" and keys:
        found.append(f"authentication of type {wanted.type} takes no {' and '.join(keys)}")
    elif len(keys) == 1:
        found.append(
            f"authentication.{keys[0]} stands alone; give both keys or none (then the hub makes them)"
        )
    if wanted.type != "self_signed" and thumbprints:
        found.append(f"authentication of type {wanted.type} takes no {' and '.join(thumbprints)}")
    for name in keys:
        error = key_error(getattr(wanted, name))
        if error:
            found.append(f"authentication.{name}: {error}")
    for name in thumbprints:
        error = thumbprint_error(getattr(wanted, name))
        if error:
            found.append(f"authentication.{name}: {error}")
    return found


def key_error(key: str) -> str | None:
    """Return what is wrong with a symmetric key, None when it is valid; never the key."""
    try:
        iothub_auth.decode_key(key)
    except iothub_auth.CredentialError as error:
        return str(error)
    return None


def thumbprint_error(thumbprint: str) -> str | None:
    """Return what is wrong with a thumbprint, None when it is valid or empty."""
    if not thumbprint or _THUMBPRINT.fullmatch(thumbprint):
        return None
    return (
        f"{thumbprint[:70]!r} is no thumbprint: it takes 40 (SHA-1) or 64 (SHA-256) hexadecimal digits "
        f"without separators, this has {len(thumbprint)} characters"
    )


def missing_thumbprint(actual: Mapping[str, Any] | None, wanted: Authentication | None) -> str | None:
    """Return an error when no thumbprint would be left. actual: as in `body`."""
    if wanted is None or wanted.type != "self_signed" or any(_wanted_thumbprints(actual, wanted).values()):
        return None
    return "authentication of type self_signed needs primary_thumbprint or secondary_thumbprint"


def body(actual: Mapping[str, Any] | None, wanted: Authentication | None) -> dict[str, Any]:
    """Return the member ``authentication`` of a PUT.

    actual: the member as the hub has it (with keys), None for a new identity. Empty keys make the hub mint
    a pair: they never exist anywhere before it did.
    """
    if actual and not differs(actual, wanted):
        return dict(actual)
    wanted = wanted or Authentication()
    if wanted.type == "sas":
        keys = {"primaryKey": wanted.primary_key or "", "secondaryKey": wanted.secondary_key or ""}
        return {"type": "sas", "symmetricKey": keys}
    if wanted.type == "self_signed":
        prints = _wanted_thumbprints(actual, wanted)
        return {
            "type": "selfSigned",
            "x509Thumbprint": {
                "primaryThumbprint": prints["primary_thumbprint"],
                "secondaryThumbprint": prints["secondary_thumbprint"],
            },
        }
    return {"type": TYPES[wanted.type]}


def differs(actual: Mapping[str, Any] | None, wanted: Authentication | None) -> bool:
    """Return whether the hub's member has to change; it never does when nothing is wanted."""
    if wanted is None:
        return False
    actual = actual or {}
    if actual.get("type") != TYPES[wanted.type]:
        return True
    if wanted.type == "sas" and wanted.primary_key:
        there = actual.get("symmetricKey") or {}
        return (there.get("primaryKey"), there.get("secondaryKey")) != (
            wanted.primary_key.strip(),
            str(wanted.secondary_key).strip(),
        )
    if wanted.type == "self_signed":
        # The hub keeps the case of what it was given, and it means nothing.
        return _lower(_thumbprints(actual)) != _lower(_wanted_thumbprints(actual, wanted))
    return False


def view(actual: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what may be shown of the hub's member: type and thumbprints, no keys."""
    kind = str((actual or {}).get("type") or "sas")
    shown: dict[str, Any] = {"type": _NAMES.get(kind, kind)}
    if kind == "selfSigned":
        shown |= _thumbprints(actual or {})
    return shown


def keys_of(actual: Mapping[str, Any] | None) -> dict[str, str | None]:
    """Return the keys of the hub's member as ``primary_key`` and ``secondary_key``: secrets."""
    keys = (actual or {}).get("symmetricKey") or {}
    return {"primary_key": keys.get("primaryKey"), "secondary_key": keys.get("secondaryKey")}


def keys_change(actual: Mapping[str, Any] | None, wanted: Authentication | None) -> bool:
    """Return whether keys are replaced where type and thumbprints stay: a change that no view shows."""
    return (
        differs(actual, wanted)
        and (actual or {}).get("type") == "sas"
        and wanted is not None
        and wanted.type == "sas"
    )


def _thumbprints(actual: Mapping[str, Any]) -> dict[str, str | None]:
    there = actual.get("x509Thumbprint") or {}
    return {
        "primary_thumbprint": there.get("primaryThumbprint") or None,
        "secondary_thumbprint": there.get("secondaryThumbprint") or None,
    }


def _wanted_thumbprints(actual: Mapping[str, Any] | None, wanted: Authentication) -> dict[str, str | None]:
    there = _thumbprints(actual or {})
    given = {name: getattr(wanted, name) for name in _THUMBPRINTS}
    return {name: there[name] if value is None else value or None for name, value in given.items()}


def _lower(prints: Mapping[str, str | None]) -> dict[str, str]:
    return {name: (value or "").lower() for name, value in prints.items()}
