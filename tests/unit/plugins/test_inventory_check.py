# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the action says of whole inventories, which are not contacted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import cluster_client

ROOT = Path(__file__).resolve().parents[3]
PLAY = [
    {
        "hosts": "edge_clusters",
        "gather_facts": False,
        "connection": "local",
        "tasks": [
            {"edgeha.iotedge.inventory_check": {"helm": "no-such-program"}, "register": "found"},
            {
                "ansible.builtin.copy": {
                    "content": "{{ found | to_json }}",
                    "dest": "FOLDER/{{ inventory_hostname }}",
                    "mode": "0600",
                },
                "vars": {"ansible_python_interpreter": sys.executable},
            },
        ],
    }
]


def check(
    folder: Path,
    groups: dict[str, list[str]],
    environment: dict[str, str] | None = None,
    **variables: Any,
) -> dict[str, Any]:
    """Return what the action says of the cluster plant07."""
    children = {name: {"hosts": {host: {} for host in hosts}} for name, hosts in groups.items()}
    children["edge_clusters"] = {"hosts": {"plant07": {}}}
    (folder / "hosts.json").write_text(json.dumps({"all": {"children": children, "vars": variables}}))
    (folder / "play.json").write_text(json.dumps(PLAY).replace("FOLDER", str(folder)))
    program = Path(sys.executable).with_name("ansible-playbook")
    run = subprocess.run(
        [program, "--inventory", folder / "hosts.json", folder / "play.json"],
        cwd=ROOT, capture_output=True, text=True, timeout=180, check=False,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_HOME": str(folder / "home"),
             "K8S_AUTH_KUBECONFIG": "", **(environment or {})},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    found: dict[str, Any] = json.loads((folder / "plant07").read_text())
    return found


def subjects(found: dict[str, Any]) -> list[str]:
    return sorted(f"{row['subject']}: {row['fix'].partition(',')[0]}" for row in found["problems"])


def test_names_that_are_nearly_ours_are_the_only_fault(tmp_path: Path) -> None:
    found = check(
        tmp_path,
        {"edge_server": ["gw1"]},
        edge_gateways=[],
        edge_k3s_datastor="endpoint",
        edge_k3s_datastore_endpoint="mysql://db/k3s",
        iothub_hostname="contoso.azure-devices.net",
    )
    assert subjects(found) == [
        "group edge_server: did you mean edge_servers?",
        "variable edge_k3s_datastor: did you mean edge_k3s_datastore?",
    ]
    # Nothing is asked for gateways that nobody wants.
    assert found["usable"]["iothub"] is False


def test_programs_are_asked_for_where_there_are_gateways(tmp_path: Path) -> None:
    found = check(
        tmp_path,
        {},
        edge_cluster_mode="existing",
        edge_gateways=[{"name": "gw", "state": "absent"}],
        edge_confirm="plant07",
        edge_kubeconfg="/etc/edge/plant07.kubeconfig",
        edge_image_registry="registry.example",
        edge_storage_backend="class",
        edge_storage_class="nfs",
        iothub_hostname="contoso.azure-devices.net",
        iothub_policy_kye="a2V5",
    )
    assert subjects(found) == [
        "program no-such-program: install it",
        "variable edge_kubeconfg: did you mean edge_kubeconfig?",
        "variable iothub_policy_kye: did you mean iothub_policy_key?",
    ]
    # What is not set cannot be used, also where that is no row.
    assert found["usable"] == {"iothub": False, "cluster": False}


def test_an_environment_that_names_another_cluster(tmp_path: Path) -> None:
    # As AWX sets it for a credential of the type "OpenShift or Kubernetes API Bearer Token".
    environment = {
        "K8S_AUTH_HOST": "https://other.example:6443",
        "K8S_AUTH_API_KEY": "a-token",
        "K8S_AUTH_VERIFY_SSL": "true",
        "K8S_AUTH_CONTEXT": "other",
    }
    existing = check(
        tmp_path, {}, environment, edge_gateways=[], edge_cluster_mode="existing", edge_kubeconfig="/x"
    )
    told = ["environment K8S_AUTH_API_KEY: unset it (on AWX: take its credential off the job template)"]
    told += ["environment K8S_AUTH_HOST: unset it (on AWX: take its credential off the job template)"]
    assert [text for text in subjects(existing) if "K8S" in text] == told
    # The kubeconfig of a k3s of ours has a context of its own.
    ours = [text for text in subjects(check(tmp_path, {}, environment, edge_gateways=[])) if "K8S" in text]
    assert [text.partition(":")[0] for text in ours] == [
        "environment K8S_AUTH_API_KEY",
        "environment K8S_AUTH_CONTEXT",
        "environment K8S_AUTH_HOST",
    ]
    assert "a-token" not in json.dumps(existing)


def test_a_client_of_ours_says_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("K8S_AUTH_HOST", "https://other.example:6443")
    with pytest.raises(cluster_client.ClusterError, match="K8S_AUTH_HOST is set, and would send parts"):
        cluster_client.connect({"kubeconfig": str(tmp_path / "none")}, str(tmp_path / "discovery"))
