#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_check
short_description: Look at a machine before anything is changed
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Tells in one run what M(edgeha.iotedge.inventory_check) judges of a machine that is to be a node.
  - It reads only. The disk is measured with a file that has no name and is gone when the module ends.
  - Where k3s runs, ports, disk and the address of the cluster are not tried, and where it has the wanted
    version already, no source is.
  - In a play of this collection an action plugin runs it, fills in the options from the public variables, and
    returns a machine that cannot be reached as a result and not as an error. It runs nothing on machines of a
    cluster whose C(edge_cluster_mode) is V(existing).
options:
  ports:
    description: Ports that must be free, such as V(6443/tcp).
    type: list
    elements: str
    default: []
  modules:
    description: Kernel modules that a node needs.
    type: list
    elements: str
    default: []
  sysctls:
    description: Kernel settings that are told.
    type: list
    elements: str
    default: []
  address:
    description: Address that the servers of the cluster share. Empty for none.
    type: str
    default: ""
  interface:
    description: Interface for O(address). Empty for the one in whose network it is.
    type: str
    default: ""
  version:
    description: Version of k3s that is wanted. Empty when it does not matter.
    type: str
    default: ""
  disks:
    description: Disks that are to be formatted and mounted.
    type: list
    elements: dict
    default: []
    suboptions:
      device:
        description: Its path.
        type: str
        required: true
      mount:
        description: Folder on which it is to be mounted.
        type: str
        required: true
  sources:
    description: Addresses that the machine must reach.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is.
        type: str
        required: true
      url:
        description:
          - Its address. Of C(tcp://HOST:PORT,HOST:PORT) one place must take a connection.
        type: str
        required: true
      file:
        description: Whether it is a file, which must be there. Of others any answer will do.
        type: bool
        default: false
      architecture:
        description: Machines that need it, as they name themselves. Empty for all.
        type: str
        default: ""
      always:
        description: Whether it is tried on machines too that have the wanted version of k3s.
        type: bool
        default: false
      verify:
        description: Whether its certificate must be trusted.
        type: bool
        default: true
  registry:
    description:
      - Whether the action plugin names the registry of the gateways' images among the sources. Set it to
        V(false) where machines have the images already.
    type: bool
    default: true
  join_url:
    description: Address of the cluster that the machine joins. Empty for none.
    type: str
    default: ""
  join_kind:
    description: Kind of that cluster.
    type: str
    choices: [k3s, kubeadm]
    default: k3s
  ca_pem:
    description: Certificates that are trusted in addition to those of the system.
    type: str
    default: ""
  proxy:
    description: Proxy for the sources. May hold a password.
    type: str
    default: ""
  no_proxy:
    description: Hosts, domains and networks that are reached without the proxy, separated by commas.
    type: str
    default: ""
  writes:
    description: How many small writes measure the disk, for two seconds at the most. None for 0.
    type: int
    default: 0
  timeout:
    description: Seconds that a source may take to answer.
    type: int
    default: 5
extends_documentation_fragment:
  - edgeha.iotedge.k3s
  - edgeha.iotedge.read_only
"""

EXAMPLES = r"""
- name: Look at the machine
  edgeha.iotedge.machine_check:
  register: __preflight_machine
"""

RETURN = r"""
machine:
  description:
    - The machine. Its C(hostname), C(machine_id), C(interfaces), C(os), C(kernel), C(cgroups), C(memory_mib)
      and C(cpus) are as in RV(edgeha.iotedge.node_probe#module:node).
  returned: when the machine answered
  type: dict
  contains:
    route:
      description: Interface and source of its way out.
      type: dict
      returned: always
    modules:
      description: State of each of O(modules), as M(edgeha.iotedge.node_probe) names it.
      type: dict
      returned: always
    sysctls:
      description: Value of each of O(sysctls), empty where the kernel has none of that name.
      type: dict
      returned: always
    epoch:
      description: Its clock in seconds when the module began.
      type: float
      returned: always
    seconds:
      description: What the module took.
      type: float
      returned: always
    data:
      description: Path, free_bytes, total_bytes and filesystem of the data folder's disk.
      type: dict
      returned: always
    disks:
      description:
        - What M(edgeha.iotedge.disk_probe) tells of O(disks), without missing and family. Null without any.
      type: dict
      returned: always
    fsync:
      description:
        - Writes that were measured, in milliseconds median_ms, p90_ms and max_ms, and the problem if any.
        - Null when none were.
      type: dict
      returned: always
    k3s:
      description:
        - Unit, whether it is active, version that runs or is installed, and whether there is data.
        - Whether the machine joined a cluster, of k3s or of kubeadm, as an agent.
      type: dict
      returned: always
    ports:
      description: Port, protocol, and program and unit that hold it, of those O(ports) that are not free.
      type: list
      elements: dict
      returned: always
    address:
      description: Interface for O(address), and the MAC address of who has it, empty for nobody.
      type: dict
      returned: always
    sources:
      description: Name, url and problem, empty when it answers, of those O(sources) that were tried.
      type: list
      elements: dict
      returned: always
    join:
      description:
        - Problem, version, and what the cluster at O(join_url) says of itself; for V(kubeadm) the version of
          the kubelet that is there, or that the lists of packages would bring. Null without one.
      type: dict
      returned: always
problems:
  description: Subject, fact and fix of what kept the machine from being looked at.
  returned: always
  type: list
  elements: dict
skew:
  description:
    - The least and the most seconds that the machine's clock can be ahead of the controller's.
  returned: when the machine answered
  type: list
  elements: float
"""

import contextlib
import json
import os
import platform
import select
import socket
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    disk_look,
    k3s_facts,
    k3s_options,
    machine_facts,
    node_look,
    this_machine,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.this_machine import text

_UNITS = ("k3s.service", "k3s-agent.service")
# With this a kubelet that joined by kubeadm speaks to its API.
_KUBEADM_NODE = "/etc/kubernetes/kubelet.conf"
# etcd writes some two kilobytes at a time; an outsider's block is as good a measure.
_BLOCK = b"\0" * 2300
_DISK_SECONDS = 2.0
_ARP = 0x0806
_ANSWER_SECONDS = 0.4
_ANSWER_BYTES = 1 << 20
# An address of the documentation's network: only asked for, nothing is sent to it.
_SOMEWHERE = "192.0.2.1"


def _open_files(folder: Path) -> list[str]:
    """Return what a process has open. Processes come and go while they are looked at."""
    found = []
    with contextlib.suppress(OSError):
        for link in list((folder / "fd").iterdir()):
            with contextlib.suppress(OSError):
                found.append(str(link.readlink()))
    return found


def _trusting() -> ssl.SSLContext:
    """Return what speaks TLS with anybody."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _sysctl(name: str) -> str:
    """Return a setting of the kernel, empty where it has none of that name."""
    return " ".join(text(f"/proc/sys/{name.replace('.', '/')}").split())


class Machine:
    """Looks at one machine."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._params: dict[str, Any] = module.params
        self._data_dir = Path(self._params["data_dir"])
        self._k3s = self._look_at_k3s()

    def _run(self, *words: str) -> tuple[int, str]:
        return this_machine.run(self._module, *words)

    def _output(self, *words: str) -> str:
        return this_machine.output(self._module, *words)

    def facts(self) -> dict[str, Any]:
        epoch, began = time.time(), time.monotonic()
        look = node_look.look(self._output)
        runs = self._k3s["active"]
        found = {
            **look,
            "route": machine_facts.default_route(self._output("ip", "-json", "route", "get", _SOMEWHERE)),
            "modules": node_look.module_states(self._params["modules"]),
            "sysctls": {name: _sysctl(name) for name in self._params["sysctls"]},
            "epoch": epoch,
            "data": {"path": str(self._data_dir), **node_look.space(self._data_dir)},
            "disks": self._disks(),
            "fsync": None if runs or not self._params["writes"] else self._measure(),
            "k3s": self._k3s,
            "ports": [] if runs else self._ports(),
            "address": self._address(look["interfaces"], runs),
            "sources": self._sources(),
            "join": None if self._k3s["joined"] or not self._params["join_url"] else self._join(),
        }
        return {**found, "seconds": round(time.monotonic() - began, 3)}

    def _look_at_k3s(self) -> dict[str, Any]:
        show = self._output(
            "systemctl", "show", "--property=Id,LoadState,ActiveState,UnitFileState,MainPID", *_UNITS
        )
        unit = k3s_facts.choose(k3s_facts.units(show))
        # What runs counts, and stays readable when its file was replaced.
        program = f"/proc/{unit['main_pid']}/exe" if unit["main_pid"] else k3s_options.BINARY
        installed = ""
        if os.access(program, os.X_OK):
            # It may end, or be no program, at any moment.
            with contextlib.suppress(OSError):
                # k3s's unpacked program does what its name says, so it is called by its own.
                _code, said, _errors = self._module.run_command(
                    ["k3s", "--version"], executable=program, handle_exceptions=False
                )
                installed = k3s_facts.version(str(said))["version"]
        return {
            "unit": unit["name"],
            "active": unit["active"] in ("active", "activating"),
            "version": installed,
            "server_data": (self._data_dir / "server" / "db").is_dir(),
            "agent_data": (self._data_dir / "agent").is_dir(),
            "joined": unit["name"] == "k3s-agent" or Path(_KUBEADM_NODE).exists(),
        }

    def _disks(self) -> dict[str, Any] | None:
        wanted = self._params["disks"]
        if not wanted:
            return None
        return disk_look.look(
            self._run, [disk["device"] for disk in wanted], [disk["mount"] for disk in wanted]
        )

    def _measure(self) -> dict[str, Any]:
        seconds: list[float] = []
        try:
            # It has no name from the beginning where the file system can do that: nothing is ever left.
            with tempfile.TemporaryFile(dir=str(node_look.folder_above(self._data_dir)), buffering=0) as file:
                end = time.monotonic() + _DISK_SECONDS
                while len(seconds) < self._params["writes"] and time.monotonic() < end:
                    file.write(_BLOCK)
                    began = time.monotonic()
                    os.fdatasync(file.fileno())
                    seconds.append(time.monotonic() - began)
        except OSError as error:
            return {**machine_facts.latency([]), "problem": error.strerror or "cannot be written to"}
        return {**machine_facts.latency(seconds), "problem": ""}

    def _ports(self) -> list[dict[str, Any]]:
        wanted = machine_facts.wanted_ports(self._params["ports"])
        tables = {name: text(f"/proc/net/{name}") for name in ("tcp", "tcp6", "udp", "udp6")}
        held = machine_facts.sockets(tables, wanted)
        holders = self._holders({inode for inode in held.values() if inode != "0"}) if held else {}
        return [
            {"protocol": key[0], "port": key[1], **holders.get(inode, {"program": "", "unit": ""})}
            for key, inode in sorted(held.items())
        ]

    def _holders(self, inodes: set[str]) -> dict[str, dict[str, str]]:
        """Return program and unit of the processes that hold these sockets."""
        found: dict[str, dict[str, str]] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            for target in _open_files(folder):
                inode = target[len("socket:[") : -1]
                if target.startswith("socket:[") and inode in inodes:
                    found[inode] = {
                        "program": text(f"{folder}/comm").strip(),
                        "unit": machine_facts.unit_of(text(f"{folder}/cgroup")),
                    }
        return found

    def _address(self, interfaces: list[dict[str, Any]], runs: bool) -> dict[str, str]:
        wanted = self._params["address"]
        if not wanted:
            return {"interface": "", "mac": ""}
        name = machine_facts.interface_for(interfaces, wanted, self._params["interface"])
        mine = any(entry.partition("/")[0] == wanted for link in interfaces for entry in link["addresses"])
        if not name or mine or runs:
            return {"interface": name, "mac": ""}
        mac = next(str(link["mac"]) for link in interfaces if link["name"] == name)
        return {"interface": name, "mac": self._who_has(wanted, name, mac)}

    def _who_has(self, address: str, interface: str, mac: str) -> str:
        """Ask the network who has an address, twice, and return the MAC address of who answers."""
        with (
            contextlib.suppress(OSError, ValueError),
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ARP)) as line,
        ):
            line.bind((interface, _ARP))
            frame = machine_facts.arp_request(bytes.fromhex(mac.replace(":", "")), address)
            for _attempt in range(2):
                line.send(frame)
                end = time.monotonic() + _ANSWER_SECONDS
                while (left := end - time.monotonic()) > 0:
                    ready, _w, _x = select.select([line], [], [], left)
                    answer = machine_facts.arp_answer(line.recv(2048), address) if ready else ""
                    if answer:
                        return answer
        return ""

    def _sources(self) -> list[dict[str, str]]:
        wanted = self._params["version"]
        installs = wanted and self._k3s["version"] != wanted
        sources = [
            source
            for source in self._params["sources"]
            if (installs or source["always"]) and source["architecture"] in ("", platform.machine())
        ]
        if not sources:
            return []
        context = ssl.create_default_context()
        if self._params["ca_pem"]:
            context.load_verify_locations(cadata=self._params["ca_pem"])
        return [
            {
                "name": source["name"],
                "url": source["url"],
                "problem": self._reach(source, context if source["verify"] else _trusting()),
            }
            for source in sources
        ]

    def _open(self, url: str, context: ssl.SSLContext, method: str) -> tuple[int, bytes]:
        """Return status and body. Raises OSError."""
        proxy = self._params["proxy"]
        if machine_facts.bypasses(self._params["no_proxy"], urlsplit(url).hostname or ""):
            proxy = ""
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else {}),
            urllib.request.HTTPSHandler(context=context),
        )
        # The controller lets no other addresses than http and https come here.
        request = urllib.request.Request(url, method=method)  # noqa: S310
        try:
            with opener.open(request, timeout=self._params["timeout"]) as answer:
                return int(answer.status), bytes(answer.read(_ANSWER_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                return int(error.code), b""

    def _reach(self, source: dict[str, Any], context: ssl.SSLContext) -> str:
        scheme, _separator, places = source["url"].partition("://")
        if scheme == "tcp":
            return self._connect(places.split(","))
        try:
            status, _body = self._open(source["url"], context, "HEAD")
        except (OSError, ValueError) as error:
            return machine_facts.why(error)
        if source["file"] and status >= 400:
            return machine_facts.NO_FILE if status == 404 else f"it answers {status}"
        return ""

    def _connect(self, places: list[str]) -> str:
        """Return why none of the places takes a connection, empty when one does."""
        problem = ""
        for place in places:
            parts = urlsplit(f"tcp://{place}")
            try:
                address = (parts.hostname or "", parts.port or 0)
                socket.create_connection(address, timeout=self._params["timeout"]).close()
            except (OSError, ValueError) as error:
                problem = machine_facts.why(error)
            else:
                return ""
        return problem

    def _join(self) -> dict[str, Any]:
        """Return what a cluster tells those who have no right yet: its authority comes this way."""
        # Who it is shows by the digest of its authority, which the controller compares.
        context = _trusting()
        base = self._params["join_url"].rstrip("/")
        found: dict[str, Any] = {
            "problem": "",
            "version": "",
            "authority": "",
            "kubeconfig": "",
            "signatures": {},
            "kubelet": "",
        }
        kubeadm = self._params["join_kind"] == "kubeadm"
        if kubeadm:
            found["kubelet"] = node_look.kubelet_version(self._output)
        path = "/api/v1/namespaces/kube-public/configmaps/cluster-info" if kubeadm else "/cacerts"
        try:
            status, body = self._open(base + path, context, "GET")
        except (OSError, ValueError) as error:
            return {**found, "problem": machine_facts.why(error)}
        if status != 200:
            return {**found, "problem": f"{path} answers {status}"}
        if not kubeadm:
            found["authority"] = body.decode(errors="replace")
        else:
            try:
                data = json.loads(body)["data"]
            except (ValueError, KeyError, TypeError):
                return {**found, "problem": f"{path} holds no cluster"}
            found["kubeconfig"] = str(data.get("kubeconfig", ""))
            found["signatures"] = {
                name[len("jws-kubeconfig-") :]: str(value)
                for name, value in data.items()
                if name.startswith("jws-kubeconfig-")
            }
        with contextlib.suppress(OSError, ValueError, KeyError):
            status, body = self._open(f"{base}/version", context, "GET")
            found["version"] = str(json.loads(body)["gitVersion"]) if status == 200 else ""
        return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **k3s_options.DATA_DIR,
            "ports": {"type": "list", "elements": "str", "default": []},
            "modules": {"type": "list", "elements": "str", "default": []},
            "sysctls": {"type": "list", "elements": "str", "default": []},
            "address": {"type": "str", "default": ""},
            "interface": {"type": "str", "default": ""},
            "version": {"type": "str", "default": ""},
            "disks": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "device": {"type": "str", "required": True},
                    "mount": {"type": "str", "required": True},
                },
            },
            "sources": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "url": {"type": "str", "required": True},
                    "file": {"type": "bool", "default": False},
                    "architecture": {"type": "str", "default": ""},
                    "always": {"type": "bool", "default": False},
                    "verify": {"type": "bool", "default": True},
                },
            },
            "registry": {"type": "bool", "default": True},
            "join_url": {"type": "str", "default": ""},
            "join_kind": {"type": "str", "choices": ["k3s", "kubeadm"], "default": "k3s"},
            "ca_pem": {"type": "str", "default": ""},
            "proxy": {"type": "str", "default": "", "no_log": True},
            "no_proxy": {"type": "str", "default": ""},
            "writes": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="machine_check needs root to see all of a machine: set become: true")
    module.exit_json(changed=False, machine=Machine(module).facts(), problems=[])


if __name__ == "__main__":
    main()
