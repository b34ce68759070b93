# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three servers hold one cluster together, and answer at one address."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
import machines
from machines import machine

ADDRESSES = machines.addresses()
VIP = machines.vip()


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
    kubeconfig = machine("server3").check_output("cat /etc/rancher/k3s/k3s.yaml")
    context = machines.administrator(kubeconfig, tmp_path)
    with urllib.request.urlopen(f"https://{address}:6443/readyz", timeout=10, context=context) as answer:
        assert answer.read() == b"ok"


def test_labels_and_taints_of_the_agent() -> None:
    agent = node("agent1")
    assert agent["metadata"]["labels"]["line"] == "1"
    assert {"key": "line", "value": "1", "effect": "NoSchedule"} in agent["spec"]["taints"]


def test_the_agent_joins_by_the_one_address() -> None:
    text = machine("agent1").check_output("cat /etc/rancher/k3s/config.yaml.d/50-edgeha-join.yaml")
    assert f"https://{VIP}:6443" in text
