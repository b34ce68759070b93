# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A good inventory for three servers and an agent, and some eighty that are wrong in one way each."""

from __future__ import annotations

import base64
import copy
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.machines.machines import ROOT, Machines
from tests.machines.network import PROGRAM, TOKEN_ID, TOKEN_SECRET, Neighbours
from tests.machines.runs import Row

Inventory = dict[str, Any]
Change = Callable[[Inventory], None]

SERVERS = ("server1", "server2", "server3")
MACHINES = (*SERVERS, "agent1")
CLUSTER = "plant07"
# In every inventory that has a secret at all; it must be in no output.
SECRET = "hunter2"
_DEPLOYMENT = ROOT / "inventories" / "local" / "files" / "demo.json"
ONE_OF_TWO = "a machine that is not well stops its cluster only"


@dataclass(frozen=True)
class Mistake:
    """rows: all that is to be found. failed: hosts that fail, when it is not the cluster host alone."""

    name: str
    rows: Sequence[Row]
    variables: dict[str, Any] = field(default_factory=dict)
    change: Change | None = None
    options: Sequence[str] = ()
    failed: Sequence[str] = (CLUSTER,)

    def inventory(self, good: Inventory) -> Inventory:
        made = copy.deepcopy(good)
        made["vars"].update(self.variables)
        if self.change:
            self.change(made)
        return made


def good_inventory(machines: Machines, near: Neighbours) -> Inventory:
    """Return an inventory that nothing is wrong with."""
    hosts = {name: {"ansible_host": address} for name, address in machines.addresses.items()}
    return {
        "children": {
            "edge_clusters": {"hosts": {CLUSTER: {}}},
            "edge_servers": {"hosts": {name: hosts[name] for name in SERVERS}},
            "edge_agents": {"hosts": {"agent1": hosts["agent1"]}},
        },
        "vars": {
            **machines.variables,
            "edge_gateways": [],
            "edge_cluster_vip": machines.address(100),
            "edge_k3s_source": near.mirror,
            "edge_k3s_lock": str(near.lock),
            "edge_k3s_version": "v1.34.4+k3s1",
            # A machine that is busy with other tests is slow, and not wrong.
            "preflight_fsync_limit": 0,
            "preflight_source_timeout": 60,
            # Any program that is there will do: these runs end before helm is called.
            "edge_runtime_helm_binary": sys.executable,
        },
    }


def on(name: str, **variables: Any) -> Change:
    """Set variables of one machine, or of a cluster host."""

    def change(inventory: Inventory) -> None:
        for group in inventory["children"].values():
            if name in group["hosts"]:
                group["hosts"][name].update(variables)

    return change


def roles(servers: Sequence[str], agents: Sequence[str] = ()) -> Change:
    """Put these machines into the groups, and no other."""

    def change(inventory: Inventory) -> None:
        groups = inventory["children"]
        hosts = {**groups["edge_servers"]["hosts"], **groups["edge_agents"]["hosts"]}
        groups["edge_servers"]["hosts"] = {name: hosts[name] for name in servers}
        groups["edge_agents"]["hosts"] = {name: hosts[name] for name in agents}

    return change


def both(*changes: Change) -> Change:
    def change(inventory: Inventory) -> None:
        for one in changes:
            one(inventory)

    return change


def two_clusters(inventory: Inventory) -> None:
    """Make a second cluster, depot09, of the agent; each has its address."""
    roles(MACHINES)(inventory)
    inventory["children"]["edge_clusters"]["hosts"]["depot09"] = {"edge_cluster_vip": ""}
    for name in MACHINES:
        host = inventory["children"]["edge_servers"]["hosts"][name]
        host["edge_cluster"] = CLUSTER if name in SERVERS else "depot09"
    inventory["children"]["edge_servers"]["hosts"]["agent1"]["edge_cluster_vip"] = ""


def renamed(old: str, new: str) -> Change:
    def change(inventory: Inventory) -> None:
        for group in inventory["children"].values():
            if old in group["hosts"]:
                group["hosts"][new] = group["hosts"].pop(old)

    return change


