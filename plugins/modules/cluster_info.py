#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_info
short_description: Look at an existing cluster and for problems with it
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Tells version, distribution and nodes of a cluster, and checks what gateways need of it, namely nodes
    that take pods, a storage class, and rights.
  - Problems are returned and are not a failure, so that a play can collect those of all hosts.
options:
  minimum_version:
    description:
      - Oldest version of Kubernetes that will do, such as V(1.29).
    type: str
  minimum_nodes:
    description:
      - So many nodes must be ready and take ordinary pods.
    type: int
    default: 1
  storage_classes:
    description:
      - Storage classes that must be there.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the class.
        type: str
        required: true
      access_modes:
        description:
          - Access modes that are asked of it.
          - A class does not say what it can do. Classes are refused whose provisioner is known to make
            volumes for one node at a time, and classes without a provisioner when no volume has these modes.
        type: list
        elements: str
        choices: [ReadWriteOnce, ReadWriteMany, ReadWriteOncePod]
        default: [ReadWriteMany]
  rights:
    description:
      - Rights that the user of the kubeconfig must have, asked by SelfSubjectAccessReview.
    type: list
    elements: dict
    default: []
    suboptions:
      group:
        description:
          - API group, empty for the core group.
        type: str
        default: ''
      resources:
        description:
          - Resources in the plural; a subresource follows after a slash.
        type: list
        elements: str
        required: true
      verbs:
        description:
          - Verbs such as V(create).
        type: list
        elements: str
        required: true
      namespaces:
        description:
          - Namespaces, which need not exist. Without any the right is needed in the whole cluster.
        type: list
        elements: str
        default: []
  namespaces:
    description:
      - Tell of these namespaces whether they exist.
    type: list
    elements: str
    default: []
  gateways:
    description:
      - Tell of these gateways where they run and what is installed of them.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the gateway, which is the name of its Helm release.
        type: str
        required: true
      namespace:
        description:
          - Namespace of the gateway.
        type: str
        required: true
      credential:
        description:
          - Where its credential is to come from. A Secret that is not there, or lacks what it is to hold, is
            a problem.
        type: dict
        suboptions:
          type:
            description:
              - C(symmetric_key) or C(x509).
            type: str
            required: true
          source:
            description:
              - C(secret) for one that is there already; nothing is asked of others.
            type: str
            required: true
          secret:
            description:
              - Name of the Secret.
            type: str
            required: true
      storage:
        description:
          - What its state is to be on. A claim that is there and is another one is a problem, because claims
            cannot be changed.
        type: dict
        suboptions:
          class:
            description:
              - Storage class, empty for the cluster's default.
            type: str
            default: ''
          access_mode:
            description:
              - Access mode such as V(ReadWriteMany).
            type: str
            required: true
          size:
            description:
              - Size such as V(1Gi). A claim may be smaller where its class lets claims grow.
            type: str
            required: true
extends_documentation_fragment:
  - edgeha.iotedge.cluster
  - edgeha.iotedge.cluster.attributes
  - edgeha.iotedge.read_only
"""

EXAMPLES = r"""
- name: Look at the cluster of plant 7
  edgeha.iotedge.cluster_info:
    kubeconfig: /etc/edge/plant07.kubeconfig
    storage_classes:
      - name: nfs-client
    rights:
      - resources: [namespaces]
        verbs: [get, create]
      - group: apps
        resources: [deployments]
        verbs: [get, create, patch, delete]
        namespaces: [edge-plant07-gw]
  register: cluster
"""

RETURN = r"""
problems:
  description: What is wrong; empty when all is well.
  returned: always
  type: list
  elements: dict
  contains:
    subject:
      description: Always V(cluster).
      type: str
      returned: always
    fact:
      description: What is the case.
      type: str
      returned: always
    fix:
      description: What to do about it.
      type: str
      returned: always
