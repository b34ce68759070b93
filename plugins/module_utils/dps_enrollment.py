# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wanted and actual enrollments, of one device or of a group: what differs, and the body for it. Pure.

The service's rules that shape this file: a PUT replaces the whole record; keys are shown by a call of their
own only, and a PUT without them makes new ones; of a certificate it keeps what identifies it and takes that
back; ids are not told apart by their case.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    authentication,
    iothub_device,
    item_list,
    twin_rules,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.item_list import Plan

# "Terminology": letters, digits and -:._ ; the last is a letter, a digit or a dash.
_ID = re.compile(r"[A-Za-z0-9\-:._]{0,127}[A-Za-z0-9\-]")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.\-]*[A-Za-z0-9])?(?::\d{1,5})?")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
# Name in the option: name at the service.
TYPES = {"symmetric_key": "symmetricKey", "x509": "x509", "tpm": "tpm"}
ALLOCATIONS = {"hashed": "hashed", "geo_latency": "geoLatency", "static": "static", "custom": "custom"}
_PLACES = ("primary", "secondary")
# What a diff says of secrets that differ: nothing else of them.
NOTES = ("keys", "webhook_secret")
# What the service writes itself.
_READ_ONLY = ("etag", "createdDateTimeUtc", "lastUpdatedDateTimeUtc", "registrationState")


@dataclass(frozen=True)
class Kind:
    """Enrollments or groups. option: of the module, name: of the id in it; the rest: names at the service."""

    option: str
    name: str
    path: str
    id_member: str
    certificates: str

    @property
    def group(self) -> bool:
        return self.path == "enrollmentGroups"


ENROLLMENTS = Kind("enrollments", "registration_id", "enrollments", "registrationId", "clientCertificates")
GROUPS = Kind("groups", "group_id", "enrollmentGroups", "enrollmentGroupId", "signingCertificates")


@dataclass(frozen=True)
class Attestation:
    """How a device shows that it is enrolled. type: a key of TYPES. Certificates are PEM texts."""

    type: str
    primary_key: str | None = field(default=None, repr=False)
    secondary_key: str | None = field(default=None, repr=False)
    endorsement_key: str | None = None
    primary_certificate: str | None = field(default=None, repr=False)
    secondary_certificate: str | None = field(default=None, repr=False)
    primary_ca: str | None = None
    secondary_ca: str | None = None

    def errors(self, kind: Kind) -> list[str]:
        """Return everything that is wrong with it; no message holds a key."""
        allowed = {
            "symmetric_key": {"primary_key", "secondary_key"},
            "tpm": {"endorsement_key"},
            "x509": {"primary_certificate", "secondary_certificate", "primary_ca", "secondary_ca"},
        }
        if self.type not in allowed or (kind.group and self.type == "tpm"):
            return [f"attestation of type {self.type} is not for {kind.option}"]
        given = [name for name in (*_OPTIONS,) if getattr(self, name)]
        strange = [name for name in given if name not in allowed[self.type]]
        if strange:
            return [f"attestation of type {self.type} takes no {' and '.join(strange)}"]
        return [f"attestation.{error}" for error in _CONTENT_ERRORS[self.type](self)]

    def body(self, kind: Kind) -> dict[str, Any]:
        """Return the member ``attestation`` of a PUT; without keys the service makes them."""
        if self.type == "symmetric_key":
            keys = {"primaryKey": _stripped(self.primary_key), "secondaryKey": _stripped(self.secondary_key)}
            return {"type": "symmetricKey", "symmetricKey": keys if self.primary_key else {}}
        if self.type == "tpm":
            return {"type": "tpm", "tpm": {"endorsementKey": _stripped(self.endorsement_key)}}
        if self.primary_ca or self.secondary_ca:
            references = {"primary": self.primary_ca, "secondary": self.secondary_ca}
            return {"type": "x509", "x509": {"caReferences": {k: v for k, v in references.items() if v}}}
        texts = {"primary": self.primary_certificate, "secondary": self.secondary_certificate}
        pair = {place: {"certificate": text} for place, text in texts.items() if text}
        return {"type": "x509", "x509": {kind.certificates: pair}}


_OPTIONS = (
    "primary_key",
    "secondary_key",
    "endorsement_key",
    "primary_certificate",
    "secondary_certificate",
    "primary_ca",
    "secondary_ca",
)


