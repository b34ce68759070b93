# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import cluster_facts


def node(name: str = "n1", ready: str = "True", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": spec,
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "nodeInfo": {"kubeletVersion": "v1.34.4"},
        },
    }


@pytest.mark.parametrize(
    ("version", "groups", "nodes", "expected"),
    [
        ("v1.34.4+k3s1", [], [], "k3s"),
        ("v1.34.4+rke2r1", [], [], "rke2"),
        ("v1.31.2-eks-7f9249a", [], [], "eks"),
        ("v1.31.2-gke.100", [], [], "gke"),
        ("v1.31.2", ["apps", "route.openshift.io"], [], "openshift"),
        ("v1.34.4", ["apps"], [node(providerID="kind://docker/x/y")], "kind"),
        ("v1.34.4", ["apps"], [node()], "upstream"),
    ],
)
def test_distribution(version: str, groups: list[str], nodes: list[dict[str, Any]], expected: str) -> None:
    assert cluster_facts.distribution(version, groups, nodes) == expected


@pytest.mark.parametrize(
    ("spec", "schedulable"),
    [
        ({}, True),
        ({"unschedulable": True}, False),
        ({"taints": [{"key": "a", "effect": "NoSchedule"}]}, False),
        ({"taints": [{"key": "a", "effect": "NoExecute"}]}, False),
        ({"taints": [{"key": "a", "effect": "PreferNoSchedule"}]}, True),
    ],
)
def test_schedulable(spec: dict[str, Any], schedulable: bool) -> None:
    assert cluster_facts.node_view(node(**spec))["schedulable"] is schedulable


def test_too_few_nodes_are_named() -> None:
    views = [
        cluster_facts.node_view(n) for n in (node("a"), node("b", "Unknown"), node("c", unschedulable=True))
    ]
    assert cluster_facts.node_problems(views, 1) == []
    [(fact, fix)] = cluster_facts.node_problems(views, 2)
    assert "1 of at least 2" in fact
    assert "not ready: b" in fact
    assert "cordoned or tainted: c" in fact
    assert fix


def container(state: dict[str, Any], **extra: Any) -> dict[str, Any]:
    return {"name": "daemon", "state": state, **extra}


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        ({}, None),
        ({"containerStatuses": [container({"running": {}}, ready=True)]}, None),
        ({"containerStatuses": [container({"running": {}}, ready=False)]}, "running but not ready: daemon"),
        ({"containerStatuses": [container({"waiting": {"reason": "ContainerCreating"}})]}, None),
        (
            {"containerStatuses": [container({"waiting": {"reason": "ErrImagePull"}})]},
            "container daemon: ErrImagePull",
        ),
        (
            {
                "containerStatuses": [
                    container(
                        {"waiting": {"reason": "CrashLoopBackOff"}},
                        lastState={"terminated": {"exitCode": 78}},
                    )
                ]
            },
            "container daemon: CrashLoopBackOff (last exit code 78)",
        ),
        (
            {"initContainerStatuses": [container({"terminated": {"exitCode": 1}})]},
            "container daemon: ended with exit code 1",
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]},
            "not scheduled: 0/3 nodes",
        ),
    ],
)
def test_trouble_of_a_pod(status: dict[str, Any], trouble: str | None) -> None:
    assert cluster_facts.pod_view({"status": status})["trouble"] == trouble


def test_pod_that_is_being_deleted_is_not_ready() -> None:
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    assert cluster_facts.pod_view({"status": status})["ready"]
    assert not cluster_facts.pod_view({"metadata": {"deletionTimestamp": "now"}, "status": status})["ready"]


@pytest.mark.parametrize(("version", "old"), [("v1.28.9", True), ("v1.29.0+k3s1", False), ("v1.34.4", False)])
def test_version(version: str, old: bool) -> None:
    assert bool(cluster_facts.version_problems(version, "1.29")) is old


def storage_class(name: str, provisioner: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "provisioner": provisioner}


def volume(name: str, *modes: str) -> dict[str, Any]:
    return {"spec": {"storageClassName": name, "accessModes": list(modes)}}


@pytest.mark.parametrize(
    ("provisioner", "modes", "volumes", "text"),
    [
        ("nfs.csi.k8s.io", ["ReadWriteMany"], None, ""),
        ("rancher.io/local-path", ["ReadWriteMany"], None, "one node at a time"),
        ("rancher.io/local-path", ["ReadWriteOnce"], None, ""),
        ("kubernetes.io/no-provisioner", ["ReadWriteMany"], [], "makes no volumes"),
        (
            "kubernetes.io/no-provisioner",
            ["ReadWriteMany"],
            [volume("c", "ReadWriteOnce")],
            "makes no volumes",
        ),
        (
            "kubernetes.io/no-provisioner",
            ["ReadWriteMany"],
            [volume("d", "ReadWriteMany")],
            "makes no volumes",
        ),
        ("kubernetes.io/no-provisioner", ["ReadWriteMany"], [volume("c", "ReadWriteMany")], ""),
        ("kubernetes.io/no-provisioner", ["ReadWriteMany"], None, ""),
    ],
)
def test_storage_class(provisioner: str, modes: list[str], volumes: Any, text: str) -> None:
    found = cluster_facts.storage_problems("c", [storage_class("c", provisioner)], modes, volumes)
    assert [text in fact for fact, fix in found] == ([True] if text else [])


