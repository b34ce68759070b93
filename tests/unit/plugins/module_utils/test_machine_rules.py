# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.edgeha.iotedge.plugins.module_utils import machine_rules
from ansible_collections.edgeha.iotedge.plugins.module_utils.machine_facts import NO_FILE
from ansible_collections.edgeha.iotedge.plugins.module_utils.machine_rules import Limits, Machine, Wanted

ROOT = Path(__file__).resolve().parents[4]
VERSION = "v1.34.4+k3s1"
WANTED = Wanted("plant07", version=VERSION, vip="10.7.0.10", pods="10.42.0.0/16", services="10.43.0.0/16")
K3S = {"unit": "", "active": False, "version": "", "server_data": False, "agent_data": False, "joined": False}


def facts(number: int, **changes: Any) -> dict[str, Any]:
    """What a good machine tells; changes are merged into it."""
    told: dict[str, Any] = {
        "hostname": f"gw{number}",
        "machine_id": f"{number:032x}",
        "interfaces": [
            {"name": "eth0", "mac": f"02:00:00:00:00:{number:02x}", "addresses": [f"10.7.0.1{number}/24"]},
            {"name": "docker0", "mac": "02:42:00:00:00:01", "addresses": ["172.17.0.1/16"]},
            {"name": "cni0", "mac": "02:42:00:00:00:02", "addresses": [f"10.42.{number}.1/24"]},
        ],
        "os": {"id": "debian", "version": "12", "major": "12", "name": "Debian", "family": "debian"},
        "kernel": {"release": "6.1", "architecture": "x86_64", "container": ""},
        "modules": {"overlay": "loaded", "vxlan": "available"},
        "sysctls": {},
        "cgroups": {"version": 2, "controllers": [], "missing": []},
        "memory_mib": 4096,
        "cpus": 2,
        "data": {"path": "/var/lib/rancher/k3s", "free_bytes": 50 << 30, "total_bytes": 99 << 30},
        "disks": None,
        "fsync": {"writes": 60, "median_ms": 1.0, "p90_ms": 2.0, "max_ms": 9.0, "problem": ""},
        "k3s": dict(K3S),
        "ports": [],
        "address": {"interface": "eth0", "mac": ""},
        "sources": [],
        "join": None,
    }
    for name, value in changes.items():
        told[name] = {**told[name], **value} if isinstance(told[name], dict) else value
    return told


def machine(number: int, server: bool = True, **changes: Any) -> Machine:
    keys = ("node_ip", "skew", "name", "disk", "disks", "tuned", "place")
    own = {key: changes.pop(key) for key in keys if key in changes}
    return Machine(f"gw{number}", server, **{"name": f"gw{number}", **own}, facts=facts(number, **changes))


def judge(*machines: Machine, wanted: Wanted = WANTED) -> list[tuple[str, str, str]]:
    found = machine_rules.judge(machines, wanted)
    assert all(problem.fix for problem in found)
    return [(problem.host, problem.subject, f"{problem.fact}: {problem.fix}") for problem in found]


def test_good_machines() -> None:
    assert judge(machine(1), machine(2), machine(3), machine(4, server=False)) == []