def _key_pair_errors(wanted: Attestation) -> list[str]:
    given = [name for name in ("primary_key", "secondary_key") if getattr(wanted, name)]
    if len(given) == 1:
        return [f"{given[0]} stands alone; give both keys or none (then the service makes them)"]
    checked = ((name, authentication.key_error(getattr(wanted, name))) for name in given)
    return [f"{name}: {error}" for name, error in checked if error]


def _tpm_errors(wanted: Attestation) -> list[str]:
    try:
        if base64.b64decode(_stripped(wanted.endorsement_key), validate=True):
            return []
    except (binascii.Error, ValueError):
        pass
    return ["endorsement_key is not base64: it takes what the TPM shows as its public endorsement key"]


def _x509_errors(wanted: Attestation) -> list[str]:
    certificates = [
        name for name in ("primary_certificate", "secondary_certificate") if getattr(wanted, name)
    ]
    references = wanted.primary_ca or wanted.secondary_ca
    if certificates and references:
        return [
            "primary_certificate and primary_ca exclude each other: give certificates or names of authorities"
        ]
    if not (wanted.primary_certificate or wanted.primary_ca):
        return ["type x509 needs primary_certificate or primary_ca"]
    checked = ((name, _certificate_error(getattr(wanted, name))) for name in certificates)
    return [f"{name} {error}" for name, error in checked if error]


_CONTENT_ERRORS = {"symmetric_key": _key_pair_errors, "tpm": _tpm_errors, "x509": _x509_errors}


@dataclass(frozen=True)
class Desired:
    """An enrollment or group as the operator wants it; None means "leave as it is".

    tags, desired: of the initial twin, each replaced as a whole. webhook: (url, api-version).
    """

    name: str
    present: bool = True
    attestation: Attestation | None = None
    device_id: str | None = None
    edge: bool | None = None
    status: str | None = None
    allocation: str | None = None
    iot_hubs: Sequence[str] | None = None
    webhook: tuple[str, str] | None = field(default=None, repr=False)
    update_hub_assignment: bool | None = None
    migrate_device_data: bool | None = None
    tags: Mapping[str, Any] | None = None
    desired: Mapping[str, Any] | None = None


def list_errors(kind: Kind, items: Sequence[Desired]) -> list[str]:
    """Return every error of a list, each naming the item by its index (from 0)."""
    return item_list.by_item(kind.option, (_item_errors(kind, item) for item in items)) + item_list.repeated(
        kind.option,
        (item.name.lower() for item in items),
        (f"{kind.name} {item.name!r} (case does not count)" for item in items),
    )


def _item_errors(kind: Kind, item: Desired) -> list[str]:
    found = []
    if not _ID.fullmatch(item.name):
        found.append(
            f"{kind.name} {item.name[:140]!r} is not 1 to 128 ASCII letters, digits and - : . _ that end "
            "in a letter, a digit or a dash"
        )
    if item.device_id:
        found += [error for error in [iothub_device.device_id_error(item.device_id)] if error]
    if item.attestation:
        found += item.attestation.errors(kind)
    found += [
        f"iot_hubs: {host!r} is no host name" for host in item.iot_hubs or [] if not _HOST.fullmatch(host)
    ]
    if item.allocation == "static" and item.iot_hubs is not None and len(item.iot_hubs) != 1:
        found.append(f"allocation_policy static takes exactly one of iot_hubs, not {len(item.iot_hubs)}")
    if item.webhook and urlsplit(item.webhook[0]).scheme != "https":
        found.append("webhook.url does not begin with https://")
    if item.webhook and item.allocation not in (None, "custom"):
        found.append(f"webhook is for allocation_policy custom, not {item.allocation}")
    for section in ("tags", "desired"):
        errors = twin_rules.errors(getattr(item, section), section, nulls=False)
        found += [f"initial_twin.{error}" for error in errors]
    return found