def each(hosts: Sequence[str], subject: str, fact: str, fix: str) -> list[Row]:
    return [Row(host, subject, fact, fix) for host in hosts]


def cluster_row(subject: str, fact: str, fix: str) -> list[Row]:
    return [Row(CLUSTER, subject, fact, fix)]


def variable(name: str, fact: str, fix: str) -> list[Row]:
    return cluster_row(f"^variable {name}$", fact, fix)


def all_mistakes(machines: Machines, near: Neighbours, folder: Path) -> list[Mistake]:
    """Return every wrong inventory. folder: for files that they name."""
    return [
        *_groups(machines),
        *_values(),
        *_together(machines),
        *_sources(near, folder),
        *_address(machines),
        *_join(machines, near, folder),
        *_hardware(machines),
        *_clusters(machines),
        *_at_once(machines, folder),
    ]


def names() -> list[str]:
    """Return the names of all mistakes, without a lab."""
    nowhere = Machines(Path("/"), {}, dict.fromkeys(MACHINES, "192.0.2.1"))
    near = Neighbours("", "", "", "", "0" * 64, Path("/"), Path("/"), "")
    return [mistake.name for mistake in all_mistakes(nowhere, near, Path("/nowhere"))]


def _groups(machines: Machines) -> list[Mistake]:
    hidden = "cannot be seen in this run: a limit or a slice hides"
    return [
        Mistake(
            "no servers",
            cluster_row("group edge_servers", "has no machine of this cluster", "join or existing"),
            change=roles([], MACHINES),
        ),
        Mistake(
            "two servers",
            cluster_row("group edge_servers", "has 2 servers: etcd loses its majority", "make it 1 or 3"),
            change=roles(SERVERS[:2], ["agent1"]),
        ),
        Mistake(
            "a slice with too few servers",
            variable("edge_cluster_server_count", "is 5, and the inventory has 3", "with all servers"),
            {"edge_cluster_server_count": 5},
        ),
        Mistake(
            "more servers than told",
            variable("edge_cluster_server_count", "is 1, and the inventory has 3", "correct the number"),
            {"edge_cluster_server_count": 1},
        ),
        Mistake(
            "a limit that hides a server",
            cluster_row("group edge_servers", f"server3 {hidden}", "all its servers in --limit"),
            options=["--limit", f"{CLUSTER},server1,server2,agent1"],
        ),
        Mistake(
            "a limit that hides all servers",
            cluster_row("group edge_servers", f"server1, server2, server3 {hidden}", "--limit"),
            options=["--limit", CLUSTER],
        ),
        Mistake(
            "a limit that hides the cluster",
            cluster_row("group edge_clusters", hidden, "name the cluster host"),
            options=["--limit", "server1"],
            failed=["server1"],
        ),
        Mistake(
            "a machine that is server and agent",
            [Row("server3", "groups", "is in edge_servers and in edge_agents", "leave it in one")],
            change=lambda inventory: inventory["children"]["edge_agents"]["hosts"].update(server3={}),
        ),
        Mistake(
            "a machine of a cluster that is not there",
            [Row("agent1", "variable edge_cluster", "is 'plant7', which is no host of", "mean plant07?")],
            change=on("agent1", edge_cluster="plant7"),
        ),
        Mistake(
            "groups with nearly the right names",
            [
                Row(
                    "server1", "group edge_server$", "server1, server2, server3", "did you mean edge_servers"
                ),
                Row("agent1", "group edge_agent$", "no group of that name", "did you mean edge_agents"),
            ],
            change=lambda inventory: inventory.update(
                children={
                    name if name == "edge_clusters" else name[:-1]: group
                    for name, group in inventory["children"].items()
                }
            ),
        ),
        Mistake(
            "a cluster host that is a machine",
            [
                Row("server1", "groups", "is a machine and a host of edge_clusters", "in edge_clusters"),
                Row("server1", "variable edge_cluster", "is 'plant07' on the cluster host", "machines only"),
                Row("server1", "group edge_servers", "has no machine of this cluster", "edge_servers"),
            ],
            {"edge_cluster_vip": ""},
            change=both(
                *(on(name, edge_cluster=CLUSTER) for name in MACHINES),
                lambda inventory: inventory["children"]["edge_clusters"]["hosts"].update(server1={}),
            ),
        ),
        Mistake(
            "one machine under two names",
            [Row("server1", "^address ", "is also the address of server2", "its own ansible_host")],
            change=on("server2", ansible_host=machines.addresses["server1"]),
        ),
        Mistake(
            "an address that changes with the host that asks",
            [Row("server1", "variable ansible_host", "a task that is delegated here", "host_vars")],
            {"addresses": dict(machines.addresses)},
            on("server1", ansible_host="{{ addresses[inventory_hostname] }}"),
        ),
        Mistake(
            "two nodes with one name",
            [
                Row("server1", "node name", "gw is also the name of server2", "its own edge_node_name"),
                Row("server2", "node name", "gw is also the name of server1", "its own edge_node_name"),
            ],
            change=both(on("server1", edge_node_name="gw"), on("server2", edge_node_name="gw")),
        ),
        Mistake(
            "a name that no node can have",
            [Row("server_1", "node name", "'server_1' is no DNS name", "set edge_node_name")],
            change=renamed("server1", "server_1"),
        ),
    ]


