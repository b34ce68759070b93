# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an enrollment says that a device proves itself: symmetric keys, X.509 certificates, a TPM.

An attestation is kept as it is shown, except that its symmetric keys are shown by one call only and
that a certificate is never shown again, only what identifies it.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from iothub_emulator.clock import twin_time
from iothub_emulator.dps_errors import bad_request
from iothub_emulator.errors import HubError
from iothub_emulator.identity import parse_authentication

Document = dict[str, Any]

_THUMBPRINTS = {"sha1Thumbprint": 40, "sha256Thumbprint": 64}
_INFO_TEXTS = ("subjectName", "issuerName", "notBeforeUtc", "notAfterUtc", "serialNumber")


def parse_attestation(value: object, *, group: bool) -> Document:
    """Check the `attestation` of an enrollment or a group; returns what to keep. Raises DpsError 400."""
    if not isinstance(value, dict):
        raise bad_request("attestation is missing or not a JSON object")
    kind = value.get("type")
    members = [name for name in ("tpm", "x509", "symmetricKey") if value.get(name) is not None]
    if kind not in ("tpm", "x509", "symmetricKey"):
        raise bad_request("attestation.type is not tpm, x509 or symmetricKey")
    if any(name != kind for name in members):
        raise bad_request(f"attestation of type {kind} takes no {', '.join(sorted(set(members) - {kind}))}")
    content = value.get(kind)
    if content is None and kind == "symmetricKey":
        content = {}
    if not isinstance(content, dict):
        raise bad_request(f"attestation.{kind} is missing or not a JSON object")
    if kind == "symmetricKey":
        return {"type": kind, kind: _parse_keys(content)}
    if kind == "tpm":
        if group:
            raise bad_request("an enrollment group takes no TPM attestation")
        return {"type": kind, kind: _parse_tpm(content)}
    return {"type": kind, kind: _parse_x509(content, group)}


def shown(attestation: Mapping[str, Any], *, keys: bool) -> Document:
    """An attestation as the service shows it, with or without its keys."""
    match attestation["type"]:
        case "symmetricKey" if not keys:
            return {"type": "symmetricKey", "symmetricKey": {"primaryKey": None, "secondaryKey": None}}
        case "x509":
            members = {
                member: {
                    place: {"info": value["info"]} if isinstance(value, dict) else value
                    for place, value in pair.items()
                }
                for member, pair in attestation["x509"].items()
            }
            return {"type": "x509", "x509": members}
        case _:
            return dict(attestation)


def keep_certificates(new: Document, old: Mapping[str, Any]) -> None:
    """Where `new` only repeats what was shown of a certificate, take the certificate from `old`."""
    known = {info["sha256Thumbprint"]: certificate for info, certificate in _certificates(old) if certificate}
    for pair in new.get("x509", {}).values():
        for value in pair.values():
            if isinstance(value, dict) and "certificate" not in value:
                certificate = known.get(value["info"]["sha256Thumbprint"])
                value.update({"certificate": certificate} if certificate else {})


def kept_certificates(attestation: Mapping[str, Any]) -> list[x509.Certificate]:
    """The certificates of an attestation that were sent whole."""
    return [read_certificate(certificate) for _info, certificate in _certificates(attestation) if certificate]


def _certificates(attestation: Mapping[str, Any]) -> list[tuple[Document, str | None]]:
    values = [value for pair in attestation.get("x509", {}).values() for value in pair.values()]
    return [(value["info"], value.get("certificate")) for value in values if isinstance(value, dict)]


def derived_key(group_key: str, registration_id: str) -> str:
    """The key of one device of a group."""
    digest = hmac.digest(base64.b64decode(group_key), registration_id.encode(), sha256)
    return base64.b64encode(digest).decode()


def certificate_info(certificate: x509.Certificate) -> Document:
    """What the service shows of a certificate."""
    return {
        "subjectName": _name(certificate.subject),
        "sha1Thumbprint": certificate.fingerprint(hashes.SHA1()).hex().upper(),  # noqa: S303 - the hub's contract
        "sha256Thumbprint": certificate.fingerprint(hashes.SHA256()).hex().upper(),
        "issuerName": _name(certificate.issuer),
        "notBeforeUtc": _utc(certificate.not_valid_before_utc),
        "notAfterUtc": _utc(certificate.not_valid_after_utc),
        "serialNumber": f"{certificate.serial_number:X}",
        "version": certificate.version.value + 1,
    }


