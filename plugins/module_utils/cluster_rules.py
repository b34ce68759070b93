# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be wrong with a cluster and its machines by the inventory. Pure: nothing is contacted."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import value_formats
from ansible_collections.edgeha.iotedge.plugins.module_utils.problems import Problem
from ansible_collections.edgeha.iotedge.plugins.module_utils.public_variables import DEFAULTS, VARIABLES
from ansible_collections.edgeha.iotedge.plugins.module_utils.value_formats import is_true

SERVERS, AGENTS, CLUSTERS = "edge_servers", "edge_agents", "edge_clusters"
GROUPS = (CLUSTERS, SERVERS, AGENTS)
# Operators have groups of their own, so only what is nearly the same counts: a letter or two.
_ALIKE = 0.85
_COUNT = re.compile(r"\bhas (no machine|[0-9]+ server)")
_SHOWN = 3
# What is done about a machine that stands twice in an inventory.
ONE_NAME = "give each machine one name in the inventory, and its own ansible_host"
_JOIN = ("edge_join_url", "edge_join_token", "edge_join_ca_hash")
# Variables that only a cluster of ours has a use for.
_DATASTORE = ("edge_k3s_datastore_ca", "edge_k3s_datastore_certificate", "edge_k3s_datastore_key")
_OURS = ("edge_cluster_vip", "edge_k3s_datastore_endpoint", *_DATASTORE, "edge_snapshot_schedule")


@dataclass(frozen=True)
class Members:
    """The machines of a cluster.

    looked: those that this run may look at; a limit or a slice hides others.
    joined: agents that joined it already.
    """

    servers: Sequence[str] = ()
    agents: Sequence[str] = ()
    looked: Collection[str] = ()
    joined: Collection[str] = ()