def _values() -> list[Mistake]:
    def bad(name: str, value: Any, fact: str, fix: str) -> Mistake:
        return Mistake(f"{name} {value!r}"[:70], variable(name, fact, fix), {name: value})

    def bad_on_agent(name: str, value: Any, fact: str, fix: str) -> Mistake:
        rows = [Row("agent1", f"^variable {name}$", fact, fix)]
        return Mistake(f"{name} {value!r}"[:70], rows, change=on("agent1", **{name: value}))

    return [
        bad("edge_cluster_vip", "10.7.0.300", "is no IPv4 address", "10.7.0.10"),
        bad("edge_cluster_cidr", "10.42.0.1/16", "an address and not a network", "did you mean 10.42.0.0/16"),
        bad("edge_cluster_cidr", "10.42.0.0/26", "too small: each node takes a /24", "room for all nodes"),
        bad("edge_service_cidr", "10.0.0.0/8", "larger than the API server allows", "take a /12"),
        bad("edge_cluster_domain", "Plant_07", "is no DNS name", "lower-case"),
        bad("edge_k3s_version", "1.34.4", "is not the name of a release", r"v1\.34\.4\+k3s1"),
        bad("edge_k3s_token", SECRET, "has 7 characters", "take 16 or more"),
        bad("edge_k3s_data_dir", "k3s", "is no absolute path", "/var/lib/rancher/k3s"),
        bad("edge_k3s_server_options", ["data-dir=/x"], "sets data-dir", "edge_k3s_data_dir"),
        bad("edge_k3s_agent_options", ["max-pods"], "item 0 is not key=value", "kubelet-arg"),
        bad("edge_k3s_disable", ["trafik"], "'trafik' is no part of k3s", "did you mean traefik"),
        bad("edge_k3s_profile", "cis1", "is 'cis1'", "did you mean cis"),
        bad("edge_k3s_registries", f"auth: [{SECRET}", "is not YAML", "registries.yaml"),
        bad("edge_http_proxy", "proxy:3128", "not an address of a proxy", "http://"),
        bad("edge_snapshot_schedule", "hourly", "no schedule of five fields", r"\*/6"),
        bad("edge_cluster_mode", "k8s", "is 'k8s'", "did you mean k3s"),
        bad("edge_k3s_vesion", "v1", "no variable of that name is known", "did you mean edge_k3s_version"),
        bad("edge_k3s_token", "{{ vault_token }}", "'vault_token' is undefined", "define"),
        bad_on_agent("edge_node_labels", ["site"], "is not key=value", "site=plant07"),
        bad_on_agent("edge_node_taints", ["a=b:Never"], "the effect 'Never'", "NoSchedule"),
        bad_on_agent("edge_node_ip", "gw4", "is no IPv4 address", "10.7.0.11"),
        bad_on_agent("edge_node_ip", "10.9.9.9", "is not an address of the machine", "correct edge_node_ip"),
        bad_on_agent("edge_node_lables", [], "no variable of that name", "did you mean edge_node_labels"),
        bad_on_agent("edge_cluster_domain", "a.b", "is read from the cluster host plant07", "in a group"),
    ]


