# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Roles that work at the API, on a real API server.

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
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.integration.modules.conftest import Run

NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "machine-1"}}
PROJECTS = ["edge-gw-1", "edge-gw-2"]
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
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    ports = (free_port(), free_port(), free_port())
    with control_plane.running(tmp_path_factory.mktemp("openshift"), ports) as made:
        made.kubectl("apply", "-f", "-", data=NODE)
        made.kubectl("patch", "node", "machine-1", "--subresource=status", "-p", json.dumps(READY))
        made.kubectl("patch", "node", "machine-1", "-p", '{"spec": {"taints": null}}')
        yield made


@pytest.fixture
def role(run_playbook: Callable[..., Run], cluster: ControlPlane, tmp_path: Path) -> Callable[..., Run]:
    """Return a function that runs a role with variables, those named without its name."""

    def run(name: str, *options: str, **variables: Any) -> Run:
        task = {"name": name, "ansible.builtin.include_role": {"name": f"edgeha.iotedge.{name}"}}
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {
                "ansible_python_interpreter": "{{ ansible_playbook_python }}",
                f"{name}_kubeconfig": str(cluster.admin),
                **{f"{name}_{key}": value for key, value in variables.items()},
            },
            "tasks": [task],
        }
        (tmp_path / "play.json").write_text(json.dumps([play]))
        return run_playbook([str(tmp_path / "play.json"), *options])

    return run


def node(cluster: ControlPlane) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.kubectl("get", "node", "machine-1", "-o", "json"))
    return found


def test_labels_and_taints_follow_what_is_wanted(cluster: ControlPlane, role: Callable[..., Run]) -> None:
    cluster.kubectl("label", "node", "machine-1", "theirs=stays")
    cluster.kubectl("taint", "node", "machine-1", "theirs=stays:PreferNoSchedule")
    wanted = [
        {
            "name": "machine-1",
            "labels": ["plant/camera=top"],
            "taints": ["plant/camera=top:PreferNoSchedule"],
        },
        {"name": "machine-2", "labels": ["a=b"], "taints": []},
    ]
    bare = role("cluster_nodes", "--check", "--diff", wanted=wanted)
    assert (bare.code, bare.changed) == (0, 1), bare.text
    result = bare.results["Set labels and taints that differ"]
    assert "label plant/camera: (none) -> top" in result["diff"][0]["prepared"]
    assert result["absent"] == ["machine-2"]
    assert "plant/camera" not in node(cluster)["metadata"]["labels"]

    run = role("cluster_nodes", wanted=wanted)
    assert (run.code, run.changed) == (0, 1), run.text
    found = node(cluster)
    assert found["metadata"]["labels"]["plant/camera"] == "top"
    assert found["metadata"]["labels"]["theirs"] == "stays"
    assert {taint["key"] for taint in found["spec"]["taints"]} == {"theirs", "plant/camera"}
    again = role("cluster_nodes", wanted=wanted)
    assert (again.code, again.changed) == (0, 0), again.text

    # A look before that has seen no difference leaves nothing to run.
    look = role("cluster_existing")
    observed = look.results["Look at the cluster"]["cluster"]["nodes"]
    seen = role("cluster_nodes", wanted=wanted[:1], observed=observed)
    assert seen.results["Set labels and taints that differ"]["skipped"], seen.text
    # Nor does it hide a machine that came later.
    later = role("cluster_nodes", wanted=wanted, observed=observed)
    assert later.results["Set labels and taints that differ"]["absent"] == ["machine-2"], later.text

    gone = role("cluster_nodes", wanted=[{"name": "machine-1"}], observed=observed)
    assert (gone.code, gone.changed) == (0, 1), gone.text
    found = node(cluster)
    assert "plant/camera" not in found["metadata"]["labels"]
    assert found["metadata"]["labels"]["theirs"] == "stays"
    assert [taint["key"] for taint in found["spec"]["taints"]] == ["theirs"]


def test_a_taint_that_is_none(role: Callable[..., Run]) -> None:
    run = role("cluster_nodes", wanted=[{"name": "machine-1", "taints": ["a=b"]}])
    assert run.code != 0
    assert "the taint 'a=b' is not written as key=value:Effect" in run.failures[0]


@pytest.mark.parametrize("variable", ["K8S_AUTH_KUBECONFIG", "KUBECONFIG"])
def test_a_cluster_that_the_environment_names(
    cluster: ControlPlane,
    role: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variable: str,
) -> None:
    # As kubectl takes it: several files, of which some need not be there.
    monkeypatch.setenv(variable, f"{tmp_path / 'none'}:{cluster.admin}")
    run = role("cluster_existing", kubeconfig="")
    assert run.code == 0, run.text
    assert [node["name"] for node in run.results["Look at the cluster"]["cluster"]["nodes"]] == ["machine-1"]

    monkeypatch.setenv(variable, str(tmp_path / "none"))
    run = role("cluster_existing", kubeconfig="")
    assert run.code != 0
    assert f"the kubeconfig {tmp_path / 'none'} does not exist" in run.failures[0]


def test_nothing_is_changed_elsewhere(cluster: ControlPlane, role: Callable[..., Run]) -> None:
    run = role("cluster_existing", projects=PROJECTS)
    assert (run.code, run.changed) == (0, 0), run.text
    assert "edge-gw-1" not in cluster.kubectl("get", "namespaces", "-o", "name")


def test_projects_and_the_user_of_their_pods(cluster: ControlPlane, role: Callable[..., Run]) -> None:
    cluster.kubectl("apply", "-f", "-", data={"apiVersion": "v1", "kind": "List", "items": STAND_INS})
    for name in ("securitycontextconstraints.security", "projects.project"):
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}.openshift.io")

    bare = role("cluster_existing", "--check", "--diff", projects=PROJECTS)
    assert bare.code == 0, bare.text
    assert bare.results["Look at the cluster"]["cluster"]["distribution"] == "openshift"
    assert bare.changed == 2
    assert "edge-gw-1, edge-gw-2 use nonroot-v2" in str(
        bare.results["Tell that pods of projects to be made would be let in"]["msg"]
    )
    assert "edge-gw-1" not in cluster.kubectl("get", "namespaces", "-o", "name")

    run = role("cluster_existing", "--diff", projects=PROJECTS)
    assert (run.code, run.changed) == (0, 2), run.text
    namespace = json.loads(cluster.kubectl("get", "namespace", "edge-gw-1", "-o", "json"))
    assert namespace["metadata"]["annotations"]["openshift.io/display-name"] == "IoT gateway gw-1"
    binding = json.loads(cluster.kubectl("get", "rolebinding", "edgeha-scc", "-n", "edge-gw-2", "-o", "json"))
    assert binding["roleRef"]["name"] == "system:openshift:scc:nonroot-v2"
    assert [subject["name"] for subject in binding["subjects"]] == ["system:serviceaccounts:edge-gw-2"]

    for options in ((), ("--check", "--diff")):
        again = role("cluster_existing", *options, projects=PROJECTS)
        assert (again.code, again.changed) == (0, 0), again.text

    without = role("cluster_existing", scc="", projects=["edge-gw-3"])
    assert (without.code, without.changed) == (0, 1), without.text