@pytest.mark.parametrize(
    ("server", "changes", "subject", "words"),
    [
        (True, {"memory_mib": 1024}, "memory", "1024 MiB, and servers need 1536"),
        (False, {"memory_mib": 256}, "memory", "agents need 448"),
        (True, {"cpus": 1}, "processors", "1, and servers need 2"),
        (True, {"data": {"free_bytes": 1 << 30}}, "disk of /var/lib/rancher/k3s", "1.0 GiB are free"),
        (
            True,
            {"data": {"free_bytes": 4 << 30, "total_bytes": 400 << 30}},
            "disk of /var/lib/rancher/k3s",
            "1 % are free",
        ),
        (True, {"fsync": {"median_ms": 250.0}}, "disk of /var/lib/rancher/k3s", "take 250 ms"),
        (True, {"fsync": {"problem": "Read-only file system"}}, "disk of /var/lib/rancher/k3s", "read-only"),
        (True, {"os": {"id": "arch", "family": "", "name": "Arch Linux"}}, "system", "Arch Linux"),
        (True, {"os": {"version": "11", "major": "11"}}, "system", "Debian is not known"),
        (True, {"modules": {"overlay": "missing"}}, "kernel module overlay", "kernel 6.1 does not have it"),
        (True, {"cgroups": {"missing": ["memory"]}}, "cgroups", "cgroup_enable for memory"),
        (
            True,
            {"ports": [{"protocol": "tcp", "port": 6443, "program": "nginx", "unit": "nginx.service"}]},
            "port 6443/tcp",
            "is held by nginx (nginx.service): systemctl disable --now nginx.service",
        ),
        (
            False,
            {"ports": [{"protocol": "udp", "port": 8472, "program": "", "unit": ""}]},
            "port 8472/udp",
            "the kernel",
        ),
        (
            True,
            {"sources": [{"name": "variable edge_k3s_source", "url": "https://m", "problem": "no answer"}]},
            "variable edge_k3s_source",
            "https://m: no answer",
        ),
        (
            True,
            {"sources": [{"name": "variable edge_k3s_source", "url": "https://m", "problem": NO_FILE}]},
            "variable edge_k3s_source",
            f"https://m: {NO_FILE}: put the file there, or set edge_k3s_version to one that the source has",
        ),
        (True, {"node_ip": "10.9.0.1"}, "variable edge_node_ip", "10.9.0.1 is not an address of the machine"),
        (True, {"skew": (40.0, 41.0)}, "clock", "is 40 s ahead of the controller's"),
        (True, {"skew": (-99.0, -98.0)}, "clock", "is 98 s behind the controller's"),
        (True, {"name": "GW 1"}, "node name", "no DNS name"),
        (
            True,
            {"k3s": {"active": True, "version": "v1.34.5+k3s1"}},
            "k3s version",
            "going back is refused",
        ),
        (
            True,
            {"k3s": {"server_data": True, "version": "v1.32.9+k3s1"}},
            "k3s version",
            "upgrade to v1.33 first",
        ),
    ],
)
def test_each_fault_of_a_machine(server: bool, changes: dict[str, Any], subject: str, words: str) -> None:
    assert [(host, found) for host, found, _text in judge(machine(1, server, **changes))] == [
        ("gw1", subject)
    ]
    assert words in judge(machine(1, server, **changes))[0][2]


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"sysctls": {"kernel.panic": "0"}}, None),
        ({"sysctls": {"kernel.panic": "10"}, "tuned": False}, None),
        ({"sysctls": {"kernel.panic": "0"}, "tuned": False}, "set kernel.panic=10 in /etc/sysctl.d"),
        (
            {"sysctls": {"kernel.panic": "0"}, "kernel": {"container": "docker"}},
            "set kernel.panic=10 on the host of the container",
        ),
        ({"sysctls": {"kernel.keys.root_maxkeys": "200"}}, "set kernel.keys.root_maxkeys=1000000"),
    ],
)
def test_a_kernel_that_a_kubelet_of_the_profile_cis_refuses(changes: dict[str, Any], fix: str | None) -> None:
    found = judge(machine(1, **changes))
    assert len(found) == (fix is not None)
    for _host, subject, text in found:
        assert subject == f"sysctl {next(iter(changes['sysctls']))}"
        assert fix is not None
        assert fix in text


@pytest.mark.parametrize(
    "changes",
    [
        # Modules of a container are its host's, and node_prepare tells of them.
        {"modules": {"overlay": "missing"}, "kernel": {"container": "docker"}},
        {"ports": [{"protocol": "tcp", "port": 6443, "program": "k3s-server", "unit": "k3s.service"}]},
        {
            "ports": [{"protocol": "udp", "port": 8472, "program": "", "unit": ""}],
            "k3s": {"server_data": True},
        },
        {"data": {"free_bytes": 10 << 30}, "k3s": {"agent_data": True}},
        {"disk": True, "data": {"free_bytes": 1 << 20}},
        {"fsync": {"median_ms": 99.0, "p90_ms": 250.0}},
        {"skew": (-1.0, 60.0)},
        {"node_ip": "10.7.0.11"},
        {"os": {"id": "rocky", "version": "9.4", "major": "9", "family": "redhat"}},
        # A program that never ran decides nothing.
        {"k3s": {"version": "v1.36.0+k3s1"}},
        {"k3s": {"active": True, "version": VERSION}},
        {"k3s": {"active": True, "version": "v1.33.9+k3s1"}},
    ],
)
def test_what_is_no_fault(changes: dict[str, Any]) -> None:
    assert judge(machine(1, **changes)) == []


