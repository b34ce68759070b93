# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Enrollments, enrollment groups and registrations, as rows of the store.

Every function that takes a connection is one operation on the store (see store.py) and raises
DpsError. An id is kept in lower case: the service does not tell ids apart by their case.
"""

import json
import re
import secrets
import sqlite3
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from iothub_emulator.clock import twin_time
from iothub_emulator.dps_attestation import keep_certificates, parse_attestation
from iothub_emulator.dps_attestation import shown as shown_attestation
from iothub_emulator.dps_errors import (
    DpsError,
    as_dps_error,
    bad_request,
    enrollment_exists,
    enrollment_not_found,
    registration_not_found,
)
from iothub_emulator.errors import HubError
from iothub_emulator.store import SchemaPart
from iothub_emulator.twins import check_document

Document = dict[str, Any]

SCHEMA = SchemaPart(
    "dps",
    (
        """
CREATE TABLE dps_enrollments (
    kind TEXT NOT NULL,                 -- 'enrollment' or 'group'
    id TEXT NOT NULL,
    etag TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    document TEXT NOT NULL,             -- JSON, with the keys
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE dps_registrations (
    id TEXT NOT NULL PRIMARY KEY,
    registration_id TEXT NOT NULL,      -- as the device writes it
    group_id TEXT,
    operation_id TEXT NOT NULL,
    etag TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    status TEXT NOT NULL,
    substatus TEXT,
    assigned_hub TEXT,
    device_id TEXT,
    error_code INTEGER,
    error_message TEXT
) WITHOUT ROWID;
""",
    ),
)

_REGISTRATION_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9\-:._]{0,126}[A-Za-z0-9\-])?")
_ALLOCATION_POLICIES = ("hashed", "geoLatency", "static", "custom")
_MAX_BULK = 10
_PAGE, _MAX_PAGE = 100, 1000
_QUERY = re.compile(r"\s*(?:\*|select\s+\*(?:\s+from\s+\w+)?)?\s*;?\s*", re.IGNORECASE)


class Kind(StrEnum):
    """What a record enrolls: one device, or all that share a key or a CA."""

    ENROLLMENT = "enrollment"
    GROUP = "group"

    @property
    def id_member(self) -> str:
        return "registrationId" if self is Kind.ENROLLMENT else "enrollmentGroupId"


@dataclass(frozen=True)
class Record:
    """An enrollment or a group. `document` has the keys in it."""

    kind: Kind
    id: str
    etag: str
    created: float
    updated: float
    document: Document

    def __repr__(self) -> str:
        return f"Record({self.kind}, {self.id!r})"

    @property
    def attestation(self) -> Document:
        attestation: Document = self.document["attestation"]
        return attestation

    @property
    def enabled(self) -> bool:
        return bool(self.document["provisioningStatus"] == "enabled")

    def shown(self) -> Document:
        """As the service answers it, without keys."""
        return self.document | {
            "attestation": shown_attestation(self.attestation, keys=False),
            # With the quotes of the header in it, as the service has it.
            "etag": f'"{self.etag}"',
            "createdDateTimeUtc": twin_time(self.created),
            "lastUpdatedDateTimeUtc": twin_time(self.updated),
        }

    @classmethod
    def from_row(cls, row: sqlite3.Row) -> "Record":
        return cls(**dict(row) | {"kind": Kind(row["kind"]), "document": json.loads(row["document"])})


@dataclass(frozen=True)
class Registration:
    """What became of a device's wish to be registered."""

    id: str
    registration_id: str
    group_id: str | None
    operation_id: str
    etag: str
    created: float
    updated: float
    status: str
    substatus: str | None
    assigned_hub: str | None
    device_id: str | None
    error_code: int | None
    error_message: str | None

    def save(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO dps_registrations VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                self.id,
                self.registration_id,
                self.group_id,
                self.operation_id,
                self.etag,
                self.created,
                self.updated,
                self.status,
                self.substatus,
                self.assigned_hub,
                self.device_id,
                self.error_code,
                self.error_message,
            ),
        )

    def shown(self) -> Document:
        state: Document = {
            "registrationId": self.registration_id,
            "createdDateTimeUtc": twin_time(self.created),
            "assignedHub": self.assigned_hub,
            "deviceId": self.device_id,
            "status": self.status,
            "substatus": self.substatus,
            "errorCode": self.error_code,
            "errorMessage": self.error_message,
            "lastUpdatedDateTimeUtc": twin_time(self.updated),
            "etag": b64encode(f'"{self.etag}"'.encode()).decode(),
        }
        return {name: value for name, value in state.items() if value is not None}


