# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which device a gateway is, how it proves that, and what is above it. Pure.

An entry of ``edge_gateways`` tells it with ``credential``, ``dps``, ``hostname``, ``parent`` and
``parent_hostname``. Keys and certificates themselves are never part of an entry: files on the controller or
objects on the cluster hold them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_device
from ansible_collections.edgeha.iotedge.plugins.module_utils.authentication import thumbprint_error
from ansible_collections.edgeha.iotedge.plugins.module_utils.value_formats import is_true, mapping

CREDENTIAL_KEYS = (
    "certificate_file",
    "key_file",
    "secret",
    "secret_provider_class",
    "thumbprints",
    "type",
)
DPS_KEYS = ("endpoint", "group", "id_scope", "registration_id")
DPS_ENDPOINT = "global.azure-devices-provisioning.net"
SYMMETRIC_KEY, X509 = TYPES = ("symmetric_key", "x509")
# Where the credential comes from, in the order in which a key of an entry decides.
PROVIDER, SECRET, FILES, HUB = ("secret_provider_class", "secret", "files", "hub")
SECRET_NAME = "{name}-device"  # noqa: S105 - the name of a Secret and not a secret
# What is in the Secret of a credential, by its type; the chart's values say the same.
SECRET_ENTRIES: Mapping[str, tuple[str, ...]] = {
    SYMMETRIC_KEY: ("device-key",),
    X509: ("tls.crt", "tls.key"),
}

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_PORT = re.compile(r":[0-9]{1,5}$")
_OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_ID_SCOPE = re.compile(r"[A-Za-z0-9]{1,64}")
# "DPS, terminology": up to 128 characters out of this set, in which case does not count. Keys of a group's
# devices are derived of the lower case. As in the chart's schema.
_REGISTRATION = re.compile(r"[a-z0-9]([a-z0-9._:-]{0,126}[a-z0-9])?")
Finding = tuple[str, str]


def normalised(entry: Mapping[str, Any], device_id: str) -> dict[str, Any]:
    """Return ``hostname``, ``parent_hostname``, ``credential``, ``dps`` and ``device`` of a gateway.

    credential: ``{"type", "source", "secret", "secret_provider_class", "certificate_file", "key_file"}``.
    dps: ``{"id_scope", "registration_id", "group", "endpoint"}``, empty where the hub is asked directly.
    device: what the hub is to have, as an item of `iothub_devices`; of one that DPS registers its id only.
    What is wrong with an entry is reported by `errors` and taken for not given here.
    """
    credential, dps = mapping(entry.get("credential")), mapping(entry.get("dps"))
    name = str(entry["name"])
    kind = X509 if credential.get("type") == X509 else SYMMETRIC_KEY
    source = _source(credential)
    parent = _text(entry.get("parent"))
    device: dict[str, Any] = {"device_id": device_id}
    if not dps:
        device["edge"] = True
        if isinstance(entry.get("tags"), Mapping):
            device["tags"] = entry["tags"]
        if "parent" in entry and isinstance(entry["parent"], str):
            device["parent"] = parent
        if kind == X509:
            device["authentication"] = _authentication(credential.get("thumbprints"))
    return {
        "hostname": _text(entry.get("hostname")),
        "parent_hostname": _text(entry.get("parent_hostname")) or parent,
        "credential": {
            "type": kind,
            "source": source,
            "secret": _text(credential.get("secret")) or SECRET_NAME.format(name=name),
            "secret_provider_class": _text(credential.get("secret_provider_class")),
            "certificate_file": _text(credential.get("certificate_file")),
            "key_file": _text(credential.get("key_file")),
        },
        "dps": {
            "id_scope": _text(dps.get("id_scope")),
            "registration_id": _text(dps.get("registration_id")) or device_id,
            "group": is_true(dps.get("group")),
            "endpoint": _text(dps.get("endpoint")) or DPS_ENDPOINT,
        }
        if dps
        else {},
        "device": device,
    }


def chart_values(gateway: Mapping[str, Any], iothub_hostname: str) -> dict[str, Any]:
    """Return the values ``gateway``, ``credential`` and ``dps`` of the chart for a normalised gateway."""
    credential, dps = gateway["credential"], gateway["dps"]
    own: dict[str, Any] = {"name": gateway["name"]}
    if not dps:
        own |= {"deviceId": gateway["device_id"], "iothubHostname": iothub_hostname}
    if gateway["hostname"]:
        own["gatewayHostname"] = gateway["hostname"]
    if gateway["parent_hostname"]:
        own["parentHostname"] = gateway["parent_hostname"]
    values: dict[str, Any] = {"gateway": own}
    if credential["source"] == PROVIDER:
        values["credential"] = {"secretProviderClass": credential["secret_provider_class"]}
    else:
        values["credential"] = {"existingSecret": credential["secret"]}
    if credential["type"] == X509:
        values["credential"]["type"] = "x509"
    if dps:
        values["dps"] = {
            "endpoint": dps["endpoint"],
            "idScope": dps["id_scope"],
            "registrationId": dps["registration_id"],
        }
        # Of a group's key in a file the device's own is derived before it leaves the controller.
        if dps["group"] and credential["source"] != FILES:
            values["dps"]["key"] = "group"
    return values


