# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The clusters and machines of an inventory, and the values of their variables, as an action sees them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    cluster_rules,
    inventory_rules,
    value_formats,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.problems import Problem

# The result of machine_check in the play on the machines.
LOOK = "__preflight_machine"
_PLACE = ("ansible_port", "ansible_connection", "ansible_ssh_common_args", "ansible_ssh_extra_args")


def value(template: Callable[[], Any]) -> Any:
    """Return a templated value; Unreadable when its template fails."""
    try:
        return template()
    except AnsibleError as error:
        # The last line of the chain says what is missing; the ones above repeat the template.
        return inventory_rules.Unreadable(str(error).strip().splitlines()[-1][:300])


class Inventory:
    """All hosts; a limit does not hide any."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        groups = variables.get("groups", {})
        self._hostvars = variables["hostvars"]
        # Making the variables of a host takes a millisecond, and a fleet has many hosts.
        self._known: dict[str, Mapping[str, Any]] = {}
        self.clusters: Sequence[str] = [str(name) for name in groups.get(cluster_rules.CLUSTERS, [])]
        self.servers: Sequence[str] = [str(name) for name in groups.get(cluster_rules.SERVERS, [])]
        self.agents: Sequence[str] = [str(name) for name in groups.get(cluster_rules.AGENTS, [])]
        self.misnamed = cluster_rules.misnamed_groups(groups)
        self.machines = list(dict.fromkeys([*self.servers, *self.agents]))

    def variables(self, host: str) -> Mapping[str, Any]:
        if host not in self._known:
            self._known[host] = self._hostvars[host]
        return self._known[host]

    def value(self, host: str, name: str) -> Any:
        """Return what a host has for a variable, None when it has none, Unreadable when that fails."""
        variables = self.variables(host)
        return value(lambda: variables[name]) if name in variables else None

    def raw(self, host: str, name: str) -> Any:
        """Return a value before it is templated."""
        return self._hostvars.raw_get(host).get(name)

    def usable(self, host: str, name: str) -> Any:
        """Return a value that can be used, or the default, or None."""
        found = inventory_rules.usable(name, self.value(host, name))
        return None if value_formats.check(name, found) else found

    def given(self, host: str, name: str) -> bool:
        """Whether a host has a value for a variable, good or not."""
        return self.value(host, name) not in (None, "")

    def cluster_of(self, machine: str) -> str | None:
        return cluster_rules.cluster_of(self.value(machine, "edge_cluster"), self.clusters)

    def groups(self) -> list[Problem]:
        """Return what is wrong with the groups, and machines that are connected to as others are."""
        values = {name: self.value(name, "edge_cluster") for name in self.machines}
        found = cluster_rules.misnamed(self.misnamed)
        found += cluster_rules.groups(self.clusters, self.servers, self.agents, values)
        found += cluster_rules.same_place({name: self.place(name) for name in self.machines})
        raw = {name: self.raw(name, "ansible_host") for name in self.machines}
        return found + cluster_rules.addresses_by_name(raw)

    def members(
        self, cluster: str, looked: Collection[str] = (), joined: Collection[str] = ()
    ) -> cluster_rules.Members:
        own = {name for name in self.machines if self.cluster_of(name) == cluster}
        return cluster_rules.Members(
            [name for name in self.servers if name in own],
            [name for name in self.agents if name in own and name not in self.servers],
            looked,
            joined,
        )

    def node_name(self, machine: str) -> str:
        return str(self.usable(machine, "edge_node_name") or machine.lower())

    def place(self, machine: str) -> tuple[str, ...]:
        """Return what tells the connection to a machine from those to others."""
        address = self.value(machine, "ansible_host") or machine
        return (str(address), *(str(self.value(machine, name) or "") for name in _PLACE))
