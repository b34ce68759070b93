# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judges what the machines of a cluster tell of themselves, one by one and against each other. Pure.

Facts are those of the module ``machine_check``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    disk_rules,
    machine_facts,
    value_formats,
    vip,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.cluster_rules import ONE_NAME
from ansible_collections.edgeha.iotedge.plugins.module_utils.problems import Problem

MODULES = ("overlay", "br_netfilter", "nf_conntrack", "vxlan")
# With the profile cis a kubelet leaves the kernel alone, and ends where it differs from these. The role
# node_prepare sets the first ones.
_SET_BY_US = {
    "vm.overcommit_memory": "1", "vm.panic_on_oom": "0", "kernel.panic": "10", "kernel.panic_on_oops": "1",
}  # fmt: skip
KERNEL_SETTINGS: Mapping[str, str] = {
    **_SET_BY_US, "kernel.keys.root_maxkeys": "1000000", "kernel.keys.root_maxbytes": "25000000",
}  # fmt: skip
# Systems that node_prepare knows, by id or else by family: versions, or for a family major ones.
SYSTEMS: Mapping[str, Sequence[str]] = {
    "debian": ("12", "13"),
    "ubuntu": ("22.04", "24.04"),
    "redhat": ("9",),
}
# What the parts of k3s listen on. Those of the second are local.
_NODE_PORTS = ("10250/tcp", "8472/udp", "6444/tcp", "10248/tcp", "10249/tcp", "10256/tcp")
_SERVER_PORTS = ("6443/tcp", "10257/tcp", "10259/tcp")
_ETCD_PORTS = ("2379/tcp", "2380/tcp")
_KUBEADM_PORTS = ("10250/tcp", "10248/tcp", "10249/tcp", "10256/tcp")
_K3S_UNITS = ("k3s.service", "k3s-agent.service")
_KUBEADM_PROGRAMS = ("kubelet", "kube-proxy")
# Interfaces that networks of pods make; their networks are not the machine's.
_POD_INTERFACES = ("cni", "flannel", "veth", "kube-", "cali", "cilium", "lxc", "tunl", "nodelocal")
# Interfaces that have the same address, and sometimes the same MAC address, on each machine.
_SAME_EVERYWHERE = (*_POD_INTERFACES, "docker", "br-", "virbr", "podman", "lxdbr", "dummy")
_VERSION = re.compile(r"v?([0-9]+)\.([0-9]+)\.([0-9]+)(?:-rc([0-9]+))?(?:\+k3s([0-9]+))?")
# The kubelet begins to evict pods below this share of free space, by k3s's own settings.
_EVICTION = 0.05
_GIB = 1 << 30
# What machine_check calls the files of k3s.
SOURCE = "variable edge_k3s_source"
DATASTORE = "variable edge_k3s_datastore_endpoint"
_REACH = "let the machine reach it (firewall, edge_http_proxy, edge_ca_bundle), or name another"
# Version, name and text of the version.
_Server = tuple[tuple[int, int, int, int, int], str, str]


@dataclass(frozen=True)
class Limits:
    """What a machine must have: memory in MiB, free space in GiB, fsync in ms, clock in s. 0 is no limit."""

    clock: float = 30
    server_memory: int = 1536
    agent_memory: int = 448
    server_cpus: int = 2
    agent_cpus: int = 1
    server_disk: int = 4
    agent_disk: int = 2
    fsync: float = 100


