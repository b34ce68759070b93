#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_probe
short_description: Look at what k3s is, holds and runs on a machine
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Tells in one run what is installed, what runs, what the machine holds of a cluster, and whether the
    cluster answers. The filter P(edgeha.iotedge.cluster_plan#filter) decides by it what a server does.
  - A server that is down is looked at too. What its etcd knows of its peers is read from its files.
  - Needs root, and Linux with systemd.
options:
  units:
    description:
      - Units of systemd to look for. The one that runs counts, and the first one when none does.
      - A unit whose name ends with V(-agent) makes the machine an agent.
    type: list
    elements: str
    default: [k3s, k3s-agent]
  files:
    description:
      - Files that the service reads, or that others want to know of. A pattern such as
        V(/etc/rancher/k3s/config.yaml.d/*.yaml) stands for all that match.
    type: list
    elements: path
    default: []
  restart_files:
    description:
      - Files that count for RV(k3s.stale), and are told of like those of O(files); by default these.
    type: list
    elements: path
  read_token:
    description:
      - Return the token of a server. The task then needs C(no_log).
    type: bool
    default: false
  ask_nodes:
    description:
      - Ask a server that answers for its nodes.
    type: bool
    default: true
  timeout:
    description:
      - Seconds that the API may take for each answer.
    type: int
    default: 5
  patience:
    description:
      - Seconds in which a server whose service runs is asked again until its API is ready. When the leader of
        etcd goes, the others are not ready until they have a new one.
    type: int
    default: 0
extends_documentation_fragment:
  - edgeha.iotedge.k3s
  - edgeha.iotedge.k3s.program
  - edgeha.iotedge.k3s.api
  - edgeha.iotedge.read_only
"""

EXAMPLES = r"""
- name: Look at k3s
  edgeha.iotedge.k3s_probe:
    files:
      - /etc/rancher/k3s/config.yaml
      - /etc/systemd/system/k3s.service
  register: look

- name: Read the token of a server
  edgeha.iotedge.k3s_probe:
    read_token: true
    ask_nodes: false
  register: token
  no_log: true
"""

RETURN = r"""
k3s:
  description: What k3s is on this machine.
  returned: always
  type: dict
  contains:
    architecture:
      description: Architecture of the machine, such as V(x86_64) or V(aarch64).
      type: str
      returned: always
    addresses:
      description: Its addresses, without those of the loopback.
      type: list
      elements: str
      returned: always
    binary:
      description: Path, version, commit and sha256 of the program; all but the path empty when there is none.
      type: dict
      returned: always
    role:
      description: V(server), V(agent) or V(none), by the unit that is there.
      type: str
      returned: always
    unit:
      description:
        - The service with name, load (V(loaded) or V(absent)), active (V(active), V(activating), V(failed) or
          V(inactive)), enabled, main_pid and started (in seconds since 1970).
        - exe_path, exe_sha256, exe_version and exe_deleted are of the program that really runs.
      type: dict
      returned: always
    config:
      description:
        - server (the address that it joins by), cluster_init, node_name and external (whether a datastore is
          named), by the files of the configuration, and where these say nothing, by the running process.
      type: dict
      returned: always
    data:
      description:
        - What the machine holds. server and agent tell whether there is state of either.
        - datastore is V(etcd), V(sqlite), V(external) or V(none); etcd_member and etcd_name are of its own
          member; members are all that its etcd knows, with name, peer and learner, empty when unknown.
        - half tells of a server that has keys and no datastore, whose first start was interrupted.
        - reset_flag and tombstone tell of a reset that was not followed by a start, and of a member that was
          removed from its cluster.
        - ca_sha256 is of the authority's file, ca_certificates has a fingerprint of each certificate in it,
          and agent_ca_certificates those of the authority that the agent trusts.
        - token_sha256 is a fingerprint of the token's secret; snapshots are the names of those on its disk.
      type: dict
      returned: always
    node:
      description:
        - Name of the node, name_from (V(config), V(certificate) or V(hostname)), and name_file, the password
          by which the cluster knows the node again, empty when it is not there.
      type: dict
      returned: always
    api:
      description:
        - Whether its own API is reachable and readyz, its version, and the problem when it is not ready.
        - foreign tells that something answers that is not this machine's server.
      type: dict
      returned: always
    etcd:
      description: The members by the cluster's nodes, with name, node, peer, voter and healthy.
      type: dict
      returned: always
    nodes:
      description:
        - The nodes, with name, address, ready, schedulable, kubelet, voter, labels, annotations of ours and
          taints.
      type: list
      elements: dict
      returned: always
    files:
      description: For each of O(files) exists, sha256, mode, uid and mtime (in nanoseconds since 1970).
      type: dict
      returned: always
    stale:
      description:
        - Files that are newer than the running process, and V(binary) when it is not what is installed.
      type: list
      elements: str
      returned: always
token:
  description: The token that a server has, empty when there is none.
  returned: when O(read_token)
  type: str
"""

import mmap
import os
import platform
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    bolt,
    k3s_api,
    k3s_facts,
    k3s_machine,
    k3s_options,
    kube_api,
    node_facts,
    this_machine,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.this_machine import expanded, text

_NO_API = {"reachable": False, "readyz": False, "foreign": False, "version": "", "problem": ""}


def digest(path: str) -> str:
    """Return the SHA-256 of a file of any size, empty when it cannot be read."""
    try:
        return this_machine.sha256(path)
    except OSError:
        return ""


def holds(path: str, words: str) -> bool:
    """Return whether a file contains an ASCII text."""
    try:
        with Path(path).open("rb") as source, mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ) as content:
            return content.find(words.encode()) >= 0
    except (OSError, ValueError):
        return False


def members(path: str) -> list[dict[str, Any]]:
    """Return the members that etcd's file names, none when it cannot be read."""
    # etcd may be writing: what is torn is read again.
    for _attempt in range(3):
        try:
            with (
                Path(path).open("rb") as source,
                mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ) as content,
            ):
                return k3s_facts.members(bolt.bucket(content, b"members"))
        except (OSError, ValueError):
            return []
        except bolt.BoltError:
            continue
    return []


def file_state(path: str) -> dict[str, Any]:
    try:
        state = Path(path).stat()
    except OSError:
        return {"exists": False, "sha256": "", "mode": "", "uid": -1, "mtime": 0}
    return {
        "exists": True,
        "sha256": digest(path) if Path(path).is_file() else "",
        "mode": f"{state.st_mode & 0o7777:04o}",
        "uid": state.st_uid,
        "mtime": state.st_mtime_ns,
    }


class Machine:
    """Reads one machine; each part once."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._params: dict[str, Any] = module.params
        self._data = self._params["data_dir"].rstrip("/")

    def _output(self, *words: str, executable: str = "") -> str:
        return this_machine.output(self._module, *words, executable=executable)

    def facts(self) -> dict[str, Any]:
        binary = self._binary()
        unit, differs = self._unit(binary)
        config = k3s_machine.configuration(self._params["config_dir"], unit["main_pid"])
        role = k3s_facts.role(unit)
        data = self._state(config["external"])
        patience = kube_api.Patience(self._params["patience"] if unit["active"] == "active" else 0)
        api, nodes = self._api(data["server"] or data["half"], role, patience)
        counted = expanded(self._params["files"] + (self._params["restart_files"] or []))
        files = {path: file_state(path) for path in counted}
        if self._params["restart_files"] is not None:
            counted = expanded(self._params["restart_files"])
        return {
            "architecture": platform.machine(),
            "addresses": self._addresses(),
            "binary": binary,
            "role": role,
            "unit": unit,
            "config": config,
            "data": data,
            "node": self._node(config["node_name"]),
            "api": api,
            "etcd": {"members": k3s_facts.etcd_members(nodes)},
            "nodes": [k3s_facts.node_view(node) for node in nodes],
            "files": files,
            "stale": k3s_facts.stale(
                {path: files[path] for path in counted},
                round(unit["started"] * 1e9),
                time.time_ns(),
                differs,
            ),
        }

    def _addresses(self) -> list[str]:
        links = node_facts.interfaces(self._output("ip", "-json", "address"))
        return sorted(address.partition("/")[0] for link in links for address in link["addresses"])

    def _binary(self) -> dict[str, str]:
        path = self._params["binary"]
        said = self._output(path, "--version") if os.access(path, os.X_OK) else ""
        return {"path": path, "sha256": digest(path), **k3s_facts.version(said)}

    def _unit(self, binary: dict[str, str]) -> tuple[dict[str, Any], bool]:
        """Return the unit, and whether what it runs is something else than what is installed."""
        unit = k3s_machine.unit(self._output, self._params["units"])
        pid = unit["main_pid"]
        exe = f"/proc/{pid}/exe"
        try:
            path = str(Path(exe).readlink())
            running = Path(exe).stat()
        except OSError:
            # Nothing runs, or it ended meanwhile.
            unit["main_pid"], unit["started"] = 0, 0.0
            return unit, False
        unit["exe_deleted"] = path.endswith(" (deleted)")
        unit["exe_path"] = path.removesuffix(" (deleted)")
        try:
            installed = Path(binary["path"]).stat()
            same_file = (installed.st_dev, installed.st_ino) == (running.st_dev, running.st_ino)
        except OSError:
            same_file = False
        archive = k3s_facts.unpacked_from(unit["exe_path"])
        if same_file:
            unit["exe_sha256"], unit["exe_version"] = binary["sha256"], binary["version"]
            return unit, False
        unit["exe_sha256"] = digest(exe)
        if archive:
            matches = holds(binary["path"], archive)
            unit["exe_version"] = binary["version"] if matches else self._version_of(exe)
            return unit, not matches
        matches = unit["exe_sha256"] == binary["sha256"]
        unit["exe_version"] = binary["version"] if matches else self._version_of(exe)
        return unit, not matches

    def _version_of(self, exe: str) -> str:
        # k3s's unpacked program does what its name says, so it must be called by its own.
        return k3s_facts.version(self._output("k3s", "--version", executable=exe))["version"]

    def _state(self, external: bool) -> dict[str, Any]:
        server, etcd = f"{self._data}/server", f"{self._data}/server/db/etcd"
        member = Path(f"{etcd}/member/wal").is_dir()
        sqlite = Path(f"{server}/db/state.db").exists()
        credentials = Path(f"{server}/tls/server-ca.key").exists() and Path(f"{server}/cred").is_dir()
        kind = k3s_facts.datastore(member, sqlite, credentials, external)
        authority = f"{server}/tls/server-ca.crt"
        snapshots = Path(f"{server}/db/snapshots")
        return {
            "server": kind != "none",
            "agent": Path(f"{self._data}/agent/client-kubelet.crt").exists(),
            "half": kind == "none" and credentials,
            "datastore": kind,
            "etcd_member": member,
            "etcd_name": text(f"{etcd}/name").strip() if member else "",
            "members": members(f"{etcd}/member/snap/db") if member else [],
            "reset_flag": Path(f"{server}/db/reset-flag").exists(),
            "tombstone": Path(f"{etcd}/tombstone").exists(),
            "ca_sha256": digest(authority),
            "ca_certificates": k3s_facts.certificates(text(authority)),
            "agent_ca_certificates": k3s_facts.certificates(text(f"{self._data}/agent/server-ca.crt")),
            "token_sha256": k3s_facts.token_digest(text(f"{server}/token")),
            "snapshots": sorted(entry.name for entry in snapshots.iterdir()) if snapshots.is_dir() else [],
        }

    def _node(self, configured: str) -> dict[str, str]:
        password = f"{self._params['config_dir']}/node/password"
        name, source = k3s_machine.node_name(self._data, configured)
        return {"name": name, "name_from": source, "name_file": password if Path(password).exists() else ""}

    def _api(
        self, has_keys: bool, role: str, patience: kube_api.Patience
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        if role == "agent" and not has_keys:
            return {**_NO_API, "problem": "an agent has no API of its own"}, []
        while True:
            state, nodes = self._answer()
            if state["readyz"] or not patience.is_left():
                return state, nodes
            patience.pause()

    def _answer(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        state = dict(_NO_API)
        port = self._params["api_port"]
        access = k3s_api.of_data_dir(self._data, port)
        if not Path(access.key).exists():
            access = k3s_api.Access(access.server)
        nodes: list[dict[str, Any]] = []
        try:
            api = k3s_api.connect(access, self._params["timeout"])
            state["reachable"], state["problem"] = k3s_api.readyz(api)
            state["readyz"] = state["reachable"] and not state["problem"]
            # Without keys of a server here, what answers is somebody else's.
            state["foreign"] = state["reachable"] and not access.key
            if access.key and state["readyz"]:
                state["version"] = str(api.get("/version").get("gitVersion", ""))
                if self._params["ask_nodes"]:
                    nodes = api.items("/api/v1/nodes")
            api.close()
        except kube_api.KubeError as error:
            state["problem"] = error.message
        return state, nodes


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **k3s_options.DATA_DIR,
            **k3s_options.PROGRAM,
            "units": {"type": "list", "elements": "str", "default": ["k3s", "k3s-agent"]},
            "files": {"type": "list", "elements": "path", "default": []},
            "restart_files": {"type": "list", "elements": "path"},
            "read_token": {"type": "bool", "default": False, "no_log": False},
            "ask_nodes": {"type": "bool", "default": True},
            **k3s_options.API,
            "timeout": {"type": "int", "default": 5},
            "patience": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="k3s_probe needs root to see all of a machine: set become: true")
    result: dict[str, Any] = {"changed": False, "k3s": Machine(module).facts()}
    if module.params["read_token"]:
        result["token"] = text(f"{module.params['data_dir']}/server/token").strip()
    module.exit_json(**result)


if __name__ == "__main__":
    main()
