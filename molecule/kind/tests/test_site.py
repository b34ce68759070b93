# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What site.yml left on a real cluster and at the hub, seen from outside of Ansible."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
import machines
from machines import PROJECT, STATE

NAMESPACE = "edge-demo-gw"

testinfra_hosts = ["local://"]


@pytest.fixture(scope="module")
def kubectl(host: Host) -> Any:
    def get(*words: str) -> dict[str, Any]:
        command = ["kubectl", "--kubeconfig", str(STATE / "kubeconfig"), "--namespace", NAMESPACE, *words]
        document: dict[str, Any] = json.loads(host.check_output(" ".join([*command, "--output", "json"])))
        return document

    return get


def test_pods_of_the_gateway_run(kubectl: Any) -> None:
    pods = kubectl("get", "pods")["items"]
    components = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods}
    assert components == {"daemon", "images", "module"}
    for pod in pods:
        ready = [item["status"] for item in pod["status"]["conditions"] if item["type"] == "Ready"]
        assert ready == ["True"], pod["metadata"]["name"]


def test_state_survives_the_release(kubectl: Any) -> None:
    (claim,) = kubectl("get", "persistentvolumeclaims")["items"]
    assert claim["status"]["phase"] == "Bound"
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not claim["metadata"].get("ownerReferences")


def test_cluster_dns_and_service_addresses_work_across_nodes(host: Host, kubectl: Any) -> None:
    """The sensor's proxy finds the daemon by its service name: name, service address, pod on any node."""
    (sensor,) = kubectl("get", "pods", "--selector", "app.kubernetes.io/component=module")["items"]
    words = ["kubectl", "--kubeconfig", STATE / "kubeconfig", "--namespace", NAMESPACE, "exec"]
    words += [sensor["metadata"]["name"], "--container", "module", "--", "python3", "-c"]
    words += ['\'import socket;socket.create_connection(("demo-gw-daemon",35001),5);print("reached")\'']
    assert host.check_output(" ".join(map(str, words))) == "reached"


def test_messages_of_the_sensor_are_at_the_hub(host: Host) -> None:
    log = host.check_output(f"{PROJECT}/lab/lab --name {STATE.name} hub log --json --device demo-gw")
    messages = [json.loads(line) for line in log.splitlines()]
    assert messages
    assert {message["module"] for message in messages} == {"sensor"}
    sequence = [json.loads(message["body"])["sequence"] for message in messages]
    assert sequence == list(range(sequence[0], sequence[0] + len(sequence)))


def test_check_mode_on_the_finished_cluster_finds_nothing_to_change() -> None:
    done = machines.play("converge.yml", "--check", "--diff", inventory="inventory/hosts.yml")
    assert "lab" in machines.nothing_to_change(done)
