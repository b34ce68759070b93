# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decides what each machine of a cluster does, by what all of them are. Contacts nothing.

No machine is special: which server founds the cluster follows from what is there, and a server that lost its
disk joins like a new one. There is never a second cluster: one is founded only when every server that is
expected answered and none holds anything of a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.edgeha.iotedge.plugins.module_utils.problems import Problem
from ansible_collections.edgeha.iotedge.plugins.module_utils.upgrade_plan import Version

_REPLACE = "playbook edgeha.iotedge.replace_node"
_RESTORE = "playbook edgeha.iotedge.restore"
_RESET = "playbook edgeha.iotedge.reset"


@dataclass(frozen=True)
class Machine:
    """One machine as the inventory and the look at it describe it.

    state: what k3s_probe returned, None when the machine did not answer.
    in_play: whether this run works on it; a limit or a slice may leave it out.
    """

    host: str
    kind: str
    address: str
    node_name: str
    state: Mapping[str, Any] | None
    in_play: bool = True

    @property
    def answered(self) -> bool:
        return self.state is not None

    def _get(self, part: str, name: str, default: Any) -> Any:
        value = ((self.state or {}).get(part) or {}).get(name)
        return default if value is None else value

    @property
    def addresses(self) -> set[str]:
        """All that it may be known by: the inventory may name it by a name, which the cluster never does."""
        return {self.address, *((self.state or {}).get("addresses") or [])}

    @property
    def runs(self) -> bool:
        return self._get("unit", "active", "inactive") in ("active", "activating")

    @property
    def role(self) -> str:
        return str((self.state or {}).get("role") or "none")

    @property
    def holds(self) -> bool:
        """It has state of a cluster that counts."""
        return bool(self._get("data", "server", False)) and not self.removed

    @property
    def removed(self) -> bool:
        """Its cluster removed it while it ran: k3s sets the state aside at its next start, and joins anew."""
        return bool(self._get("data", "tombstone", False))

    @property
    def half(self) -> bool:
        """It has keys and nothing else: its first start was interrupted."""
        return bool(self._get("data", "half", False))

    @property
    def serves(self) -> bool:
        """Its own API is ready."""
        return bool(self._get("api", "readyz", False)) and not self._get("api", "foreign", False)

    @property
    def foreign(self) -> bool:
        """Something answers on the API's port, and it is no server of k3s on this machine."""
        return bool(self._get("api", "foreign", False)) and not self.runs

    @property
    def datastore(self) -> str:
        return str(self._get("data", "datastore", "none"))

    @property
    def member(self) -> str:
        """Name of its member of etcd, empty when it has none."""
        return str(self._get("data", "etcd_name", ""))

    @property
    def view(self) -> list[Mapping[str, Any]]:
        """Members of etcd that it knows; empty when it knows nothing."""
        return list(self._get("data", "members", []))

    @property
    def version(self) -> str:
        """The version of k3s that runs, or else the one that would."""
        if self.runs and self._get("unit", "exe_version", ""):
            return str(self._get("unit", "exe_version", ""))
        return str(self._get("api", "version", "") or self._get("binary", "version", ""))

    @property
    def is_installed_now(self) -> bool:
        """Whether what this run does with it brings a program: one with data keeps the program it has."""
        data = self._get("data", "server" if self.kind == "server" else "agent", False)
        return not (data and self._get("binary", "version", ""))

    @property
    def authorities(self) -> set[str]:
        return set(self._get("data", "ca_certificates", []))

    @property
    def joins(self) -> bool:
        """Its configuration names a server to join."""
        return bool(self._get("config", "server", ""))


@dataclass
class Wanted:
    """What the operator asks for.

    datastore: V(etcd), V(sqlite) or V(external).
    server_count: servers that are expected; 0 for those of the inventory.
    force_bootstrap: found the cluster although servers do not answer.
    version: of k3s, empty when the operator names none.
    """

    cluster: str
    mode: str = "k3s"
    server_count: int = 0
    datastore: str = "etcd"
    force_bootstrap: bool = False
    version: str = ""