@pytest.mark.parametrize(
    ("config", "shared"),
    [
        ('{"sharedFileSystemPath": "/shared"}', True),
        ('{"nodePathMap": [{"node": "DEFAULT", "paths": ["/opt"]}]}', False),
        ('{"storageClassConfigs": {"c": {"sharedFileSystemPath": "/shared"}}}', True),
        ('{"storageClassConfigs": {"d": {"sharedFileSystemPath": "/shared"}}}', False),
        ('{"sharedFileSystemPath": "/shared", "storageClassConfigs": {"c": {"nodePathMap": []}}}', False),
        ("{", False),
        ("[]", False),
    ],
)
def test_local_path_is_of_one_node_unless_its_path_is_shared(config: str, shared: bool) -> None:
    classes = [storage_class("c", "rancher.io/local-path")]
    found = cluster_facts.storage_problems("c", classes, ["ReadWriteMany"], None, [config])
    assert (found == []) is shared
    assert cluster_facts.storage_problems("c", classes, ["ReadWriteOnce"], None, [config]) == []


def test_a_local_path_class_is_not_judged_by_a_configuration_that_may_not_be_read() -> None:
    classes = [storage_class("c", cluster_facts.LOCAL_PATH_PROVISIONER)]
    assert cluster_facts.storage_problems("c", classes, ["ReadWriteMany"], None, None) == []
    assert cluster_facts.storage_problems("c", classes, ["ReadWriteMany"], None, []) != []


def test_unknown_storage_class_gets_the_nearest_name() -> None:
    [(fact, fix)] = cluster_facts.storage_problems("nfs-cleint", [storage_class("nfs-client", "x")], [], None)
    assert "no storage class nfs-cleint" in fact
    assert "did you mean nfs-client?" in fix


def test_every_missing_right_is_named() -> None:
    found = cluster_facts.right_problems(
        [
            ("apps", "deployments", "create", "edge-gw"),
            ("apps", "deployments", "patch", "edge-gw"),
            ("", "namespaces", "create", ""),
        ]
    )
    assert [fact for fact, fix in found] == [
        "the user of the kubeconfig may not create, patch deployments.apps in the namespace edge-gw",
        "the user of the kubeconfig may not create namespaces in the whole cluster",
    ]
    assert "auth can-i create deployments.apps -n edge-gw" in found[0][1]


def test_view_of_a_node_holds_what_labels_and_taints_are_compared_with() -> None:
    taint = {"key": "a", "value": "b", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}
    found = node(taints=[taint, {"key": "c", "effect": "NoExecute"}])
    found["metadata"] |= {
        "labels": {"x": "y"},
        "annotations": {"edgeha.io/managed-labels": "[]", "other": "1"},
    }
    view = cluster_facts.node_view(found)
    assert view["labels"] == {"x": "y"}
    assert view["taints"] == [taint, {"key": "c", "effect": "NoExecute"}]
    assert view["annotations"] == {"edgeha.io/managed-labels": "[]"}


def test_a_pod_that_waits_at_its_gate_is_a_standby_and_no_trouble() -> None:
    waiting = {"name": "gate", "state": {"running": {"startedAt": "now"}}, "ready": False}
    open_gate = {"name": "gate", "state": {"terminated": {"exitCode": 0}}, "ready": True}
    behind = {"name": "daemon", "state": {"waiting": {"reason": "PodInitializing"}}, "ready": False}
    labels = {"iotedge.edgeha.io/slot": "b"}
    found = cluster_facts.pod_view(
        {
            "metadata": {"labels": labels},
            "status": {"initContainerStatuses": [waiting], "containerStatuses": [behind]},
        }
    )
    assert (found["slot"], found["standby"], found["trouble"]) == ("b", True, None)
    assert not cluster_facts.pod_view({"status": {"initContainerStatuses": [open_gate]}})["standby"]


CLAIM = {
    "metadata": {
        "labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"meta.helm.sh/release-name": "gw", "meta.helm.sh/release-namespace": "edge-gw"},
    },
    "spec": {
        "storageClassName": "nfs",
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "2Gi"}},
    },
    "status": {"phase": "Bound"},
}
STORAGE = {"class": "nfs", "access_mode": "ReadWriteMany", "size": "2Gi"}


