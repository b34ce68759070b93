# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubernetes objects of a module: Deployment of one pod, ServiceAccount, Service, claims.

Same input, same objects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .create_options import claim_name
from .moduleset import Module
from .settings import Settings

API_VERSION = "2020-07-07"
# The same in every pod, because stock agents copy their own workload URI into the modules they start.
PROXY_PORT = 35001
RUN_AS = 10001
TOKEN_SECONDS = 600
MODULE_LABEL = "net.azure-devices.edge.module"
MODULE_ANNOTATION = "net.azure-devices.edge.module-id"
VOLUME_ANNOTATION = "net.azure-devices.edge.volume"
TOKEN_FOLDER = "/var/run/secrets/edgeha"  # noqa: S105 - a folder's name, no secret
_NOT_LABEL = re.compile(r"[^A-Za-z0-9_.-]")

Manifest = dict[str, Any]


@dataclass(frozen=True)
class OwnerReference:
    """The daemon's own Deployment: what belongs to it goes when it goes."""

    name: str
    uid: str

    def manifest(self) -> Manifest:
        # Not blocking: that would need rights on finalizers where OwnerReferencesPermissionEnforcement is on.
        return {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.name, "uid": self.uid}


def selector(release: str) -> dict[str, str]:
    """Labels that all module objects of a gateway carry."""
    return {
        "app.kubernetes.io/name": "edge-runtime",
        "app.kubernetes.io/instance": release,
        "app.kubernetes.io/component": "module",
    }


def _metadata(module: Module, settings: Settings, owner: OwnerReference) -> Manifest:
    label = _NOT_LABEL.sub("-", module.name)[:63].strip("-_.")
    return {
        "name": module.object_name,
        "namespace": settings.namespace,
        "labels": {
            **selector(settings.release),
            "app.kubernetes.io/managed-by": "edgeha-daemon",
            MODULE_LABEL: label,
        },
        # A label's value may not hold every character of a module id.
        "annotations": {MODULE_ANNOTATION: module.name},
        "ownerReferences": [owner.manifest()],
    }