@dataclass
class Step:
    """What one machine does.

    action:  V(found), V(join), V(start), V(keep), or V(none) for a machine that did not answer.
    wave:    servers of a later wave begin when the earlier ones are done.
    cold:    it is started together with others, and waits for nothing before.
    via:     address of a server to join, empty when it needs none.
    forget:  name of a node that must be deleted at a peer first: the machine lost what proves it is this.
    convert: its SQLite becomes etcd at its next start.
    spare:   so many voters of etcd may be away and the cluster still writes; None when that is not known.
    version: of k3s for a machine that is installed now and none is asked for: that of the servers which live.
    """

    action: str = "none"
    wave: int = 0
    cold: bool = False
    via: str = ""
    forget: str = ""
    convert: bool = False
    spare: int | None = None
    version: str = ""
    problems: list[Problem] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "problems": [problem.as_dict() for problem in self.problems]}


def machine_of(entry: Mapping[str, Any]) -> Machine:
    """Return the machine of an entry with host, kind, address, node_name, state and in_play."""
    host = str(entry["host"])
    return Machine(
        host=host,
        kind=str(entry.get("kind") or "server"),
        address=str(entry.get("address") or ""),
        node_name=str(entry.get("node_name") or host).lower(),
        state=entry.get("state") or None,
        in_play=bool(entry.get("in_play", True)),
    )


def plan(machines: Sequence[Machine], wanted: Wanted) -> dict[str, Step]:
    """Return for each host what it does; with a problem on any of them, none may be changed."""
    servers = [machine for machine in machines if machine.kind == "server"]
    agents = [machine for machine in machines if machine.kind != "server"]
    steps = {machine.host: Step() for machine in machines}
    found: list[Problem] = []
    hidden = [server for server in servers if not server.in_play]
    if wanted.mode == "k3s":
        found += _inventory_problems(servers, hidden, wanted)
    for machine in machines:
        found += _machine_problems(machine, wanted)
    mixed = _copies(servers) + _two_clusters(servers)
    found += mixed
    # What members of two clusters know of each other says nothing more.
    if wanted.mode == "k3s" and not hidden and not mixed:
        found += _plan_servers(servers, wanted, steps)
    found += _plan_agents(agents, servers, steps)
    found += _plan_versions(servers, machines, wanted, steps)
    for problem in dict.fromkeys(found):
        steps[problem.host].problems.append(problem)
    return steps


def _inventory_problems(
    servers: Sequence[Machine], hidden: Sequence[Machine], wanted: Wanted
) -> list[Problem]:
    problems = [
        Problem(
            server.host,
            "server",
            f"is a server of {wanted.cluster} and is left out of this run by --limit or a slice",
            "run it for all servers of the cluster; a limit may leave out whole clusters and agents only",
        )
        for server in hidden
    ]
    if servers and wanted.server_count and wanted.server_count != len(servers):
        problems.append(
            Problem(
                servers[0].host,
                "servers",
                f"edge_cluster_server_count of {wanted.cluster} is {wanted.server_count}, "
                f"and the inventory has {len(servers)}: {_names(servers)}",
                "add the missing servers to edge_servers, or correct edge_cluster_server_count",
            )
        )
    return problems