def plan(kind: Kind, actual: Mapping[str, Any] | None, item: Desired) -> Plan:
    """Return what to do so that the record is as wanted.

    actual: as the service shows it, with its symmetric keys where keys are wanted; None when there is none. A
    body whose symmetric keys are None has to get those that are there before it is sent.
    Raises item_list.Refused for what cannot be had.
    """
    before = public_view(kind, actual)
    if not item.present:
        return Plan("delete", etag=str(actual.get("etag") or "*"), before=before) if actual else Plan("none")
    if actual is None and item.attestation is None:
        raise item_list.Refused("it does not exist, and to make it attestation is needed")
    body = {name: value for name, value in (actual or {}).items() if name not in _READ_ONLY}
    body.setdefault(kind.id_member, item.name)
    keys_differ = _set_attestation(kind, body, item.attestation)
    _set_rest(body, item)
    if not actual:
        return Plan("create", body=body, after=public_view(kind, body))
    after = public_view(kind, body)
    # A webhook's address holds its secret in parts that no view shows.
    webhook_differs = body.get("customAllocationDefinition") != actual.get("customAllocationDefinition")
    if not keys_differ and not webhook_differs and twin_rules.same(before, after):
        return Plan("none", before=before, after=after)
    for differs, note in zip((keys_differ, webhook_differs), NOTES, strict=True):
        if differs:
            before, after = {**before, note: "others"}, {**after, note: "as given"}
    return Plan("update", body=body, etag=str(actual.get("etag") or "*"), before=before, after=after)


def _set_attestation(kind: Kind, body: dict[str, Any], wanted: Attestation | None) -> bool:
    """Put what is wanted into the body; return whether keys differ, which no view shows."""
    there = body.get("attestation")
    if wanted is None:
        return False
    if there is None:
        body["attestation"] = wanted.body(kind)
        return False
    if there.get("type") != TYPES[wanted.type]:
        raise item_list.Refused(
            f"its attestation is of type {there.get('type')} and the list wants {TYPES[wanted.type]}: the "
            "service does not change that in place; delete it first (state: absent)"
        )
    goal = wanted.body(kind)
    if wanted.type == "symmetric_key":
        differs = bool(goal["symmetricKey"]) and goal["symmetricKey"] != there.get("symmetricKey")
        if differs:
            body["attestation"] = goal
        return differs
    if attestation_view(kind, goal) != attestation_view(kind, there):
        body["attestation"] = goal
    return False


def _set_rest(body: dict[str, Any], item: Desired) -> None:
    if item.device_id is not None:
        body["deviceId"] = item.device_id
        if not item.device_id:
            del body["deviceId"]
    if item.edge is not None or "capabilities" not in body:
        body["capabilities"] = {**body.get("capabilities", {}), "iotEdge": bool(item.edge)}
    if item.status is not None or "provisioningStatus" not in body:
        body["provisioningStatus"] = item.status or "enabled"
    _set_allocation(body, item)
    policy = dict(body.get("reprovisionPolicy") or {})
    for member, value in (
        ("updateHubAssignment", item.update_hub_assignment),
        ("migrateDeviceData", item.migrate_device_data),
    ):
        # The service's own default.
        policy[member] = policy.get(member, True) if value is None else value
    body["reprovisionPolicy"] = policy
    if item.tags is not None or item.desired is not None:
        there = initial_twin(body)
        body["initialTwin"] = {
            "tags": dict(there["tags"] if item.tags is None else item.tags),
            "properties": {"desired": dict(there["desired"] if item.desired is None else item.desired)},
        }


def _set_allocation(body: dict[str, Any], item: Desired) -> None:
    if item.iot_hubs is not None:
        body["iotHubs"] = list(item.iot_hubs)
        # The older way to name one hub would stand against the list.
        body.pop("iotHubHostName", None)
    if item.allocation is not None:
        body["allocationPolicy"] = ALLOCATIONS[item.allocation]
    if item.webhook is not None:
        body["customAllocationDefinition"] = {"webhookUrl": item.webhook[0], "apiVersion": item.webhook[1]}
    policy = body.get("allocationPolicy")
    if policy != "custom":
        if item.webhook is not None:
            raise item_list.Refused(f"webhook is for allocation_policy custom, and it has {policy or 'none'}")
        body.pop("customAllocationDefinition", None)
    elif not body.get("customAllocationDefinition"):
        raise item_list.Refused("allocation_policy custom needs webhook")
    if policy == "static" and len(body.get("iotHubs") or []) != 1:
        raise item_list.Refused("allocation_policy static needs exactly one of iot_hubs")