def _together(machines: Machines) -> list[Mistake]:
    network = machines.address(0).rpartition(".")[0].rsplit(".", 1)[0] + ".0.0/16"
    return [
        Mistake(
            "pods and services overlap",
            variable("edge_service_cidr", "overlaps the network of the pods", "networks of their own"),
            {"edge_service_cidr": "10.42.128.0/17"},
        ),
        Mistake(
            "pods and machines overlap",
            [
                *variable("edge_cluster_vip", "inside the network of the pods", "free address"),
                *each(MACHINES, "network .* on eth0", "overlaps that of the pods", "edge_cluster_cidr"),
            ],
            {"edge_cluster_cidr": network},
        ),
        Mistake(
            "a datastore without its address",
            variable("edge_k3s_datastore_endpoint", "is not set", "postgres"),
            {"edge_k3s_datastore": "endpoint"},
        ),
        Mistake(
            "the address of a datastore that is not used",
            variable("edge_k3s_datastore_endpoint", "edge_k3s_datastore is embedded", "remove it"),
            {"edge_k3s_datastore_endpoint": f"mysql://edge:{SECRET}@db/k3s"},
        ),
        # Without the mode they are agents of a k3s without servers, which is not told besides.
        Mistake(
            "a mode with a name that is not known",
            variable("edge_cluster_mod", "no variable of that name", "did you mean edge_cluster_mode"),
            {"edge_cluster_mod": "join"},
            roles([], MACHINES),
        ),
        Mistake(
            "a kubeconfig to write without its place",
            variable("edge_kubeconfig", "is not set, and edge_kubeconfig_write is", "name the file"),
            {"edge_kubeconfig_write": True},
        ),
    ]