@dataclass
class Found:
    """problems, and notes on what is valid and has no effect."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def cluster_of(machine_value: Any, clusters: Sequence[str]) -> str | None:
    """Return the cluster host of a machine by its ``edge_cluster``, None when there is none."""
    if machine_value in (None, ""):
        return clusters[0] if len(clusters) == 1 else None
    return str(machine_value) if machine_value in clusters else None


def groups(
    clusters: Sequence[str], servers: Collection[str], agents: Collection[str], values: Mapping[str, Any]
) -> list[Problem]:
    """Return what is wrong with the groups of machines. values: ``edge_cluster`` of each, or None."""
    found = []
    for machine in sorted({*servers, *agents}):
        if machine in servers and machine in agents:
            fact = f"is in {SERVERS} and in {AGENTS}"
            found.append(Problem(machine, "groups", fact, "leave it in one of them: a server runs pods too"))
        if machine in clusters:
            fact = f"is a machine and a host of {CLUSTERS}"
            found.append(
                Problem(machine, "groups", fact, f"give the cluster a host of its own in {CLUSTERS}")
            )
        value = values.get(machine)
        if cluster_of(value, clusters) is not None:
            continue
        if value in (None, ""):
            fact = f"is not set, and there are {len(clusters)} clusters"
            fix = "set it for the machines of each site to the name of its cluster host"
        else:
            fact = f"is {str(value)!r}, which is no host of {CLUSTERS}"
            close = value_formats.closest(str(value), clusters)
            fix = f"did you mean {close}?" if close else f"there are {', '.join(sorted(clusters))}"
        found.append(Problem(machine, "variable edge_cluster", fact, fix))
    return found


def misnamed_groups(members: Mapping[str, Collection[str]]) -> dict[str, tuple[str, list[str]]]:
    """Return for each group with nearly a name of ours that name, and its hosts that are in none of ours.

    A group without such hosts is one of the operator's. members: hosts of each group.
    """
    known = {host for name in GROUPS for host in members.get(name, ())}
    found = {}
    for group, hosts in sorted(members.items()):
        meant = value_formats.closest(group.lower(), GROUPS, cutoff=_ALIKE)
        outside = [str(host) for host in hosts if host not in known]
        if group not in GROUPS and meant and outside:
            found[group] = (meant, outside)
    return found


def misnamed(found: Mapping[str, tuple[str, Sequence[str]]]) -> list[Problem]:
    """Return a problem for each of them. found: as `misnamed_groups` returns it."""
    problems = []
    for group, (meant, hosts) in found.items():
        shown = ", ".join(hosts[:_SHOWN]) + (
            f" and {len(hosts) - _SHOWN} more" if len(hosts) > _SHOWN else ""
        )
        fact = f"no group of that name is known, and nothing would be done with {shown}"
        problems.append(Problem(hosts[0], f"group {group}", fact, f"did you mean {meant}?"))
    return problems


def without_counts(problems: Iterable[Problem], meant: Collection[str]) -> list[Problem]:
    """Leave out what is said of the size of groups that are written in another way. meant: these groups."""
    subjects = {f"group {name}" for name in meant}
    if SERVERS in meant:
        subjects.add("variable edge_cluster_server_count")
    return [p for p in problems if p.subject not in subjects or not _COUNT.search(p.fact)]


def same_place(places: Mapping[str, tuple[str, ...]]) -> list[Problem]:
    """Return a problem for each place at which several machines are connected to, once for all of them.

    places: what tells a connection from others (address, port, way there), by machine.
    """
    by_place: dict[tuple[str, ...], list[str]] = {}
    for machine, place in places.items():
        by_place.setdefault(place, []).append(machine)
    return [
        Problem(
            machines[0],
            f"address {place[0]}",
            f"is also the address of {', '.join(machines[1:])}",
            ONE_NAME,
        )
        for place, machines in sorted(by_place.items())
        if len(machines) > 1
    ]


def addresses_by_name(raw: Mapping[str, Any]) -> list[Problem]:
    """Return a problem for each machine whose address is made of whatever host a task runs for.

    raw: ``ansible_host`` of each machine before it is templated.
    """
    return [
        Problem(
            machine,
            "variable ansible_host",
            "is a template with inventory_hostname, and a task that is delegated here would go elsewhere",
            "write the address or the name itself for each machine, such as in host_vars",
        )
        for machine, text in sorted(raw.items())
        if isinstance(text, str) and "inventory_hostname" in text
    ]


def shared_tokens(tokens: Mapping[str, str]) -> list[Problem]:
    """Return a problem for each cluster whose token another cluster has. tokens: by cluster host."""
    found = []
    for host, token in sorted(tokens.items()):
        others = [other for other, same in sorted(tokens.items()) if other != host and same == token]
        if token and others:
            fact = f"is also the token of {', '.join(others)}: a machine of one could join the other"
            fix = "give each cluster a token, or leave it out to have one made"
            found.append(Problem(host, "variable edge_k3s_token", fact, fix))
    return found


def misplaced(machine: str, cluster: str, names: Iterable[str], same: Callable[[str], bool]) -> list[Problem]:
    """Return a problem for each variable of the cluster that a machine has and its cluster host has not.

    names: public variables that are set on the machine. same: whether the cluster host has the same value.
    """
    return [
        Problem(
            machine,
            f"variable {name}",
            f"is read from the cluster host {cluster}, which does not have this value",
            "set it in a group that holds the cluster host as well",
        )
        for name in sorted(names)
        if name in VARIABLES and not VARIABLES[name].machine and not same(name)
    ]


def check(host: str, get: Callable[[str], Any], members: Members) -> Found:
    """Return what is wrong with the variables of a cluster host taken together, and with its machines.

    get: returns a usable value, or the default, or None.
    """
    rules = _Rules(host, get, members)
    mode = get("edge_cluster_mode")
    if mode == "k3s":
        rules.servers()
        rules.datastore()
        rules.profile()
        rules.networks()
        rules.without_effect(_JOIN, mode)
    elif mode == "join":
        rules.join()
        rules.without_effect(_OURS, mode)
    elif mode == "existing":
        rules.existing()
        rules.without_effect((*_JOIN, *_OURS), mode)
    rules.hidden(mode)
    if is_true(get("edge_kubeconfig_write")) and not get("edge_kubeconfig"):
        rules.add(
            "variable edge_kubeconfig", "is not set, and edge_kubeconfig_write is", "name the file to write"
        )
    return rules.found


def server_count(get: Callable[[str], Any], members: Members) -> int:
    """Return how many servers the cluster is to have."""
    return int(get("edge_cluster_server_count") or len(members.servers))


def has_etcd(get: Callable[[str], Any], members: Members) -> bool:
    """Whether the servers hold the cluster's state among themselves."""
    if get("edge_cluster_mode") != "k3s" or get("edge_k3s_datastore") != "embedded":
        return False
    return server_count(get, members) > 1 or is_true(get("edge_k3s_etcd"))