DISK = {"device": "/dev/sdb", "filesystem": "ext4", "mount": "/srv/data", "label": "edge-data"}


def seen_disk(folder: bool = True, files: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    state = {
        "path": "/dev/sdb", "exists": True, "block": True, "read": True, "busy": False, "signatures": [],
        "children": [], "holders": [], "mounts": [], **changes,
    }  # fmt: skip
    place = {"source": "", "fstab": None, "files": files or [], "folder": folder}
    return {"devices": {"/dev/sdb": state}, "labels": {}, "mounts": {"/srv/data": place}}


def with_disk(look: dict[str, Any]) -> list[tuple[str, str, str]]:
    told = facts(1)
    told["disks"] = look
    return judge(Machine("gw1", True, "gw1", disks=[DISK], facts=told))


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (seen_disk(exists=False), "is not there: correct the path, or attach the disk"),
        (seen_disk(block=False), "is no disk"),
        (seen_disk(read=False), "cannot be read"),
        (seen_disk(signatures=[{"type": "ext4", "label": "orders"}]), "is not empty: ext4 orders"),
        (seen_disk(files=["state.db"]), "holds files that the disk would hide: state.db"),
        (seen_disk(folder=False), "/srv/data is a file: choose another folder"),
    ],
)
def test_disks_that_the_stage_nodes_would_refuse(look: dict[str, Any], words: str) -> None:
    ((host, subject, said),) = with_disk(look)
    assert (host, subject) == ("gw1", "disk /dev/sdb")
    assert words in said


def test_disks_that_are_empty_or_ours() -> None:
    assert with_disk(seen_disk()) == []
    ours = seen_disk(signatures=[{"type": "ext4", "label": "edge-data"}], mounts=["/srv/data"], busy=True)
    ours["mounts"]["/srv/data"]["source"] = "/dev/sdb"
    assert with_disk(ours) == []


def test_machines_that_were_cloned() -> None:
    told = copy.deepcopy(facts(1))
    # Somebody gave it a card of its own, and nothing else.
    told["interfaces"][0]["mac"] = "02:00:00:00:00:02"
    found = judge(machine(1), Machine("gw2", True, "gw2", facts=told), machine(3))
    assert [(host, subject) for host, subject, _text in found] == [
        (host, subject) for subject in ("host name", "machine-id", "address") for host in ("gw1", "gw2")
    ]
    assert "gw1 is also that of gw2" in found[0][2]
    # A clone that got a name is told of by the rest.
    found = judge(machine(1), Machine("gw2", True, "gw2", facts={**facts(1), "hostname": "gw2"}))
    assert {subject for _host, subject, _text in found} == {"machine-id", "MAC address", "address"}


def test_machine_with_two_names_was_not_cloned() -> None:
    here = ("10.7.0.11", "")
    other = Machine("gw2", True, "gw2", facts=facts(1), place=here)
    # The groups tell of names with one address.
    assert judge(machine(1, place=here), other, machine(3)) == []
    # One that was cloned is told of under one of its names.
    clone = Machine("gw3", True, "gw3", facts={**facts(3), "machine_id": facts(1)["machine_id"]})
    assert [(host, subject) for host, subject, _text in judge(machine(1, place=here), other, clone)] == [
        ("gw1", "machine-id"),
        ("gw3", "machine-id"),
    ]
    # Two addresses of one machine show by what it tells.
    third = Machine("gw3", True, "gw3", facts=facts(1), place=("10.7.0.99", ""))
    [(host, subject, text)] = judge(machine(1, place=("gw1.example.org", "")), other, third)
    assert (host, subject) == ("gw1", "address")
    assert "the same machine as that of gw2, gw3: give each machine one name" in text


def test_nodes_of_one_name() -> None:
    found = judge(machine(1), machine(2, name="gw1"))
    assert [(host, subject) for host, subject, _text in found] == [("gw1", "node name"), ("gw2", "node name")]


def test_clocks_that_are_apart_though_each_is_near_the_controllers() -> None:
    [(host, subject, text)] = judge(
        machine(1, skew=(20.0, 21.0)), machine(2, skew=(-21.0, -20.0)), machine(3)
    )
    assert (host, subject) == ("gw1", "clock")
    assert "40 s ahead of that of gw2" in text


def test_networks_that_overlap() -> None:
    [(host, subject, text)] = judge(machine(1), wanted=Wanted("plant07", pods="10.7.0.0/16"))
    assert (host, subject) == ("gw1", "network 10.7.0.0/24 on eth0")
    assert "set edge_cluster_cidr" in text