def find(connection: sqlite3.Connection, kind: Kind, record_id: str) -> Record | None:
    row = connection.execute(
        "SELECT * FROM dps_enrollments WHERE kind = ? AND id = ?", (kind, record_id.lower())
    ).fetchone()
    return None if row is None else Record.from_row(row)


def get(connection: sqlite3.Connection, kind: Kind, record_id: str) -> Record:
    record = find(connection, kind, record_id)
    if record is None:
        raise enrollment_not_found()
    return record


def groups(connection: sqlite3.Connection) -> Iterator[Record]:
    rows = connection.execute("SELECT * FROM dps_enrollments WHERE kind = ? ORDER BY id", (Kind.GROUP,))
    return (Record.from_row(row) for row in rows)


def shown_with_state(connection: sqlite3.Connection, record: Record) -> Document:
    """A record as GET and PUT answer it: an enrollment of one device carries its registration."""
    document = record.shown()
    if record.kind is Kind.ENROLLMENT:
        registration = find_registration(connection, record.id)
        document["registrationState"] = (
            registration.shown()
            if registration
            else {
                "registrationId": record.document["registrationId"],
                "createdDateTimeUtc": document["createdDateTimeUtc"],
                "status": "unassigned",
                "lastUpdatedDateTimeUtc": document["lastUpdatedDateTimeUtc"],
            }
        )
    return document


def put(
    connection: sqlite3.Connection,
    kind: Kind,
    record_id: str,
    body: object,
    if_match: str | None,
    hubs: Sequence[str],
    now: float,
) -> Record:
    """Create (no If-Match) or replace (If-Match) a record. `hubs`: the names a hub may be named by."""
    document = _check(kind, record_id, body, hubs)
    existing = find(connection, kind, record_id)
    if if_match is None:
        if existing:
            raise enrollment_exists()
    elif existing is None:
        raise enrollment_not_found()
    else:
        check_if_match(if_match, existing.etag)
    if existing:
        keep_certificates(document["attestation"], existing.attestation)
    created = existing.created if existing else now
    record = Record(kind, record_id.lower(), new_etag(), created, now, document)
    connection.execute(
        "INSERT OR REPLACE INTO dps_enrollments VALUES (?, ?, ?, ?, ?, ?)",
        (kind, record.id, record.etag, record.created, record.updated, json.dumps(document)),
    )
    return record


def delete(connection: sqlite3.Connection, kind: Kind, record_id: str, if_match: str | None) -> None:
    """Remove a record with what was registered by it; the devices stay in the hub."""
    record = get(connection, kind, record_id)
    if if_match is not None:
        check_if_match(if_match, record.etag)
    connection.execute("DELETE FROM dps_enrollments WHERE kind = ? AND id = ?", (kind, record.id))
    if kind is Kind.ENROLLMENT:
        connection.execute("DELETE FROM dps_registrations WHERE id = ? AND group_id IS NULL", (record.id,))
    else:
        connection.execute("DELETE FROM dps_registrations WHERE group_id = ?", (record.id,))


def run_bulk(
    connection: sqlite3.Connection, kind: Kind, body: object, hubs: Sequence[str], now: float
) -> Document:
    """Work on up to ten records; each succeeds or fails by itself."""
    member = "enrollments" if kind is Kind.ENROLLMENT else "enrollmentGroups"
    mode = body.get("mode") if isinstance(body, dict) else None
    items = body.get(member) if isinstance(body, dict) else None
    if mode not in ("create", "update", "updateIfMatchETag", "delete"):
        raise bad_request("mode is not create, update, updateIfMatchETag or delete")
    if not isinstance(items, list) or not 1 <= len(items) <= _MAX_BULK:
        raise bad_request(f"{member} is not a list of 1 to {_MAX_BULK} items")
    errors = []
    for item in items:
        record_id = item.get(kind.id_member) if isinstance(item, dict) else None
        try:
            if not isinstance(record_id, str):
                raise bad_request(f"{kind.id_member} is missing")
            etag = item.get("etag")
            connection.execute("SAVEPOINT item")
            try:
                if mode == "delete":
                    delete(connection, kind, record_id, etag or None)
                elif mode == "create":
                    put(connection, kind, record_id, item, None, hubs, now)
                else:
                    put(connection, kind, record_id, item, "*" if mode == "update" else etag or "", hubs, now)
            except HubError:
                connection.execute("ROLLBACK TO item")
                raise
            finally:
                connection.execute("RELEASE item")
        except HubError as error:
            failed = as_dps_error(error)
            errors.append(
                {kind.id_member: record_id or "", "errorCode": failed.number, "errorStatus": failed.text}
            )
    return {"isSuccessful": not errors, "errors": errors}


