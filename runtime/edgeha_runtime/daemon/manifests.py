# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubernetes objects of a module: for each slot a pod; ServiceAccount, Service, claims.

Pods of a slot are on one machine, that of the slot's daemon. Those of the standby wait at the gate.

Same input, same objects.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from .create_options import ALL, OWN_CAPABILITIES, SOCKET_FOLDER, SOCKET_VOLUME, claim_name, literal
from .moduleset import SYSTEM_MODULES, Module
from .moduleset import label as module_label
from .settings import Settings

API_VERSION = "2020-07-07"
MANAGEMENT_API_VERSION = "2022-08-03"
# The same in every pod with a network of its own, because stock agents copy their own workload URI into the
# modules they start.
PROXY_PORT = 35001
MANAGEMENT_PORT = 35000  # in edgeAgent's pod only
RUN_AS = 10001
# The kubelet renews at four fifths by its own clock, and looks every minute or so: with an hour its clock may
# be ten minutes behind the API server's. The token counts from its own pod's addresses alone.
TOKEN_SECONDS = 3600
MODULE_LABEL = "net.azure-devices.edge.module"
MODULE_ANNOTATION = "net.azure-devices.edge.module-id"
RESTARTS_ANNOTATION = "net.azure-devices.edge.restarts"
SLOT_LABEL = "iotedge.edgeha.io/slot"
# Its slot when a pod is given up that goes and does not end, such as one on a machine without power.
NO_SLOT = "none"
# What a pod was made of: another digest means another pod.
DIGEST_ANNOTATION = "iotedge.edgeha.io/digest"
# On pods of modules with ports for others than this gateway's modules: the chart's policy leaves them out.
PUBLISHED_LABEL = "iotedge.edgeha.io/published"
# On pods of modules whose own Service has an address outside of the cluster, so that the chart's policy for
# edgeHub leaves it out.
OUTSIDE_LABEL = "iotedge.edgeha.io/outside"
VOLUME_ANNOTATION = "net.azure-devices.edge.volume"
TOKEN_FOLDER = "/var/run/secrets/edgeha"  # noqa: S105 - a folder's name, no secret
# Where edgeAgent keeps the deployment for a start without the cloud, unless `storageFolder` says so.
AGENT_FOLDER = "/tmp/edgeAgent"  # noqa: S108 - stock edgeAgent's own default
# Variables of modules with names of gateways.
_NAMES = frozenset({"EdgeDeviceHostName", "IOTEDGE_GATEWAYHOSTNAME", "IOTEDGE_PARENTEDGEHOSTNAME"})

Manifest = dict[str, Any]


@dataclass(frozen=True)
class OwnerReference:
    """The daemon's ServiceAccount, which all slots have: what belongs to it goes when it goes."""

    name: str
    uid: str

    def manifest(self) -> Manifest:
        # Not blocking: that would need rights on finalizers where OwnerReferencesPermissionEnforcement is on.
        return {"apiVersion": "v1", "kind": "ServiceAccount", "name": self.name, "uid": self.uid}


@dataclass(frozen=True)
class Addresses:
    """Addresses of the gateway's Services in the cluster; empty where there is none.

    Pods know them by their hosts file and not by the cluster's DNS, which may be on a node that died.
    """

    daemon: str = ""
    gateway: str = ""


def labels(release: str, component: str) -> dict[str, str]:
    """Labels that tell what an object of a gateway is."""
    return {
        "app.kubernetes.io/name": "edge-runtime",
        "app.kubernetes.io/instance": release,
        "app.kubernetes.io/component": component,
    }


def selector(release: str) -> dict[str, str]:
    """Labels that all module objects of a gateway carry."""
    return labels(release, "module")


def _on_nodes_network(module: Module) -> bool:
    """Whether the module's pod has the node's network, whose loopback is everybody's on the node."""
    return module.parts.pod.get("hostNetwork") is True


def _listen(module: Module, port: int) -> str:
    """Where the module's sidecar listens, in its words: an address, or a socket of this pod alone."""
    if _on_nodes_network(module):
        return f"unix://{SOCKET_FOLDER}/{'management' if port == MANAGEMENT_PORT else 'workload'}.sock"
    return f"127.0.0.1:{port}"


def _uri(module: Module, port: int) -> str:
    """The same in the module's words."""
    listen = _listen(module, port)
    return listen if _on_nodes_network(module) else f"http://{listen}"


def _socket_mounts(module: Module) -> list[Manifest]:
    if not _on_nodes_network(module):
        return []
    return [{"name": SOCKET_VOLUME, "mountPath": SOCKET_FOLDER}]


