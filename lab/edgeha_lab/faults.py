# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`lab fault`: what can happen to a machine."""

from __future__ import annotations

from edgeha_lab import cluster, engine, machines, vms
from edgeha_lab.paths import Instance
from edgeha_lab.progress import LabError, say, step, wait_for

_START_LIMIT = 60.0


def power(instance: Instance, name: str) -> None:
    """Takes the power from a node: its processes are gone at once, and no connection is closed."""
    node = _node(instance, name)
    if vms.is_of(instance):
        vms.power(instance)
    elif cluster.nodes(instance)[node] == "running":
        engine.docker_output("kill", node)
    say(f"{node} has no power")


def heal(instance: Instance, name: str) -> None:
    """Gives a node its power back, at the address that it had."""
    node = _node(instance, name)
    if _nodes(instance)[node] == "running":
        say(f"{node} runs")
        return
    if vms.is_of(instance):
        vms.heal(instance)
        return
    address = cluster.known(instance)["nodes"][node]
    with step(f"starting {node} again at {address}"):
        # A stopped container's address is free for others: take the old one back explicitly.
        engine.docker_output("network", "disconnect", "--force", instance.network, node)
        engine.docker_output("network", "connect", "--ip", address, instance.network, node)
        engine.docker_output("start", node)
        wait_for(f"{node} to run", lambda: cluster.nodes(instance)[node] == "running", _START_LIMIT)
        if cluster.is_of_machines(instance):
            wait_for(f"sshd on {node} ({address})", lambda: machines.answers(address), _START_LIMIT)


def wipe(instance: Instance, name: str) -> None:
    """Replaces a machine by a new, empty one of the same name at the same address: its disk is gone."""
    node = _node(instance, name)
    if vms.is_of(instance) or not cluster.is_of_machines(instance):
        raise LabError("'fault wipe' is for bare machines (lab up --topology k3s)")
    machines.replace(instance, node)


def _nodes(instance: Instance) -> dict[str, str]:
    return vms.nodes(instance) if vms.is_of(instance) else cluster.nodes(instance)


def _node(instance: Instance, name: str) -> str:
    """Full name of a node; `worker2` is enough for `edgeha-demo-worker2`."""
    all_nodes = _nodes(instance)
    for candidate in (name, f"{instance.cluster}-{name}"):
        if candidate in all_nodes:
            return candidate
    raise LabError(
        f"lab {instance.name} has no node {name}; it has {', '.join(all_nodes) or 'none: lab up first'}"
    )