def _machine_problems(machine: Machine, wanted: Wanted) -> list[Problem]:
    """Return what is wrong with one machine, whatever the others are."""
    problems = []

    def add(subject: str, fact: str, fix: str) -> None:
        problems.append(Problem(machine.host, subject, fact, fix))

    if machine.foreign:
        add(
            "port of the API",
            "another program answers where the API of k3s belongs",
            "stop it, or take the machine out of the inventory",
        )
    if machine.kind != "server":
        if machine.role == "server" or machine.holds:
            add(
                "agent",
                "stands in edge_agents and is a server of a cluster",
                f"put it into edge_servers again, or wipe it with the {_RESET}",
            )
        return problems
    if machine.role == "agent":
        add(
            "server",
            "stands in edge_servers and is an agent of a cluster",
            f"put it into edge_agents again, or wipe it with the {_RESET}",
        )
    if (machine.datastore == "external") != (wanted.datastore == "external") and machine.holds:
        has, wants = (
            ("an external datastore", "an embedded one")
            if machine.datastore == "external"
            else (f"an embedded datastore ({machine.datastore})", "an external one")
        )
        add(
            "datastore",
            f"has {has}, and edge_k3s_datastore asks for {wants}",
            "set edge_k3s_datastore back; a cluster cannot change it in place",
        )
    return problems


def _copies(servers: Sequence[Machine]) -> list[Problem]:
    by_member: dict[str, list[Machine]] = {}
    for server in servers:
        if server.member:
            by_member.setdefault(server.member, []).append(server)
    return [
        Problem(
            server.host,
            "etcd",
            f"is a copy of a server: {_names(copies)} all hold the member {member}",
            f"wipe all but the original with the {_REPLACE}",
        )
        for member, copies in by_member.items()
        if len(copies) > 1
        for server in copies
    ]


def _two_clusters(servers: Sequence[Machine]) -> list[Problem]:
    """Return a problem for each server that holds another cluster than the first one does."""
    groups: list[list[Machine]] = []
    for server in servers:
        if not (server.holds or server.half) or not server.authorities:
            continue
        for group in groups:
            if any(server.authorities & other.authorities for other in group):
                group.append(server)
                break
        else:
            groups.append([server])
    # A state counts before keys, what runs before what does not.
    groups.sort(key=_weight, reverse=True)
    problems = []
    for group in groups[1:]:
        for server in group:
            if server.holds:
                fact = f"holds another cluster than {_names(groups[0])}: their authorities differ"
                fix = f"put it into a cluster of its own, or wipe it with the {_REPLACE}"
            else:
                fact = f"has keys of a start that was interrupted, and {_names(groups[0])} has others"
                fix = f"wipe it with the {_REPLACE}; the next run joins it"
            problems.append(Problem(server.host, "cluster", fact, fix))
    return problems


def _weight(group: Sequence[Machine]) -> tuple[int, int, int]:
    return (
        sum(server.serves for server in group),
        sum(server.holds for server in group),
        sum(server.runs for server in group),
    )


def _plan_servers(servers: Sequence[Machine], wanted: Wanted, steps: Mapping[str, Step]) -> list[Problem]:
    living = [server for server in servers if server.serves]
    holders = [server for server in servers if server.holds and not server.serves]
    empty = [server for server in servers if server.answered and not server.holds and not server.serves]
    silent = [server for server in servers if not server.answered]
    if living:
        return _with_living(living, holders, empty, wanted, steps)
    if holders:
        return _cold_start(holders, empty, silent, wanted, steps)
    if silent and wanted.datastore != "external" and not wanted.force_bootstrap:
        return [
            Problem(
                server.host,
                "server",
                "does not answer, and may hold the cluster: founding one now could make a second",
                "bring it up, or take it out of the inventory; edge_k3s_force_bootstrap founds without it",
            )
            for server in silent
        ]
    removed = [server for server in empty if server.removed]
    if removed:
        return [
            Problem(
                server.host,
                "server",
                "was removed from a cluster that does not answer, so there is one elsewhere",
                f"bring up a server of that cluster, or wipe this one with the {_RESET}",
            )
            for server in removed
        ]
    if empty:
        founder = _founder(empty)
        _say(steps[founder.host], "found", 0)
        _join([server for server in empty if server is not founder], founder, 1, [], steps)
    return []