def _agent_mounts(module: Module) -> list[Manifest]:
    """Where edgeAgent's deployment outlives its container, which Docker starts again with all its files.

    Not where its `env` or createOptions choose a folder themselves.
    """
    chosen = any(name.lower() == "storagefolder" for name, _value in module.env)
    own = [f"{mount['mountPath'].rstrip('/')}/" for mount in module.parts.mounts]
    if not module.is_agent or chosen or any(f"{AGENT_FOLDER}/".startswith(path) for path in own):
        return []
    return [{"name": "agent-storage", "mountPath": AGENT_FOLDER}]


def _metadata(module: Module, settings: Settings, owner: OwnerReference) -> Manifest:
    return {
        "name": module.object_name,
        "namespace": settings.namespace,
        "labels": {
            **selector(settings.release),
            "app.kubernetes.io/managed-by": "edgeha-daemon",
            MODULE_LABEL: module_label(module.name),
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


def pod(
    module: Module,
    generation: str,
    settings: Settings,
    owner: OwnerReference,
    certificate: str,
    addresses: Addresses,
    slot: str,
) -> Manifest:
    """The module's pod in a slot: the gate, the sidecar that adds the token, then the module itself.

    `certificate` (PEM) is what the sidecar knows the daemon by. The name is what its pods' names begin with.

    A module of edgeAgent is started again by edgeAgent, as its restartPolicy says; the others, edgeAgent
    among them, by the kubelet.
    """
    metadata = _metadata(module, settings, owner)
    metadata["name"] = f"{module.object_name}-{slot}"
    metadata["labels"][SLOT_LABEL] = slot
    if module.parts.bound or module.parts.service:
        # Options of its Service are for others too, as a bound port is on Docker; one only exposed is not.
        metadata["labels"][PUBLISHED_LABEL] = "true"
    if module.parts.service.get("type", "ClusterIP") != "ClusterIP":
        metadata["labels"][OUTSIDE_LABEL] = "true"
    # As controller, so that a drain takes the pod for one that somebody looks after.
    metadata["ownerReferences"][0]["controller"] = True
    restarts = {RESTARTS_ANNOTATION: str(module.restarts)} if module.restarts else {}
    given = {name: text for name, text in module.parts.annotations.items() if name != RESTARTS_ANNOTATION}
    metadata["annotations"] = {**given, **metadata["annotations"], **restarts}
    parts = dict(module.parts.pod)
    base = pod_base(settings)
    spec: Manifest = {
        **base,
        "serviceAccountName": module.object_name,
        "restartPolicy": "Never" if module.deployed and not module.is_agent else "Always",
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            **_without_user(base["securityContext"], module),
            **module.parts.pod_security,
            **_sysctls(module),
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
        "affinity": _beside_daemon(parts.pop("affinity", {}), settings, slot),
        "initContainers": [_gate(settings, slot), _sidecar(module, settings, certificate)],
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
            *(
                {"name": mount["name"], "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
                for mount in _socket_mounts(module)
            ),
            *({"name": mount["name"], "emptyDir": {}} for mount in _agent_mounts(module)),
            *module.parts.volumes,
        ],
        **parts,
    }
    names = {settings.daemon_host: addresses.daemon}
    if module.name not in SYSTEM_MODULES:
        names[settings.gateway_hostname] = addresses.gateway
    own = [{"ip": address, "hostnames": [name]} for name, address in names.items() if address]
    if own:
        spec["hostAliases"] = [*own, *spec.get("hostAliases", [])]
    if settings.standby_priority_class and slot != settings.slot:
        # A standby makes room for what works.
        spec["priorityClassName"] = settings.standby_priority_class
    if module.registry:
        spec["imagePullSecrets"] = [*base.get("imagePullSecrets", []), {"name": pull_secret_name(module)}]
    found = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    metadata["annotations"][DIGEST_ANNOTATION] = _digest(found)
    return found


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]


def digest(manifest: Manifest) -> str:
    """What tells a pod's manifest from another one."""
    return str(manifest["metadata"]["annotations"][DIGEST_ANNOTATION])


def pod_base(settings: Settings) -> Manifest:
    """What all pods that the daemon makes have in common: the restricted pod standard, priority, logins."""
    pod: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            **OWN_USER,
            "fsGroup": RUN_AS,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if settings.priority_class:
        pod["priorityClassName"] = settings.priority_class
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return pod


def _beside_daemon(wanted: Manifest, settings: Settings, slot: str) -> Manifest:
    """The affinity that the module's createOptions want, and the one to the daemon of its slot."""
    daemon = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {
            "matchLabels": {
                **labels(settings.release, "daemon"),
                SLOT_LABEL: slot,
            }
        },
    }
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    pods = wanted.get("podAffinity") or {}
    return {**wanted, "podAffinity": {**pods, required: [daemon, *(pods.get(required) or [])]}}