def errors(entry: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield (fact, fix) for what is wrong with these keys of an entry, apart from their kinds.

    Files are not looked at.
    """
    dps = entry.get("dps")
    given = isinstance(dps, Mapping) and bool(dps)
    for key in ("hostname", "parent_hostname"):
        value = entry.get(key)
        if isinstance(value, str) and value and not (_HOST_NAME.fullmatch(value) and len(value) <= 253):
            yield f"{key} {value!r} is not a host name", "give a DNS name in lower case, without https://"
    yield from _parent_errors(entry, given)
    if given:
        yield from _dps_errors(mapping(dps), entry)
    yield from _credential_errors(mapping(entry.get("credential")), mapping(dps))


def _parent_errors(entry: Mapping[str, Any], dps: bool) -> Iterator[Finding]:
    parent = entry.get("parent")
    if not isinstance(parent, str) or not parent:
        return
    error = iothub_device.device_id_error(parent)
    if error:
        yield f"parent: {error}", "name the device id of the gateway above"
    elif parent == (entry.get("device_id") or entry.get("name")):
        yield "is its own parent", "name the gateway above, or remove parent"
    elif dps:
        yield (
            "has parent and dps: its device is not there before the service registers it",
            "give parent_hostname alone, and the device its parent with iothub_devices once it is registered",
        )
    elif not entry.get("parent_hostname") and not _HOST_NAME.fullmatch(parent):
        yield (
            f"the parent {parent!r} is no host name, and there is no parent_hostname",
            "give parent_hostname, at which this gateway reaches the one above",
        )


def _dps_errors(dps: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[Finding]:
    scope, registration = dps.get("id_scope"), dps.get("registration_id")
    if not isinstance(scope, str) or not _ID_SCOPE.fullmatch(scope):
        yield "dps has no id_scope, or one that is none", "copy the ID Scope of the provisioning service"
    own = registration or entry.get("device_id") or entry.get("name")
    if not isinstance(own, str) or not _REGISTRATION.fullmatch(own):
        yield (
            f"dps.registration_id {own!r} is not a registration id",
            "lower-case letters, digits, dashes, dots, underscores and colons, at most 128; it begins and "
            "ends with a letter or a digit",
        )
    endpoint = dps.get("endpoint")
    if endpoint and not (isinstance(endpoint, str) and _HOST_NAME.fullmatch(_PORT.sub("", endpoint))):
        yield f"dps.endpoint {endpoint!r} is not a host name", f"leave it out for {DPS_ENDPOINT}"
    if entry.get("tags"):
        yield (
            "has tags and dps: its device is registered by the service",
            "give the tags to the enrollment (initial_twin of dps_enrollments or dps_groups)",
        )


def _credential_errors(credential: Mapping[str, Any], dps: Mapping[str, Any]) -> Iterator[Finding]:
    kind = credential.get("type", SYMMETRIC_KEY)
    if kind not in TYPES:
        yield f"credential.type is {kind!r}", f"possible are {' and '.join(TYPES)}"
        return
    for key in ("secret", "secret_provider_class"):
        value = credential.get(key)
        if value and not (isinstance(value, str) and _OBJECT_NAME.fullmatch(value)):
            yield f"credential.{key} {value!r} is not the name of an object", "name one of its namespace"
    places = [key for key in ("secret", "secret_provider_class") if credential.get(key)]
    places += ["key_file"] if credential.get("key_file") or credential.get("certificate_file") else []
    if len(places) > 1:
        yield f"credential has {' and '.join(places)}", "tell one place to take it from"
    if kind == X509:
        yield from _certificate_errors(credential, dps, places)
    else:
        yield from _key_errors(credential, dps, places)


def _certificate_errors(
    credential: Mapping[str, Any], dps: Mapping[str, Any], places: list[str]
) -> Iterator[Finding]:
    if not places:
        yield (
            "credential.type is x509, and nothing tells where the certificate is",
            "give certificate_file and key_file, or the secret or secret_provider_class that has tls.crt "
            "and tls.key",
        )
    for key, other in (("certificate_file", "key_file"), ("key_file", "certificate_file")):
        if credential.get(key) and not credential.get(other):
            yield f"credential has {key} and no {other}", f"give {other} too"
    prints = credential.get("thumbprints")
    if not prints:
        return
    if dps:
        yield "has credential.thumbprints and dps", "the enrollment knows the certificate: remove thumbprints"
    elif not isinstance(prints, list) or not 1 <= len(prints) <= 2:
        yield (
            "credential.thumbprints is no list of one or two",
            "give the thumbprints that the hub is to know",
        )
    else:
        for error in filter(None, map(thumbprint_error, map(str, prints))):
            yield f"credential.thumbprints: {error}", "give SHA-1 or SHA-256, hexadecimal digits alone"


def _key_errors(
    credential: Mapping[str, Any], dps: Mapping[str, Any], places: list[str]
) -> Iterator[Finding]:
    for key in ("certificate_file", "thumbprints"):
        if credential.get(key):
            yield f"credential has {key} and a symmetric key", "set credential.type to x509, or remove it"
    if dps and not places:
        yield (
            "has dps, and nothing tells where the key of its enrollment is",
            "give credential.key_file, or the secret or secret_provider_class that has device-key",
        )
    if not dps and credential.get("key_file"):
        yield (
            "has credential.key_file, and the hub is where its key comes from",
            "remove key_file, or name a secret for a key of your own",
        )


def _source(credential: Mapping[str, Any]) -> str:
    for key in (PROVIDER, SECRET):
        if credential.get(key):
            return key
    return FILES if credential.get("key_file") else HUB


def _authentication(thumbprints: Any) -> dict[str, Any]:
    if not isinstance(thumbprints, list) or not thumbprints:
        return {"type": "certificate_authority"}
    found = {"type": "self_signed", "primary_thumbprint": str(thumbprints[0])}
    if len(thumbprints) > 1:
        found["secondary_thumbprint"] = str(thumbprints[1])
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