def _founder(empty: Sequence[Machine]) -> Machine:
    """Return who founds: the one whose start was interrupted before, so that a second run goes on with it.

    One that runs without a server to join founds already; one that has keys has an authority, beside which it
    would not accept another.
    """
    return min(empty, key=lambda server: (not (server.runs and not server.joins), not server.half))


def _with_living(
    living: Sequence[Machine],
    holders: Sequence[Machine],
    empty: Sequence[Machine],
    wanted: Wanted,
    steps: Mapping[str, Step],
) -> list[Problem]:
    problems = _living_apart(living)
    nodes = [node for server in living for node in (server.state or {}).get("nodes") or []]
    for server in holders:
        problems += _not_a_member(server, living)
        problems += _second_sqlite(server, living)
    spare = _spare(living)
    convert = wanted.datastore == "etcd"
    for server in living:
        steps[server.host].convert = convert and server.datastore == "sqlite"
    # What others wait for comes first, and what may be restarted when there are more voters comes last.
    ordered = [
        *((server, "keep") for server in living if steps[server.host].convert),
        *((server, "start") for server in holders),
        *((server, "join") for server in empty),
        *((server, "keep") for server in living if not steps[server.host].convert),
    ]
    for wave, (server, action) in enumerate(ordered):
        peers = [peer for peer in living if peer is not server]
        _say(steps[server.host], action, wave, via=peers[0].address if peers else "")
        steps[server.host].spare = spare
        if action == "join":
            problems += _forget(server, nodes, steps)
    return problems


def _living_apart(living: Sequence[Machine]) -> list[Problem]:
    """Return problems of servers that serve with the same keys, and are no members of each other's etcd."""
    first = living[0]
    problems = []
    for server in living[1:]:
        if first.view and server.view and not (_knows(first, server) and _knows(server, first)):
            problems.append(
                Problem(
                    server.host,
                    "cluster",
                    f"serves another cluster than {first.host}: its etcd does not know that of {first.host}",
                    f"find out which one is right, and wipe the other with the {_REPLACE}",
                )
            )
        elif "sqlite" in (first.datastore, server.datastore):
            problems.append(
                Problem(
                    server.host,
                    "cluster",
                    f"serves a cluster of its own beside {first.host}: SQLite has one server",
                    f"find out which one is right, and wipe the other with the {_REPLACE}",
                )
            )
    return problems


def _second_sqlite(server: Machine, living: Sequence[Machine]) -> list[Problem]:
    if server.datastore != "sqlite":
        return []
    return [
        Problem(
            server.host,
            "cluster",
            f"holds a cluster in SQLite, which has one server, and {living[0].host} serves one",
            f"wipe it with the {_REPLACE}; the next run joins it",
        )
    ]


def _not_a_member(server: Machine, living: Sequence[Machine]) -> list[Problem]:
    """Return a problem when the living etcd knows nothing of a server that holds state of it."""
    views = [peer for peer in living if peer.view]
    if server.datastore != "etcd" or not views or any(_knows(peer, server) for peer in views):
        return []
    return [
        Problem(
            server.host,
            "etcd",
            f"holds the member {server.member or '(without a name)'}, which the cluster that {_names(views)} "
            "serves does not have any more",
            f"wipe it with the {_REPLACE}; the next run joins it",
        )
    ]


def _cold_start(
    holders: Sequence[Machine],
    empty: Sequence[Machine],
    silent: Sequence[Machine],
    wanted: Wanted,
    steps: Mapping[str, Step],
) -> list[Problem]:
    problems: list[Problem] = []
    etcd = [server for server in holders if server.datastore == "etcd"]
    sqlite = [server for server in holders if server.datastore == "sqlite"]
    if sqlite and len(holders) > 1:
        problems += [
            Problem(
                server.host,
                "cluster",
                f"holds a cluster in SQLite, which has one server, and {_names(holders)} all hold one",
                f"find out which one is right, and wipe the others with the {_REPLACE}",
            )
            for server in sqlite
        ]
    elif etcd:
        problems += (
            _reset_half_way(etcd, silent) or _views_apart(etcd) or _quorum_problems(etcd, silent, wanted)
        )
    nodes = [member for server in etcd for member in server.view]
    for server in holders:
        _say(steps[server.host], "start", 0, cold=True)
        steps[server.host].convert = wanted.datastore == "etcd" and server.datastore == "sqlite"
    _join(empty, holders[0], 1, nodes, steps)
    return problems