def _sources(near: Neighbours, folder: Path) -> list[Mistake]:
    torn = folder / "torn"
    if folder.is_dir():
        (torn / "v1.34.4+k3s1").mkdir(parents=True)
        (torn / "v1.34.4+k3s1" / "k3s").write_bytes(PROGRAM[:-1])
        (folder / "no-lock.yml").write_text("v1.34.4+k3s1: none\n")
    reach = "let the machine reach it"
    source = "^variable edge_k3s_source$"
    return [
        Mistake(
            "a lock that is not there",
            variable("edge_k3s_lock", "does not exist", "correct the path"),
            {"edge_k3s_lock": "no-such-lock.yml"},
        ),
        Mistake(
            "a lock that is none",
            variable("edge_k3s_lock", "is not version: artifact", "correct the file"),
            {"edge_k3s_lock": str(folder / "no-lock.yml")},
        ),
        Mistake(
            "a version that the lock has not",
            variable(
                "edge_k3s_version",
                r"v1\.30\.1\+k3s1 is not in the lock",
                r"that is \(v1\.35\.1\+k3s1.*edge_k3s_lock",
            ),
            {"edge_k3s_version": "v1.30.1+k3s1"},
        ),
        Mistake(
            "a folder that is not there",
            variable("edge_k3s_source", "is no folder of the controller", "make the folder"),
            {"edge_k3s_source": "/nowhere/k3s"},
        ),
        Mistake(
            "a folder without the version",
            each(MACHINES, "architecture x86_64", "is not on the controller", "put the file"),
            {"edge_k3s_source": str(near.folder), "edge_k3s_version": "v1.34.9+k3s1"},
        ),
        Mistake(
            "a folder with a torn file",
            each(MACHINES, "architecture x86_64", "another SHA-256 than the lock", "put the file"),
            {"edge_k3s_source": str(torn)},
        ),
        Mistake(
            "an architecture without files",
            [Row("agent1", "architecture aarch64", "no SHA-256 of k3s", "add it to a lock")],
            change=on("agent1", ansible_python_interpreter="/opt/odd/arm/python3"),
        ),
        Mistake(
            "an architecture that k3s is not made for",
            [Row("agent1", "architecture riscv64", "k3s is not made for it", "use a machine")],
            change=on("agent1", ansible_python_interpreter="/opt/odd/riscv/python3"),
        ),
        Mistake(
            "a mirror that does not answer",
            each(MACHINES, source, "the connection is refused", reach),
            {"edge_k3s_source": near.proxy},
        ),
        Mistake(
            "a mirror that has no such file",
            each(MACHINES, source, "it has no such file", "put the file there, or set edge_k3s_version"),
            {"edge_k3s_version": "v1.34.9+k3s1"},
        ),
        Mistake(
            "a mirror that nobody trusts",
            each(MACHINES, source, "TLS certificate is not trusted", "edge_ca_bundle"),
            {"edge_k3s_source": near.tls},
        ),
        Mistake(
            "a proxy that does not answer",
            each(MACHINES, source, "the connection is refused", "edge_http_proxy"),
            {"edge_http_proxy": near.proxy.replace("//", f"//edge:{SECRET}@")},
        ),
        Mistake(
            "a registry that does not answer",
            each(MACHINES, "^variable edge_k3s_registries$", "the connection is refused", reach),
            {"edge_k3s_registries": f"mirrors: {{docker.io: {{endpoint: ['{near.proxy}']}}}}"},
        ),
        Mistake(
            "a registry of the gateways' images that does not answer",
            [
                *each(MACHINES, "^variable edge_image_registry$", "the connection is refused", reach),
                # So that no hub is asked.
                *variable("iothub_policy_key", "holds 7 bytes", "copy the policy's primary key"),
            ],
            {
                "edge_gateways": [{"name": "gw", "deployment": str(_DEPLOYMENT)}],
                "edge_image_registry": near.proxy.removeprefix("http://") + "/edgeha",
                "edge_storage_backend": "class",
                "edge_storage_class": "nfs-client",
                "iothub_hostname": "contoso.azure-devices.net",
                "iothub_policy_key": base64.b64encode(SECRET.encode()).decode(),
            },
        ),
        Mistake(
            "an older version than the one there",
            each(MACHINES, "k3s version", "going back is refused", "restore a snapshot"),
            {"edge_k3s_data_dir": "/srv/older", "edge_k3s_version": "v1.32.1+k3s1"},
        ),
        Mistake(
            "new machines with less than a server has",
            [
                Row("server1", "k3s version", "going back is refused", "restore a snapshot"),
                *each(
                    MACHINES[1:],
                    "k3s version",
                    r"would get v1\.32\.1\+k3s1, and server1 has v1\.33\.5",
                    r"edge_k3s_version: v1\.33\.5\+k3s1 in the inventory",
                ),
            ],
            {"edge_k3s_data_dir": "/srv/one", "edge_k3s_version": "v1.32.1+k3s1"},
        ),
        Mistake(
            "a version that skips one",
            each(MACHINES, "k3s version", "that skips a minor version", "upgrade to v1.34 first"),
            {"edge_k3s_data_dir": "/srv/older", "edge_k3s_version": "v1.35.1+k3s1"},
        ),
    ]


def _address(machines: Machines) -> list[Mistake]:
    name = "edge_cluster_vip"
    return [
        Mistake(
            "an address in no subnet of the servers",
            each(SERVERS, f"variable {name}", "no interface is in the subnet", "correct edge_cluster_vip"),
            {name: "192.0.2.10"},
        ),
        Mistake(
            "an address that a server has",
            [Row("server2", f"variable {name}", "is the machine's own address", "that nobody has")],
            {name: machines.addresses["server2"]},
        ),
        Mistake(
            "an address that an agent has",
            [
                Row("agent1", f"variable {name}", "is the address of this agent", "only servers share it"),
                *variable(name, "is not free: .* answers for it", "that nobody has"),
            ],
            {name: machines.addresses["agent1"]},
        ),
        Mistake(
            "an address that somebody else has",
            variable(name, "is not free: .* answers for it", "that nobody has"),
            {name: machines.gateway},
        ),
        Mistake(
            "an interface that is not there",
            each(
                SERVERS, f"variable {name}", "the interface eth7 is not there", "edge_cluster_vip_interface"
            ),
            {"edge_cluster_vip_interface": "eth7"},
        ),
        Mistake(
            "an address inside the network of the services",
            [
                *variable(name, "inside the network of the services", "free address"),
                *each(SERVERS, f"variable {name}", "no interface is in the subnet", "correct"),
            ],
            {name: "10.43.0.10"},
        ),
    ]


