# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Projects and their constraints, on a real API server.

OpenShift's API groups are a stand-in: custom resources of ours with the same names, which nothing enforces.
What is judged here is what the role writes, not what OpenShift makes of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.modules import control_plane
from tests.integration.modules.control_plane import ControlPlane

if TYPE_CHECKING:
    from tests.integration.modules.conftest import Run

NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "machine-1"}}
READY = {"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}}


def stand_in(group: str, kind: str, plural: str) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            ],
        },
    }


STAND_INS = [
    stand_in("security.openshift.io", "SecurityContextConstraints", "securitycontextconstraints"),
    stand_in("project.openshift.io", "Project", "projects"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[ControlPlane]:
    ports = (free_port(), free_port(), free_port())
    with control_plane.running(tmp_path_factory.mktemp("openshift"), ports) as made:
        made.kubectl("apply", "-f", "-", data={"apiVersion": "v1", "kind": "List", "items": [NODE]})
        made.kubectl("patch", "node", "machine-1", "--subresource=status", "-p", json.dumps(READY))
        made.kubectl("patch", "node", "machine-1", "-p", '{"spec": {"taints": null}}')
        yield made


@pytest.fixture
def role(run_playbook: Callable[..., Run], cluster: ControlPlane, tmp_path: Path) -> Callable[..., Run]:
    """Return a function that runs the role cluster_existing for two projects."""

    def run(*options: str, **variables: Any) -> Run:
        role = {"name": "edgeha.iotedge.cluster_existing"}
        task = {"name": "Check the cluster", "ansible.builtin.include_role": role}
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {
                "ansible_python_interpreter": "{{ ansible_playbook_python }}",
                "cluster_existing_kubeconfig": str(cluster.admin),
                "cluster_existing_projects": ["edge-gw-1", "edge-gw-2"],
                **variables,
            },
            "tasks": [task],
        }
        (tmp_path / "play.json").write_text(json.dumps([play]))
        return run_playbook([str(tmp_path / "play.json"), *options])

    return run


def test_nothing_is_changed_elsewhere(cluster: ControlPlane, role: Callable[..., Run]) -> None:
    run = role()
    assert (run.code, run.changed) == (0, 0), run.text
    assert "edge-gw-1" not in cluster.kubectl("get", "namespaces", "-o", "name")


def test_projects_and_the_user_of_their_pods(cluster: ControlPlane, role: Callable[..., Run]) -> None:
    cluster.kubectl("apply", "-f", "-", data={"apiVersion": "v1", "kind": "List", "items": STAND_INS})
    for name in ("securitycontextconstraints.security", "projects.project"):
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}.openshift.io")

    bare = role("--check", "--diff")
    assert bare.code == 0, bare.text
    assert bare.results["Look at the cluster"]["cluster"]["distribution"] == "openshift"
    assert bare.changed == 2
    assert "edge-gw-1, edge-gw-2 use nonroot-v2" in str(
        bare.results["Tell that pods of projects to be made would be let in"]["msg"]
    )
    assert "edge-gw-1" not in cluster.kubectl("get", "namespaces", "-o", "name")

    run = role("--diff")
    assert (run.code, run.changed) == (0, 2), run.text
    namespace = json.loads(cluster.kubectl("get", "namespace", "edge-gw-1", "-o", "json"))
    assert namespace["metadata"]["annotations"]["openshift.io/display-name"] == "IoT gateway gw-1"
    binding = json.loads(cluster.kubectl("get", "rolebinding", "edgeha-scc", "-n", "edge-gw-2", "-o", "json"))
    assert binding["roleRef"]["name"] == "system:openshift:scc:nonroot-v2"
    assert [subject["name"] for subject in binding["subjects"]] == ["system:serviceaccounts:edge-gw-2"]

    for options in ((), ("--check", "--diff")):
        again = role(*options)
        assert (again.code, again.changed) == (0, 0), again.text

    without = role(cluster_existing_scc="", cluster_existing_projects=["edge-gw-3"])
    assert (without.code, without.changed) == (0, 1), without.text