def _reset_half_way(etcd: Sequence[Machine], silent: Sequence[Machine]) -> list[Problem]:
    """A server that was reset is a cluster of its own; the others still hold the one from before."""
    reset = [server for server in etcd if server._get("data", "reset_flag", False)]
    others = [*(server for server in etcd if server not in reset), *silent]
    if not reset or (len(reset) == 1 and not others):
        return []
    fact = f"was reset by a restore that did not end, and {_names(others)} may hold the cluster from before"
    if not others:
        fact = f"was reset, and so was each of {_names(reset)}: each is a cluster of its own"
    return [
        Problem(server.host, "etcd", fact, f"run the {_RESTORE} again; it ends what was begun")
        for server in reset
    ]


def _views_apart(etcd: Sequence[Machine]) -> list[Problem]:
    problems = []
    for server in etcd:
        ignorant = [peer for peer in etcd if peer is not server and peer.view and not _knows(peer, server)]
        if ignorant:
            problems.append(
                Problem(
                    server.host,
                    "etcd",
                    f"holds the member {server.member or '(without a name)'}, of which the etcd of "
                    f"{_names(ignorant)} knows nothing; started together they would be two clusters",
                    f"wipe the one that is out of date with the {_REPLACE}, or run the {_RESTORE}",
                )
            )
    return problems


def _quorum_problems(etcd: Sequence[Machine], silent: Sequence[Machine], wanted: Wanted) -> list[Problem]:
    """Return a problem when those that can start are too few to make a decision."""
    best: tuple[int, int] | None = None
    for server in etcd:
        voters = [member for member in server.view if not member.get("learner")]
        if voters:
            there = sum(any(_is(peer, member) for peer in etcd) for member in voters)
            if best is None or there - _majority(len(voters)) > best[0] - _majority(best[1]):
                best = (there, len(voters))
    if best is None:
        # What etcd's files do not tell, the inventory does.
        best = (len(etcd), max(wanted.server_count, len(etcd) + len(silent)))
    there, voters_count = best
    if there >= _majority(voters_count):
        return []
    fact = (
        f"has {there} of the {voters_count} voters of etcd with {_names(etcd)}, and "
        f"{_majority(voters_count)} are needed"
    )
    if silent:
        fix = f"bring up {_names(silent)}; if it is lost for ever, run the {_RESTORE}"
    else:
        fix = f"the others have lost their state: run the {_RESTORE}"
    return [Problem(server.host, "etcd", fact, fix) for server in etcd]


def _plan_agents(
    agents: Sequence[Machine], servers: Sequence[Machine], steps: Mapping[str, Step]
) -> list[Problem]:
    problems = []
    living = [server for server in servers if server.serves]
    nodes = [node for server in living for node in (server.state or {}).get("nodes") or []]
    authorities = {name for server in servers if server.holds for name in server.authorities}
    for agent in agents:
        if not agent.answered or not agent.in_play:
            continue
        trusted = set(agent._get("data", "agent_ca_certificates", []))
        if trusted and authorities and not trusted & authorities:
            problems.append(
                Problem(
                    agent.host,
                    "cluster",
                    "is an agent of another cluster: it trusts another authority",
                    f"put it into that cluster's group again, or wipe it with the {_RESET}",
                )
            )
        joined = bool(agent._get("data", "agent", False)) and agent.role == "agent"
        action = "join" if not joined else "keep" if agent.runs else "start"
        _say(steps[agent.host], action, 0, via=living[0].address if living else "")
        # The password is what a cluster knows a node by.
        if action == "join" and not agent._get("node", "name_file", ""):
            problems += _forget(agent, nodes, steps)
    return problems