def _gate(settings: Settings, slot: str) -> Manifest:
    """Where the pods of a standby wait. Nothing of the gateway runs before it opens."""
    return {
        "name": "gate",
        "image": settings.proxy_image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": ["gate"],
        "env": [{"name": "EDGEHA_SLOT", "value": slot}],
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"memory": "24Mi"}},
        "securityContext": _OWN_CONTAINER,
    }


def _sysctls(module: Module) -> Manifest:
    """The module's own, and as in Docker the ports below 1024 for any user: edgeHub takes 443.

    Pods on the host's network may not set them.
    """
    own = {entry["name"]: entry for entry in module.parts.pod_security.get("sysctls", [])}
    if not _on_nodes_network(module):
        name = "net.ipv4.ip_unprivileged_port_start"
        own = {name: {"name": name, "value": "0"}} | own
    return {"sysctls": list(own.values())} if own else {}


def pull_secret_name(module: Module) -> str:
    """Name of the Secret by which the module's image is pulled."""
    return f"{module.object_name}-registry"


def pull_secret(module: Module, settings: Settings, owner: OwnerReference, name: str = "") -> Manifest | None:
    """The Secret of a module whose deployment brings credentials of its registry, under a name of its own."""
    if module.registry is None:
        return None
    login = f"{module.registry.username}:{module.registry.password}".encode()
    config = {"auths": {module.registry.server: {"auth": base64.b64encode(login).decode()}}}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {**_metadata(module, settings, owner), "name": name or pull_secret_name(module)},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(json.dumps(config).encode()).decode()},
    }


def _sidecar(module: Module, settings: Settings, certificate: str) -> Manifest:
    """Native sidecar: the module starts once the way to the daemon works, and ends before it."""
    management = {
        "EDGEHA_MANAGEMENT_URL": settings.management_url,
        "EDGEHA_MANAGEMENT_LISTEN": _listen(module, MANAGEMENT_PORT),
    }
    return {
        "name": "workload-proxy",
        "image": settings.proxy_image,
        "imagePullPolicy": settings.image_pull_policy,
        "restartPolicy": "Always",
        "env": [
            {"name": "EDGEHA_WORKLOAD_URL", "value": settings.workload_url},
            {"name": "EDGEHA_WORKLOAD_CERTIFICATE", "value": certificate},
            {"name": "EDGEHA_WORKLOAD_TOKEN_FILE", "value": f"{TOKEN_FOLDER}/token"},
            {"name": "EDGEHA_WORKLOAD_LISTEN", "value": _listen(module, PROXY_PORT)},
            # The rest of the limit is for the program itself, and for the probe's beside it.
            {"name": "GOMEMLIMIT", "value": "10MiB"},
            *({"name": name, "value": value} for name, value in management.items() if module.is_agent),
        ],
        # An exec probe: the kubelet reaches neither a port on the pod's loopback nor a socket. Clients such
        # as stock edgeHub try three times and exit, so the module waits here while the daemon starts.
        "startupProbe": {
            "exec": {"command": ["/workload-proxy", "check"]},
            "periodSeconds": 1,
            "timeoutSeconds": 3,
            "failureThreshold": 600,
        },
        "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"memory": "24Mi"}},
        "securityContext": _OWN_CONTAINER,
        "volumeMounts": [
            {"name": "workload-token", "mountPath": TOKEN_FOLDER, "readOnly": True},
            *_socket_mounts(module),
        ],
    }


RESTRICTED: Manifest = {"allowPrivilegeEscalation": False, "capabilities": {"drop": [ALL]}}
OWN_USER: Manifest = {"runAsNonRoot": True, "runAsUser": RUN_AS, "runAsGroup": RUN_AS}
# Of our own containers, whatever the pod's user is.
_OWN_CONTAINER: Manifest = {**RESTRICTED, **OWN_USER, "readOnlyRootFilesystem": True}
_OF_MODULES: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": [ALL], "add": [*OWN_CAPABILITIES]},
}


def _without_user(security: Manifest, module: Module) -> Manifest:
    """The pod's securityContext without a user for a module that is to run as its image's."""
    if not module.parts.image_user or "runAsUser" in module.parts.pod_security:
        return security
    return {name: value for name, value in security.items() if name not in OWN_USER}