def _source(folder: Path, version: str) -> str:
    """Make a folder for edge_join_source, with a kubelet that says its version and does nothing."""
    place = folder / f"kubelet-{version}"
    if folder.is_dir():
        place.mkdir()
        program = place / "kubelet"
        program.write_text(f"#!/bin/sh\necho Kubernetes {version}\n")
        program.chmod(0o755)
        digest = hashlib.sha256(program.read_bytes()).hexdigest()
        (place / "SHA256SUMS").write_text(f"{digest}  kubelet\n{digest}  kubeadm\n")
    return str(place)


def _join(machines: Machines, near: Neighbours, folder: Path) -> list[Mistake]:
    kubeconfig = folder / "kubeconfig"
    if folder.is_dir():
        kubeconfig.write_text(
            "{apiVersion: v1, kind: Config, current-context: x,"
            " clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}],"
            " users: [{name: u, user: {token: t}}], contexts: [{name: x, context: {cluster: c, user: u}}]}"
        )
    base = {
        "edge_cluster_mode": "join",
        "edge_cluster_vip": "",
        "edge_kubeconfig": str(kubeconfig),
        "edge_join_url": near.tls,
        "edge_join_token": f"K10{near.k3s_hash}::node:{SECRET}{SECRET}{SECRET}",
    }
    kubeadm = {"edge_join_kind": "kubeadm", "edge_join_url": near.kubeadm, "edge_join_ca_hash": near.ca_hash}
    token = {"edge_join_token": f"{TOKEN_ID}.{TOKEN_SECRET}"}
    # Nothing answers at the kubeconfig's address, and that is told as well.
    api = cluster_row("^cluster$", "cannot be reached", "kubeconfig")
    unset = {"edge_join_url": "", "edge_join_token": ""}
    only_agents = roles([], MACHINES)

    def bad(
        name: str, rows: Sequence[Row], *changes: dict[str, Any], change: Change = only_agents
    ) -> Mistake:
        merged = dict(base)
        for one in changes:
            merged.update(one)
        return Mistake(f"join: {name}", [*rows, *api], merged, change)

    return [
        bad(
            "servers",
            cluster_row("group edge_servers", "edge_cluster_mode is join", "move them to edge_agents"),
            change=roles(SERVERS, ["agent1"]),
        ),
        bad("nobody", cluster_row("group edge_agents", "has no machine", "existing"), change=roles([])),
        bad(
            "no address and no token",
            [
                *variable("edge_join_url", "is not set", "set it"),
                *variable("edge_join_token", "is not set", "set it"),
            ],
            unset,
        ),
        bad(
            "an address without https",
            variable("edge_join_url", "is not an https address alone", "https://10.7.0.10:6443"),
            {"edge_join_url": "10.7.0.10:6443"},
        ),
        bad(
            "an address that does not answer",
            each(MACHINES, "variable edge_join_url", "the connection is refused", "correct edge_join_url"),
            {"edge_join_url": near.proxy.replace("http://", "https://")},
        ),
        bad(
            "a token that was cut",
            variable("edge_join_token", "cut short or changed", "copy the whole line"),
            {"edge_join_token": f"K10{near.k3s_hash[:40]}"},
        ),
        bad(
            "a token of another k3s",
            variable("edge_join_token", "is for another cluster", "copy server/node-token"),
            {"edge_join_token": f"K10{'0' * 64}::node:{SECRET}{SECRET}"},
        ),
        bad(
            "an agent that is newer than its server",
            each(
                MACHINES,
                "k3s version",
                r"v1\.35\.1\+k3s1 is newer than the cluster",
                "set edge_k3s_version: v1.34.4",
            ),
            {"edge_k3s_version": "v1.35.1+k3s1"},
        ),
        bad(
            "kubeadm with a kubelet that is newer than the cluster",
            each(MACHINES, "^kubelet$", r"v1\.36\.0 is newer than the cluster", r"a kubelet of v1\.34"),
            kubeadm,
            token,
            {"edge_join_source": _source(folder, "v1.36.0")},
        ),
        bad(
            "kubeadm with a kubelet that is too old for the cluster",
            each(
                MACHINES,
                "^kubelet$",
                r"v1\.30\.9 is more than 3 minor versions older",
                r"a kubelet of v1\.34",
            ),
            kubeadm,
            token,
            {"edge_join_source": _source(folder, "v1.30.9")},
        ),
        bad(
            "kubeadm without a digest",
            variable("edge_join_ca_hash", "is not set", "set it"),
            kubeadm,
            token,
            {"edge_join_ca_hash": ""},
        ),
        bad(
            "kubeadm with another digest",
            variable("edge_join_ca_hash", "is not the digest of the authority", "kubeadm token create"),
            kubeadm,
            token,
            {"edge_join_ca_hash": f"sha256:{'0' * 64}"},
        ),
        bad(
            "kubeadm with a token that ran out",
            variable(
                "edge_join_token", "is not known to the cluster, or it has expired", "kubeadm token create"
            ),
            kubeadm,
            {"edge_join_token": f"zzzzzz.{TOKEN_SECRET}"},
        ),
        bad(
            "kubeadm with another secret",
            variable("edge_join_token", "and another secret", "kubeadm token create"),
            kubeadm,
            {"edge_join_token": f"{TOKEN_ID}.aaaaaaaaaaaaaaaa"},
        ),
    ]


