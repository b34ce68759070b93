# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an operation on a running cluster may begin, on which machines, and whom to ask. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils.problems import problem
from ansible_collections.edgeha.iotedge.plugins.module_utils.upgrade_plan import Version


@dataclass(frozen=True)
class Rules:
    """What an operation wants.

    confirm: edge_confirm must name the cluster. whole: each machine of the cluster must be in the run.
    nodes:   "" takes none, "some" takes them, "needed" cannot do without.
    living:  a server that is not acted on must answer.
    present: who must let itself be reached, "all" or "servers" when the whole cluster is acted on.
    installs: machines may get k3s anew, which must not be older than that of the others.
    """

    confirm: bool = False
    whole: bool = False
    nodes: str = ""
    living: bool = False
    present: str = ""
    installs: bool = False


OPERATIONS = {
    "backup": Rules(living=True),
    "upgrade": Rules(whole=True, living=True, present="all"),
    "rotate_keys": Rules(confirm=True, whole=True, living=True, present="all"),
    "replace_node": Rules(confirm=True, whole=True, nodes="needed", living=True, installs=True),
    "reset": Rules(confirm=True, whole=True, nodes="some", present="all"),
    "restore": Rules(confirm=True, whole=True, present="servers", installs=True),
}


@dataclass(frozen=True)
class Machine:
    """host: the inventory's name. node: its node's. in_run: not hidden by --limit. state: as k3s_probe's."""

    host: str
    server: bool
    node: str
    in_run: bool
    state: Mapping[str, Any] | None

    @property
    def answers(self) -> bool:
        return bool(((self.state or {}).get("api") or {}).get("readyz"))

    @property
    def version(self) -> str:
        """Of the k3s that made its data; empty where there is none."""
        state = self.state or {}
        data = state.get("data") or {}
        if not (data.get("server") or data.get("agent")):
            return ""
        running = (state.get("unit") or {}).get("exe_version") or ""
        return str(running or (state.get("binary") or {}).get("version") or "")


@dataclass(frozen=True)
class Request:
    """What the operator asks for.

    clusters: names of all. nodes: machines, by the inventory's names. version: of k3s, empty without one.
    """

    operation: str
    cluster: str
    clusters: Sequence[str]
    confirm: str
    nodes: Sequence[str]
    version: str = ""


def decide(request: Request, machines: Sequence[Machine]) -> dict[str, Any]:
    """Return what an operation does in one cluster.

    selected: whether this cluster is meant. problems: with any of them nothing is to be changed.
    targets:  hosts that are acted on, in their order. all: whether the whole cluster is the target.
    keeper:   host of a server that answers and is no target, "" when there is none.
    version:  the newest k3s that a machine of the cluster has, "" when none has any.
    """
    rules = OPERATIONS[request.operation]
    if rules.confirm and request.confirm in request.clusters and request.confirm != request.cluster:
        return {
            "selected": False, "problems": [], "targets": [], "keeper": "", "all": False, "version": ""
        }  # fmt: skip
    problems = _refusals(rules, request, machines)
    version, owner = _newest(machines)
    asked, there = Version.parse(request.version), Version.parse(version)
    if rules.installs and asked and there and asked < there:
        fact = f"is {request.version}, and {owner} has {version}: going back is refused"
        fix = f"set edge_k3s_version: {version} in the inventory, or reset the machines that have it first"
        problems.append(problem(request.cluster, "variable edge_k3s_version", fact, fix))
    named = [machine for machine in machines if machine.host in request.nodes]
    targets = named if rules.nodes and request.nodes else list(machines)
    everything = len(targets) == len(machines)
    # An operation that takes no nodes acts on all, one by one: then a peer is any server.
    keepers = [
        machine
        for machine in machines
        if machine.server and machine.answers and not (rules.nodes and machine in targets)
    ]
    some = bool(rules.nodes) and not everything
    if not problems and not some:
        problems += _absent(rules, machines)
    if not problems and some:
        problems += _can_be_spared(request, machines, targets)
    if not problems and not keepers and (rules.living or some):
        problems.append(_nobody(request, machines, targets))
    return {
        "selected": True,
        "problems": problems,
        "targets": [machine.host for machine in targets],
        "keeper": keepers[0].host if keepers else "",
        "all": everything,
        "version": version,
    }


