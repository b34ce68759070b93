# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wanted and actual device identities: what differs, and the body that puts it right. Pure.

The hub's rules that shape this file: a PUT replaces the whole identity; leaving out ``authentication`` mints
new keys; an edge device must echo its ``deviceScope``; a PUT without If-Match only creates, one with it only
updates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# "Understand the identity registry in your IoT hub": up to 128 ASCII characters out of this set.
_DEVICE_ID = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@;$']{1,128}")
_BAD_ID_CHARACTER = re.compile(r"[^A-Za-z0-9\-:.+%_#*?!(),=@;$']")
# What a PUT may carry; everything else in an identity is the hub's to write.
_WRITABLE = (
    "deviceId",
    "etag",
    "status",
    "statusReason",
    "authentication",
    "capabilities",
    "deviceScope",
    "parentScopes",
)
_TAG_KEY_BAD = re.compile(r"[\x00-\x1f\x7f.$# ]")
_TAG_MAX_DEPTH = 10
_TAG_MAX_VALUE_BYTES = 4096


@dataclass(frozen=True)
class DesiredDevice:
    """A device as the operator wants it; None means "leave as it is".

    tags are merged into the twin's tags; a key with the value None is removed.
    """

    device_id: str
    present: bool = True
    edge: bool | None = None
    status: str | None = None
    status_reason: str | None = None
    tags: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Plan:
    """What to do for one device.

    action:    ``none``, ``create``, ``update`` or ``delete``.
    body:      body of the PUT for create and update.
    etag:      version the plan was made for (update and delete).
    tag_patch: merge patch of the twin's tags, empty when they are as wanted.
    before, after: the device as shown in a diff, without keys; empty when it does not exist.
    """

    action: str
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)
    etag: str | None = None
    tag_patch: Mapping[str, Any] = field(default_factory=dict)
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return self.action != "none" or bool(self.tag_patch)


class UnsupportedChange(ValueError):  # noqa: N818 - says what it is
    """The hub, or this version, cannot make this change; the message names the fact and the fix."""


def device_id_error(device_id: object) -> str | None:
    """Return what is wrong with a device id, None when it is valid."""
    if not isinstance(device_id, str) or not device_id:
        return "a device id must be a text of 1 to 128 characters"
    bad = _BAD_ID_CHARACTER.search(device_id)
    if bad:
        return (
            f"the device id {device_id!r} holds {bad.group()!r}; "
            "allowed are ASCII letters, digits and - : . + % _ # * ? ! ( ) , = @ ; $ '"
        )
    if not _DEVICE_ID.fullmatch(device_id):
        return f"the device id {device_id[:20]!r}... has {len(device_id)} characters; at most 128 are allowed"
    return None


def tags_error(tags: Mapping[str, Any], depth: int = 1, path: str = "tags") -> str | None:
    """Return what is wrong with the tags of a twin (keys, depth, length), None when they are valid."""
    if depth > _TAG_MAX_DEPTH:
        return f"{path} is nested deeper than {_TAG_MAX_DEPTH} levels"
    for key, value in tags.items():
        if not isinstance(key, str) or not key or _TAG_KEY_BAD.search(key):
            return (
                f"the key {key!r} in {path} holds a control character, a space, '.', '$' or '#', or is empty"
            )
        if isinstance(value, str) and len(value.encode()) > _TAG_MAX_VALUE_BYTES:
            return f"the value of {path}.{key} is longer than {_TAG_MAX_VALUE_BYTES} bytes"
        if isinstance(value, Mapping):
            error = tags_error(value, depth + 1, f"{path}.{key}")
            if error:
                return error
    return None


def list_errors(devices: Iterable[DesiredDevice]) -> list[str]:
    """Return every error of a list of devices, each naming the item by its index (from 0)."""
    errors: list[str] = []
    first_seen: dict[str, int] = {}
    for index, device in enumerate(devices):
        error = device_id_error(device.device_id)
        if error:
            errors.append(f"devices[{index}]: {error}")
        elif device.device_id in first_seen:
            errors.append(
                f"devices[{index}]: the device id {device.device_id!r} "
                f"is already in devices[{first_seen[device.device_id]}]; list each device once"
            )
        else:
            first_seen[device.device_id] = index
        if device.status_reason is not None and len(device.status_reason) > 128:
            errors.append(
                f"devices[{index}]: status_reason of {device.device_id!r} is longer than 128 characters"
            )
        error = tags_error(device.tags or {})
        if error:
            errors.append(f"devices[{index}]: {error}")
    return errors