def _disk(device: str, mount: str) -> dict[str, str]:
    return {"device": device, "filesystem": "ext4", "mount": mount, "label": "edge-data"}


def _hardware(machines: Machines) -> list[Mistake]:
    clock = [Row("server2", "clock", r"is (3[56]\d\d) s behind the controller's", "edge_prepare_ntp_servers")]
    return [
        Mistake(
            "a machine without power",
            [Row("server3", "connection", "No route to host|timed out|unreachable", "check its power")],
            change=on("server3", ansible_host=machines.address(77)),
        ),
        Mistake(
            "a user that may not log in",
            [Row("server3", "connection", "Permission denied", r"and the key; .* -i /\S+ ?server3 -m ping")],
            change=on("server3", ansible_user="nobody"),
        ),
        Mistake(
            "a user that may not become root",
            [Row("server3", "connection", "password|sudo", "check become")],
            change=on("server3", ansible_user="edge"),
        ),
        Mistake(
            "a machine without that Python",
            [Row("server3", "connection", "python9", "ansible_python_interpreter")],
            change=on("server3", ansible_python_interpreter="/usr/bin/python9"),
        ),
        Mistake(
            "a clock that is late",
            clock,
            change=on("server2", ansible_python_interpreter="/opt/odd/late/python3"),
        ),
        Mistake(
            "a port that is held",
            [
                Row(
                    "agent1",
                    "port 6443/tcp",
                    r"is held by python3 \(squatter.service\)",
                    "systemctl disable --now squatter.service",
                )
            ],
            change=roles(["server1", "server2", "agent1"], ["server3"]),
        ),
        Mistake(
            "too little memory",
            each(SERVERS, "memory", r"\d+ MiB, and servers need 9000000", "preflight_server_memory"),
            {"preflight_server_memory": 9000000},
        ),
        Mistake(
            "too few processors",
            [Row("agent1", "processors", r"\d+, and agents need 999", "preflight_agent_cpus")],
            {"preflight_agent_cpus": 999},
        ),
        Mistake(
            "a disk without room",
            each(MACHINES, "disk of /srv/small/k3s", "0.0 GiB are free", "edge_k3s_data_dir"),
            {"edge_k3s_data_dir": "/srv/small/k3s"},
        ),
        Mistake(
            "a disk that is not there",
            [Row("server2", "^disk /dev/edge-nope$", "is not there", "correct the path, or attach the disk")],
            change=on("server2", edge_node_disks=[_disk("/dev/edge-nope", "/srv/new")]),
        ),
        Mistake(
            "a disk that is none, on a folder with files",
            [
                Row("agent1", "^disk /dev/null$", "is no disk", "correct the path"),
                Row("agent1", "^disk /dev/null$", "/etc holds files that the disk would hide", "move them"),
            ],
            change=on("agent1", edge_node_disks=[_disk("/dev/null", "/etc")]),
        ),
        Mistake(
            "a disk that is slow",
            each(SERVERS, "disk of", "half of the small writes take", "a faster disk"),
            {"preflight_fsync_limit": 0.001},
        ),
    ]