def _newest(machines: Sequence[Machine]) -> tuple[str, str]:
    """Return the newest version, and the first machine that has it."""
    known = [(found, machine) for machine in machines if (found := Version.parse(machine.version))]
    if not known:
        return "", ""
    _found, machine = max(known, key=lambda entry: entry[0])
    return machine.version, machine.host


def _refusals(rules: Rules, request: Request, machines: Sequence[Machine]) -> list[dict[str, str]]:
    found = []
    if rules.confirm and request.confirm != request.cluster:
        fact = f"it is {request.confirm!r}, which is no cluster" if request.confirm else "it is not given"
        fix = f"{request.operation} can do harm: add -e edge_confirm={request.cluster}"
        found.append(problem(request.cluster, "variable edge_confirm", fact, fix))
    if not machines:
        fact = "it has no machines in the groups edge_servers and edge_agents"
        found.append(problem(request.cluster, "cluster", fact, "this playbook is for clusters of machines"))
    if rules.whole:
        hidden = [machine.host for machine in machines if not machine.in_run]
        if hidden:
            fact = f"--limit hides {', '.join(hidden)}"
            fix = "run it without --limit, or with all machines of the cluster and the cluster itself"
            found.append(problem(request.cluster, "cluster", fact, fix))
    if rules.nodes == "needed" and not request.nodes:
        fix = "add -e edge_nodes=NAME, with the inventory's name of the machine"
        found.append(problem(request.cluster, "variable edge_nodes", "it is not given", fix))
    if rules.nodes:
        known = {machine.host for machine in machines}
        for name in request.nodes:
            if name not in known:
                fact = f"{name} is no machine of the cluster"
                found.append(problem(request.cluster, "variable edge_nodes", fact, "correct the name"))
    return found


def _absent(rules: Rules, machines: Sequence[Machine]) -> list[dict[str, str]]:
    wanted = [machine for machine in machines if rules.present == "all" or machine.server]
    fix = "bring it back, or take it out of the cluster with replace_node or reset, and edge_nodes"
    return [
        problem(machine.host, "machine", "it does not answer", fix)
        for machine in wanted
        if rules.present and machine.state is None
    ]


def _can_be_spared(
    request: Request, machines: Sequence[Machine], targets: Sequence[Machine]
) -> list[dict[str, str]]:
    """Whether the servers that stay are enough for a majority of etcd."""
    staying = [machine for machine in machines if machine.server and machine not in targets]
    leaving = [machine for machine in targets if machine.server]
    if not leaving:
        return []
    if not staying:
        fact = f"no server would be left: {', '.join(machine.host for machine in leaving)} are all"
        fix = "restore a snapshot instead, or reset the whole cluster without edge_nodes"
        return [problem(request.cluster, "variable edge_nodes", fact, fix)]
    nodes = next((machine.state["nodes"] for machine in staying if machine.answers and machine.state), None)
    if nodes is None:
        return []
    gone = {machine.node for machine in leaving}
    members = [node for node in nodes if node.get("voter") is not None and node["name"] not in gone]
    well = [node for node in members if node.get("voter") and node.get("ready")]
    if members and len(well) <= len(members) // 2:
        fact = f"only {len(well)} of the {len(members)} servers that would be left are well"
        fix = "repair those first: etcd needs a majority"
        return [problem(request.cluster, "etcd", fact, fix)]
    return []


def _nobody(request: Request, machines: Sequence[Machine], targets: Sequence[Machine]) -> dict[str, str]:
    silent = [
        machine.host
        for machine in machines
        if machine.server and not (machine in targets and len(targets) < len(machines))
    ]
    held = [
        machine.host
        for machine in machines
        if machine.host in silent and ((machine.state or {}).get("data") or {}).get("server")
    ]
    fact = f"none of the servers {', '.join(silent)} answers for the cluster"
    if held:
        fact += f", and {', '.join(held)} hold its data"
    return problem(request.cluster, "cluster", fact, "start them with site.yml first, or restore a snapshot")


def names(value: Any) -> list[str]:
    """Return names from a list, or from text with commas between them."""
    items = value.split(",") if isinstance(value, str) else list(value or [])
    return [str(item).strip() for item in items if str(item).strip()]
