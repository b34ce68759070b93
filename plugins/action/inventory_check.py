# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.edgeha.iotedge.plugins.module_utils import inventory_rules, public_variables
from ansible_collections.edgeha.iotedge.plugins.module_utils.problems import Problem
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import files

CLUSTERS = "edge_clusters"
HUB_VARIABLES = (
    "edge_ca_bundle",
    "iothub_auth",
    "iothub_fetch_key",
    "iothub_hostname",
    "iothub_policy_key",
    "iothub_policy_name",
)
MACHINES = ("edge_servers", "edge_agents")


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Checks the variables of the host it runs for against those of all other hosts. Contacts nothing."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _validation, arguments = self.validate_argument_spec(
            argument_spec={"programs": {"type": "list", "elements": "str", "default": []}}
        )
        host = str(variables["inventory_hostname"])
        role_variables = role_options(Path(__file__).resolve().parents[2] / "roles")
        values = {
            name: _value(lambda name=name: self._templar.template(variables[name]))
            for name in public_variables.VARIABLES
            if name in variables
        }
        findings = inventory_rules.check_cluster(
            host,
            values,
            read_file=lambda path: files.find(path, variables).read_text("utf-8"),
            file_error=lambda path: files.file_error(path, variables),
            certificate_error=lambda path: files.certificate_error(path, variables),
            kubeconfig_in_environment=bool(os.environ.get("K8S_AUTH_KUBECONFIG")),
        )
        problems = inventory_rules.unknown_variables(host, variables, role_variables)
        problems += findings.problems
        problems += self._machines(host, variables, role_variables)
        problems += [
            p for p in inventory_rules.clashes(self._clusters(host, values, variables)) if p.host == host
        ]
        problems += [
            Problem(
                host,
                f"program {program}",
                "is not on the controller",
                "install it, or put its folder on PATH; an execution environment of ours carries it",
            )
            for program in arguments["programs"]
            if not shutil.which(program)
        ]
        bad = {problem.subject for problem in problems}
        result.update(
            changed=False,
            problems=[problem.as_dict() for problem in problems],
            warnings=[*findings.notes, *_misread(variables)],
            # A hub or a cluster is contacted only with variables that can be right.
            usable={
                "iothub": _usable(bad, *HUB_VARIABLES),
                "cluster": _usable(bad, "edge_kubeconfig", "edge_cluster_mode"),
            },
        )
        return result

    def _machines(self, host: str, variables: Mapping[str, Any], role_variables: set[str]) -> list[Problem]:
        """Return unknown names on the machines of this cluster."""
        groups, hostvars = variables.get("groups", {}), variables["hostvars"]
        only = len(groups.get(CLUSTERS, [])) == 1
        problems = []
        for name in dict.fromkeys(machine for group in MACHINES for machine in groups.get(group, [])):
            machine = hostvars[name]
            cluster = (
                _value(lambda machine=machine: machine["edge_cluster"]) if "edge_cluster" in machine else None
            )
            if cluster == host or (only and cluster is None):
                problems += inventory_rules.unknown_variables(name, machine, role_variables)
        return problems

    def _clusters(
        self, host: str, values: Mapping[str, Any], variables: Mapping[str, Any]
    ) -> list[inventory_rules.Cluster]:
        """Return what can clash, of all cluster hosts of the inventory (a limit does not hide any)."""
        names = ("edge_gateways", "edge_gateway_defaults", "edge_cluster_vip", "iothub_hostname")
        clusters = []
        for name in variables.get("groups", {}).get(CLUSTERS, []):
            if name == host:
                found: Mapping[str, Any] = values
            else:
                other = variables["hostvars"][name]
                found = {
                    key: _value(lambda other=other, key=key: other[key]) for key in names if key in other
                }
            clusters.append(
                inventory_rules.Cluster(
                    name,
                    hub=_text(found.get("iothub_hostname")).lower(),
                    vip=_text(found.get("edge_cluster_vip")),
                    gateways=inventory_rules.normalise_gateways(
                        found.get("edge_gateways"), found.get("edge_gateway_defaults")
                    ),
                )
            )
        return clusters


def _value(template: Any) -> Any:
    """Return a templated value; Unreadable when its template fails."""
    try:
        return template()
    except AnsibleError as error:
        # The last line of the chain says what is missing; the ones above repeat the template.
        return inventory_rules.Unreadable(str(error).strip().splitlines()[-1][:300])


def _misread(variables: Mapping[str, Any]) -> list[str]:
    """Return a warning when Ansible took a deployment manifest for an inventory, which it does in silence."""
    if "modulesContent" not in variables.get("groups", {}):
        return []
    return [
        "a deployment manifest in the inventory's folder was read as an inventory: "
        "name the hosts file and not its folder (-i FOLDER/hosts.yml)"
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _usable(bad: Iterable[str], *names: str) -> bool:
    return not {f"variable {name}" for name in names} & set(bad)


def role_options(roles: Path) -> set[str]:
    """Return the options of our roles, which are known variables too when they begin like public ones."""
    names: set[str] = set()
    for specs in roles.glob("*/meta/argument_specs.yml"):
        if specs.parent.parent.name.startswith(public_variables.PREFIXES):
            for entry in (yaml.safe_load(specs.read_text("utf-8")).get("argument_specs") or {}).values():
                names |= set(entry.get("options") or {})
    return names
