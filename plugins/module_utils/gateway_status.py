# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How gateways do: one record for each, of what the cluster, the daemon, edgeHub and the hub tell. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import activity, table

HEADERS = (
    "GATEWAY",
    "DEVICE",
    "NODE",
    "RUNNING",
    "DEPLOYMENT",
    "LAST MESSAGE",
    "WAITING",
    "CERTIFICATES UNTIL",
    "STATE FREE",
    "WHAT IS WRONG",
)
_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+\d+)?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
Sample = tuple[dict[str, str], float]


def samples(text: str) -> dict[str, list[Sample]]:
    """Return labels and values by name of a metric. text: in Prometheus' format; other lines are left out."""
    found: dict[str, list[Sample]] = {}
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line.strip())
        if line.startswith("#") or not match:
            continue
        try:
            value = float(match["value"])
        except ValueError:
            continue
        labels = dict(_LABEL.findall(match["labels"] or ""))
        found.setdefault(match["name"], []).append((labels, value))
    return found


def of_daemon(metrics: str, ready: str) -> dict[str, Any]:
    """Return what a daemon tells of its gateway.

    ``{"version", "modules": {name: state}, "edge_ca_until", "device_certificate_until",
    "state_available_bytes", "state_size_bytes", "reasons": [str]}``. metrics: of its /metrics. ready: the
    text of its /readyz.
    """
    found = samples(metrics)
    info = found.get("edgeha_gateway_info") or [({}, 1.0)]
    reasons = [line for line in ready.splitlines() if line.strip() and line.strip() != "ok"]
    return {
        "version": info[0][0].get("version"),
        "modules": {
            labels["module"]: labels["state"]
            for labels, value in found.get("edgeha_module_state", [])
            if value == 1 and {"module", "state"} <= labels.keys()
        },
        "edge_ca_until": _moment(first(found, "edgeha_edge_ca_not_after_timestamp_seconds")),
        "device_certificate_until": _moment(
            first(found, "edgeha_device_certificate_not_after_timestamp_seconds")
        ),
        "state_available_bytes": _whole(first(found, "edgeha_state_available_bytes")),
        "state_size_bytes": _whole(first(found, "edgeha_state_size_bytes")),
        "reasons": reasons,
    }


def queue_length(metrics: str) -> int | None:
    """Return how many messages wait in edgeHub; None when it does not tell."""
    lengths = samples(metrics).get("edgehub_queue_length")
    return None if lengths is None else round(sum(value for _labels, value in lengths))


def first(found: Mapping[str, Sequence[Sample]], name: str) -> float | None:
    """Return the value of a metric without labels."""
    return found[name][0][1] if found.get(name) else None


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else activity.format_time(datetime.fromtimestamp(seconds, UTC))


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def records(
    gateways: Iterable[Mapping[str, Any]],
    running: Iterable[Mapping[str, Any]],
    modules: Sequence[Mapping[str, Any]],
    deployments: Iterable[Mapping[str, Any]],
    no_cluster: str = "",
    no_hub: str = "",
) -> list[dict[str, Any]]:
    """Return how each gateway does.

    no_cluster, no_hub: why the cluster or the hub could not be read; empty where it was.

    gateways: as the filter gateways returns them. running: of `edge_gateways_info` with ``daemon``. modules
    and deployments: of `iothub_wait`.
    """
    pods = {entry["name"]: entry for entry in running}
    agents = {entry["device_id"]: entry for entry in deployments}
    found = []
    for gateway in gateways:
        there = pods.get(gateway["name"]) or {}
        daemon = there.get("daemon") or {}
        own = [module for module in modules if module["device_id"] == gateway["device_id"]]
        agent = agents.get(gateway["device_id"])
        # What the system's own modules do at the hub is not a message of the gateway's.
        spoke = (module["last_activity"] for module in own if not module["module_id"].startswith("$"))
        active = sorted(filter(None, spoke))
        found.append(
            {
                "name": gateway["name"],
                "namespace": gateway["namespace"],
                "device_id": gateway["device_id"],
                "node": there.get("node"),
                "modules": daemon.get("modules", {}),
                "connected": {module["module_id"]: module["connected"] for module in own},
                "deployment": agent,
                "last_message": active[-1] if active else None,
                "waiting_messages": there.get("waiting_messages"),
                "edge_ca_until": daemon.get("edge_ca_until"),
                "device_certificate_until": daemon.get("device_certificate_until"),
                "state_available_bytes": daemon.get("state_available_bytes"),
                "state_size_bytes": daemon.get("state_size_bytes"),
                "daemon_version": daemon.get("version"),
                "problems": [
                    *(
                        [f"its cluster cannot be read: {no_cluster}"]
                        if no_cluster
                        else _problems(there, daemon)
                    ),
                    *([f"its hub cannot be read: {no_hub}"] if no_hub else _hub_problems(own, agent)),
                ],
            }
        )
    return found


def _problems(there: Mapping[str, Any], daemon: Mapping[str, Any]) -> list[str]:
    refused = there.get("refused")
    if not there.get("pods"):
        return [
            f"the cluster makes no pod of it: {refused}" if refused else "nothing of it is on the cluster"
        ]
    found = [f"pod {pod['name']}: {pod['trouble']}" for pod in there["pods"] if pod.get("trouble")]
    if not daemon:
        ready = any(pod["component"] == "daemon" and pod.get("ready") for pod in there["pods"])
        hint = ", though its pod is ready: see whether this login may get pods/proxy" if ready else ""
        found.append(f"its daemon does not answer{hint}")
    return found + list(daemon.get("reasons", []))


def _hub_problems(modules: Iterable[Mapping[str, Any]], agent: Mapping[str, Any] | None) -> list[str]:
    found = []
    if agent is not None and not agent["ready"]:
        if agent["reported_version"] != agent["desired_version"]:
            found.append(f"edgeAgent has not taken version {agent['desired_version']} of the deployment")
        elif agent["code"] != 200:
            found.append(f"edgeAgent reports {agent['code']}: {agent['description'] or 'no reason'}")
        found += [f"module {name}: {why}" for name, why in sorted(agent["waiting_modules"].items())]
    found += [
        f"module {module['module_id']} is not connected" for module in modules if not module["connected"]
    ]
    return found


def _soonest(*moments: str | None) -> str:
    """Return the day of the first of some moments, in the one form in which they sort."""
    return min(filter(None, moments), default="-").partition("T")[0]


def lines(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table of `records`."""
    rows = []
    for record in found:
        states = list(record["modules"].values())
        agent = record["deployment"]
        free, size = record["state_available_bytes"], record["state_size_bytes"]
        rows.append(
            (
                record["name"],
                record["device_id"],
                record["node"] or "-",
                f"{states.count('running')} of {len(states)}",
                "-"
                if agent is None
                else f"version {agent['desired_version']}: {agent['code'] or 'not reported'}",
                record["last_message"] or "never",
                "-" if record["waiting_messages"] is None else record["waiting_messages"],
                _soonest(record["edge_ca_until"], record["device_certificate_until"]),
                f"{100 * free // size} %" if free is not None and size else "-",
                "; ".join(record["problems"]) or "nothing",
            )
        )
    return table.render(HEADERS, rows)
