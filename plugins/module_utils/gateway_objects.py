# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads what a cluster has of a gateway, through a client of `cluster_client`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    cluster_facts,
    gateway_identity,
    gateway_status,
    releases,
)

with contextlib.suppress(ImportError):  # cluster_client, which makes the clients, says so
    import kubernetes
    import urllib3

_HEALTH_PORT = 35002
_DAEMON = "app.kubernetes.io/component=daemon"
# Where edgeAgent and edgeHub tell Prometheus.
_EDGE_HUB_PORT = 9600


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
    """Return ``{"name", "namespace", "node", "pods"}`` of a gateway, see `cluster_facts.pod_view`.

    Besides ``ready``, whether its daemon runs as its release has it and is ready, and ``refused``, why the
    cluster makes no pod of it, None where it does.
    """
    selector = f"app.kubernetes.io/name=edge-runtime,app.kubernetes.io/instance={name}"
    found = list_objects(client, "v1", "Pod", namespace=namespace, labels=selector)
    pods = [cluster_facts.pod_view(pod) for pod in found]
    # A pod on a lost node stays listed beside its replacement: the one that works comes first.
    pods.sort(key=lambda pod: (not pod["ready"], str(pod["name"])))
    nodes = [pod["node"] for pod in pods if pod["component"] == "daemon" and pod["node"]]
    daemons = list_objects(
        client, "apps/v1", "Deployment", namespace=namespace, labels=f"{selector},{_DAEMON}"
    )
    return {
        "name": name,
        "namespace": namespace,
        "node": nodes[0] if nodes else None,
        "pods": pods,
        **cluster_facts.rollout(daemons),
    }


def told_by_pods(client: Any, gateway: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"daemon", "waiting_messages"}`` of a gateway, of which `pods_of` told the pods.

    daemon: see `gateway_status.of_daemon`; None when it does not answer. waiting_messages: in edgeHub; None
    where there is none. They are asked through the API's proxy.
    """
    daemon, waiting = None, None
    for pod in gateway["pods"]:
        if pod["component"] == "daemon" and daemon is None:
            metrics = _ask(client, gateway["namespace"], pod["name"], _HEALTH_PORT, "metrics")
            # A daemon that is not ready answers 503 and tells why; the proxy passes that on as an error.
            ready = _ask(client, gateway["namespace"], pod["name"], _HEALTH_PORT, "readyz")
            daemon = None if metrics is None else gateway_status.of_daemon(metrics, ready or "")
        elif pod["module"] == "edgeHub" and waiting is None:
            metrics = _ask(client, gateway["namespace"], pod["name"], _EDGE_HUB_PORT, "metrics")
            waiting = None if metrics is None else gateway_status.queue_length(metrics)
    return {"daemon": daemon, "waiting_messages": waiting}


def _ask(client: Any, namespace: str, pod: str, port: int, path: str) -> str | None:
    """Return what a pod answers; None when it does not, or when the way to it is not allowed."""
    url = f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{path}"
    try:
        answer = client.request("get", url, serialize=False, _request_timeout=5)
    except kubernetes.client.ApiException as error:
        return _of_pod(error.body) if error.status == 503 and error.body else None
    except urllib3.exceptions.HTTPError:
        return None
    text: str = answer.data.decode(errors="replace")
    return text


def _of_pod(body: bytes | str) -> str | None:
    """Return the body of an error that a pod answered; None for one that the proxy says of the pod."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    try:
        document = json.loads(text)
    except ValueError:
        return text
    return None if isinstance(document, dict) and document.get("kind") == "Status" else text


def state_of(client: Any, name: str, namespace: str) -> dict[str, Any]:
    """Return `pods_of`, with ``key_digest``, ``identity_etag``, ``release`` (see `releases`) and ``claim``.

    Besides ``secrets``, the names of what is in each Secret of the namespace.

    claim: that of its state, see `cluster_facts.claim_view`; None when there is none.
    """
    secrets = list_objects(client, "v1", "Secret", namespace=namespace)
    by_name = {secret["metadata"]["name"]: secret for secret in secrets}
    helm = [
        secret
        for secret in secrets
        if secret.get("type") == "helm.sh/release.v1"
        and (secret["metadata"].get("labels") or {}).get("name") == name
    ]
    secret = by_name.get(gateway_identity.SECRET_NAME.format(name=name))
    return {
        **pods_of(client, name, namespace),
        "key_digest": releases.secret_digest(secret),
        "identity_etag": releases.secret_identity_etag(secret),
        "secrets": {
            key: sorted((found.get("data") or {}).keys())
            for key, found in by_name.items()
            if found.get("type") != "helm.sh/release.v1"
        },
        "release": releases.latest_release(helm),
        "claim": _claim(client, f"{name}-state", namespace),
    }


def _claim(client: Any, name: str, namespace: str) -> dict[str, Any] | None:
    claims = client.resources.get(api_version="v1", kind="PersistentVolumeClaim")
    try:
        return cluster_facts.claim_view(claims.get(name=name, namespace=namespace).to_dict())
    except kubernetes.client.ApiException as error:
        if error.status == 404:
            return None
        raise
