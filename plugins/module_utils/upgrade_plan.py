# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which machines of a cluster take another version of k3s, in which order, and why not. Pure functions.

Everything is decided by what runs now, so an upgrade that was interrupted goes on where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils.node_drain import CORDON_ANNOTATION
from ansible_collections.edgeha.iotedge.plugins.module_utils.problems import problem

# A playbook has so many waves written into it.
WAVES = 10
# A kubelet may be so many minor versions older than the API, and none newer.
_KUBELET_SKEW = 3
_PATTERN = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:-(?:alpha|beta|rc)\.?(\d+))?(?:\+k3s(\d+))?(?![\w.+])")


@dataclass(frozen=True, order=True)
class Version:
    """A version of k3s. candidate: number of a candidate for a release, which a release comes after."""

    major: int
    minor: int
    patch: int
    candidate: float
    build: int

    @classmethod
    def parse(cls, text: str) -> Version | None:
        found = _PATTERN.match(text)
        if found is None:
            return None
        major, minor, patch, candidate, build = found.groups()
        number = float("inf") if candidate is None else int(candidate)
        return cls(int(major), int(minor), int(patch), number, int(build or 0))


@dataclass(frozen=True)
class Machine:
    """A machine of the cluster.

    host: name in the inventory. server: whether it is one of the servers. node: name of its node.
    state: what ``k3s_probe`` returned as k3s, None when the machine did not answer.
    """

    host: str
    server: bool
    node: str
    state: Mapping[str, Any] | None


def nodes_of(machines: Sequence[Machine]) -> list[Mapping[str, Any]]:
    """Return the nodes as a server that answers sees them; empty when none does."""
    for machine in machines:
        if machine.state and (machine.state.get("api") or {}).get("readyz") and machine.state.get("nodes"):
            return list(machine.state["nodes"])
    return []


def peers_of(machines: Sequence[Machine], host: str) -> list[str]:
    """Return the other servers that answer, by the inventory's names."""
    return [
        machine.host
        for machine in machines
        if machine.server
        and machine.host != host
        and machine.state
        and (machine.state.get("api") or {}).get("readyz")
    ]