def initial_twin(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return ``{"tags", "desired"}`` of a record's initial twin, without the service's own members."""
    twin = record.get("initialTwin") or {}
    desired = (twin.get("properties") or {}).get("desired") or {}

    def own(section: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in section.items() if not key.startswith("$")}

    return {"tags": own(twin.get("tags") or {}), "desired": own(desired)}


def public_view(kind: Kind, record: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what may be shown of a record: no keys. ``{}`` for one that does not exist."""
    if not record:
        return {}
    policy = record.get("reprovisionPolicy") or {}
    allocations = {service: option for option, service in ALLOCATIONS.items()}
    webhook = record.get("customAllocationDefinition") or {}
    view = {
        kind.name: record.get(kind.id_member),
        "attestation": attestation_view(kind, record.get("attestation") or {}),
        "edge": bool((record.get("capabilities") or {}).get("iotEdge")),
        "status": record.get("provisioningStatus"),
        "allocation_policy": allocations.get(str(record.get("allocationPolicy"))),
        # Their order means nothing.
        "iot_hubs": sorted(record.get("iotHubs") or []),
        "webhook": {"url": _without_secret(webhook["webhookUrl"]), "api_version": webhook.get("apiVersion")}
        if webhook
        else None,
        "reprovision_policy": {
            "update_hub_assignment": bool(policy.get("updateHubAssignment", True)),
            "migrate_device_data": bool(policy.get("migrateDeviceData", True)),
        },
        "initial_twin": initial_twin(record),
    }
    return view if kind.group else {**view, "device_id": record.get("deviceId") or None}


def attestation_view(kind: Kind, attestation: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may be shown of an attestation: fingerprints of certificates, no symmetric keys."""
    names = {service: option for option, service in TYPES.items()}
    shown: dict[str, Any] = {"type": names.get(str(attestation.get("type")), attestation.get("type"))}
    if shown["type"] == "tpm":
        shown["endorsement_key"] = (attestation.get("tpm") or {}).get("endorsementKey")
    if shown["type"] == "x509":
        content = attestation.get("x509") or {}
        references = content.get("caReferences") or {}
        certificates = content.get(kind.certificates) or {}
        for place in _PLACES:
            shown[f"{place}_ca"] = references.get(place)
            shown[f"{place}_sha256"] = _fingerprint(certificates.get(place))
    return shown


def keys_of(attestation: Mapping[str, Any] | None) -> dict[str, str | None]:
    """Return the symmetric keys as ``primary_key`` and ``secondary_key``: secrets."""
    keys = (attestation or {}).get("symmetricKey") or {}
    return {"primary_key": keys.get("primaryKey"), "secondary_key": keys.get("secondaryKey")}


def lacks_keys(record: Mapping[str, Any]) -> bool:
    """Return whether a record has symmetric keys that it does not show."""
    attestation = record.get("attestation") or {}
    keys = attestation.get("symmetricKey") or {}
    return attestation.get("type") == "symmetricKey" and not keys.get("primaryKey")


def _fingerprint(certificate: Mapping[str, Any] | None) -> str | None:
    """Return the SHA-256 of a certificate, of its text or as the service tells it."""
    if not certificate:
        return None
    if certificate.get("certificate"):
        return hashlib.sha256(_der(str(certificate["certificate"]))).hexdigest().upper()
    return str((certificate.get("info") or {}).get("sha256Thumbprint") or "").upper() or None


def _certificate_error(text: str) -> str | None:
    if "PRIVATE KEY-----" in text:
        return "holds a private key; give the certificate alone"
    if len(_PEM.findall(text)) != 1:
        return f"holds {len(_PEM.findall(text))} PEM certificates; it takes the text of one"
    try:
        # Every certificate is a DER sequence.
        return None if _der(text)[:1] == b"\x30" else "is no certificate"
    except (binascii.Error, ValueError):
        return "is no certificate: what stands between BEGIN and END is not base64"


def _der(text: str) -> bytes:
    found = _PEM.search(text)
    return base64.b64decode("".join((found[1] if found else text).split()), validate=True)


def _without_secret(url: str) -> str:
    """Return an address without its query: an Azure function's key stands there."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _stripped(text: str | None) -> str:
    return (text or "").strip()