@dataclass(frozen=True)
class Machine:
    """One machine of a cluster.

    name:   of its node. node_ip: what the operator set, or empty.
    disk:   whether its data will be on a disk that is mounted later.
    disks:  those that are to be formatted and mounted, with device, filesystem, mount and label.
    facts:  what it tells, None when it was not or could not be looked at.
    skew:   the least and the most seconds that its clock is ahead of the controller's.
    tuned:  whether node_prepare sets its kernel's values.
    place:  what tells its connection from others, as in `cluster_rules.same_place`. Empty for unknown.
    """

    host: str
    server: bool
    name: str
    node_ip: str = ""
    disk: bool = False
    disks: Sequence[Mapping[str, str]] = ()
    facts: Mapping[str, Any] | None = None
    skew: tuple[float, float] = (0.0, 0.0)
    tuned: bool = True
    place: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What the cluster is to be.

    kind:     ``k3s`` or ``kubeadm``, whose nodes are not ours.
    version:  of k3s, empty when it is not known.
    chosen:   whether the operator names it. If not, what is installed goes with what the servers have.
    etcd:     whether the servers hold the cluster's state among themselves.
    artifact: returns fact and fix of what keeps a version from an architecture (x86_64), or None.
    """

    cluster: str
    kind: str = "k3s"
    version: str = ""
    chosen: bool = True
    etcd: bool = True
    vip: str = ""
    vip_interface: str = ""
    pods: str = ""
    services: str = ""
    artifact: Callable[[str, str], tuple[str, str] | None] = lambda _architecture, _version: None
    limits: Limits = Limits()


def ports(server: bool, etcd: bool, kind: str = "k3s") -> list[str]:
    """Return the ports that a node needs."""
    if kind == "kubeadm":
        return list(_KUBEADM_PORTS)
    return [*_NODE_PORTS, *(_SERVER_PORTS if server else ()), *(_ETCD_PORTS if server and etcd else ())]


def version_key(text: str) -> tuple[int, int, int, int, int] | None:
    """Return what orders versions, None for a text that is none."""
    match = _VERSION.fullmatch(text)
    if not match:
        return None
    major, minor, patch, candidate, release = match.groups()
    # A candidate comes before what it is one for.
    return int(major), int(minor), int(patch), int(candidate) if candidate else 1000, int(release or 0)


def judge(machines: Sequence[Machine], wanted: Wanted) -> list[Problem]:
    """Return everything that is wrong with the machines of one cluster."""
    found: list[Problem] = []
    looked = [(machine, machine.facts) for machine in machines if machine.facts is not None]
    first = _oldest_server(looked)
    for machine, facts in looked:
        found += _resources(machine, facts, wanted.limits)
        found += _disk(machine, facts, wanted)
        found += _disks(machine, facts)
        version = _to_install(facts, wanted, first)
        found += _system(machine, facts, wanted, version)
        found += _ports(machine, facts, wanted)
        found += _networks(machine, facts, wanted)
        found += _sources(machine, facts, wanted, version)
    found += names(machines)
    # One machine under two names has everything in common with itself, and was not cloned.
    each, twice = _apart(looked)
    found += twice
    found += _unique(each, wanted.vip)
    found += _clocks([machine for machine, _facts in looked], wanted.limits.clock)
    if wanted.kind == "k3s":
        found += _versions(looked, wanted, first)
    if wanted.vip:
        found += _vip(looked, wanted)
    return found


def names(machines: Iterable[Machine]) -> list[Problem]:
    """Return a problem for each machine whose node would have a name that is not valid or not its own."""
    found = []
    owners: dict[str, list[str]] = {}
    for machine in machines:
        owners.setdefault(machine.name, []).append(machine.host)
        for fact, _fix in value_formats.check("edge_node_name", machine.name):
            fix = "set edge_node_name to lower-case letters, digits, dashes and dots"
            found.append(Problem(machine.host, "node name", fact, fix))
    for name, hosts in owners.items():
        for host in hosts if len(hosts) > 1 else []:
            others = ", ".join(other for other in hosts if other != host)
            fact = f"{name} is also the name of {others}"
            found.append(Problem(host, "node name", fact, "give each machine its own edge_node_name"))
    return found


def same_machine(
    facts: Mapping[str, Mapping[str, Any]],
    cluster_of: Mapping[str, str],
    places: Mapping[str, tuple[str, ...]] | None = None,
) -> list[Problem]:
    """Return a problem for each machine that stands in two clusters, by what it tells of itself.

    places: as `cluster_rules.same_place` takes them, which tells of machines with one place.
    """
    found = []
    where = places or {}
    for host, own in sorted(facts.items()):
        for other, others in sorted(facts.items()):
            if cluster_of.get(host) == cluster_of.get(other) or not _twins(own, others):
                continue
            if host in where and where[host] == where.get(other):
                continue
            fact = f"is the same machine as {other} of the cluster {cluster_of.get(other)}"
            found.append(Problem(host, "machine", fact, "give each machine to one cluster"))
    return found


def _twins(own: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    return bool(own["machine_id"] == others["machine_id"] and _macs(own) & _macs(others))


def _apart(
    looked: Iterable[tuple[Machine, Mapping[str, Any]]],
) -> tuple[list[tuple[str, Mapping[str, Any]]], list[Problem]]:
    """Return each machine under the first of its names, and a problem for each that has several.

    Of names with one place `cluster_rules.same_place` tells.
    """
    kept: list[tuple[Machine, Mapping[str, Any]]] = []
    names_of: dict[str, list[str]] = {}
    for machine, facts in looked:
        for first, own in kept:
            if machine.place and machine.place == first.place:
                break
            if _twins(facts, own) and facts["hostname"].lower() == own["hostname"].lower():
                names_of.setdefault(first.host, []).append(machine.host)
                break
        else:
            kept.append((machine, facts))
    problems = [
        Problem(host, "address", f"leads to the same machine as that of {', '.join(others)}", ONE_NAME)
        for host, others in names_of.items()
    ]
    return [(machine.host, facts) for machine, facts in kept], problems


def _resources(machine: Machine, facts: Mapping[str, Any], limits: Limits) -> Iterator[Problem]:
    role = "server" if machine.server else "agent"
    memory = limits.server_memory if machine.server else limits.agent_memory
    cpus = limits.server_cpus if machine.server else limits.agent_cpus
    if facts["memory_mib"] < memory:
        fact = f"{facts['memory_mib']} MiB, and {role}s need {memory}"
        yield Problem(machine.host, "memory", fact, f"give it more memory, or lower preflight_{role}_memory")
    if facts["cpus"] < cpus:
        fact = f"{facts['cpus']}, and {role}s need {cpus}"
        yield Problem(machine.host, "processors", fact, f"give it more, or lower preflight_{role}_cpus")


def _disk(machine: Machine, facts: Mapping[str, Any], wanted: Wanted) -> Iterator[Problem]:
    data, k3s, limits = facts["data"], facts["k3s"], wanted.limits
    subject = f"disk of {data['path']}"
    needed = limits.server_disk if machine.server else limits.agent_disk
    there = k3s["active"] or k3s["server_data"] or k3s["agent_data"]
    if machine.disk and not there:
        return
    if not there and data["free_bytes"] < needed * _GIB:
        fact = f"{data['free_bytes'] / _GIB:.1f} GiB are free, and {needed} are needed"
        yield Problem(machine.host, subject, fact, "make room, or set edge_k3s_data_dir to another disk")
    elif data["total_bytes"] and data["free_bytes"] < _EVICTION * data["total_bytes"]:
        share = 100 * data["free_bytes"] / data["total_bytes"]
        fact = f"{share:.0f} % are free, and below {100 * _EVICTION:.0f} % pods are evicted"
        yield Problem(machine.host, subject, fact, "make room, or set edge_k3s_data_dir to another disk")
    speed = facts["fsync"]
    if not speed:
        return
    if speed["problem"]:
        yield Problem(machine.host, subject, speed["problem"].lower(), "let root write to it")
    # The median: a disk that is busy at the moment has slow writes too, and is not a slow disk.
    elif limits.fsync and speed["median_ms"] > limits.fsync:
        fact = (
            f"half of the small writes take {speed['median_ms']:.0f} ms or more, {limits.fsync:g} are allowed"
        )
        fix = "put edge_k3s_data_dir on a faster disk: etcd waits for each write"
        yield Problem(machine.host, subject, fact, fix)


def _disks(machine: Machine, facts: Mapping[str, Any]) -> Iterator[Problem]:
    """Return what node_disks would refuse, before anything is changed."""
    if machine.disks and facts["disks"]:
        for subject, fact, fix in disk_rules.judge(machine.disks, facts["disks"]):
            yield Problem(machine.host, subject, fact, fix)


def _system(machine: Machine, facts: Mapping[str, Any], wanted: Wanted, to_install: str) -> Iterator[Problem]:
    release, kernel = facts["os"], facts["kernel"]
    known = SYSTEMS.get(release["id"])
    version = release["version"] if known else release["major"]
    if version not in (known or SYSTEMS.get(release["family"], ())):
        fix = "use Debian 12 or 13, Ubuntu 22.04 or 24.04, or a system of the RHEL family 9"
        yield Problem(machine.host, "system", f"{release['name']} is not known", fix)
    for name in (
        [] if kernel["container"] else [n for n, state in facts["modules"].items() if state == "missing"]
    ):
        fact = f"kernel {kernel['release']} does not have it"
        fix = "install the kernel's extra modules, or a kernel that has it"
        yield Problem(machine.host, f"kernel module {name}", fact, fix)
    if facts["cgroups"]["missing"]:
        missing = ", ".join(facts["cgroups"]["missing"])
        fix = f"start the kernel with cgroup_enable for {missing}"
        yield Problem(machine.host, "cgroups", f"controllers are missing: {missing}", fix)
    for name, value in facts["sysctls"].items():
        needed = KERNEL_SETTINGS[name]
        if value == needed or (name in _SET_BY_US and machine.tuned and not kernel["container"]):
            continue
        fact = f"is {value or 'not there'}, and with edge_k3s_profile cis the kubelet wants {needed}"
        where = "on the host of the container" if kernel["container"] else "in /etc/sysctl.d"
        yield Problem(machine.host, f"sysctl {name}", fact, f"set {name}={needed} {where}")
    installs = wanted.kind == "k3s" and (wanted.chosen or to_install)
    error = wanted.artifact(kernel["architecture"], to_install) if installs else None
    if error:
        yield Problem(machine.host, f"architecture {kernel['architecture']}", *error)


def _ports(machine: Machine, facts: Mapping[str, Any], wanted: Wanted) -> Iterator[Problem]:
    k3s = facts["k3s"]
    needed = ports(machine.server, wanted.etcd, wanted.kind)
    for entry in facts["ports"]:
        program, unit = entry["program"], entry["unit"]
        if f"{entry['port']}/{entry['protocol']}" not in needed:
            continue
        if unit in _K3S_UNITS or program.startswith("k3s"):
            continue
        if wanted.kind == "kubeadm" and program in _KUBEADM_PROGRAMS:
            continue
        if not program and (k3s["server_data"] or k3s["agent_data"]):
            # The kernel keeps what a network of pods opened after k3s ended.
            continue
        who = f"{program} ({unit})" if program and unit else program or "the kernel"
        fix = f"systemctl disable --now {unit}" if unit else "stop it"
        yield Problem(
            machine.host,
            f"port {entry['port']}/{entry['protocol']}",
            f"is held by {who}",
            f"{fix}, or take another machine" if program else "remove the other network that uses it",
        )


def _networks(machine: Machine, facts: Mapping[str, Any], wanted: Wanted) -> Iterator[Problem]:
    ranges = [("edge_cluster_cidr", "pods", entry) for entry in value_formats.networks(wanted.pods)]
    ranges += [("edge_service_cidr", "services", entry) for entry in value_formats.networks(wanted.services)]
    addresses = []
    for link in facts["interfaces"]:
        addresses += [entry.partition("/")[0] for entry in link["addresses"]]
        if link["name"].startswith(_POD_INTERFACES):
            continue
        for text in link["addresses"]:
            own = ipaddress.ip_interface(text).network
            for variable, name, network in ranges:
                if own.version == network.version and own.overlaps(network):
                    yield Problem(
                        machine.host,
                        f"network {own} on {link['name']}",
                        f"overlaps that of the {name}, {network}",
                        f"set {variable} to a network that no machine is in",
                    )
    for part in filter(None, machine.node_ip.split(",")):
        if part.strip() not in addresses:
            there = ", ".join(addresses) or "none"
            fact = f"{part.strip()} is not an address of the machine; it has {there}"
            yield Problem(
                machine.host, "variable edge_node_ip", fact, "correct edge_node_ip, or leave it out"
            )


def _sources(
    machine: Machine, facts: Mapping[str, Any], wanted: Wanted, to_install: str
) -> Iterator[Problem]:
    # Files of a version that is not the one to be installed were looked for.
    other = SOURCE if to_install != wanted.version else ""
    for source in facts["sources"]:
        if source["problem"] and source["name"] != other:
            yield Problem(
                machine.host,
                source["name"],
                f"{source['url']}: {source['problem']}",
                _fix_of_source(source["name"], source["problem"]),
            )


def _fix_of_source(name: str, problem: str) -> str:
    if problem == machine_facts.NO_FILE:
        return "put the file there, or set edge_k3s_version to one that the source has"
    if name == DATASTORE:
        return "start it and let the machine reach it (firewall), or name another"
    return _REACH


def _unique(looked: Sequence[tuple[str, Mapping[str, Any]]], shared: str) -> Iterator[Problem]:
    kinds: list[tuple[str, str, Callable[[Mapping[str, Any]], set[str]]]] = [
        ("host name", "set another with hostnamectl", lambda facts: {facts["hostname"].lower()}),
        (
            "machine-id",
            "it was cloned: empty /etc/machine-id and run systemd-machine-id-setup",
            lambda facts: {facts["machine_id"]},
        ),
        ("MAC address", "it was cloned: give the interface another", _macs),
        ("address", "give each machine its own", lambda facts: _addresses(facts) - {shared}),
    ]
    for kind, fix, values_of in kinds:
        owners: dict[str, list[str]] = {}
        for host, facts in looked:
            for value in values_of(facts) - {""}:
                owners.setdefault(value, []).append(host)
        for value, hosts in sorted(owners.items()):
            for host in hosts if len(hosts) > 1 else []:
                others = ", ".join(other for other in hosts if other != host)
                yield Problem(host, kind, f"{value} is also that of {others}", fix)


def _macs(facts: Mapping[str, Any]) -> set[str]:
    """Return the MAC addresses of interfaces that have an address of their own."""
    return {
        str(link["mac"]).lower()
        for link in facts["interfaces"]
        if link["mac"] and link["addresses"] and not link["name"].startswith(_SAME_EVERYWHERE)
    }


def _addresses(facts: Mapping[str, Any]) -> set[str]:
    return {
        text.partition("/")[0]
        for link in facts["interfaces"]
        for text in link["addresses"]
        if not link["name"].startswith(_SAME_EVERYWHERE)
    }


def _clocks(machines: Sequence[Machine], limit: float) -> Iterator[Problem]:
    """Only what is certain counts: the time that a look takes makes the difference uncertain."""
    fix = "synchronise it (edge_prepare_ntp_servers), or correct the controller's clock"
    good = []
    for machine in machines:
        low, high = machine.skew
        if limit and low > limit:
            yield Problem(machine.host, "clock", f"is {low:.0f} s ahead of the controller's", fix)
        elif limit and high < -limit:
            yield Problem(machine.host, "clock", f"is {-high:.0f} s behind the controller's", fix)
        else:
            good.append(machine)
    if not limit or len(good) < 2:
        return
    ahead, behind = (
        max(good, key=lambda machine: machine.skew[0]),
        min(good, key=lambda machine: machine.skew[1]),
    )
    apart = ahead.skew[0] - behind.skew[1]
    if apart > limit:
        fact = f"is {apart:.0f} s ahead of that of {behind.host}"
        yield Problem(ahead.host, "clock", fact, "synchronise both (edge_prepare_ntp_servers)")


def _version_there(facts: Mapping[str, Any]) -> str:
    """Return the version of k3s that a machine has. A program that never ran decides nothing."""
    k3s = facts["k3s"]
    return str(k3s["version"]) if k3s["active"] or k3s["server_data"] or k3s["agent_data"] else ""


def _oldest_server(looked: Iterable[tuple[Machine, Mapping[str, Any]]]) -> _Server | None:
    """Return version, name and text of the server with the oldest k3s."""
    found = [
        (own, machine.host, text)
        for machine, facts in looked
        if machine.server and (own := version_key(text := _version_there(facts)))
    ]
    return min(found, default=None)


def _to_install(facts: Mapping[str, Any], wanted: Wanted, first: _Server | None) -> str:
    """Return the version of k3s that a machine would get, empty when it keeps what it has."""
    if wanted.kind != "k3s" or wanted.chosen:
        return wanted.version
    if _version_there(facts):
        return ""
    return first[2] if first else wanted.version


def _versions(
    looked: Sequence[tuple[Machine, Mapping[str, Any]]], wanted: Wanted, first: _Server | None
) -> Iterator[Problem]:
    target = version_key(wanted.version) if wanted.chosen else None
    for machine, facts in looked:
        k3s = facts["k3s"]
        own = version_key(_version_there(facts))
        if own is None:
            if target and first and target < first[0]:
                yield Problem(
                    machine.host,
                    "k3s version",
                    f"would get {wanted.version}, and {first[1]} has {first[2]}",
                    f"set edge_k3s_version: {first[2]} in the inventory",
                )
            continue
        if target and own > target:
            yield Problem(
                machine.host,
                "k3s version",
                f"{k3s['version']} is there, and {wanted.version} is wanted: going back is refused",
                "set edge_k3s_version to what is there; to go back, restore a snapshot of the older version",
            )
        elif target and target[:2] > (own[0], own[1] + 1):
            yield Problem(
                machine.host,
                "k3s version",
                f"{k3s['version']} is there, and {wanted.version} is wanted: that skips a minor version",
                f"upgrade to v{own[0]}.{own[1] + 1} first",
            )
    if not first:
        return
    oldest, server, text = first
    for machine, facts in looked:
        version = _version_there(facts) or _to_install(facts, wanted, first)
        own = version_key(version)
        if not machine.server and own and own[:2] > oldest[:2]:
            yield Problem(
                machine.host,
                "k3s version",
                f"{version} is newer than that of {server}, {text}",
                "upgrade the servers first, or set edge_k3s_version to what they run",
            )


def _vip(looked: Sequence[tuple[Machine, Mapping[str, Any]]], wanted: Wanted) -> Iterator[Problem]:
    subject = "variable edge_cluster_vip"
    ours: set[str] = set()
    for machine, facts in looked:
        if not machine.server:
            if wanted.vip in _addresses(facts):
                fix = "take a free address: only servers share it"
                yield Problem(machine.host, subject, f"{wanted.vip} is the address of this agent", fix)
            continue
        ours |= {str(link["mac"]).lower() for link in facts["interfaces"]}
        try:
            vip.place(
                facts["interfaces"], wanted.vip, wanted.vip_interface, machine.node_ip.partition(",")[0]
            )
        except vip.PlaceError as error:
            yield Problem(machine.host, subject, error.fact, error.fix)
    for machine, facts in looked:
        mac = facts["address"]["mac"].lower()
        if machine.server and mac and mac not in ours:
            yield Problem(
                wanted.cluster,
                subject,
                f"{wanted.vip} is not free: {mac} answers for it",
                "take an address that nobody has",
            )