def test_agents_are_not_newer_than_servers() -> None:
    server = machine(1, k3s={"active": True, "version": "v1.33.9+k3s1", "server_data": True})
    [(host, subject, text)] = judge(server, machine(2, server=False))
    assert (host, subject) == ("gw2", "k3s version")
    assert "is newer than that of gw1" in text
    newer = {"active": True, "version": "v1.34.4+k3s1", "agent_data": True}
    assert judge(server, machine(2, server=False, k3s=newer))[0][0] == "gw2"
    older = {"active": True, "version": "v1.33.1+k3s1", "agent_data": True}
    assert judge(server, machine(2, server=False, k3s=older)) == []


RUNS = {"active": True, "version": "v1.34.4+k3s1", "server_data": True, "agent_data": True}


def test_new_machines_get_nothing_older_than_the_servers_have() -> None:
    found = judge(machine(1, k3s=RUNS), machine(2), wanted=Wanted("plant07", version="v1.34.3+k3s1"))
    assert [(host, subject) for host, subject, _text in found] == [
        ("gw1", "k3s version"),
        ("gw2", "k3s version"),
    ]
    words = "would get v1.34.3+k3s1, and gw1 has v1.34.4+k3s1"
    assert found[1][2] == f"{words}: set edge_k3s_version: v1.34.4+k3s1 in the inventory"


def test_new_machines_get_what_the_servers_have_when_no_version_is_named() -> None:
    asked = []

    def artifact(architecture: str, version: str) -> tuple[str, str] | None:
        asked.append((architecture, version))
        return None

    machines = (machine(1, k3s=RUNS), machine(2), machine(3, server=False))
    # The lock knows newer ones, or none as new: both are no reason to stop.
    for newest in ("v1.36.1+k3s1", "v1.33.1+k3s1"):
        wanted = Wanted("plant07", version=newest, chosen=False, artifact=artifact)
        assert judge(*machines, wanted=wanted) == []
    assert set(asked) == {("x86_64", "v1.34.4+k3s1")}
    assert judge(machine(1), wanted=Wanted("plant07", version="v1.36.1+k3s1", chosen=False)) == []


def test_files_of_a_version_that_nobody_gets_are_not_missed() -> None:
    missing = [
        {"name": name, "url": "https://mirror/x", "problem": "it has no such file"}
        for name in ("variable edge_k3s_source", "variable edge_k3s_registries")
    ]
    machines = (machine(1, k3s=RUNS, sources=missing), machine(2, sources=missing))
    free = Wanted("plant07", version="v1.36.1+k3s1", chosen=False)
    assert {subject for _host, subject, _text in judge(*machines, wanted=free)} == {
        "variable edge_k3s_registries"
    }
    assert len(judge(*machines, wanted=Wanted("plant07", version=VERSION))) == 4


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("v1.34.4+k3s1", "v1.34.4+k3s2"),
        ("v1.34.4-rc1+k3s1", "v1.34.4+k3s1"),
        ("v1.34.9+k3s1", "v1.34.10+k3s1"),
        ("v1.34.4", "v1.35.0"),
    ],
)
def test_order_of_versions(first: str, second: str) -> None:
    earlier, later = machine_rules.version_key(first), machine_rules.version_key(second)
    assert earlier is not None
    assert later is not None
    assert earlier < later
    assert machine_rules.version_key("latest") is None


def vip_of(**changes: Any) -> Wanted:
    return Wanted("plant07", **{"version": VERSION, "vip": "10.7.0.10", **changes})


def test_address_that_somebody_has() -> None:
    taken = {"address": {"mac": "02:00:00:00:00:99"}}
    [(host, subject, text)] = judge(machine(1, **taken), wanted=vip_of())
    assert (host, subject) == ("plant07", "variable edge_cluster_vip")
    assert "02:00:00:00:00:99 answers for it" in text