def _plan_versions(
    servers: Sequence[Machine], machines: Sequence[Machine], wanted: Wanted, steps: Mapping[str, Step]
) -> list[Problem]:
    """Give machines that are installed now the servers' version; refuse one that does not go with it."""
    there = [server for server in servers if server.serves] or [
        server for server in servers if steps[server.host].action == "start"
    ]
    known = [(found, server) for server in there if (found := Version.parse(server.version))]
    if not known:
        return []
    # In the middle of an upgrade the older one: a node may be older than a server, and not newer.
    oldest, first = min(known, key=lambda entry: entry[0])
    _newest, last = max(known, key=lambda entry: entry[0])
    asked = Version.parse(wanted.version)
    problems = []
    for machine in machines:
        step = steps[machine.host]
        if step.action == "none" or not machine.is_installed_now:
            continue
        if not wanted.version:
            step.version = first.version
        elif asked and asked < oldest:
            fact = f"would get {wanted.version}, and {first.host} runs {first.version}"
            fix = f"set edge_k3s_version: {last.version} in the inventory"
            problems.append(Problem(machine.host, "k3s version", fact, fix))
        elif asked and (asked.major, asked.minor - (machine.kind == "server")) > (oldest.major, oldest.minor):
            fact = f"would get {wanted.version}, which is too new for {first.host} with {first.version}"
            fix = "upgrade the cluster first (playbook edgeha.iotedge.upgrade), or set edge_k3s_version: "
            problems.append(Problem(machine.host, "k3s version", fact, fix + first.version))
    return problems


def _say(step: Step, action: str, wave: int, *, cold: bool = False, via: str = "") -> None:
    step.action, step.wave, step.cold, step.via = action, wave, cold, via


def _join(
    joiners: Iterable[Machine],
    peer: Machine,
    first_wave: int,
    members: Sequence[Mapping[str, Any]],
    steps: Mapping[str, Step],
) -> None:
    for wave, server in enumerate(joiners, start=first_wave):
        _say(steps[server.host], "join", wave, via=peer.address)
        # A member that has this server's address is what it was before it lost its state.
        if any(member.get("name") and _host_of(member) in server.addresses for member in members):
            steps[server.host].forget = server.node_name


def _forget(machine: Machine, nodes: Iterable[Mapping[str, Any]], steps: Mapping[str, Step]) -> list[Problem]:
    """Mark the node that the machine was before it lost its state; refuse the name of another machine."""
    for node in nodes:
        if node.get("name") != machine.node_name:
            continue
        if node.get("ready") and node.get("address") and node["address"] not in machine.addresses:
            return [
                Problem(
                    machine.host,
                    "node",
                    f"is to be the node {machine.node_name}, which is another machine at {node['address']}",
                    "give it another edge_node_name",
                )
            ]
        steps[machine.host].forget = machine.node_name
    return []


def _spare(living: Sequence[Machine]) -> int | None:
    for server in living:
        voters = [member for member in server.view if not member.get("learner")]
        if voters:
            there = sum(any(_is(peer, member) for peer in living) for member in voters)
            return there - _majority(len(voters))
    return None


def _majority(voters: int) -> int:
    return voters // 2 + 1


def _knows(peer: Machine, server: Machine) -> bool:
    return any(_is(server, member) for member in peer.view)


def _is(server: Machine, member: Mapping[str, Any]) -> bool:
    """Whether a member of etcd is this server. One that never came up has no name, only an address."""
    if member.get("name"):
        return bool(member["name"] == server.member)
    return _host_of(member) in server.addresses


def _host_of(member: Mapping[str, Any]) -> str:
    return urlsplit(str(member.get("peer", ""))).hostname or ""


def _names(machines: Iterable[Machine]) -> str:
    return ", ".join(machine.host for machine in machines)