class _Rules:
    def __init__(self, host: str, get: Callable[[str], Any], members: Members) -> None:
        self.host = host
        self.get = get
        self.members = members
        self.found = Found()

    def add(self, subject: str, fact: str, fix: str) -> None:
        self.found.problems.append(Problem(self.host, subject, fact, fix))

    def servers(self) -> None:
        count = len(self.members.servers)
        told = self.get("edge_cluster_server_count")
        if not count:
            self.add(
                f"group {SERVERS}",
                "has no machine of this cluster, and edge_cluster_mode is k3s",
                f"put its servers into {SERVERS}, or set edge_cluster_mode to join or existing",
            )
            return
        if told is not None and int(told) > count:
            self.add(
                "variable edge_cluster_server_count",
                f"is {told}, and the inventory has {count} server(s): a slice or a missing file hides some",
                "run with all servers of the cluster, or correct the number",
            )
        elif told is not None and int(told) < count:
            self.add(
                "variable edge_cluster_server_count",
                f"is {told}, and the inventory has {count} servers",
                "correct the number, or leave it out",
            )
        elif has_etcd(self.get, self.members) and count % 2 == 0:
            self.add(
                f"group {SERVERS}",
                f"has {count} servers: etcd loses its majority with {count // 2} of them, as with one less",
                f"make it {count - 1} or {count + 1}, or use edge_k3s_datastore: endpoint",
            )

    def datastore(self) -> None:
        endpoint, kind = self.get("edge_k3s_datastore_endpoint"), self.get("edge_k3s_datastore")
        if kind == "endpoint" and not endpoint:
            fix = "set it to the datastore's address, such as postgres://..."
            self.add(
                "variable edge_k3s_datastore_endpoint", "is not set, and edge_k3s_datastore is endpoint", fix
            )
        if kind != "endpoint" and endpoint:
            self.add(
                "variable edge_k3s_datastore_endpoint",
                "is set, and edge_k3s_datastore is embedded",
                "set edge_k3s_datastore to endpoint, or remove it",
            )
        for name in _DATASTORE:
            if kind != "endpoint" and self.get(name):
                self.add(
                    f"variable {name}",
                    "is set, and edge_k3s_datastore is embedded",
                    "set edge_k3s_datastore to endpoint, or remove it",
                )
        certificate, key = self.get("edge_k3s_datastore_certificate"), self.get("edge_k3s_datastore_key")
        if kind == "endpoint" and bool(certificate) != bool(key):
            there, missing = ("certificate", "key") if certificate else ("key", "certificate")
            self.add(
                f"variable edge_k3s_datastore_{missing}",
                f"is not set, and edge_k3s_datastore_{there} is",
                "set both, or none of them",
            )
        if kind == "endpoint" and is_true(self.get("edge_k3s_etcd")):
            self.add(
                "variable edge_k3s_etcd", "is true, and edge_k3s_datastore is endpoint", "choose one of them"
            )

    def profile(self) -> None:
        encrypted = self.get("edge_k3s_secrets_encryption")
        if self.get("edge_k3s_profile") == "cis" and encrypted is not None and not is_true(encrypted):
            self.add(
                "variable edge_k3s_secrets_encryption",
                "is false, and edge_k3s_profile is cis, which asks for it",
                "remove it, or the profile",
            )

    def networks(self) -> None:
        pods = value_formats.networks(self.get("edge_cluster_cidr"))
        services = value_formats.networks(self.get("edge_service_cidr"))
        for pod in pods:
            for service in services:
                if pod.version == service.version and pod.overlaps(service):
                    self.add(
                        "variable edge_service_cidr",
                        f"{service} overlaps the network of the pods, {pod}",
                        "give pods and services networks of their own",
                    )
        vip = value_formats.address(self.get("edge_cluster_vip"))
        for name, entries in (("pods", pods), ("services", services)):
            for entry in entries:
                if vip is not None and vip.version == entry.version and vip in entry:
                    self.add(
                        "variable edge_cluster_vip",
                        f"{vip} is inside the network of the {name}, {entry}",
                        "take a free address of the servers' network",
                    )

    def join(self) -> None:
        kind = str(self.get("edge_join_kind"))
        wanted = ["edge_join_url"]
        # Tokens run out, and whoever joined needs none any more.
        if not set(self.members.agents) or set(self.members.agents) - set(self.members.joined):
            wanted.append("edge_join_token")
            if kind == "kubeadm":
                wanted.append("edge_join_ca_hash")
        for name in wanted:
            if not self.get(name):
                self.add(
                    f"variable {name}",
                    f"is not set, and edge_cluster_mode is join (edge_join_kind {kind})",
                    "set it in the inventory",
                )
        url, token = self.get("edge_join_url"), self.get("edge_join_token")
        for fact, fix in value_formats.join_url(url) if url else []:
            self.add("variable edge_join_url", fact, fix)
        for fact, fix in value_formats.join_token(kind, token) if token else []:
            self.add("variable edge_join_token", fact, fix)
        if self.members.servers:
            self.add(
                f"group {SERVERS}",
                f"has {', '.join(sorted(self.members.servers))}, and edge_cluster_mode is join",
                f"only agents join a cluster that is there: move them to {AGENTS}",
            )
        elif not self.members.agents:
            self.add(
                f"group {AGENTS}",
                "has no machine of this cluster, and edge_cluster_mode is join",
                f"put the machines that join into {AGENTS}, or set edge_cluster_mode to existing",
            )

    def existing(self) -> None:
        machines = sorted({*self.members.servers, *self.members.agents})
        if machines:
            self.found.notes.append(
                f"{self.host}: edge_cluster_mode is existing, so nothing is done on {', '.join(machines)}"
            )

    def hidden(self, mode: Any) -> None:
        """A server that is out of sight may hold the cluster: no decision is made without it."""
        hidden = [name for name in self.members.servers if name not in self.members.looked]
        if mode == "k3s" and hidden:
            self.add(
                f"group {SERVERS}",
                f"{', '.join(sorted(hidden))} cannot be seen in this run: a limit or a slice hides them",
                "name the cluster host and all its servers in --limit, or a group that holds them",
            )

    def without_effect(self, names: Iterable[str], mode: str) -> None:
        for name in names:
            if self.get(name) not in (None, "", DEFAULTS.get(name)):
                self.found.notes.append(
                    f"{self.host}: {name} has no effect where edge_cluster_mode is {mode}"
                )