def _contract(module: Module, generation: str, settings: Settings) -> dict[str, str]:
    """The variables by which a module finds its daemon and its hub (aziot-edged sets the same)."""
    found = {
        "IOTEDGE_AUTHSCHEME": "sasToken",
        "IOTEDGE_DEVICEID": settings.device_id,
        "IOTEDGE_IOTHUBHOSTNAME": settings.iothub_hostname,
        "IOTEDGE_MODULEGENERATIONID": generation,
        "IOTEDGE_MODULEID": module.identity,
        "IOTEDGE_WORKLOADURI": _uri(module, PROXY_PORT),
    }
    if module.is_agent:
        # It calls both APIs by one version, and gives the modules it makes the name of the gateway.
        found |= {
            "EdgeDeviceHostName": settings.gateway_hostname,
            "IOTEDGE_APIVERSION": MANAGEMENT_API_VERSION,
            "IOTEDGE_MANAGEMENTURI": _uri(module, MANAGEMENT_PORT),
            "Mode": "iotedged",
        }
        if settings.parent_host:
            # A nested one finds the hub through the gateway above it.
            found["IOTEDGE_GATEWAYHOSTNAME"] = settings.parent_host
    elif not module.deployed:
        found |= {
            "IOTEDGE_APIVERSION": API_VERSION,
            "IOTEDGE_GATEWAYHOSTNAME": settings.gateway_hostname,
        }
    else:
        found |= _names(module, settings)
    return found


def _names(module: Module, settings: Settings) -> dict[str, str]:
    """The names of the gateway and of the one above it, for a module of edgeAgent.

    edgeAgent tells them when it makes a module, and not again when they change.
    """
    own, above = (
        ("EdgeDeviceHostName", "IOTEDGE_GATEWAYHOSTNAME")
        if module.name in SYSTEM_MODULES
        else ("IOTEDGE_GATEWAYHOSTNAME", "IOTEDGE_PARENTEDGEHOSTNAME")
    )
    return {own: settings.gateway_hostname} | ({above: settings.parent_host} if settings.parent_host else {})


def _proxy(module: Module, settings: Settings) -> dict[str, str]:
    """The proxy of edgeAgent's own way to the hub, where its `env` does not name one (in either case).

    What is in the cluster is reached without it. Other modules have theirs from the deployment.
    """
    if not module.is_agent or not settings.https_proxy:
        return {}
    inside = ["localhost", "127.0.0.1", settings.daemon_host, ".svc", ".cluster.local"]
    if settings.gateway_hostname != settings.iothub_hostname:
        inside.append(settings.gateway_hostname)
    found = {
        "https_proxy": settings.https_proxy,
        "no_proxy": ",".join(dict.fromkeys([*settings.no_proxy, *inside])),
    }
    named = {name.lower() for name, _value in module.env}
    return {name: value for name, value in found.items() if name not in named}


def _variable(name: str, value: str) -> Manifest:
    return {"name": name, "value": literal(value)}


def _container(module: Module, generation: str, settings: Settings) -> Manifest:
    contract = _contract(module, generation, settings)
    own = _proxy(module, settings)
    env: list[Manifest] = [_variable(name, value) for name, value in sorted((contract | own).items())]
    if not any(name == "NODE_NAME" for name, _value in module.env):
        env.append({"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}})
    given = contract.keys() | (_NAMES if module.deployed and not module.is_agent else set())
    env += [_variable(name, value) for name, value in module.env if name not in given]
    container: Manifest = {
        "name": "module",
        "image": module.image,
        "imagePullPolicy": module.image_pull_policy,
        "env": env,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **module.parts.container,
        "securityContext": {**_OF_MODULES, **module.parts.container.get("securityContext", {})},
    }
    if mounts := [*_socket_mounts(module), *_agent_mounts(module), *module.parts.mounts]:
        container["volumeMounts"] = mounts
    if module.parts.ports:
        ports = {(port.target, port.protocol) for port in module.parts.ports}
        container["ports"] = [
            {"containerPort": target, "protocol": protocol} for target, protocol in sorted(ports)
        ]
    return container


def service(module: Module, settings: Settings, owner: OwnerReference) -> Manifest | None:
    """The Service of a module that has ports. It leads to the slot of the daemon that works."""
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
            "selector": _working_pod(module, settings),
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


def name_service(module: Module, settings: Settings, owner: OwnerReference) -> Manifest | None:
    """The headless Service by which other modules reach this one by its id, as containers do on Docker.

    None where the id can be no Service's name. Docker resolves names of containers that are not ready too.
    """
    if not module.host_name:
        return None
    metadata = _metadata(module, settings, owner)
    metadata["name"] = module.host_name
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": _working_pod(module, settings),
        },
    }


def _working_pod(module: Module, settings: Settings) -> dict[str, str]:
    """Labels of the module's pod in the slot that works."""
    return {
        **selector(settings.release),
        MODULE_LABEL: module_label(module.name),
        SLOT_LABEL: settings.slot,
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
