# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Three servers with etcd and an agent: joining, losing, replacing, restoring; in the order of this file."""

from __future__ import annotations

import json

from .conftest import TOKEN
from .machine import DATA, Machine, eventually, lab

Machines = dict[str, Machine]
Settings = dict[str, object]
SERVERS = ["server1", "server2", "server3"]


def test_two_servers_join_at_once(cluster: Machines) -> None:
    first = cluster["server1"]
    voters = dict.fromkeys(SERVERS, "True")
    eventually("three voters", lambda: first.members() == voters)


def test_nodes_carry_roles_and_member_names(cluster: Machines) -> None:
    node = cluster["server1"].node("server2")["metadata"]
    assert node["labels"]["node-role.kubernetes.io/control-plane"] == "true"
    assert node["labels"]["node-role.kubernetes.io/etcd"] == "true"
    assert node["annotations"]["etcd.k3s.cattle.io/node-name"].startswith("server2-")
    assert node["annotations"]["etcd.k3s.cattle.io/node-address"] == cluster["server2"].address


def test_the_agent_has_its_labels_and_taints(cluster: Machines) -> None:
    node = cluster["server1"].node("agent1")
    assert node["metadata"]["labels"]["edge"] == "yes"
    assert {"key": "only", "value": "agents", "effect": "PreferNoSchedule"} in node["spec"]["taints"]
    assert "node-role.kubernetes.io/control-plane" not in node["metadata"]["labels"]


def test_the_agent_knows_all_servers(cluster: Machines) -> None:
    def known() -> bool:
        text = cluster["agent1"].run(f"cat {DATA}/agent/etc/k3s-agent-load-balancer.json")
        servers = {f"{cluster[name].address}:6443" for name in SERVERS}
        return set(json.loads(text)["ServerAddresses"]) == servers

    eventually("the agent's list of servers", known)


def test_etcd_takes_its_arguments(cluster: Machines) -> None:
    config = cluster["server1"].run(f"cat {DATA}/server/db/etcd/config")
    assert "heartbeat-interval: 100" in config
    assert "election-timeout: 1000" in config


def test_the_api_answers_through_an_address_of_tls_san(cluster: Machines, vip: str) -> None:
    holder = cluster["server2"]
    holder.run(f"ip address add {vip}/32 dev eth0")
    try:
        assert cluster["server1"].https("/ping", address=vip) == (200, "pong")
        assert cluster["server1"].https("/readyz", admin=True, address=vip) == (200, "ok")
    finally:
        holder.run(f"ip address del {vip}/32 dev eth0")


def test_a_wrong_token_is_refused(cluster: Machines, settings: Settings) -> None:
    agent, url = cluster["agent1"], f"https://{cluster['server1'].address}:6443"
    other = "--data-dir /tmp/other --node-name stranger --lb-server-port 6555"
    done = agent.ask(f"timeout 8 k3s agent --server {url} --token wrong {other}")
    assert "401" in done.stdout + done.stderr or "not authorized" in (done.stdout + done.stderr).lower()
    done = agent.ask(f"timeout 8 k3s agent --server {url} --token K10{'0' * 64}::node:{TOKEN} {other}")
    assert "CA hash does not match" in done.stdout + done.stderr


def test_critical_values_must_be_the_same(cluster: Machines) -> None:
    agent, url = cluster["agent1"], f"https://{cluster['server1'].address}:6443"
    done = agent.ask(
        f"timeout 60 k3s server --server {url} --token {TOKEN} --cluster-cidr 10.99.0.0/16 "
        "--data-dir /tmp/other-server --node-name stranger --lb-server-port 6555 --secrets-encryption"
    )
    assert done.returncode not in (0, 124)
    assert "critical configuration" in done.stdout + done.stderr
    agent.run("rm -rf /tmp/other-server /tmp/other")


def test_another_node_password_is_refused(cluster: Machines) -> None:
    agent = cluster["agent1"]
    agent.stop()
    agent.run("cp /etc/rancher/node/password /root/password; echo other > /etc/rancher/node/password")
    agent.run("systemctl start --no-block k3s-agent")
    eventually("the refusal", lambda: "Node password rejected" in agent.log())
    agent.run("systemctl stop k3s-agent; cp /root/password /etc/rancher/node/password")
    agent.start()


def test_snapshots_are_saved_told_and_deleted(cluster: Machines) -> None:
    first = cluster["server1"]
    first.kubectl("create configmap in-snapshot --from-literal=a=b")
    for _ in range(2):
        first.run("k3s etcd-snapshot save --name drill; sleep 1.1")
    names = _snapshots(first, "drill-server1-")
    assert len(names) == 2
    assert all(first.exists(f"{DATA}/server/db/snapshots/{name}") for name in names)
    assert names[0] in first.run("k3s etcd-snapshot ls")
    first.run("k3s etcd-snapshot prune --name drill --snapshot-retention 1")
    assert _snapshots(first, "drill-server1-") == names[1:]
    first.run("k3s etcd-snapshot save --name doomed")
    doomed = _snapshots(first, "doomed-server1-")[0]
    first.run(f"k3s etcd-snapshot delete {doomed}")
    assert _snapshots(first, "doomed-") == []
    first.kubectl("create configmap after-snapshot --from-literal=a=b")


