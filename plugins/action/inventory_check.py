# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import functools
import json
import operator
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import yaml
from ansible.plugins.action import ActionBase
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    cluster_environment,
    cluster_rules,
    inventory_rules,
    join_rules,
    machine_rules,
    public_variables,
    value_formats,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.problems import Problem
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import (
    chart,
    credential_files,
    files,
    k3s_source,
    kubelet,
    registries,
    role_options,
)
from ansible_collections.edgeha.iotedge.plugins.plugin_utils.members import LOOK, Inventory, value

HUB_VARIABLES = (
    "edge_ca_bundle",
    "iothub_auth",
    "iothub_fetch_key",
    "iothub_hostname",
    "iothub_policy_key",
    "iothub_policy_name",
)


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Checks the variables of the host it runs for against those of all other hosts. Contacts nothing.

    What the machines of the cluster told in the play before is judged too.
    """

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        limits = {field.name: {"type": field.type} for field in fields(machine_rules.Limits)}
        _validation, arguments = self.validate_argument_spec(
            argument_spec={
                "helm": {"type": "str", "default": "helm"},
                "limits": {"type": "dict", "default": {}, "options": limits},
            }
        )
        host = str(variables["inventory_hostname"])
        role_variables = role_options.names()
        values = {
            name: value(functools.partial(self._templar.template, variables[name]))
            for name in public_variables.VARIABLES
            if name in variables
        }
        findings = inventory_rules.check_cluster(
            host,
            values,
            read_file=lambda path: files.find(path, variables).read_text("utf-8"),
            file_error=lambda path: files.file_error(path, variables),
            certificate_error=lambda path: files.certificate_error(path, variables),
            credential_error=lambda entry: credential_files.error(entry, variables, self._loader),
            kubeconfig_in_environment=bool(os.environ.get("K8S_AUTH_KUBECONFIG")),
        )
        inventory = Inventory(variables)
        problems = inventory_rules.unknown_variables(host, variables, role_variables)
        problems += findings.problems
        cluster = _Cluster(host, values, inventory, variables, given_limits(arguments["limits"]))
        problems += cluster.problems(problems, role_variables)
        problems += [
            p for p in inventory_rules.clashes(self._clusters(host, values, variables)) if p.host == host
        ]
        problems += [
            Problem(host, f"environment {name}", cluster_environment.FACT, cluster_environment.FIX)
            for name in cluster_environment.misleading(os.environ, in_memory=cluster.mode == "k3s")
        ]
        gateways = inventory_rules.wants_gateways(values)
        helm = shutil.which(arguments["helm"])
        if helm:
            problems += _chart_problems(host, values, helm, problems)
        elif gateways:
            problems.append(
                Problem(
                    host,
                    f"program {arguments['helm']}",
                    "is not on the controller",
                    "install it, or put its folder on PATH; an execution environment of ours carries it",
                )
            )
        bad = {problem.subject for problem in problems}
        meant = {*inventory_rules.misspelt(variables, role_variables).values(), *cluster.meant}
        meant -= {name for name, found in values.items() if found not in (None, "")}
        problems = inventory_rules.without_consequences(problems, meant)
        result.update(
            changed=False,
            problems=[problem.as_dict() for problem in problems],
            machine_problems=[problem.as_dict() for problem in cluster.machine_problems()],
            machines=cluster.machines,
            joining=cluster.joining(),
            warnings=[*findings.notes, *cluster.notes, *_misread(variables)],
            # Either is contacted only with variables that can be right, and a hub only for gateways.
            usable={
                "iothub": gateways and "iothub_hostname" in values and _usable(bad, *HUB_VARIABLES),
                # Of a k3s of ours it is not known yet whether it is there, nor how it is reached.
                "cluster": cluster.mode in ("join", "existing")
                and _usable(bad, "edge_kubeconfig", "edge_cluster_mode"),
            },
        )
        return result

    def _clusters(
        self, host: str, values: Mapping[str, Any], variables: Mapping[str, Any]
    ) -> list[inventory_rules.Cluster]:
        """Return what can clash, of all cluster hosts of the inventory (a limit does not hide any)."""
        names = ("edge_gateways", "edge_gateway_defaults", "edge_cluster_vip", "iothub_hostname")
        clusters = []
        for name in variables.get("groups", {}).get(cluster_rules.CLUSTERS, []):
            if name == host:
                found: Mapping[str, Any] = values
            else:
                other = variables["hostvars"][name]
                found = {
                    key: value(functools.partial(operator.getitem, other, key))
                    for key in names
                    if key in other
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


def _chart_problems(
    host: str, values: Mapping[str, Any], helm: str, known: Iterable[Problem]
) -> list[Problem]:
    """Return what the chart does not take of the values that gateways give it. known: problems so far."""
    told = {problem.subject for problem in known}
    asked: dict[str, list[str]] = {}
    found = []
    for gateway in inventory_rules.normalise_gateways(
        values.get("edge_gateways"), values.get("edge_gateway_defaults")
    ):
        subject, given = f"gateway {gateway['name']}", gateway["chart_values"]
        if not given or gateway["state"] == "absent" or subject in told:
            continue
        # Defaults give many gateways the same.
        key = json.dumps(given, default=str)
        if key not in asked:
            asked[key] = chart.errors(helm, given)
        found += [
            Problem(
                host, subject, f"the chart does not take its chart_values: {error}", "correct chart_values"
            )
            for error in asked[key]
        ]
    return found


def given_limits(arguments: Mapping[str, Any]) -> machine_rules.Limits:
    """Return the limits that are given, and the defaults for others."""
    return machine_rules.Limits(**{name: given for name, given in arguments.items() if given is not None})


class _Cluster:
    """The machines of one cluster and what of its variables concerns them."""

    def __init__(
        self,
        host: str,
        values: Mapping[str, Any],
        inventory: Inventory,
        variables: Mapping[str, Any],
        limits: machine_rules.Limits,
    ) -> None:
        self._host = host
        self._values = values
        self._inventory = inventory
        self._limits = limits
        self._first = next(iter(variables.get("ansible_play_hosts") or [host]))
        self._looks = {name: inventory.variables(name).get(LOOK) for name in inventory.machines}
        looked = [name for name, look in self._looks.items() if look is not None]
        joined = [name for name in looked if _joined(self._looks[name])]
        self._members = inventory.members(host, looked, joined)
        self.machines = [*self._members.servers, *self._members.agents]
        self.mode = self.get("edge_cluster_mode")
        self._kind = str(self.get("edge_join_kind")) if self.mode == "join" else "k3s"
        # Whatever can be wrong with a source matters only to a cluster that takes something from it.
        wants_k3s = self.mode in ("k3s", "join") and self._kind == "k3s"
        self._source = k3s_source.load(self._usable, self._given, variables) if wants_k3s else None
        self.notes: list[str] = []
        # Variables that names on the machines are nearly those of.
        self.meant: set[str | None] = set()

    def get(self, name: str) -> Any:
        return inventory_rules.usable(name, self._values.get(name))

    def _given(self, name: str) -> bool:
        return self._values.get(name) not in (None, "")

    def _usable(self, name: str) -> Any:
        """Return a value of which the format is good as well."""
        found = self.get(name)
        return None if value_formats.check(name, found) else found

    def problems(self, known: Iterable[Problem], role_variables: set[str]) -> list[Problem]:
        """Return what is wrong with variables and groups. known: what is wrong with the host's own."""
        # A variable that all hosts have is told of once.
        told = {(problem.subject, problem.fact) for problem in known}
        found = cluster_rules.check(self._host, self._usable, self._members)
        self.notes += found.notes
        # What concerns all machines is told by one of the clusters.
        first = self._host == self._first
        meant = [name for name, _hosts in self._inventory.misnamed.values()]
        problems = self._inventory.groups() if first else []
        problems += cluster_rules.without_counts(found.problems, meant)
        text = self.get("edge_k3s_registries")
        problems += [
            Problem(self._host, "variable edge_k3s_registries", fact, fix)
            for fact, fix in (registries.check(text) if text else [])
        ]
        if self._source:
            problems += [
                Problem(self._host, f"variable {name}", fact, fix)
                for name, fact, fix in self._source.problems
            ]
        for machine in self.machines:
            problems += [
                problem
                for problem in self._machine_variables(machine, role_variables)
                if (problem.subject, problem.fact) not in told
            ]
        tokens = {
            name: str(self._inventory.usable(name, "edge_k3s_token") or "")
            for name in self._inventory.clusters
        }
        problems += [p for p in cluster_rules.shared_tokens(tokens) if p.host == self._host]
        return problems

    def _machine_variables(self, machine: str, role_variables: set[str]) -> list[Problem]:
        own = self._inventory.variables(machine)
        problems = inventory_rules.unknown_variables(machine, own, role_variables)
        self.meant |= set(inventory_rules.misspelt(own, role_variables).values())
        names = [name for name in public_variables.VARIABLES if name in own]
        given = {name: self._inventory.value(machine, name) for name in names}
        problems += inventory_rules.check_machine(machine, given)
        if self.mode in ("k3s", "join"):
            problems += cluster_rules.misplaced(
                machine, self._host, names, lambda name: self._is_the_clusters(machine, name, given[name])
            )
        return problems

    def _is_the_clusters(self, machine: str, name: str, found: Any) -> bool:
        """Whether the cluster host has the same value, or the same template for one."""
        raw = self._inventory.raw
        return bool(found == self._values.get(name) or raw(machine, name) == raw(self._host, name))

    def machine_problems(self) -> list[Problem]:
        """Return what is wrong with the machines themselves."""
        problems = [
            Problem(name, entry["subject"], entry["fact"], entry["fix"])
            for name in self.machines
            for entry in (self._looks[name] or {}).get("problems", [])
        ]
        if self.mode not in ("k3s", "join"):
            return problems
        problems += machine_rules.judge([self._machine(name) for name in self.machines], self._wanted())
        facts = {name: look["machine"] for name, look in self._looks.items() if look and look.get("machine")}
        clusters = {name: self._inventory.cluster_of(name) or "" for name in facts}
        places = {name: self._inventory.place(name) for name in facts}
        problems += [
            p for p in machine_rules.same_machine(facts, clusters, places) if p.host in self.machines
        ]
        return problems + self._join_problems(facts)

    def _machine(self, name: str) -> machine_rules.Machine:
        look = self._looks[name] or {}
        low, high = look.get("skew") or (0.0, 0.0)
        disks = self._inventory.usable(name, "edge_node_disks") or []
        return machine_rules.Machine(
            name,
            server=name in self._members.servers,
            name=self._inventory.node_name(name),
            node_ip=str(self._inventory.usable(name, "edge_node_ip") or ""),
            disk=value_formats.on_own_disk(disks, str(self._usable("edge_k3s_data_dir"))),
            disks=value_formats.disks(disks),
            facts=look.get("machine"),
            skew=(float(low), float(high)),
            tuned=self._inventory.usable(name, "edge_prepare_sysctl") in (None, True, "true", "yes"),
            place=self._inventory.place(name),
        )

    def _wanted(self) -> machine_rules.Wanted:
        source = self._source
        known = source is not None and source.known
        cache: dict[tuple[str, str], tuple[str, str] | None] = {}

        def artifact(architecture: str, version: str) -> tuple[str, str] | None:
            if source is None or not known:
                return None
            if (architecture, version) not in cache:
                cache[architecture, version] = source.artifact(architecture, version)
            return cache[architecture, version]

        return machine_rules.Wanted(
            self._host,
            kind=self._kind,
            version=source.version if source is not None and known else "",
            chosen=source is None or source.chosen,
            etcd=cluster_rules.has_etcd(self._usable, self._members),
            vip=str(self._usable("edge_cluster_vip") or "") if self.mode == "k3s" else "",
            vip_interface=str(self._usable("edge_cluster_vip_interface") or ""),
            pods=str(self._usable("edge_cluster_cidr") or "") if self.mode == "k3s" else "",
            services=str(self._usable("edge_service_cidr") or "") if self.mode == "k3s" else "",
            artifact=artifact,
            limits=self._limits,
        )

    def joining(self) -> dict[str, Any]:
        """Return which machines are to join a cluster with which version, for the filter join_skew."""
        source = self._source
        locked = sorted(source.lock) if source is not None and source.known else []
        machines = []
        if self._kind == "kubeadm":
            folder = str(self._usable("edge_join_source") or "")
            version = kubelet.version(folder) if folder else ""
        else:
            version = source.version if source is not None and source.known and source.chosen else ""
        for name in self.machines if self.mode == "join" and (locked or self._kind == "kubeadm") else []:
            told = ((self._looks[name] or {}).get("machine") or {}).get("join")
            if told:
                own = version or (told["kubelet"] if self._kind == "kubeadm" else "")
                machines.append({"host": name, "version": own, "api": told["version"]})
        return {"kind": self._kind, "machines": machines, "locked": locked}

    def _join_problems(self, facts: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
        problems = []
        token = str(self._usable("edge_join_token") or "")
        for name in self.machines:
            told = (facts.get(name) or {}).get("join")
            if not told:
                continue
            if told["problem"]:
                fact = f"{self.get('edge_join_url')}: {told['problem']}"
                fix = "correct edge_join_url, or let the machine reach it"
                problems.append(Problem(name, "variable edge_join_url", fact, fix))
                continue
            if self._kind == "kubeadm":
                found = join_rules.kubeadm(
                    token,
                    str(self._usable("edge_join_ca_hash") or ""),
                    told["kubeconfig"],
                    _authority(told["kubeconfig"]),
                    told["signatures"],
                )
            else:
                found = join_rules.k3s(token, told["authority"])
            problems += [
                Problem(self._host, f"variable {variable}", fact, fix)
                for variable, fact, fix in (found if token else [])
            ]
        return list(dict.fromkeys(problems))


def _joined(look: Any) -> bool:
    machine = look.get("machine") if isinstance(look, Mapping) else None
    return bool(machine and machine["k3s"]["joined"])


def _authority(kubeconfig: str) -> bytes:
    """Return the certificate of the authority in a kubeconfig, nothing when there is none."""
    try:
        document = yaml.safe_load(kubeconfig)
        return base64.b64decode(document["clusters"][0]["cluster"]["certificate-authority-data"])
    except (yaml.YAMLError, KeyError, IndexError, TypeError, ValueError):
        return b""


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