def public_view(identity: Mapping[str, Any] | None, tags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what may be shown of an identity: no keys. ``{}`` for a device that does not exist."""
    if not identity:
        return {}
    view = {
        "device_id": identity.get("deviceId"),
        "edge": bool((identity.get("capabilities") or {}).get("iotEdge")),
        "status": identity.get("status"),
        "status_reason": identity.get("statusReason"),
        "authentication": (identity.get("authentication") or {}).get("type"),
    }
    if tags is not None:
        view["tags"] = dict(tags)
    return view


def merge_patch(actual: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the smallest JSON merge patch (RFC 7396) that makes ``actual`` hold ``wanted``.

    A value None in ``wanted`` asks for the key's removal. Keys that ``wanted`` does not name stay.
    """
    patch: dict[str, Any] = {}
    for key, value in wanted.items():
        if value is None:
            if key in actual:
                patch[key] = None
        elif isinstance(value, Mapping):
            there = actual.get(key)
            if not isinstance(there, Mapping):
                # Leaves with None need no removal from something that is not there.
                patch[key] = apply_patch({}, value)
                continue
            inner = merge_patch(there, value)
            if inner:
                patch[key] = inner
        elif key not in actual or not _same(actual[key], value):
            patch[key] = value
    return patch


def apply_patch(actual: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``actual`` after a JSON merge patch (RFC 7396)."""
    result = dict(actual)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            there = result.get(key)
            result[key] = apply_patch(there if isinstance(there, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def plan(
    actual: Mapping[str, Any] | None, desired: DesiredDevice, tags: Mapping[str, Any] | None = None
) -> Plan:
    """Return what to do so that the identity is as wanted.

    actual: the hub's device identity or None. tags: the twin's tags, needed when desired.tags is given.
    Raises UnsupportedChange for what cannot be changed in place.
    """
    wanted_tags = desired.tags
    known_tags = dict(tags or {}) if wanted_tags is not None else None
    before = public_view(actual, known_tags)
    if not desired.present:
        if not actual:
            return Plan("none")
        return Plan("delete", etag=str(actual.get("etag", "*")), before=before)

    if not actual:
        body: dict[str, Any] = {
            "deviceId": desired.device_id,
            "status": desired.status or "enabled",
            "capabilities": {"iotEdge": bool(desired.edge)},
            # Empty keys tell the hub to mint them: they never exist anywhere before it did.
            "authentication": {"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}},
        }
        if desired.status_reason:
            body["statusReason"] = desired.status_reason
        patch = apply_patch({}, wanted_tags) if wanted_tags else {}
        after = public_view(body, patch if wanted_tags is not None else None)
        return Plan("create", body=body, tag_patch=patch, after=after)

    authentication = (actual.get("authentication") or {}).get("type")
    if authentication != "sas":
        raise UnsupportedChange(
            f"device {desired.device_id!r} authenticates by {authentication!r}; this version manages "
            "devices with SAS keys only: leave the device out of the list, or delete it first"
        )
    is_edge = bool((actual.get("capabilities") or {}).get("iotEdge"))
    if is_edge and desired.edge is False:
        raise UnsupportedChange(
            f"device {desired.device_id!r} is an edge device and cannot become a leaf device in place: "
            "delete it first (state: absent), or ask for edge: true"
        )

    body = {name: actual[name] for name in _WRITABLE if name in actual}
    if desired.edge and not is_edge:
        body["capabilities"] = {**(actual.get("capabilities") or {}), "iotEdge": True}
        # A leaf's scope is its parent's; the hub wants it emptied and gives the device a scope of its own.
        body["deviceScope"] = ""
        body.pop("parentScopes", None)
    if desired.status is not None:
        body["status"] = desired.status
    if desired.status_reason is not None and desired.status_reason != (actual.get("statusReason") or ""):
        body["statusReason"] = desired.status_reason
    differs = any(body.get(name) != actual.get(name) for name in _WRITABLE)
    patch = merge_patch(known_tags or {}, wanted_tags or {})
    after_tags = apply_patch(known_tags, patch) if known_tags is not None else None
    return Plan(
        "update" if differs else "none",
        body=body if differs else {},
        etag=str(actual.get("etag", "")),
        tag_patch=patch,
        before=before,
        after=public_view(body, after_tags),
    )


def _same(left: Any, right: Any) -> bool:
    # True == 1 in Python; in JSON they differ.
    return (
        type(left) is type(right) and bool(left == right)
        if isinstance(left, bool) or isinstance(right, bool)
        else bool(left == right)
    )
