# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.edgeha.iotedge.plugins.module_utils import machine_rules, problems, value_formats
from ansible_collections.edgeha.iotedge.plugins.module_utils.inventory_rules import FileMissingError
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import files, k3s_source, registries
from ansible_collections.edgeha.iotedge.plugins.plugin_utils.members import Inventory

MODULE = "edgeha.iotedge.machine_check"
OWN_OPTIONS = ("registry", "timeout", "writes")


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Runs the module with what the variables of the machine and its cluster ask for.

    A machine that cannot be looked at is a problem among others, so that one run tells of all of them.
    """

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        inventory = Inventory(variables)
        host = str(variables["inventory_hostname"])
        result.update(changed=False, machine=None, problems=[])
        cluster = inventory.cluster_of(host)
        if cluster is None or host in inventory.clusters:
            return result
        mode = inventory.usable(cluster, "edge_cluster_mode")
        if mode not in ("k3s", "join"):
            return result
        if cluster not in variables.get("ansible_play_hosts_all", [cluster]):
            # Nobody would judge what this run finds.
            rows = problems.render([_hidden(cluster)])
            text = "\n".join(rows)
            result.update(failed=True, msg=f"Preflight found 1 problem(s). Nothing was changed.\n\n{text}")
            return result
        try:
            arguments = self._arguments(host, cluster, str(mode), inventory, variables)
            self._look(arguments, variables, result)
        except AnsibleConnectionFailure as error:
            ping = problems.ping(host, variables.get("ansible_inventory_sources"))
            fix = f"check its power, ansible_host, ansible_user and the key; try: {ping}"
            result["problems"] = [_problem("connection", error, fix)]
        except AnsibleError as error:
            fix = "check become and ansible_python_interpreter"
            result["problems"] = [_problem("connection", error, fix)]
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _look(self, arguments: Mapping[str, Any], variables: dict[str, Any], result: dict[str, Any]) -> None:
        before = time.time()
        told = self._execute_module(MODULE, dict(arguments), task_vars=variables)
        after = time.time()
        if told.get("failed") or "machine" not in told:
            said = told.get("msg") or told.get("module_stderr") or "it said nothing that can be read"
            fix = "check become and ansible_python_interpreter; the machine needs Python 3.9 or newer"
            result["problems"] = [_problem("connection", said, fix)]
            return
        machine = told["machine"]
        # The module began after the first moment, and its own seconds before the last one.
        skew = [machine["epoch"] - (after - machine["seconds"]), machine["epoch"] - before]
        result.update(machine=machine, skew=[round(seconds, 3) for seconds in skew])

    def _arguments(
        self, host: str, cluster: str, mode: str, inventory: Inventory, variables: Mapping[str, Any]
    ) -> dict[str, Any]:
        server = host in inventory.servers

        def get(name: str) -> Any:
            return inventory.usable(cluster, name)

        kind = str(get("edge_join_kind")) if mode == "join" else "k3s"
        # Whether there is etcd depends on all servers; what does not matter is left out when it is judged.
        etcd = get("edge_k3s_datastore") == "embedded"
        arguments: dict[str, Any] = {
            "data_dir": get("edge_k3s_data_dir"),
            "ports": machine_rules.ports(server, etcd, kind),
            "modules": list(machine_rules.MODULES),
            "ca_pem": _ca(get("edge_ca_bundle"), variables),
            "proxy": get("edge_http_proxy") or "",
            "no_proxy": get("edge_no_proxy") or "",
            **{name: value for name, value in self._task.args.items() if name in OWN_OPTIONS},
        }
        if kind == "k3s" and get("edge_k3s_profile") == "cis":
            arguments["sysctls"] = list(machine_rules.KERNEL_SETTINGS)
        disks = inventory.usable(host, "edge_node_disks")
        arguments["disks"] = [
            {key: disk[key] for key in ("device", "mount")} for disk in value_formats.disks(disks or [])
        ]
        if not server or value_formats.on_own_disk(disks, str(arguments["data_dir"])):
            arguments["writes"] = 0
        if mode == "k3s" and server and get("edge_cluster_vip"):
            arguments["address"] = get("edge_cluster_vip")
            arguments["interface"] = get("edge_cluster_vip_interface") or ""
        if kind == "k3s":
            source = k3s_source.load(get, lambda name: inventory.given(cluster, name), variables)
            arguments["version"] = source.version
            # A source that is wrong on the controller already is not tried from here.
            found = source.addresses() if source.known else []
            found += [
                {"name": "variable edge_k3s_registries", "url": url}
                for url in registries.endpoints(str(get("edge_k3s_registries") or ""))
            ]
            places = value_formats.datastore_places(str(get("edge_k3s_datastore_endpoint") or ""))
            if mode == "k3s" and server and places and get("edge_k3s_datastore") == "endpoint":
                found.append({"name": machine_rules.DATASTORE, "url": f"tcp://{','.join(places)}"})
            arguments["sources"] = found
        source_of_images = self._images(get, kind)
        if source_of_images:
            arguments.setdefault("sources", []).append(source_of_images)
        if mode == "join" and str(get("edge_join_url") or "").startswith("https://"):
            arguments["join_url"] = get("edge_join_url")
            arguments["join_kind"] = kind
            # Nodes speak to their API directly.
            direct = urlsplit(arguments["join_url"]).hostname or ""
            arguments["no_proxy"] = ",".join(filter(None, [arguments["no_proxy"], direct]))
        return arguments

    def _images(self, get: Callable[[str], Any], kind: str) -> dict[str, Any] | None:
        """Return where images of the gateways come from, None when nobody asks there."""
        wanted = any(
            isinstance(gateway, Mapping) and gateway.get("state", "present") != "absent"
            for gateway in get("edge_gateways") or []
        )
        if not wanted or not boolean(self._task.args.get("registry", True), strict=False):
            return None
        text = str(get("edge_k3s_registries") or "") if kind == "k3s" else ""
        return registries.source(str(get("edge_image_registry") or ""), text)


def _ca(path: Any, variables: Mapping[str, Any]) -> str:
    try:
        return files.find(str(path), variables).read_text("utf-8") if path else ""
    except (FileMissingError, OSError, UnicodeDecodeError):
        # That of the cluster host is reported.
        return ""


def _hidden(cluster: str) -> problems.Problem:
    return problems.Problem(
        cluster,
        "group edge_clusters",
        "cannot be seen in this run: a limit or a slice hides it, and its machines are there",
        "name the cluster host and all its servers in --limit, or a group that holds them",
    )


def _problem(subject: str, said: Any, fix: str) -> dict[str, str]:
    return {"subject": subject, "fact": " ".join(str(said).split())[:300], "fix": fix}
