# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three servers hold one cluster together, and answer at one address."""

from __future__ import annotations

import base64
import json
import os
import ssl
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml
from testinfra.host import Host

LAB_HOME = Path(os.environ.get("EDGEHA_LAB_HOME") or Path.home() / ".cache" / "edgeha-lab")
INVENTORY = LAB_HOME / "run" / os.environ["EDGEHA_LAB_NAME"] / "inventory" / "hosts.yml"
ADDRESSES = {
    name: values["ansible_host"]
    for group in yaml.safe_load(INVENTORY.read_text())["all"]["children"].values()
    for name, values in group["hosts"].items()
}
VIP = ADDRESSES["server1"].rpartition(".")[0] + ".250"


def machine(name: str) -> Host:
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}")


def node(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        machine("server2").check_output(f"k3s kubectl get node {name} -o json")
    )
    return found


@pytest.mark.parametrize("name", ["server1", "server2", "server3"])
def test_each_server_votes(name: str) -> None:
    conditions = {entry["type"]: entry["status"] for entry in node(name)["status"]["conditions"]}
    assert conditions["EtcdIsVoter"] == "True"
    assert machine(name).file("/var/lib/rancher/k3s/server/db/etcd/member/wal").is_directory


@pytest.mark.parametrize("address", [VIP, *(ADDRESSES[f"server{n}"] for n in (1, 2, 3))])
def test_the_api_answers_with_a_certificate_for_that_address(address: str, tmp_path: Path) -> None:
    kubeconfig = yaml.safe_load(machine("server3").check_output("cat /etc/rancher/k3s/k3s.yaml"))
    values = kubeconfig["clusters"][0]["cluster"] | kubeconfig["users"][0]["user"]
    for key in ("certificate-authority-data", "client-certificate-data", "client-key-data"):
        (tmp_path / key).write_bytes(base64.b64decode(values[key]))
    context = ssl.create_default_context(cafile=str(tmp_path / "certificate-authority-data"))
    context.load_cert_chain(tmp_path / "client-certificate-data", tmp_path / "client-key-data")
    with urllib.request.urlopen(f"https://{address}:6443/readyz", timeout=10, context=context) as answer:
        assert answer.read() == b"ok"


def test_labels_and_taints_of_the_agent() -> None:
    agent = node("agent1")
    assert agent["metadata"]["labels"]["line"] == "1"
    assert {"key": "line", "value": "1", "effect": "NoSchedule"} in agent["spec"]["taints"]


def test_the_agent_joins_by_the_one_address() -> None:
    text = machine("agent1").check_output("cat /etc/rancher/k3s/config.yaml.d/50-edgeha-join.yaml")
    assert f"https://{VIP}:6443" in text