def plan(machines: Sequence[Machine], wanted: str, batch: int = 0) -> dict[str, Any]:
    """Return what an upgrade to the version ``wanted`` does.

    batch: agents at once; 0 is a tenth of them, one at least.
    problems: dicts with host, subject, fact and fix; with any of them nothing is to be changed.
    hosts: for each machine action (``keep``; ``upgrade``; ``release``: finished but for our cordon) and wave.
    snapshot: whether one is due: before the first server changes, of a datastore that k3s itself keeps.
    lines: what it does, in words.
    """
    problems = _problems(machines, wanted, batch)
    entries: dict[str, dict[str, Any]] = {}
    if not problems:
        nodes = {str(node["name"]): node for node in nodes_of(machines)}
        servers = _in_order([machine for machine in machines if machine.server], nodes, wanted)
        agents = _in_order([machine for machine in machines if not machine.server], nodes, wanted)
        size = batch or max(1, -(-len(agents) // WAVES))
        waves = {machine.host: number for number, machine in enumerate(servers)}
        waves.update({machine.host: number // size for number, machine in enumerate(agents)})
        for machine in machines:
            action = _action(machine, nodes.get(machine.node), wanted)
            entries[machine.host] = {"action": action, "wave": waves.get(machine.host, 0)}
    started = [
        machine for machine in machines if machine.server and _running(machine) == Version.parse(wanted)
    ]
    todo = [machine for machine in machines if machine.server and entries.get(machine.host, {}).get("action")]
    upgrading = any(entries[machine.host]["action"] == "upgrade" for machine in todo)
    # A datastore that is elsewhere is saved by its own means.
    ours = any(
        ((machine.state or {}).get("data") or {}).get("datastore") in ("etcd", "sqlite") for machine in todo
    )
    return {
        "problems": problems,
        "hosts": entries,
        "snapshot": upgrading and ours and not started,
        "lines": _lines(machines, entries, wanted),
    }


def _lines(machines: Sequence[Machine], entries: Mapping[str, Mapping[str, Any]], wanted: str) -> list[str]:
    lines = []
    for machine in machines:
        action = entries.get(machine.host, {}).get("action", "keep")
        if action == "upgrade":
            runs = ((machine.state or {}).get("unit") or {}).get("exe_version") or "no version"
            lines.append(f"{machine.host}: {runs} -> {wanted}")
        elif action == "release":
            lines.append(f"{machine.host}: has {wanted}, and takes pods again")
    if entries and not lines:
        lines.append(f"{', '.join(machine.host for machine in machines)}: run {wanted} already")
    return lines


def _in_order(
    machines: Sequence[Machine], nodes: Mapping[str, Mapping[str, Any]], wanted: str
) -> list[Machine]:
    """Return the machines that have something to do; those that an earlier run had in hand come first."""
    todo = [machine for machine in machines if _action(machine, nodes.get(machine.node), wanted) != "keep"]
    return sorted(todo, key=lambda machine: not _is_ours(nodes.get(machine.node)))


def _action(machine: Machine, node: Mapping[str, Any] | None, wanted: str) -> str:
    target = Version.parse(wanted)
    state = machine.state or {}
    installed = Version.parse((state.get("binary") or {}).get("version") or "")
    reported = Version.parse((node or {}).get("kubelet") or "")
    is_new = _running(machine) == installed == target and reported in (None, target)
    if not is_new or state.get("stale"):
        return "upgrade"
    if _is_ours(node):
        return "release"
    return "keep"


def _is_ours(node: Mapping[str, Any] | None) -> bool:
    return bool(((node or {}).get("annotations") or {}).get(CORDON_ANNOTATION))


def _running(machine: Machine) -> Version | None:
    unit = (machine.state or {}).get("unit") or {}
    return Version.parse(unit.get("exe_version") or "") if unit.get("active") == "active" else None


def _problems(machines: Sequence[Machine], wanted: str, batch: int) -> list[dict[str, str]]:
    target = Version.parse(wanted)
    if target is None:
        fact = f"{wanted!r} is no version of k3s"
        return (
            [problem(machines[0].host, "edge_k3s_version", fact, "write it like v1.34.4+k3s1")]
            if machines
            else []
        )
    found = []
    for machine in machines:
        found += _machine_problems(machine, target, wanted)
    if found:
        return found
    servers = [machine for machine in machines if machine.server]
    nodes = nodes_of(machines)
    if not nodes:
        host = servers[0].host if servers else ""
        fact = "no server answers for the cluster"
        return [problem(host, "cluster", fact, "run site.yml first, which starts a cluster that is down")]
    found += _skew(machines, nodes, target, wanted)
    agents = len(machines) - len(servers)
    if batch and -(-agents // batch) > WAVES:
        fact = f"{agents} agents in batches of {batch} are more than {WAVES} batches"
        fix = f"set it to {-(-agents // WAVES)} or more"
        found.append(problem(machines[0].host, "edge_upgrade_agent_batch", fact, fix))
    if len(servers) > WAVES:
        fact = f"{len(servers)} servers are more than {WAVES}"
        found.append(problem(servers[0].host, "cluster", fact, "make some of them agents"))
    return found


def _machine_problems(machine: Machine, target: Version, wanted: str) -> list[dict[str, str]]:
    state = machine.state
    if state is None:
        fix = "bring it back, or take it out of the cluster with replace_node or reset"
        return [problem(machine.host, "machine", "it does not answer", fix)]
    if state.get("role") == "none":
        return [problem(machine.host, "k3s", "it is not installed here", "run site.yml first")]
    if (state.get("role") == "server") != machine.server:
        fact = f"it runs as {state.get('role')} and stands in the inventory as {_kind(machine)}"
        return [problem(machine.host, "k3s", fact, "correct the inventory, or reset the machine")]
    running = _running(machine)
    if running and running > target:
        fact = f"{(state.get('unit') or {}).get('exe_version')} runs, which is newer than {wanted}"
        fix = "k3s cannot go back: restore a snapshot that was taken before the upgrade"
        return [problem(machine.host, "k3s", fact, fix)]
    return []


def _skew(
    machines: Sequence[Machine], nodes: Sequence[Mapping[str, Any]], target: Version, wanted: str
) -> list[dict[str, str]]:
    known = {machine.node: machine for machine in machines}
    found = []
    for node in nodes:
        version = Version.parse(str(node.get("kubelet") or ""))
        if version is None:
            continue
        machine = known.get(str(node["name"]))
        host = machine.host if machine else str(node["name"])
        subject = f"node {node['name']}"
        if version.major != target.major or version > target:
            fix = "k3s cannot go back: restore a snapshot that was taken before the upgrade"
            found.append(problem(host, subject, f"runs {node['kubelet']}, not older than {wanted}", fix))
        elif machine and machine.server and target.minor - version.minor > 1:
            step = f"v{version.major}.{version.minor + 1}"
            fact = f"{wanted} skips a minor version after {node['kubelet']}"
            found.append(problem(host, subject, fact, f"upgrade to the newest {step} first"))
        elif target.minor - version.minor > _KUBELET_SKEW:
            fact = f"its kubelet {node['kubelet']} is too old for an API of {wanted}"
            found.append(problem(host, subject, fact, "upgrade this node first"))
    return found


def _kind(machine: Machine) -> str:
    return "server" if machine.server else "agent"


def machines_from(entries: Sequence[Mapping[str, Any]]) -> list[Machine]:
    """Return machines from dicts with host, server, node and state."""
    return [
        Machine(
            str(entry["host"]),
            bool(entry["server"]),
            str(entry.get("node") or entry["host"]),
            entry.get("state") or None,
        )
        for entry in entries
    ]