def test_a_server_without_power_is_no_outage(cluster: Machines) -> None:
    lab("fault", "power", "server1")
    second = cluster["server2"]
    eventually("the API at another server", lambda: second.https("/readyz", admin=True)[0] == 200, 60)
    eventually("the loss to be seen", lambda: not second.is_ready("server1"), 120)
    assert second.is_ready("agent1")
    lab("fault", "heal", "server1")
    eventually("the server to be back", lambda: second.is_ready("server1"), 120)


def test_deleting_a_node_removes_its_member(cluster: Machines) -> None:
    first, third = cluster["server1"], cluster["server3"]
    name = first.node("server3")["metadata"]["annotations"]["etcd.k3s.cattle.io/node-name"]
    first.kubectl("delete node server3 --timeout=60s")
    eventually("the removed server to join anew", lambda: first.members().get("server3") == "True", 120)
    again = first.node("server3")["metadata"]["annotations"]["etcd.k3s.cattle.io/node-name"]
    assert again != name
    assert third.run(f"ls -d {DATA}/server/db/etcd-old-*")


def test_an_empty_machine_takes_a_dead_servers_place(
    cluster: Machines, versions: list[str], settings: Settings
) -> None:
    first, second = cluster["server1"], cluster["server2"]
    lab("fault", "wipe", "server1")
    first.install(versions[0])
    first.configure(**settings, server=f"https://{second.address}:6443")
    first.run("systemctl start --no-block k3s")
    eventually("the refusal", lambda: "duplicate node name found" in first.log())
    first.stop()
    second.kubectl("delete node server1 --timeout=60s")
    first.start()
    eventually("three voters", lambda: second.members() == dict.fromkeys(SERVERS, "True"), 120)


def test_all_servers_start_together_after_a_power_cut(cluster: Machines) -> None:
    for name in cluster:
        lab("fault", "power", name)
    for name in cluster:
        lab("fault", "heal", name)
    for name in cluster:
        eventually(f"{name} to be Ready", lambda name=name: cluster["server2"].is_ready(name), 180)


def test_the_kubelet_tells_the_version_that_runs(cluster: Machines, versions: list[str]) -> None:
    agent = cluster["agent1"]
    agent.install(versions[-1], images=False)
    agent.restart()
    first = cluster["server1"]

    def told() -> bool:
        return bool(first.node("agent1")["status"]["nodeInfo"]["kubeletVersion"] == versions[-1])

    eventually("the new version", told)


def test_the_token_is_rotated(cluster: Machines, settings: Settings) -> None:
    first, second = cluster["server1"], cluster["server2"]
    first.run(f"k3s token rotate --token {TOKEN} --new-token fresh-secret")
    assert first.run(f"cat {DATA}/server/token").strip().endswith("::server:fresh-secret")
    second.stop()
    second.run("systemctl start --no-block k3s")
    eventually("the old token's refusal", lambda: "encrypted with different token" in second.log(), 120)
    second.stop()
    for name in SERVERS:
        machine = cluster[name]
        peer = second if name == "server1" else first
        machine.configure(**{**settings, "token": "fresh-secret"}, server=f"https://{peer.address}:6443")
        if name != "server1":
            machine.ask("systemctl stop k3s")
            machine.start()
    eventually("three voters", lambda: first.members() == dict.fromkeys(SERVERS, "True"), 120)


def test_a_snapshot_is_restored(cluster: Machines, settings: Settings) -> None:
    second = cluster["server2"]
    second.run("k3s etcd-snapshot save --name restore")
    second.kubectl("create configmap after-restore --from-literal=a=b")
    path = f"{DATA}/server/db/snapshots/{_snapshots(second, 'restore-')[0]}"
    for name in SERVERS:
        cluster[name].stop()
    second.configure(**{**settings, "token": "fresh-secret"})
    done = second.ask(f"k3s server --cluster-reset --cluster-reset-restore-path={path}", limit=180)
    assert done.returncode == 0, done.stderr
    assert "restart without --cluster-reset flag now" in done.stdout + done.stderr
    assert second.exists(f"{DATA}/server/db/reset-flag")
    assert second.run(f"ls -d {DATA}/server/db/etcd-old-*")
    again = second.ask("k3s server --cluster-reset", limit=60)
    assert again.returncode != 0
    assert "previously reset" in again.stdout + again.stderr
    second.start()
    assert not second.exists(f"{DATA}/server/db/reset-flag")
    names = second.kubectl("get configmaps -o name")
    assert "in-snapshot" in names
    assert "after-restore" not in names
    for name in ("server1", "server3"):
        machine = cluster[name]
        machine.run(f"rm -rf {DATA}/server/db")
        machine.configure(**{**settings, "token": "fresh-secret"}, server=f"https://{second.address}:6443")
        machine.start()
    eventually("three voters", lambda: second.members() == dict.fromkeys(SERVERS, "True"), 120)


def _snapshots(machine: Machine, prefix: str) -> list[str]:
    items = json.loads(machine.run("k3s etcd-snapshot ls -o json"))["items"]
    return sorted(name for item in items if (name := item["spec"]["snapshotName"]).startswith(prefix))
