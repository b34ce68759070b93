# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a machine of k3s is where it is wanted: what was seen in, what is still missing out. Pure.

It runs on the machine itself, so it keeps to what Python 3.9 (RHEL 9) knows.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_facts

UNIT_ACTIVE = "unit_active"
READYZ = "readyz"
NODE_READY = "node_ready"
ETCD_VOTER = "etcd_voter"
KUBELET_VERSION = "kubelet_version"
NODE_GONE = "node_gone"
STATES = (UNIT_ACTIVE, READYZ, NODE_READY, ETCD_VOTER, KUBELET_VERSION, NODE_GONE)
OF_A_NODE = frozenset({NODE_READY, ETCD_VOTER, KUBELET_VERSION, NODE_GONE})
# k3s logs as key="value"; what it says last before it ends is why, or else what it waits for.
_MESSAGE = re.compile(r'level=(?:fatal|error) msg="((?:[^"\\]|\\.)*)"')
_WAITS = re.compile(r'level=(?:warning|info) msg="((?:[^"\\]|\\.)*(?:[Ww]aiting|[Ff]ailed)(?:[^"\\]|\\.)*)"')
_TOKEN = re.compile(r"K10[0-9a-f]{8,}::\S+")


@dataclass(frozen=True)
class Seen:
    """What one look found.

    unit:    as k3s_facts.units has it, None when it was not asked for.
    api:     why the API is not ready, empty when it is; None when it was not asked for.
    node:    the Node object, None when there is none.
    problem: why the node could not be asked for, empty when it could.
    renewed: when its kubelet renewed its lease last, in seconds since 1970; None when that is not known.
    """

    unit: Mapping[str, Any] | None = None
    api: str | None = None
    node: Mapping[str, Any] | None = None
    problem: str = ""
    renewed: float | None = None


def defaults(unit: str, holds_etcd: bool) -> list[str]:
    """Return the states that make a machine ready, by the unit that it runs."""
    if unit.endswith("-agent"):
        return [UNIT_ACTIVE, NODE_READY]
    return [UNIT_ACTIVE, READYZ, NODE_READY, *([ETCD_VOTER] if holds_etcd else [])]


def missing(states: Sequence[str], seen: Seen, unit: str, node: str, version: str) -> list[str]:
    """Return what is still missing, in words; empty when all is as wanted."""
    if UNIT_ACTIVE in states and (text := _unit(seen, unit)):
        # What does not run has no more to say.
        return [text]
    judges: dict[str, Callable[[], str]] = {
        UNIT_ACTIVE: str,
        READYZ: lambda: f"the API is not ready: {seen.api}" if seen.api else "",
        NODE_READY: lambda: _ready(seen, node),
        ETCD_VOTER: lambda: _voter(seen, node),
        KUBELET_VERSION: lambda: _version(seen, node, version),
        NODE_GONE: lambda: _gone(seen, node),
    }
    return list(dict.fromkeys(text for text in (judges[state]() for state in states) if text))


def ended(states: Sequence[str], seen: Seen) -> bool:
    """Return whether waiting on is in vain: systemd has given the unit up, or has never heard of it."""
    if UNIT_ACTIVE not in states or seen.unit is None:
        return False
    return bool(seen.unit["active"] == "failed" or seen.unit["load"] != "loaded")


def _unit(seen: Seen, name: str) -> str:
    active = (seen.unit or k3s_facts.NO_UNIT)["active"]
    loaded = (seen.unit or k3s_facts.NO_UNIT)["load"] == "loaded"
    if not loaded:
        return f"there is no unit {name}"
    return "" if active == "active" else f"unit {name} is {active}"


def _ready(seen: Seen, name: str) -> str:
    if seen.node is None:
        return seen.problem or f"the cluster has no node {name}"
    if not k3s_facts.condition(seen.node, "Ready"):
        return f"node {name} is not ready{_reason(seen.node, 'Ready')}"
    started = (seen.unit or k3s_facts.NO_UNIT)["started"]
    # The cluster believes in a kubelet for a while after it ended: what it said before this start is nothing.
    # What it tells of itself counts like its lease, which a new node gets seconds after it is ready.
    if started and seen.renewed is not None and max(seen.renewed, _heartbeat(seen.node)) < started:
        return f"node {name} has not spoken since its service started"
    return ""


def _heartbeat(node: Mapping[str, Any]) -> float:
    """Return when the kubelet last told that the node is ready: whole seconds since 1970, cut off, or 0."""
    entries = (node.get("status") or {}).get("conditions") or []
    told = [str(entry.get("lastHeartbeatTime") or "") for entry in entries if entry.get("type") == "Ready"]
    return max((epoch(text) or 0.0 for text in told), default=0.0)


def _voter(seen: Seen, name: str) -> str:
    if seen.node is None:
        return seen.problem or f"the cluster has no node {name}"
    if k3s_facts.condition(seen.node, "EtcdIsVoter"):
        return ""
    return f"node {name} is no voter of etcd{_reason(seen.node, 'EtcdIsVoter')}"


def _version(seen: Seen, name: str, version: str) -> str:
    if seen.node is None:
        return seen.problem or f"the cluster has no node {name}"
    runs = k3s_facts.node_view(seen.node)["kubelet"]
    return "" if runs == version else f"node {name} reports {runs or 'no version'} instead of {version}"


def _gone(seen: Seen, name: str) -> str:
    if seen.node is not None:
        return f"node {name} is still there"
    return seen.problem


def _reason(node: Mapping[str, Any], kind: str) -> str:
    for entry in (node.get("status") or {}).get("conditions") or []:
        if entry.get("type") == kind and (entry.get("reason") or entry.get("message")):
            words = [str(entry.get(name)) for name in ("reason", "message") if entry.get(name)]
            return f" ({': '.join(words)[:300]})"
    return ""


def epoch(text: str) -> float | None:
    """Return seconds since 1970 of a time as Kubernetes writes it, None when it is none."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*Z", text or "")
    if not found:
        return None
    moment = datetime.datetime.fromisoformat(f"{found.group(1)}+00:00")
    return moment.timestamp() + float(found.group(2) or 0)


def last_words(journal: str, secrets: Sequence[str] = ()) -> str:
    """Return the last error that k3s wrote into its log, or what it waits for, without tokens; or nothing."""
    found = _MESSAGE.findall(journal) or _WAITS.findall(journal)
    text = _TOKEN.sub("(hidden)", found[-1].replace('\\"', '"')) if found else ""
    for secret in secrets:
        text = text.replace(secret, "(hidden)") if secret else text
    return text[:500]