@dataclass(frozen=True)
class Page:
    """How much of a query's answer is wanted."""

    size: int
    after: str

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> "Page":
        try:
            size = int(headers.get("x-ms-max-item-count") or _PAGE)
        except ValueError:
            raise bad_request("x-ms-max-item-count is not a number") from None
        if not 1 <= size <= _MAX_PAGE:
            raise bad_request(f"x-ms-max-item-count is not within 1 and {_MAX_PAGE}")
        return cls(size, headers.get("x-ms-continuation", ""))


def check_query(body: object) -> None:
    """The one query that is documented lists everything."""
    query = body.get("query") if isinstance(body, dict) else None
    if not isinstance(query, str) or not _QUERY.fullmatch(query):
        raise bad_request("query is not 'SELECT * FROM enrollments'")


def query(connection: sqlite3.Connection, kind: Kind, page: Page) -> tuple[list[Document], str | None]:
    """One page of records by id, and what the next one continues after."""
    rows = connection.execute(
        "SELECT * FROM dps_enrollments WHERE kind = ? AND id > ? ORDER BY id LIMIT ?",
        (kind, page.after, page.size + 1),
    ).fetchall()
    records = [Record.from_row(row) for row in rows[: page.size]]
    return [record.shown() for record in records], records[-1].id if len(rows) > page.size else None


def find_registration(connection: sqlite3.Connection, registration_id: str) -> Registration | None:
    row = connection.execute(
        "SELECT * FROM dps_registrations WHERE id = ?", (registration_id.lower(),)
    ).fetchone()
    return None if row is None else Registration(**dict(row))


def get_registration(connection: sqlite3.Connection, registration_id: str) -> Registration:
    registration = find_registration(connection, registration_id)
    if registration is None:
        raise registration_not_found()
    return registration


def delete_registration(connection: sqlite3.Connection, registration_id: str, if_match: str | None) -> None:
    """Forget what was assigned; the device stays in the hub."""
    registration = get_registration(connection, registration_id)
    if if_match is not None:
        check_if_match(if_match, registration.etag)
    connection.execute("DELETE FROM dps_registrations WHERE id = ?", (registration.id,))


def query_registrations(
    connection: sqlite3.Connection, group_id: str, page: Page
) -> tuple[list[Document], str | None]:
    """One page of what was registered by a group."""
    get(connection, Kind.GROUP, group_id)
    rows = connection.execute(
        "SELECT * FROM dps_registrations WHERE group_id = ? AND id > ? ORDER BY id LIMIT ?",
        (group_id.lower(), page.after, page.size + 1),
    ).fetchall()
    found = [Registration(**dict(row)) for row in rows[: page.size]]
    return [registration.shown() for registration in found], found[-1].id if len(rows) > page.size else None


def without_port(host: str) -> str:
    """A host name in lower case; hubs of tests are called with a port, by which no device finds them."""
    name, separator, port = host.lower().rpartition(":")
    return name if separator and port.isdecimal() else host.lower()


def new_etag() -> str:
    number = secrets.token_hex(16)
    return "-".join((number[:8], number[8:12], number[12:16], number[16:20], number[20:]))


def check_if_match(if_match: str, etag: str) -> None:
    """Raise DpsError 412 unless If-Match is `*` or the etag, in quotes or without, or in base64."""
    wanted = if_match.strip().strip('"')
    if wanted not in ("*", etag, b64encode(f'"{etag}"'.encode()).decode()):
        raise DpsError(412001, "Precondition failed.")