def _clusters(machines: Machines) -> list[Mistake]:
    other = ("depot09", "agent1")
    vip = machines.address(100)
    # That machine has a program of its own on the port of a server.
    held = Row("agent1", "port 6443/tcp", "is held by", "squatter")
    return [
        Mistake(
            "two clusters and machines of neither",
            [
                *each(MACHINES, "variable edge_cluster", "is not set, and there are 2 clusters", "each site"),
                *cluster_row("group edge_servers", "has no machine of this cluster", "edge_servers"),
                Row("depot09", "group edge_servers", "has no machine of this cluster", "edge_servers"),
            ],
            {"edge_cluster_vip": ""},
            lambda inventory: inventory["children"]["edge_clusters"]["hosts"].update(depot09={}),
        ),
        Mistake(
            "two clusters with one address",
            [
                *cluster_row(f"address {vip}", "is also in the cluster depot09", "to one cluster"),
                Row("depot09", f"address {vip}", "is also in the cluster plant07", "to one cluster"),
                held,
            ],
            change=both(
                two_clusters, on("depot09", edge_cluster_vip=vip), on("agent1", edge_cluster_vip=vip)
            ),
        ),
        Mistake(
            "two clusters with one token",
            [
                *variable("edge_k3s_token", "is also the token of depot09", "give each cluster a token"),
                Row("depot09", "variable edge_k3s_token", "is also the token of plant07", "leave it out"),
                held,
            ],
            {"edge_k3s_token": SECRET * 3},
            two_clusters,
        ),
        Mistake(
            "one machine in two clusters",
            [Row("server1", "^address ", "is also the address of agent1", "one name in the inventory")],
            change=both(two_clusters, on("agent1", ansible_host=machines.addresses["server1"])),
        ),
        Mistake(
            ONE_OF_TWO,
            [held],
            change=two_clusters,
            options=["--tags", "preflight"],
            failed=other,
        ),
    ]


def _at_once(machines: Machines, folder: Path) -> list[Mistake]:
    late = on("server2", ansible_python_interpreter="/opt/odd/late/python3")
    rows = [
        *variable("edge_cluster_domain", "is no DNS name", "lower-case"),
        *variable("edge_k3s_disable", "is no part of k3s", "traefik"),
        Row("agent1", "variable edge_node_labels", "is not key=value", "site=plant07"),
        Row("server2", "clock", "behind the controller's", "ntp"),
        Row("server3", "connection", "No route|timed out|unreachable", "power"),
        *each(SERVERS[:2], "memory", "servers need 9000000", "memory"),
    ]
    values = {
        "edge_cluster_domain": "Plant_07",
        "edge_k3s_disable": ["trafik"],
        "preflight_server_memory": 9000000,
    }
    change = both(
        late, on("server3", ansible_host=machines.address(77)), on("agent1", edge_node_labels=["site"])
    )
    return [
        Mistake("all at once", rows, values, change),
        Mistake("all at once in check mode", rows, values, change, ["--check", "--diff"]),
    ]