def test_address_that_is_ours() -> None:
    other = {"address": {"mac": "02:00:00:00:00:02"}}
    assert judge(machine(1, **other), machine(2), wanted=vip_of()) == []
    link = {"name": "eth0", "mac": "02:00:00:00:00:02", "addresses": ["10.7.0.12/24", "10.7.0.10/32"]}
    holder = machine(2, interfaces=[link])
    assert judge(machine(1), holder, wanted=vip_of()) == []


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (vip_of(vip="10.7.0.11"), "is the machine's own address on eth0"),
        (vip_of(vip="10.8.0.10"), "no interface is in the subnet"),
        (vip_of(vip_interface="eth7"), "the interface eth7 is not there"),
    ],
)
def test_address_in_the_wrong_place(wanted: Wanted, words: str) -> None:
    [(host, _subject, text)] = judge(machine(1), wanted=wanted)
    assert host == "gw1"
    assert words in text


def test_address_of_an_agent() -> None:
    [(host, _subject, text)] = judge(machine(1), machine(2, server=False), wanted=vip_of(vip="10.7.0.12"))
    assert host == "gw2"
    assert "only servers share it" in text


def test_artifact_for_the_architecture() -> None:
    def artifact(architecture: str, _version: str) -> tuple[str, str] | None:
        return None if architecture == "x86_64" else ("the lock has none", "add it")

    wanted = Wanted("plant07", artifact=artifact)
    arm = machine(1, kernel={"architecture": "aarch64"})
    assert judge(arm, machine(2), wanted=wanted) == [
        ("gw1", "architecture aarch64", "the lock has none: add it")
    ]
    assert judge(arm, wanted=Wanted("plant07", kind="kubeadm", artifact=artifact)) == []


def test_kubelet_of_a_node_that_joined_by_kubeadm() -> None:
    held = {"ports": [{"protocol": "tcp", "port": 10250, "program": "kubelet", "unit": "kubelet.service"}]}
    assert judge(machine(1, server=False, **held), wanted=Wanted("plant07", kind="kubeadm")) == []
    assert judge(machine(1, server=False, **held), wanted=Wanted("plant07"))


def test_machine_in_two_clusters() -> None:
    told: Mapping[str, Any] = {"gw1": facts(1), "shop1": facts(1), "gw2": facts(2)}
    found = machine_rules.same_machine(told, {"gw1": "plant07", "gw2": "plant07", "shop1": "depot09"})
    assert {(problem.host, problem.fact) for problem in found} == {
        ("gw1", "is the same machine as shop1 of the cluster depot09"),
        ("shop1", "is the same machine as gw1 of the cluster plant07"),
    }
    # Names with one address are told of by the groups.
    clusters, here = {"gw1": "plant07", "shop1": "depot09"}, ("10.7.0.11", "")
    assert machine_rules.same_machine(told, clusters, {"gw1": here, "shop1": here}) == []
    assert len(machine_rules.same_machine(told, clusters, {"gw1": here, "shop1": ("10.7.0.99", "")})) == 2
    # A clone at another site has another card.
    told = {"gw1": facts(1), "shop1": {**facts(2), "machine_id": facts(1)["machine_id"]}}
    assert machine_rules.same_machine(told, {"gw1": "plant07", "shop1": "depot09"}) == []


def test_limits_that_ask_for_nothing() -> None:
    off = Limits(0, 0, 0, 0, 0, 0, 0, 0)
    poor = machine(1, memory_mib=1, cpus=1, skew=(99.0, 99.0), fsync={"median_ms": 999.0})
    assert judge(poor, wanted=Wanted("plant07", limits=off)) == []


def test_machine_that_was_not_looked_at_is_left_out() -> None:
    assert judge(Machine("gw1", True, "gw1"), machine(2)) == []


def test_ports_of_etcd_matter_only_where_there_is_etcd() -> None:
    held = {"ports": [{"protocol": "tcp", "port": 2379, "program": "etcd", "unit": "etcd.service"}]}
    assert judge(machine(1, **held))
    assert judge(machine(1, **held), wanted=Wanted("plant07", etcd=False)) == []


def test_ports_by_role() -> None:
    assert "2379/tcp" in machine_rules.ports(server=True, etcd=True)
    assert "2379/tcp" not in machine_rules.ports(server=True, etcd=False)
    assert "6443/tcp" not in machine_rules.ports(server=False, etcd=True)
    assert "8472/udp" not in machine_rules.ports(server=False, etcd=False, kind="kubeadm")


def test_systems_are_those_that_node_prepare_knows() -> None:
    text = (ROOT / "roles" / "node_prepare" / "vars" / "main" / "wanted.yml").read_text()
    known = yaml.safe_load(text)["__node_prepare_systems"]
    assert {name: tuple(versions) for name, versions in known.items()} == dict(machine_rules.SYSTEMS)
