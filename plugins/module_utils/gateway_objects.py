# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads what a cluster has of a gateway, through a client of `cluster_client`."""

from __future__ import annotations

from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import cluster_facts, releases


def list_objects(
    client: Any, api_version: str, kind: str, *, namespace: str | None = None, labels: str | None = None,
    fields: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the objects of a kind, as plain data."""
    resource = client.resources.get(api_version=api_version, kind=kind)
    listed = resource.get(namespace=namespace, label_selector=labels, field_selector=fields)
    found: list[dict[str, Any]] = listed.to_dict()["items"]
    return found


def pods_of(client: Any, name: str, namespace: str) -> dict[str, Any]:
    """Return ``{"name", "namespace", "node", "pods"}`` of a gateway, see `cluster_facts.pod_view`."""
    selector = f"app.kubernetes.io/name=edge-runtime,app.kubernetes.io/instance={name}"
    found = list_objects(client, "v1", "Pod", namespace=namespace, labels=selector)
    pods = [cluster_facts.pod_view(pod) for pod in found]
    # A pod on a lost node stays listed beside its replacement: the one that works comes first.
    pods.sort(key=lambda pod: (not pod["ready"], str(pod["name"])))
    nodes = [pod["node"] for pod in pods if pod["component"] == "daemon" and pod["node"]]
    return {"name": name, "namespace": namespace, "node": nodes[0] if nodes else None, "pods": pods}


def state_of(client: Any, name: str, namespace: str) -> dict[str, Any]:
    """Return `pods_of`, with ``key_digest``, ``identity_etag`` and ``release`` (see `releases`)."""
    secrets = list_objects(client, "v1", "Secret", namespace=namespace)
    by_name = {secret["metadata"]["name"]: secret for secret in secrets}
    helm = [
        secret
        for secret in secrets
        if secret.get("type") == "helm.sh/release.v1"
        and (secret["metadata"].get("labels") or {}).get("name") == name
    ]
    secret = by_name.get(releases.SECRET_NAME.format(name=name))
    return {
        **pods_of(client, name, namespace),
        "key_digest": releases.secret_digest(secret),
        "identity_etag": releases.secret_identity_etag(secret),
        "release": releases.latest_release(helm),
    }
