# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a device's proof to its place in the hub.

A device is enrolled by itself or by a group; its own enrollment wins. What it proves itself with to
the provisioning service is what it then proves itself with to the hub.
"""

import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from iothub_emulator import dps_records, identity, registry
from iothub_emulator.auth import SasToken
from iothub_emulator.clock import HubClock
from iothub_emulator.dps_attestation import certificate_info, derived_key, kept_certificates
from iothub_emulator.dps_errors import DpsError, as_dps_error, bad_request, registration_not_found
from iothub_emulator.dps_records import Kind, Record, Registration
from iothub_emulator.errors import HubError, UnauthorizedError, unauthorized
from iothub_emulator.identity import Authentication
from iothub_emulator.logs import event
from iothub_emulator.trust import DeviceAuthorities, check_chain, check_dates, thumbprints
from iothub_emulator.twins import Twin

Document = dict[str, Any]

RETRY_SECONDS = 1
_POLICY = "registration"


@dataclass(frozen=True)
class Proof:
    """What a device brings: a token, or a certificate with those above it."""

    token: SasToken | None
    certificates: Sequence[x509.Certificate]


@dataclass(frozen=True)
class Enrolled:
    """A device that has proven itself, by what, and how it will prove itself to the hub."""

    registration_id: str
    record: Record
    authentication: Authentication

    def result(self, registration: Registration, certificates: Sequence[x509.Certificate]) -> Document:
        """The registration as the device sees it: with a word on how it proved itself."""
        group: Document = (
            {} if registration.group_id is None else {"enrollmentGroupId": registration.group_id}
        )
        kind = self.record.attestation["type"]
        if kind == "x509" and certificates:
            group = {"certificateInfo": certificate_info(certificates[0])} | group
        return {kind: group} | registration.shown()


class Registrar:
    """Registers devices. Methods that take a connection are one operation on the store."""

    def __init__(
        self, id_scope: str, hubs: Sequence[str], clock: HubClock, authorities: DeviceAuthorities
    ) -> None:
        self.id_scope = id_scope
        self._hubs = hubs
        self._clock = clock
        self._authorities = authorities

    def check(self, connection: sqlite3.Connection, registration_id: str, proof: Proof) -> Enrolled:
        """Find what enrolls the device and prove it. Raises UnauthorizedError, and DpsError 501 for a TPM."""
        record = dps_records.find(connection, Kind.ENROLLMENT, registration_id)
        if record is not None and record.attestation["type"] == "tpm":
            # Before anything else: such a device begins with no proof at all.
            raise DpsError(501001, "The emulator does not have attestation by TPM.")
        if proof.token is not None:
            self._check_token(proof.token, registration_id)
        elif not proof.certificates:
            raise unauthorized("neither a token nor a certificate")
        if record is not None:
            return Enrolled(registration_id, record, self._prove(record, registration_id, proof))
        reasons = []
        for group in dps_records.groups(connection):
            try:
                return Enrolled(registration_id, group, self._prove(group, registration_id, proof))
            except UnauthorizedError as error:
                reasons.append(f"{group.id}: {error.reason}")
        raise unauthorized("; ".join([f"no enrollment has the id {registration_id!r}", *reasons]))

    def register(self, connection: sqlite3.Connection, enrolled: Enrolled, body: object) -> Registration:
        """Assign the device, or note why that is not possible."""
        named = body.get("registrationId", "") if isinstance(body, dict) else None
        if not isinstance(named, str) or named.lower() not in ("", enrolled.registration_id.lower()):
            raise bad_request("registrationId in the body is not the device's")
        now = self._clock.now()
        record = enrolled.record
        previous = dps_records.find_registration(connection, enrolled.registration_id)
        registration = Registration(
            id=enrolled.registration_id.lower(),
            registration_id=enrolled.registration_id,
            group_id=record.id if record.kind is Kind.GROUP else None,
            operation_id=f"4.{secrets.token_hex(8)}.{dps_records.new_etag()}",
            etag=dps_records.new_etag(),
            created=previous.created if previous else now,
            updated=now,
            status="disabled",
            substatus=None,
            assigned_hub=None,
            device_id=None,
            error_code=None,
            error_message=None,
        )
        if not record.enabled:
            registration = replace(registration, operation_id="")
        else:
            connection.execute("SAVEPOINT assigning")
            try:
                registration = self._assign(connection, enrolled, registration, previous)
            except HubError as error:
                connection.execute("ROLLBACK TO assigning")
                failed = as_dps_error(error)
                registration = replace(
                    registration, status="failed", error_code=failed.number, error_message=failed.text
                )
            finally:
                connection.execute("RELEASE assigning")
        registration.save(connection)
        event(
            "device-registered",
            registrationId=registration.registration_id,
            by=f"{record.kind} {record.id}",
            status=registration.status,
            device=registration.device_id,
            reason=registration.error_message,
        )
        return registration

    def first_answer(
        self, connection: sqlite3.Connection, enrolled: Enrolled, proof: Proof, body: object
    ) -> tuple[int, Document]:
        """Register; answers as if the work went on, because clients are made for that."""
        registration = self.register(connection, enrolled, body)
        if registration.status == "disabled":
            return 200, self._outcome(enrolled, registration, proof)
        return 202, {"operationId": registration.operation_id, "status": "assigning"}

    def last_answer(
        self, connection: sqlite3.Connection, enrolled: Enrolled, proof: Proof, operation_id: str
    ) -> tuple[int, Document]:
        """What became of an operation of this device."""
        registration = dps_records.get_registration(connection, enrolled.registration_id)
        if registration.operation_id != operation_id:
            raise registration_not_found()
        return 200, self._outcome(enrolled, registration, proof)

    def _outcome(self, enrolled: Enrolled, registration: Registration, proof: Proof) -> Document:
        return {
            "operationId": registration.operation_id,
            "status": registration.status,
            "registrationState": enrolled.result(registration, proof.certificates),
        }

    def _check_token(self, token: SasToken, registration_id: str) -> None:
        now = self._clock.now()
        if token.expiry <= now:
            raise unauthorized(f"token expired {now - token.expiry:.0f} s ago by the service's clock")
        wanted = f"{self.id_scope}/registrations/{registration_id}".lower()
        if unquote(token.resource).lower() != wanted:
            raise unauthorized(f"token is for {unquote(token.resource)!r}, not for {wanted!r}")
        if token.policy not in (None, _POLICY):
            raise unauthorized(f"token is for the policy {token.policy!r}, not for {_POLICY!r}")

    def _prove(self, record: Record, registration_id: str, proof: Proof) -> Authentication:
        attestation = record.attestation
        match attestation["type"]:
            case "symmetricKey":
                keys = attestation["symmetricKey"].values()
                if record.kind is Kind.GROUP:
                    keys = [derived_key(key, registration_id) for key in keys]
                if proof.token is None:
                    raise unauthorized("the enrollment wants a token, the device brought a certificate")
                if not proof.token.signed_by(keys):
                    raise unauthorized("wrong key")
                return Authentication("sas", *keys)
            case _:
                if proof.token is not None:
                    raise unauthorized("the enrollment wants a certificate, the device brought a token")
                self._check_certificates(attestation, registration_id, proof.certificates)
                thumbprint = proof.certificates[0].fingerprint(hashes.SHA256()).hex().upper()
                return Authentication("selfSigned", None, None, thumbprint)

    def _check_certificates(
        self, attestation: Document, registration_id: str, chain: Sequence[x509.Certificate]
    ) -> None:
        own, now = chain[0], self._clock.now()
        names = [part.value for part in own.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        if [str(name).lower() for name in names] != [registration_id.lower()]:
            raise unauthorized(f"the certificate is for {names}, not for {registration_id!r}")
        (member, pair), *_none = attestation["x509"].items()
        if member == "caReferences":
            check_chain(chain, self._authorities.find(pair.values()), now)
            return
        known = {certificate["info"]["sha256Thumbprint"] for certificate in pair.values()}
        if member == "clientCertificates":
            if not thumbprints(own) & known:
                raise unauthorized("the certificate is not the enrolled one")
            check_dates(own, now)
            return
        check_chain(chain, kept_certificates(attestation), now)

    def _assign(
        self,
        connection: sqlite3.Connection,
        enrolled: Enrolled,
        registration: Registration,
        previous: Registration | None,
    ) -> Registration:
        document = enrolled.record.document
        if document.get("allocationPolicy") == "custom":
            raise DpsError(501001, "The emulator does not have the allocation policy custom.")
        assigned = previous if previous and previous.status == "assigned" else None
        if assigned and not document["reprovisionPolicy"]["updateHubAssignment"]:
            return replace(
                registration,
                status="assigned",
                substatus=assigned.substatus,
                assigned_hub=assigned.assigned_hub,
                device_id=assigned.device_id,
            )
        if assigned and assigned.device_id:
            # Another device id in the enrollment counts once the registration was deleted.
            device_id = assigned.device_id
        else:
            device_id = document.get("deviceId") or registration.registration_id
        wanted = [*document.get("iotHubs", []), document.get("iotHubHostName"), self._hubs[0]]
        self._write_device(connection, device_id, enrolled, first=assigned is None)
        return replace(
            registration,
            status="assigned",
            substatus="reprovisionedToInitialAssignment" if assigned else "initialAssignment",
            assigned_hub=dps_records.without_port(next(name for name in wanted if name)),
            device_id=device_id,
        )

    def _write_device(
        self, connection: sqlite3.Connection, device_id: str, enrolled: Enrolled, *, first: bool
    ) -> None:
        """Create the device with its initial twin, or let the one that is there prove itself this way."""
        now, document = self._clock.now(), enrolled.record.document
        edge = document["capabilities"]["iotEdge"]
        existing = identity.find(connection, device_id)
        body: Document = {"deviceId": device_id, "authentication": enrolled.authentication.document()}
        if existing is None:
            body["capabilities"] = {"iotEdge": edge}
            device = registry.put_device(connection, device_id, body, None, now)
            if document.get("initialTwin"):
                twin = Twin.load(connection, device)
                twin.write(document["initialTwin"], replace=False, if_match=None, now=now)
                twin.save(connection)
            return
        # With one hub a device never moves to another, so its twin is never reset.
        edge = edge if first else existing.edge
        if existing.authentication == enrolled.authentication and existing.edge == edge:
            return
        body |= {
            "capabilities": {"iotEdge": edge},
            "status": existing.status,
            "statusReason": existing.status_reason,
        }
        if existing.edge == edge:
            body |= existing.scopes()
        registry.put_device(connection, device_id, body, "*", now)