def read_certificate(text: str) -> x509.Certificate:
    """Read PEM, the base64 of PEM, or the base64 of DER; clients send all three. Raises ValueError."""
    data = text.encode()
    if b"-----BEGIN" not in data:
        try:
            data = base64.b64decode(re.sub(rb"\s", b"", data), validate=True)
        except binascii.Error as error:
            raise ValueError("neither PEM nor base64") from error
    if b"-----BEGIN" in data:
        return x509.load_pem_x509_certificate(data)
    return x509.load_der_x509_certificate(data)


def _parse_keys(content: Mapping[str, Any]) -> Document:
    try:
        parsed = parse_authentication({"type": "sas", "symmetricKey": dict(content)}, module=False)
    except HubError as error:
        raise bad_request(error.text) from None
    return {"primaryKey": parsed.primary_key, "secondaryKey": parsed.secondary_key}


def _parse_tpm(content: Mapping[str, Any]) -> Document:
    key, root = content.get("endorsementKey"), content.get("storageRootKey")
    for name, value in (("endorsementKey", key), ("storageRootKey", root)):
        if value is None and name == "storageRootKey":
            continue
        try:
            good = isinstance(value, str) and bool(base64.b64decode(value, validate=True))
        except binascii.Error:
            good = False
        if not good:
            raise bad_request(f"attestation.tpm.{name} is not the base64 of a key")
    return {"endorsementKey": key} | ({"storageRootKey": root} if root else {})


def _parse_x509(content: Mapping[str, Any], group: bool) -> Document:
    own, foreign = "clientCertificates", "signingCertificates"
    if group:
        own, foreign = foreign, own
    given = [name for name in (own, foreign, "caReferences") if content.get(name) is not None]
    if foreign in given:
        raise bad_request(f"attestation.x509.{foreign} is not for {'groups' if group else 'single devices'}")
    if len(given) != 1:
        raise bad_request(f"attestation.x509 takes one of {own} and caReferences")
    member, pair = given[0], content[given[0]]
    if not isinstance(pair, dict) or not pair.get("primary"):
        raise bad_request(f"attestation.x509.{member}.primary is missing")
    parsed: Document = {}
    for place in ("primary", "secondary"):
        value = pair.get(place)
        if value is None or value == "":
            continue
        where = f"attestation.x509.{member}.{place}"
        if member == "caReferences":
            if not isinstance(value, str):
                raise bad_request(f"{where} is not the name of a CA certificate")
            parsed[place] = value
        else:
            parsed[place] = _parse_certificate(value, where)
    return {member: parsed}


def _parse_certificate(value: object, where: str) -> Document:
    if not isinstance(value, dict):
        raise bad_request(f"{where} is not a JSON object")
    text, info = value.get("certificate"), value.get("info")
    if text:
        try:
            certificate = read_certificate(text)
            pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
            return {"info": certificate_info(certificate), "certificate": pem}
        except (ValueError, TypeError, AttributeError):
            raise bad_request(f"{where}.certificate is not a PEM or base64 certificate") from None
    # An update repeats what the service showed.
    if not isinstance(info, dict):
        raise bad_request(f"{where} has neither certificate nor info")
    for name, length in _THUMBPRINTS.items():
        thumbprint = info.get(name)
        if not isinstance(thumbprint, str) or not re.fullmatch(rf"[0-9A-Fa-f]{{{length}}}", thumbprint):
            raise bad_request(f"{where}.info.{name} is not {length} hexadecimal digits")
    if any(not isinstance(info.get(name, ""), str) for name in _INFO_TEXTS):
        raise bad_request(f"{where}.info has members that are not strings")
    repeated = {
        "subjectName": info.get("subjectName", ""),
        "sha1Thumbprint": info["sha1Thumbprint"].upper(),
        "sha256Thumbprint": info["sha256Thumbprint"].upper(),
        "issuerName": info.get("issuerName", ""),
        "notBeforeUtc": info.get("notBeforeUtc", ""),
        "notAfterUtc": info.get("notAfterUtc", ""),
        "serialNumber": info.get("serialNumber", ""),
        "version": info.get("version", 3),
    }
    return {"info": repeated}


def _name(name: x509.Name) -> str:
    return ", ".join(part.rfc4514_string() for part in reversed(name.rdns))


def _utc(moment: datetime) -> str:
    return twin_time(moment.timestamp())
