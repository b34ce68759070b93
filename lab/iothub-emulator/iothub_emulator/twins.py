# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Twins: documents of tags, desired and reported properties with versions and stamps.

Rules: "Understand and use device twins in IoT Hub". The functions on documents are pure; class Twin
is one row of the store.
"""

import json
import re
import sqlite3
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from iothub_emulator.clock import twin_time
from iothub_emulator.errors import argument_invalid
from iothub_emulator.identity import Identity, check_if_match

Document = dict[str, Any]

CONFIGURATIONS_COLUMN = """(
    SELECT json_group_object(configuration_id, configuration_targets.status) FROM configuration_targets
    WHERE configuration_targets.device_id = twins.device_id
        AND configuration_targets.module_id = twins.module_id
) AS configurations"""

_MAX_DEPTH = 10
_MAX_STRING_BYTES = 4096
_MAX_KEY_BYTES = 1024
_INTEGER_RANGE = range(-(2**52), 2**52)
_BAD_IN_KEY = re.compile(r"[\x00-\x1f\x7f-\x9f.$# ]")
_TAGS_BYTES = 8 * 1024
_PROPERTIES_BYTES = 32 * 1024


def check_document(document: object, what: str, *, nulls: bool) -> Document:
    """Return `document` when it is a JSON object within the hub's limits, else raise HubError 400.

    `nulls`: whether null is allowed, as in a patch where it removes the key.
    """
    if not isinstance(document, dict):
        raise argument_invalid(f"{what} is not a JSON object")
    _check_value(document, what, 0, nulls)
    return document


def _check_value(value: object, where: str, depth: int, nulls: bool) -> None:
    if isinstance(value, dict):
        if depth > _MAX_DEPTH:
            raise argument_invalid(f"{where} is nested deeper than {_MAX_DEPTH} levels")
        for key, member in value.items():
            if not key or _BAD_IN_KEY.search(key) or len(key.encode()) > _MAX_KEY_BYTES:
                raise argument_invalid(
                    f"{where} has the key {key!r}; control characters . $ # and space are not allowed"
                )
            _check_value(member, f"{where}.{key}", depth + 1, nulls)
    elif isinstance(value, list):
        for member in value:
            _check_value(member, where, depth + 1, nulls=False)
    elif isinstance(value, str):
        if len(value.encode("utf-8", "surrogatepass")) > _MAX_STRING_BYTES:
            raise argument_invalid(f"{where} is a string of more than {_MAX_STRING_BYTES} bytes")
    elif value is None:
        if not nulls:
            raise argument_invalid(f"{where} is null")
    elif isinstance(value, int) and not isinstance(value, bool) and value not in _INTEGER_RANGE:
        raise argument_invalid(f"{where} is an integer outside -2^52..2^52-1")


def merge(document: Mapping[str, Any], patch: Mapping[str, Any]) -> Document:
    """JSON merge patch (RFC 7386): null removes, objects merge, everything else replaces."""
    merged = dict(document)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            old = merged.get(key)
            merged[key] = merge(old if isinstance(old, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> Document:
    """The merge patch that makes `old` into `new`, with unchanged members of `new` repeated."""
    patch: Document = dict.fromkeys(old.keys() - new.keys())
    for key, value in new.items():
        before = old.get(key)
        patch[key] = (
            difference(before, value) if isinstance(value, dict) and isinstance(before, dict) else value
        )
    return patch


def without_nulls(document: Mapping[str, Any]) -> Document:
    return merge({}, document)


def stamp(
    metadata: Mapping[str, Any],
    document: Mapping[str, Any],
    patch: Mapping[str, Any],
    mark: Mapping[str, Any],
) -> Document:
    """The `$metadata` after `patch` led to `document`: `mark` on each member that was written.

    Shape: {"$lastUpdated": .., "member": {"$lastUpdated": .., "inner": {..}}}.
    """
    stamped: Document = dict(mark)
    for key, value in document.items():
        known = metadata.get(key)
        known = known if isinstance(known, dict) else {}
        if key not in patch:
            stamped[key] = known
        elif isinstance(value, dict) and isinstance(patch[key], dict):
            stamped[key] = stamp(known, value, patch[key], mark)
        else:
            stamped[key] = dict(mark)
    return stamped


@dataclass
class Twin:
    """One twin as stored. `module_id` is '' for a device's own."""

    device_id: str
    module_id: str
    etag_number: int
    version: int
    tags: Document
    desired: Document
    desired_metadata: Document
    desired_version: int
    reported: Document
    reported_metadata: Document
    reported_version: int
    configurations: dict[str, str] = field(default_factory=dict)
    """Configuration id -> Targeted or Applied; found by evaluation, not written with the twin."""

    @classmethod
    def create(cls, connection: sqlite3.Connection, device_id: str, module_id: str, now: float) -> None:
        """Store the empty twin of a new identity."""
        mark = {"$lastUpdated": twin_time(now)}
        cls(device_id, module_id, 1, 2, {}, {}, mark, 1, {}, mark, 1).save(connection)

    @classmethod
    def load(cls, connection: sqlite3.Connection, identity: Identity) -> "Twin":
        row = connection.execute(
            f"SELECT *, {CONFIGURATIONS_COLUMN} FROM twins WHERE device_id = ? AND module_id = ?",  # noqa: S608 - constants only
            (identity.device_id, identity.module_id),
        ).fetchone()
        return cls.from_row(row)

    @classmethod
    def from_row(cls, row: sqlite3.Row) -> "Twin":
        """From a row with the columns of `twins` and CONFIGURATIONS_COLUMN."""
        return cls(
            row["device_id"],
            row["module_id"],
            row["etag_number"],
            row["version"],
            json.loads(row["tags"]),
            json.loads(row["desired"]),
            json.loads(row["desired_metadata"]),
            row["desired_version"],
            json.loads(row["reported"]),
            json.loads(row["reported_metadata"]),
            row["reported_version"],
            json.loads(row["configurations"]),
        )

    def save(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO twins VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.device_id,
                self.module_id,
                self.etag_number,
                self.version,
                json.dumps(self.tags),
                json.dumps(self.desired),
                json.dumps(self.desired_metadata),
                self.desired_version,
                json.dumps(self.reported),
                json.dumps(self.reported_metadata),
                self.reported_version,
            ),
        )

    @property
    def etag(self) -> str:
        return b64encode(self.etag_number.to_bytes(8, "big")).decode()

    def write(self, body: object, *, replace: bool, if_match: str | None, now: float) -> Document | None:
        """Apply a service-side PATCH (or PUT with `replace`) of tags and desired properties.

        Returns what connected devices have to be told, None when desired properties were not part
        of it. Raises HubError 400 or 412.
        """
        if not isinstance(body, dict):
            raise argument_invalid("the twin is not a JSON object")
        properties = body.get("properties")
        if properties is not None and not isinstance(properties, dict):
            raise argument_invalid("properties is not a JSON object")
        check_if_match(if_match, self.etag)
        notice: Document | None = None
        if replace or "tags" in body:
            self._write_tags(body.get("tags"), replace)
        if replace or (properties is not None and "desired" in properties):
            notice = self._write_desired((properties or {}).get("desired"), replace, now)
        self.etag_number += 1
        self.version += 1
        return notice

    def _write_tags(self, value: object, replace: bool) -> None:
        patch = {} if value is None else check_document(value, "tags", nulls=True)
        self.tags = without_nulls(patch) if replace or value is None else merge(self.tags, patch)
        _check_size(self.tags, "tags", _TAGS_BYTES)

    def _write_desired(self, value: object, replace: bool, now: float) -> Document:
        # A client that read the twin sends the hub's own members back.
        if isinstance(value, dict):
            value = {key: member for key, member in value.items() if key not in ("$metadata", "$version")}
        patch = {} if value is None else check_document(value, "properties.desired", nulls=True)
        if replace or value is None:
            # Devices apply what they are told as a patch, so what went away is told as null.
            patch = difference(self.desired, without_nulls(patch))
        self.desired = merge(self.desired, patch)
        _check_size(self.desired, "properties.desired", _PROPERTIES_BYTES)
        self.desired_version += 1
        mark = {"$lastUpdated": twin_time(now), "$lastUpdatedVersion": self.desired_version}
        self.desired_metadata = stamp(self.desired_metadata, self.desired, patch, mark)
        return patch | {"$version": self.desired_version}

    def replace_desired(self, desired: Mapping[str, Any], now: float) -> Document:
        """Set all desired properties; returns what connected devices have to be told.

        Raises HubError 400.
        """
        notice = self._write_desired(dict(desired), replace=True, now=now)
        self.etag_number += 1
        self.version += 1
        return notice

    def report(self, body: object, now: float) -> int:
        """Apply a device's patch of its reported properties; returns the new version.

        Raises HubError 400.
        """
        patch = check_document(body, "properties.reported", nulls=True)
        merged = merge(self.reported, patch)
        _check_size(merged, "properties.reported", _PROPERTIES_BYTES)
        self.reported = merged
        self.reported_version += 1
        self.version += 1
        mark = {"$lastUpdated": twin_time(now)}
        self.reported_metadata = stamp(self.reported_metadata, self.reported, patch, mark)
        return self.reported_version

    def for_service(self, identity: Identity) -> Document:
        """The twin as the service API shows it."""
        document: Document = {"deviceId": self.device_id}
        if self.module_id:
            document["moduleId"] = self.module_id
        document |= {"etag": self.etag, "deviceEtag": identity.etag, "status": identity.status}
        if identity.status_reason is not None:
            document["statusReason"] = identity.status_reason
        document |= {
            "statusUpdateTime": twin_time(identity.status_updated),
            "connectionState": identity.connection_state,
            "lastActivityTime": twin_time(identity.last_activity),
            "cloudToDeviceMessageCount": identity.waiting_messages,
            "authenticationType": identity.authentication.type,
            # Capitalised in twins, unlike in identities.
            "x509Thumbprint": {
                "PrimaryThumbprint": identity.authentication.primary_thumbprint,
                "SecondaryThumbprint": identity.authentication.secondary_thumbprint,
            },
            "modelId": "",
            "version": self.version,
            "tags": self.tags,
            "properties": {
                "desired": self.desired
                | {"$metadata": self.desired_metadata, "$version": self.desired_version},
                "reported": self.reported
                | {"$metadata": self.reported_metadata, "$version": self.reported_version},
            },
        }
        if not self.module_id:
            document["capabilities"] = {"iotEdge": identity.edge}
            document |= identity.scopes()
        if self.configurations or (identity.edge and not self.module_id):
            document["configurations"] = {
                name: {"status": status} for name, status in self.configurations.items()
            }
        return document

    def for_device(self) -> Document:
        """The twin as the device itself reads it: no tags, no metadata."""
        return {
            "desired": self.desired | {"$version": self.desired_version},
            "reported": self.reported | {"$version": self.reported_version},
        }


def _check_size(document: Document, what: str, limit: int) -> None:
    size = len(
        json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    )
    if size > limit:
        raise argument_invalid(f"{what} would be {size} bytes; the limit is {limit}")
