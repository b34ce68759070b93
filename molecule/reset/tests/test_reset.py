# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests stand in their order: each goes on with the cluster that the one before has left."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
import operations as lab

LEFT = r"""
ls -d /usr/local/bin/k3s* /etc/rancher/k3s /etc/rancher/node /var/lib/rancher/k3s /var/lib/kubelet \
  /var/lib/cni /run/k3s /run/flannel /etc/systemd/system/k3s* /usr/local/bin/kubectl 2>/dev/null
ip -o link | grep -E 'cni0|flannel|veth'
iptables-save 2>/dev/null | grep -E 'KUBE-|CNI-|FLANNEL-'
grep -E ' (/run/k3s|/var/lib/kubelet|/var/lib/rancher|/run/netns/cni)' /proc/self/mounts
ps -eo args | grep -E 'k3s|containerd|kubelet|/lab/workload' | grep -v grep
true
"""


def test_it_wants_to_be_confirmed() -> None:
    lab.deploy_workload()
    assert "edge_confirm=plant07" in lab.refused("reset")
    assert "is no machine" in lab.refused("reset", "-e", lab.CONFIRM, "-e", "edge_nodes=server9")


def test_check_mode_tells_what_would_go_and_removes_nothing() -> None:
    before = lab.started()
    said = lab.play("reset", "-e", lab.CONFIRM, "-e", "edge_nodes=server1", "--check", "--diff")
    assert "file /var/lib/rancher/k3s" in said
    assert lab.changes(said)["server1"] > 0
    assert lab.started() == before
    assert not any(node["cordoned"] for node in lab.nodes().values())


def test_a_server_and_an_agent_leave_and_the_others_go_on() -> None:
    before = lab.started()
    said = lab.play("reset", "-e", lab.CONFIRM, "-e", "edge_nodes=server1,agent1")
    nodes = lab.nodes("server2")
    assert set(nodes) == {"server2", "server3"}
    assert all(node["ready"] and node["voter"] for node in nodes.values())
    assert lab.kubectl("rollout status deployment/web --timeout=60s", via="server2")
    after = lab.started()
    assert {name: after[name] for name in nodes} == {name: before[name] for name in nodes}
    assert lab.ssh("server1", LEFT) == ""
    assert lab.ssh("agent1", LEFT) == ""
    assert lab.changes(said)["server2"] == 0


def test_they_come_back() -> None:
    lab.play("cluster")
    nodes = lab.nodes()
    assert set(nodes) == set(lab.addresses())
    assert all(node["ready"] for node in nodes.values())
    assert len(lab.authorities()) == 1


def test_all_leave_and_nothing_stays() -> None:
    lab.play("reset", "-e", lab.CONFIRM)
    assert {name: lab.ssh(name, LEFT) for name in lab.addresses()} == dict.fromkeys(lab.addresses(), "")


def test_a_second_reset_finds_nothing() -> None:
    assert set(lab.changes(lab.play("reset", "-e", lab.CONFIRM)).values()) == {0}