cluster:
  description: What the cluster is.
  returned: always
  type: dict
  contains:
    reachable:
      description: Whether its API answered.
      type: bool
      returned: always
    server:
      description: Address of the API.
      type: str
      returned: when it is reachable
    version:
      description: Version of the API server.
      type: str
      returned: when it is reachable
    distribution:
      description: V(openshift), V(k3s), V(rke2), V(eks), V(gke), V(aks), V(kind), V(minikube) or V(upstream).
      type: str
      returned: when it is reachable
    nodes:
      description:
        - Its nodes with name, ready, schedulable, version, architecture, labels, taints, and annotations of
          ours.
      type: list
      elements: dict
      returned: when it is reachable
    storage_classes:
      description:
        - The storage classes that are there, with provisioner, reclaim_policy, binding_mode and expandable.
      type: list
      elements: dict
      returned: when it is reachable
    namespaces:
      description: Name and existence of each of O(namespaces).
      type: dict
      returned: when it is reachable
    gateways:
      description:
        - Name, namespace, node and pods of each gateway, as M(edgeha.iotedge.edge_gateways_info) tells.
        - C(release) holds status, revision and values of its newest Helm revision, null when there is none.
        - C(key_digest) is a fingerprint of the key in its Secret, null when there is none.
        - C(secrets) holds the names of what is in each Secret of its namespace.
        - C(claim) holds class, access_modes, phase and Helm release (C(NAMESPACE/NAME), or null) of the claim
          with its state, null when there is none.
        - C(identity_etag) is the version of the device's identity that the key was read from, null when it is
          not known.
      type: list
      elements: dict
      returned: when it is reachable and the user may read them
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    cluster_client,
    cluster_facts,
    gateway_objects,
)