def claimed(claim: dict[str, object], **storage: str) -> list[str]:
    gateway = {"name": "gw", "namespace": "edge-gw", "claim": cluster_facts.claim_view(claim)}
    return [fact for fact, _fix in cluster_facts.claim_problems(gateway, STORAGE | storage)]


def test_a_claim_that_fits_is_no_problem_whoever_made_it() -> None:
    assert cluster_facts.claim_view(CLAIM)["release"] == "edge-gw/gw"
    assert claimed(CLAIM) == claimed({**CLAIM, "metadata": {}}) == claimed(CLAIM, **{"class": ""}) == []
    assert cluster_facts.claim_view({**CLAIM, "metadata": {}})["release"] is None
    gateway = {"name": "gw", "namespace": "edge-gw", "claim": None}
    assert cluster_facts.claim_problems(gateway, STORAGE) == []


def test_a_claim_that_cannot_be_what_is_asked_for_is_told_with_every_difference() -> None:
    own = "gateway gw: its claim gw-state in edge-gw"
    foreign = {**CLAIM["metadata"], "annotations": {  # type: ignore[dict-item]
        "meta.helm.sh/release-name": "x", "meta.helm.sh/release-namespace": "y"}}  # fmt: skip
    assert claimed(
        {**CLAIM, "metadata": foreign, "status": {"phase": "Lost"}}, access_mode="ReadWriteOnce"
    ) == [
        f"{own} belongs to the Helm release y/x",
        f"{own} is ReadWriteMany, and ReadWriteOnce is asked for",
        f"{own} has lost its volume",
    ]
    assert claimed(CLAIM, **{"class": "longhorn"}) == [
        f"{own} is of the storage class nfs, and longhorn is asked for"
    ]


def test_a_claim_never_shrinks_and_grows_where_its_class_allows_it() -> None:
    own = "gateway gw: its claim gw-state in edge-gw has 2Gi, and"
    assert claimed(CLAIM, size="1Gi") == [f"{own} 1Gi is asked for, but claims do not shrink"]
    assert claimed(CLAIM, size="3Gi") == [f"{own} 3Gi is asked for, but claims of nfs do not grow"]
    assert claimed(CLAIM, size="2048Mi") == []
    gateway = {"name": "gw", "namespace": "edge-gw", "claim": cluster_facts.claim_view(CLAIM)}
    assert cluster_facts.claim_problems(gateway, STORAGE | {"size": "3Gi"}, {"nfs"}) == []


def daemon(**status: Any) -> dict[str, Any]:
    counts = {"observedGeneration": 2, "updatedReplicas": 1, "replicas": 1, "availableReplicas": 1}
    return {"metadata": {"generation": 2}, "spec": {"replicas": 1}, "status": {**counts, **status}}


WAITS = daemon(availableReplicas=0)


@pytest.mark.parametrize(
    ("deployments", "ready"),
    [
        ([daemon()], True),
        ([daemon(), WAITS], True),
        ([], False),
        ([WAITS], False),
        # The old pod is still there, or the new one is not yet.
        ([daemon(observedGeneration=1)], False),
        ([daemon(updatedReplicas=0)], False),
        ([daemon(replicas=2)], False),
        ([{"metadata": {"generation": 1}, "spec": {}, "status": {}}], False),
    ],
)
def test_a_daemon_is_ready_when_what_runs_is_what_is_wanted(
    deployments: list[dict[str, Any]], ready: bool
) -> None:
    assert cluster_facts.rollout(deployments) == {"ready": ready, "refused": None}


def test_why_the_cluster_makes_no_pod() -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}
    none = daemon(availableReplicas=0, replicas=0, updatedReplicas=0, conditions=[condition])
    assert cluster_facts.rollout([none]) == {"ready": False, "refused": "quota"}


def secret_facts(secrets: dict[str, list[str]], **credential: str) -> list[str]:
    given = {"type": "symmetric_key", "source": "secret", "secret": "own", **credential}
    gateway = {"name": "gw", "namespace": "edge-gw", "secrets": secrets}
    return [fact for fact, fix in cluster_facts.secret_problems(gateway, given) if fix]


def test_a_secret_of_somebody_must_be_there_with_what_it_is_to_hold() -> None:
    own = "gateway gw: the Secret own of its credential"
    assert secret_facts({}) == [f"{own} is not in the namespace edge-gw"]
    assert secret_facts({"own": ["key"]}) == [f"{own} has no device-key"]
    assert secret_facts({"own": ["tls.crt"]}, type="x509") == [f"{own} has no tls.key"]
    assert secret_facts({"own": ["device-key"]}) == []
    assert secret_facts({"own": ["tls.crt", "tls.key", "ca.crt"]}, type="x509") == []
    assert secret_facts({}, source="hub") == []
