# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""New keys for devices and modules: what is to be done, told by fingerprints. Pure.

Rotation is an act: asked for twice it is done twice. What makes it a state is the fingerprint of the key that
is to go: as long as that key is there, it is to be replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import item_list, module_identity, releases
from ansible_collections.edgeha.iotedge.plugins.module_utils.authentication import Authentication
from ansible_collections.edgeha.iotedge.plugins.module_utils.item_list import Plan

OPTION = "identities"
# What to rotate: which keys the hub's call makes anew; the last is no such call.
POLICY_KEYS = {"primary": "primaryKey", "secondary": "secondaryKey", "both": "both", "swap": None}
# What a PUT may carry; everything else in an identity is the hub's to write.
_WRITABLE = (
    "deviceId",
    "moduleId",
    "managedBy",
    "etag",
    "status",
    "statusReason",
    "capabilities",
    "deviceScope",
    "parentScopes",
)
_DIGEST = re.compile(r"[0-9a-f]{16}")
# Stands in a diff for the fingerprint of a key that only the hub will make.
NEW = "a new one"


@dataclass(frozen=True)
class Rotation:
    """Keys to replace. rotate: a key of POLICY_KEYS.

    expected_digest: rotate only while the key has this fingerprint (see releases.key_digest): the secondary
    key for ``secondary``, else the primary. None: rotate in any case.
    """

    device_id: str
    module_id: str | None = None
    rotate: str = "primary"
    expected_digest: str | None = None

    @property
    def label(self) -> str:
        return module_identity.label(self.device_id, self.module_id)


def list_errors(rotations: Sequence[Rotation]) -> list[str]:
    """Return every error of a list, each naming the item by its index (from 0)."""

    def errors(rotation: Rotation) -> list[str]:
        found = module_identity.id_errors(rotation.device_id, rotation.module_id)
        digest = rotation.expected_digest
        if digest is not None and not _DIGEST.fullmatch(digest):
            found.append(
                f"expected_digest {digest[:70]!r} is no fingerprint of a key: those have 16 hex digits"
            )
        return found

    return item_list.by_item(OPTION, map(errors, rotations)) + item_list.repeated(
        OPTION,
        ((rotation.device_id, rotation.module_id) for rotation in rotations),
        (repr(rotation.label) for rotation in rotations),
    )


def digests(identity: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the fingerprints of an identity's keys as ``primary_digest`` and ``secondary_digest``."""
    keys = Authentication.from_body(identity.get("authentication"))
    return {
        "primary_digest": releases.key_digest(keys.primary_key) if keys.primary_key else None,
        "secondary_digest": releases.key_digest(keys.secondary_key) if keys.secondary_key else None,
    }


def plan(identity: Mapping[str, Any], rotation: Rotation) -> Plan:
    """Return what to do. identity: as the registry has it, with its keys.

    The body of a swap is that of a PUT; the others are calls with no body of their own.
    Raises item_list.Refused for an identity without keys.
    """
    there = Authentication.from_body(identity.get("authentication"))
    if there.type != "sas" or not there.has_keys:
        raise item_list.Refused(f"it authenticates by {there.type} and has no keys: leave it out of the list")
    before = digests(identity)
    watched = "secondary_digest" if rotation.rotate == "secondary" else "primary_digest"
    if rotation.expected_digest not in (None, before[watched]):
        return Plan("none", before=before, after=before)
    etag = str(identity.get("etag") or "*")
    if rotation.rotate == "swap":
        body = {name: identity[name] for name in _WRITABLE if name in identity}
        keys = {"primaryKey": there.secondary_key, "secondaryKey": there.primary_key}
        body["authentication"] = {**identity["authentication"], "symmetricKey": keys}
        return Plan("update", body=body, etag=etag, before=before, after=digests(body))
    replaced = {
        "primary": ("primary_digest",),
        "secondary": ("secondary_digest",),
        "both": ("primary_digest", "secondary_digest"),
    }[rotation.rotate]
    return Plan("update", etag=etag, before=before, after={**before, **dict.fromkeys(replaced, NEW)})


def entry_of(rotation: Rotation) -> dict[str, str]:
    """Return how the call for new keys names an identity."""
    entry = {"id": rotation.device_id}
    if rotation.module_id:
        entry["moduleId"] = rotation.module_id
    return entry


def outcomes(
    rotations: Sequence[Rotation], identities: Sequence[Mapping[str, Any]], answer: Mapping[str, Any]
) -> list[dict[str, Any] | Exception]:
    """Return for each rotation of a call the identity with its new keys, or what kept it from them.

    answer: ``{"rotatedKeys": [{"id", "moduleId", "primaryKey", "secondaryKey"}], "errors": [{"id",
    "moduleId", "errorCode", "errorStatus"}]}``; a key that was not made anew may be left out.
    """

    def by_name(member: str) -> dict[tuple[str, str], Mapping[str, Any]]:
        return {
            (str(row.get("id") or ""), str(row.get("moduleId") or "")): row
            for row in answer.get(member) or []
        }

    new, failed = by_name("rotatedKeys"), by_name("errors")
    found: list[dict[str, Any] | Exception] = []
    for rotation, identity in zip(rotations, identities, strict=True):
        name = (rotation.device_id, rotation.module_id or "")
        if name in failed:
            error = failed[name]
            text = f"{error.get('errorCode')}: {error.get('errorStatus') or 'no message'}"
            found.append(item_list.Refused(f"the hub made no new key: {text}"))
        elif name not in new:
            found.append(item_list.Refused("the hub's answer does not tell whether it made a new key"))
        else:
            there = (identity.get("authentication") or {}).get("symmetricKey") or {}
            keys = {key: new[name].get(key) or there.get(key) for key in ("primaryKey", "secondaryKey")}
            found.append({**identity, "authentication": {**identity["authentication"], "symmetricKey": keys}})
    return found