def service_account(module: Module, settings: Settings, owner: OwnerReference) -> Manifest:
    """The ServiceAccount that proves who the module is. It has no rights, and its pod gets no API token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _metadata(module, settings, owner),
        "automountServiceAccountToken": False,
    }


def deployment(
    module: Module, generation: str, settings: Settings, owner: OwnerReference, certificate: str
) -> Manifest:
    """The module's Deployment: the sidecar that adds the token first, then the module itself.

    `certificate` (PEM) is what the sidecar knows the daemon by.

    `Recreate`, because the hub lets one client at a time connect with an identity.
    """
    metadata = _metadata(module, settings, owner)
    parts = dict(module.parts.pod)
    pod: Manifest = {
        "serviceAccountName": module.object_name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": RUN_AS,
            "runAsGroup": RUN_AS,
            "fsGroup": RUN_AS,
            "seccompProfile": {"type": "RuntimeDefault"},
            **module.parts.pod_security,
        },
        # Short, so that a dead node gives its modules up; without them the API server gives 300 s.
        "tolerations": [
            {
                "key": f"node.kubernetes.io/{condition}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": settings.toleration_seconds,
            }
            for condition in ("not-ready", "unreachable")
        ]
        + parts.pop("tolerations", []),
        "initContainers": [_sidecar(settings, certificate)],
        "containers": [_container(module, generation, settings)],
        "volumes": [
            {
                "name": "workload-token",
                "projected": {
                    "defaultMode": 0o440,
                    "sources": [
                        {
                            "serviceAccountToken": {
                                "audience": settings.audience,
                                "expirationSeconds": TOKEN_SECONDS,
                                "path": "token",
                            }
                        }
                    ],
                },
            },
            *module.parts.volumes,
        ],
        **parts,
    }
    if settings.priority_class:
        pod["priorityClassName"] = settings.priority_class
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 2,
            "strategy": {"type": "Recreate"},
            "selector": {
                "matchLabels": {**selector(settings.release), MODULE_LABEL: metadata["labels"][MODULE_LABEL]}
            },
            "template": {
                "metadata": {
                    "labels": metadata["labels"],
                    "annotations": {**module.parts.annotations, **metadata["annotations"]},
                },
                "spec": pod,
            },
        },
    }


def _sidecar(settings: Settings, certificate: str) -> Manifest:
    """Native sidecar: the module starts once the way to the daemon works, and ends before it."""
    return {
        "name": "workload-proxy",
        "image": settings.proxy_image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "env": [
            {"name": "EDGEHA_WORKLOAD_URL", "value": settings.workload_url},
            {"name": "EDGEHA_WORKLOAD_CERTIFICATE", "value": certificate},
            {"name": "EDGEHA_WORKLOAD_TOKEN_FILE", "value": f"{TOKEN_FOLDER}/token"},
            {"name": "EDGEHA_WORKLOAD_LISTEN", "value": f"127.0.0.1:{PROXY_PORT}"},
        ],
        # An exec probe: the kubelet cannot reach a port on the pod's loopback. Clients such as stock edgeHub
        # try the workload API three times and exit, so the module waits here while the daemon starts.
        "startupProbe": {
            "exec": {"command": ["/workload-proxy", "check"]},
            "periodSeconds": 1,
            "timeoutSeconds": 3,
            "failureThreshold": 600,
        },
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"memory": "24Mi"}},
        "securityContext": {**_RESTRICTED, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "workload-token", "mountPath": TOKEN_FOLDER, "readOnly": True}],
    }


_RESTRICTED: Manifest = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _container(module: Module, generation: str, settings: Settings) -> Manifest:
    contract = {
        "IOTEDGE_APIVERSION": API_VERSION,
        "IOTEDGE_AUTHSCHEME": "sasToken",
        "IOTEDGE_DEVICEID": settings.device_id,
        "IOTEDGE_GATEWAYHOSTNAME": settings.gateway_hostname,
        "IOTEDGE_IOTHUBHOSTNAME": settings.iothub_hostname,
        "IOTEDGE_MODULEGENERATIONID": generation,
        "IOTEDGE_MODULEID": module.name,
        "IOTEDGE_WORKLOADURI": f"http://127.0.0.1:{PROXY_PORT}",
    }
    env: list[Manifest] = [{"name": name, "value": value} for name, value in sorted(contract.items())]
    if not any(name == "NODE_NAME" for name, _value in module.env):
        env.append({"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}})
    # Kubernetes expands $(NAME) in values; a manifest's text is meant literally.
    env += [{"name": name, "value": value.replace("$(", "$$(")} for name, value in module.env]
    container: Manifest = {
        "name": "module",
        "image": module.image,
        "imagePullPolicy": module.image_pull_policy,
        "env": env,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **module.parts.container,
        "securityContext": {**_RESTRICTED, **module.parts.container.get("securityContext", {})},
    }
    if module.parts.mounts:
        container["volumeMounts"] = module.parts.mounts
    if module.parts.ports:
        ports = {(port.target, port.protocol) for port in module.parts.ports}
        container["ports"] = [
            {"containerPort": target, "protocol": protocol} for target, protocol in sorted(ports)
        ]
    return container


def service(module: Module, settings: Settings, owner: OwnerReference) -> Manifest | None:
    """The Service of a module that has ports."""
    if not module.parts.ports:
        return None
    metadata = _metadata(module, settings, owner)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": "ClusterIP",
            **module.parts.service,
            "selector": {**selector(settings.release), MODULE_LABEL: metadata["labels"][MODULE_LABEL]},
            "ports": [
                {
                    "name": port.name(),
                    "port": port.port,
                    "targetPort": port.target,
                    "protocol": port.protocol,
                }
                for port in module.parts.ports
            ],
        },
    }


def claims(module: Module, settings: Settings) -> list[Manifest]:
    """A claim for each volume of a module. They belong to the gateway: no owner, and nothing deletes them."""
    found = []
    for volume in module.parts.claims:
        spec: Manifest = {
            "accessModes": [settings.storage_access_mode],
            "resources": {"requests": {"storage": settings.module_volume_size}},
        }
        if settings.storage_class:
            spec["storageClassName"] = settings.storage_class
        found.append(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {
                    "name": claim_name(settings.release, volume),
                    "namespace": settings.namespace,
                    "labels": {
                        **selector(settings.release),
                        "app.kubernetes.io/component": "volume",
                        "app.kubernetes.io/managed-by": "edgeha-daemon",
                    },
                    "annotations": {VOLUME_ANNOTATION: volume},
                },
                "spec": spec,
            }
        )
    return found
