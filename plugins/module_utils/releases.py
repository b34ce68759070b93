# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Helm releases of gateways: what they are to be, what is there, and which of them need work. Pure.

One look at the cluster and one at the hub tell which gateways are as wanted; nothing is run for those.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import gateway_identity

IDENTITY_ETAG = "iotedge.edgeha.io/identity-etag"
KEY_DIGEST = "iotedge.edgeha.io/key-digest"


def wanted(
    gateways: Sequence[Mapping[str, Any]],
    deployments: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return a release for each gateway.

    ``{"name", "namespace", "device_id", "source", "provisioned", "digest", "values"}``. source: where the
    credential comes from. provisioned: whether a provisioning service registers the device. values: of the
    chart.

    deployments: for each gateway ``modules`` and ``edge_agent`` of its manifest, see `deployment.Manifest`.
    settings: ``iothub_hostname``, ``image_registry``, ``trust_bundle``, ``https_proxy``, ``no_proxy``,
              ``toleration_seconds``, ``chart_digest`` and ``credentials``, for each gateway the
              fingerprint of its credential's files, None where there are none.
    """
    return [
        {
            "name": gateway["name"],
            "namespace": gateway["namespace"],
            "device_id": gateway["device_id"],
            "source": gateway["credential"]["source"],
            "provisioned": bool(gateway["dps"]),
            "digest": digest,
            "values": merged(
                {
                    **gateway_identity.chart_values(gateway, settings["iothub_hostname"]),
                    "image": {"registry": settings["image_registry"]},
                    "storage": {
                        "className": gateway["storage"]["class"],
                        "size": gateway["storage"]["size"],
                        "accessMode": gateway["storage"]["access_mode"],
                    },
                    "trustBundle": settings["trust_bundle"],
                    "network": {"httpsProxy": settings["https_proxy"], "noProxy": settings["no_proxy"]},
                    "modules": [dict(module) for module in deployment["modules"]],
                    **({"edgeAgent": dict(deployment["edge_agent"])} if deployment["edge_agent"] else {}),
                    "exposure": {"type": gateway["exposure"], "address": gateway["address"]},
                    "nodeSelector": gateway["node_selector"],
                    "standby": {"enabled": gateway["standby"]},
                    "tolerationSeconds": int(settings["toleration_seconds"]),
                    "chartDigest": settings["chart_digest"],
                    **(
                        {"networkPolicy": {"gatewaysBelow": below}}
                        if (below := _below(gateway, gateways))
                        else {}
                    ),
                },
                gateway["chart_values"],
            ),
        }
        for gateway, deployment, digest in zip(gateways, deployments, settings["credentials"], strict=True)
    ]


def _below(gateway: Mapping[str, Any], gateways: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return name and namespace of each gateway that reaches the hub through this one."""
    host = gateway["hostname"] or gateway["name"]
    return [
        {"name": other["name"], "namespace": other["namespace"]}
        for other in gateways
        if other["parent_hostname"] == host or other["device"].get("parent") == gateway["device_id"]
    ]


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with another laid over it, mappings inside of it likewise."""
    found = dict(base)
    for key, value in more.items():
        both = isinstance(found.get(key), Mapping) and isinstance(value, Mapping)
        found[key] = merged(found[key], value) if both else value
    return found


def unsettled(
    releases: Iterable[Mapping[str, Any]],
    observed: Iterable[Mapping[str, Any]],
    devices: Iterable[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return the releases of gateways that are not known to be as wanted.

    Each has ``unfinished`` besides: the revision that a run before left half-way, None when there is none.
    Helm refuses to touch a release whose last operation was interrupted, also a removal, and kubernetes.core
    takes one that failed for unchanged when its values are the same; a rollback to that revision puts all
    right.

    releases: as `wanted` returns them. observed: what the cluster has, as `edgeha.iotedge.cluster_info` tells
    of gateways. devices: what the hub has, as `edgeha.iotedge.iothub_check` tells of devices. A gateway is as
    wanted when its device is, its Secret holds the key of the device's present identity (or what the files of
    its credential hold), its release is deployed with its values, and its daemon is ready.
    """
    there = {entry["name"]: entry for entry in observed}
    hub = {entry["device_id"]: entry for entry in devices}
    found = []
    for release in releases:
        gateway = there.get(release["name"]) or {}
        device = hub.get(release["device_id"]) or {}
        deployed = gateway.get("release") or {}
        settled = (
            gateway.get("namespace") == release["namespace"]
            and bool(device.get("as_wanted"))
            and bool(device.get("identity_etag"))
            and _same_credential(release, gateway, device)
            and bool(gateway.get("ready"))
            and deployed.get("status") == "deployed"
            and deployed.get("values") == release["values"]
        )
        if not settled:
            status = str(deployed.get("status", ""))
            same = deployed.get("values") == release["values"]
            stuck = status.startswith(("pending", "uninstalling")) or (status == "failed" and same)
            found.append({**release, "unfinished": deployed["revision"] if stuck else None})
    return found


def _same_credential(
    release: Mapping[str, Any], gateway: Mapping[str, Any], device: Mapping[str, Any]
) -> bool:
    if release["source"] == gateway_identity.HUB:
        return bool(device["identity_etag"] == gateway.get("identity_etag"))
    if release["source"] == gateway_identity.FILES:
        return bool(release["digest"]) and release["digest"] == gateway.get("key_digest")
    # A Secret or a store of somebody else's: it is theirs to change, at any time.
    return True


def key_digest(key: str) -> str:
    """Return a fingerprint of a key that can be shown: 64 bits of SHA-256, over at least 128 random bits."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def secret_identity_etag(secret: Mapping[str, Any] | None) -> str | None:
    """Return the version of the device's identity that the key in a gateway's Secret was read from.

    None when there is no Secret, or when its key is not the one that was put there.
    """
    annotations = ((secret or {}).get("metadata") or {}).get("annotations") or {}
    digest = secret_digest(secret)
    return annotations.get(IDENTITY_ETAG) if digest and digest == annotations.get(KEY_DIGEST) else None


def secret_digest(secret: Mapping[str, Any] | None) -> str | None:
    """Return the fingerprint of the key in a gateway's Secret, None when there is none."""
    return data_digest((secret or {}).get("data") or {})


def data_digest(data: Mapping[str, str]) -> str | None:
    """Return the fingerprint of a credential. data: of its Secret, base64; None when it holds none."""
    entries = gateway_identity.SECRET_ENTRIES
    pair = entries[gateway_identity.X509]
    names = pair if set(pair) <= data.keys() else entries[gateway_identity.SYMMETRIC_KEY]
    try:
        found = [base64.b64decode(data[name], validate=True).decode() for name in names]
    except (KeyError, binascii.Error, ValueError):
        return None
    return key_digest("\0".join(found)) if all(found) else None


def latest_release(secrets: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return ``{"status", "revision", "values"}`` of the newest revision among Helm's Secrets of one release.

    Helm keeps a revision as JSON, gzipped and in base64, inside of a Secret's own base64. None when there is
    no revision; a revision that cannot be read has no values.
    """
    newest: Mapping[str, Any] | None = None
    revision = -1
    for secret in secrets:
        labels = (secret.get("metadata") or {}).get("labels") or {}
        number = str(labels.get("version", ""))
        if number.isdigit() and int(number) > revision:
            newest, revision = labels | {"data": (secret.get("data") or {}).get("release", "")}, int(number)
    if newest is None:
        return None
    values: Any = None
    try:
        packed = base64.b64decode(base64.b64decode(newest["data"], validate=True), validate=True)
        document = json.loads(gzip.decompress(packed))
        values = document.get("config") or {}
    except (binascii.Error, ValueError, OSError, EOFError):
        values = None
    return {"status": newest.get("status"), "revision": revision, "values": values}