def missing_rights(client: Any, rights: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Return the rights that are missing, as (group, resource, verb, namespace)."""
    reviews = client.resources.get(api_version="authorization.k8s.io/v1", kind="SelfSubjectAccessReview")

    def allowed(group: str, resource: str, verb: str, namespace: str) -> bool:
        name, _separator, subresource = resource.partition("/")
        attributes = {"group": group, "resource": name, "verb": verb, "namespace": namespace}
        if subresource:
            attributes["subresource"] = subresource
        answer = reviews.create(
            body={
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            }
        )
        return bool(answer.to_dict()["status"].get("allowed"))

    # One question answers all for an administrator, and one for each right when it holds everywhere.
    if not rights or allowed("*", "*", "*", ""):
        return []
    missing = []
    for right in rights:
        for resource in right["resources"]:
            for verb in right["verbs"]:
                if allowed(right["group"], resource, verb, ""):
                    continue
                missing += [
                    (right["group"], resource, verb, namespace)
                    for namespace in right["namespaces"] or [""]
                    if not namespace or not allowed(right["group"], resource, verb, namespace)
                ]
    return missing


def optional(
    client: Any, api_version: str, kind: str, fields: str | None = None
) -> list[dict[str, Any]] | None:
    """Return objects, None when the user may not list them."""
    try:
        return gateway_objects.list_objects(client, api_version, kind, fields=fields)
    except Exception as error:
        # The library makes an exception class for each status; only "forbidden" means that we do without.
        if getattr(error, "status", None) == 403:
            return None
        raise


def look_at_gateways(client: Any, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the state of the gateways that the user may read; `rights` tells of the others."""
    found = []
    for entry in wanted:
        try:
            found.append(gateway_objects.state_of(client, entry["name"], entry["namespace"]))
        except Exception as error:
            if getattr(error, "status", None) != 403:
                raise
    return found


def namespace_exists(client: Any, name: str) -> bool:
    try:
        client.resources.get(api_version="v1", kind="Namespace").get(name=name)
    except Exception as error:
        if getattr(error, "status", None) == 404:
            return False
        raise
    return True


def class_view(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": entry["metadata"]["name"],
        "provisioner": entry.get("provisioner"),
        "reclaim_policy": entry.get("reclaimPolicy"),
        "binding_mode": entry.get("volumeBindingMode"),
        "expandable": bool(entry.get("allowVolumeExpansion")),
    }


def look_at_storage(
    client: Any, wanted: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Return the wanted classes that are there, and (fact, fix) for each problem with them."""
    if not wanted:
        return [], []
    classes = optional(client, "storage.k8s.io/v1", "StorageClass")
    if classes is None:
        return [], cluster_facts.right_problems([("storage.k8s.io", "storageclasses", "list", "")])
    names = {entry["name"] for entry in wanted}
    there = [class_view(entry) for entry in classes if entry["metadata"]["name"] in names]
    volumes = None
    if any(entry["provisioner"] == cluster_facts.STATIC_PROVISIONER for entry in there):
        volumes = optional(client, "v1", "PersistentVolume")
    configs: list[str] | None = []
    if any(entry["provisioner"] == cluster_facts.LOCAL_PATH_PROVISIONER for entry in there):
        maps = optional(client, "v1", "ConfigMap", f"metadata.name={cluster_facts.LOCAL_PATH_CONFIG}")
        configs = (
            None if maps is None else [(entry.get("data") or {}).get("config.json", "") for entry in maps]
        )
    problems: list[tuple[str, str]] = []
    for entry in wanted:
        problems += cluster_facts.storage_problems(
            entry["name"], classes, entry["access_modes"], volumes, configs
        )
    return there, problems


def look(client: Any, params: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return what the module tells, and (fact, fix) for each problem."""
    version = client.version["kubernetes"]["gitVersion"]
    raw_nodes = optional(client, "v1", "Node")
    nodes = [cluster_facts.node_view(node) for node in raw_nodes or []]
    problems = cluster_facts.version_problems(version, params["minimum_version"])
    if raw_nodes is None:
        problems += cluster_facts.right_problems([("", "nodes", "list", "")])
    else:
        problems += cluster_facts.node_problems(nodes, params["minimum_nodes"])
    classes, storage = look_at_storage(client, params["storage_classes"])
    problems += storage
    problems += cluster_facts.right_problems(missing_rights(client, params["rights"]))
    gateways = look_at_gateways(client, params["gateways"])
    wanted = {entry["name"]: entry["storage"] for entry in params["gateways"] if entry["storage"]}
    credentials = {entry["name"]: entry["credential"] for entry in params["gateways"] if entry["credential"]}
    expandable = {entry["name"] for entry in classes if entry["expandable"]}
    for gateway in gateways:
        if gateway["name"] in wanted:
            problems += cluster_facts.claim_problems(gateway, wanted[gateway["name"]], expandable)
        if gateway["name"] in credentials:
            problems += cluster_facts.secret_problems(gateway, credentials[gateway["name"]])
    cluster = {
        "reachable": True,
        "server": client.client.configuration.host,
        "version": version,
        "distribution": cluster_facts.distribution(version, client.resources.api_groups, raw_nodes or []),
        "nodes": nodes,
        "storage_classes": classes,
        "namespaces": {name: namespace_exists(client, name) for name in params["namespaces"]},
        "gateways": gateways,
    }
    return cluster, problems


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **cluster_client.argument_spec(),
            "minimum_version": {"type": "str"},
            "minimum_nodes": {"type": "int", "default": 1},
            "storage_classes": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "access_modes": {
                        "type": "list",
                        "elements": "str",
                        "choices": ["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"],
                        "default": ["ReadWriteMany"],
                    },
                },
            },
            "rights": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "group": {"type": "str", "default": ""},
                    "resources": {"type": "list", "elements": "str", "required": True},
                    "verbs": {"type": "list", "elements": "str", "required": True},
                    "namespaces": {"type": "list", "elements": "str", "default": []},
                },
            },
            "namespaces": {"type": "list", "elements": "str", "default": []},
            "gateways": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "namespace": {"type": "str", "required": True},
                    "storage": {
                        "type": "dict",
                        "options": {
                            "class": {"type": "str", "default": ""},
                            "access_mode": {"type": "str", "required": True},
                            "size": {"type": "str", "required": True},
                        },
                    },
                    "credential": {
                        "type": "dict",
                        "options": {
                            "type": {"type": "str", "required": True},
                            "source": {"type": "str", "required": True},
                            "secret": {"type": "str", "required": True, "no_log": False},
                        },
                    },
                },
            },
        },
        supports_check_mode=True,
    )
    if module.params["minimum_version"]:
        try:
            cluster_facts.version_tuple(module.params["minimum_version"])
        except ValueError as error:
            module.fail_json(msg=f"minimum_version: {error}")
    try:
        with cluster_client.opened(module) as client:
            cluster, problems = look(client, module.params)
    except cluster_client.ClusterError as error:
        cluster, problems = {"reachable": False}, [(error.fact, error.fix)]
    module.exit_json(
        changed=False,
        cluster=cluster,
        problems=[{"subject": "cluster", "fact": fact, "fix": fix} for fact, fix in problems],
    )


if __name__ == "__main__":
    main()