def _check(kind: Kind, record_id: str, body: object, hubs: Sequence[str]) -> Document:
    if not isinstance(body, dict):
        raise bad_request("the body is not a JSON object")
    if not _REGISTRATION_ID.fullmatch(record_id):
        raise bad_request(
            f"the id {record_id!r} is not 1 to 128 letters, digits and -:._ with none of these at its ends"
        )
    named = body.get(kind.id_member)
    if not isinstance(named, str) or named.lower() != record_id.lower():
        raise bad_request(f"{kind.id_member} in the body is not the one in the address")
    document: Document = {
        kind.id_member: named,
        "attestation": parse_attestation(body.get("attestation"), group=kind is Kind.GROUP),
        "capabilities": _flags(body, "capabilities", {"iotEdge": False}),
        "provisioningStatus": body.get("provisioningStatus") or "enabled",
        "reprovisionPolicy": _flags(
            body, "reprovisionPolicy", {"updateHubAssignment": True, "migrateDeviceData": True}
        ),
    }
    if document["provisioningStatus"] not in ("enabled", "disabled"):
        raise bad_request("provisioningStatus is neither enabled nor disabled")
    if kind is Kind.ENROLLMENT:
        _copy_text(body, "deviceId", document)
        if isinstance(body.get("optionalDeviceInformation"), dict):
            document["optionalDeviceInformation"] = body["optionalDeviceInformation"]
    document |= _check_allocation(body, hubs)
    if body.get("initialTwin") is not None:
        document["initialTwin"] = _check_twin(body["initialTwin"])
    return document


def _check_allocation(body: Mapping[str, Any], hubs: Sequence[str]) -> Document:
    allocation: Document = {}
    _copy_text(body, "iotHubHostName", allocation)
    policy, wanted = body.get("allocationPolicy"), body.get("iotHubs")
    if policy is not None:
        if policy not in _ALLOCATION_POLICIES:
            raise bad_request(f"allocationPolicy is not one of {', '.join(_ALLOCATION_POLICIES)}")
        allocation["allocationPolicy"] = policy
    if wanted is not None:
        if not isinstance(wanted, list) or not all(isinstance(name, str) for name in wanted):
            raise bad_request("iotHubs is not a list of host names")
        allocation["iotHubs"] = wanted
    if policy == "static" and len(wanted or []) != 1:
        raise bad_request("the allocation policy static needs exactly one hub in iotHubs")
    linked = {name.lower() for name in hubs}
    for name in [*(wanted or []), *filter(None, [allocation.get("iotHubHostName")])]:
        if without_port(name) not in linked:
            raise bad_request(f"the hub {name!r} is not linked to this provisioning service")
    webhook = body.get("customAllocationDefinition")
    if policy == "custom" and not (
        isinstance(webhook, dict)
        and all(isinstance(webhook.get(name), str) for name in ("webhookUrl", "apiVersion"))
    ):
        raise bad_request("the allocation policy custom needs customAllocationDefinition")
    if isinstance(webhook, dict):
        allocation["customAllocationDefinition"] = webhook
    return allocation


def _check_twin(value: object) -> Document:
    properties = value.get("properties") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(properties or {}, dict):
        raise bad_request("initialTwin is not of the form {tags: {}, properties: {desired: {}}}")
    try:
        twin: Document = {"tags": check_document(value.get("tags") or {}, "initialTwin.tags", nulls=False)}
        desired = (properties or {}).get("desired") or {}
        twin["properties"] = {
            "desired": check_document(desired, "initialTwin.properties.desired", nulls=False)
        }
    except HubError as error:
        raise bad_request(error.text) from None
    return twin


def _flags(body: Mapping[str, Any], member: str, defaults: Mapping[str, bool]) -> dict[str, bool]:
    value = body.get(member)
    if value is None:
        return dict(defaults)
    if not isinstance(value, dict) or not all(
        isinstance(value.get(name, default), bool) for name, default in defaults.items()
    ):
        raise bad_request(f"{member} is not an object of true and false")
    return {name: value.get(name, default) for name, default in defaults.items()}


def _copy_text(body: Mapping[str, Any], member: str, document: Document) -> None:
    value = body.get(member)
    if value is None or value == "":
        return
    if not isinstance(value, str):
        raise bad_request(f"{member} is not a string")
    document[member] = value
