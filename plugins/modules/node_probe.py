#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_probe
short_description: Look at a machine that is to be a node of a cluster
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Tells in one run all that preparing a machine and its preflight need to know, so that the tasks after it
    act only on what differs.
  - What is not as wanted and cannot be set on the machine is returned as a problem, not as a failure. In a
    container that is all that belongs to the kernel of its host.
  - Needs root, and Linux with systemd.
options:
  packages:
    description:
      - Packages to look for.
    type: list
    elements: str
    default: []
  modules:
    description:
      - Kernel modules to look for.
    type: list
    elements: str
    default: []
  sysctls:
    description:
      - Kernel settings with the values that they should have.
    type: dict
    default: {}
  sysctl_file:
    description:
      - File that holds our settings; a file that is read after it and says otherwise is a problem.
    type: path
    default: /etc/sysctl.d/99-edgeha.conf
  services:
    description:
      - Units of systemd to look at, besides those of firewalls and clocks.
    type: list
    elements: str
    default: []
  files:
    description:
      - Files whose SHA-256 is told. A pattern such as V(/etc/ssl/*.pem) stands for all that match.
    type: list
    elements: path
    default: []
  block_files:
    description:
      - Files whose block between C(# BEGIN) and C(# END) with O(block_name) is told.
    type: list
    elements: path
    default: []
  block_name:
    description:
      - Name that stands in the two marks of our blocks.
    type: str
    default: edgeha.iotedge
  paths:
    description:
      - Folders, which need not exist, whose free space is told.
    type: list
    elements: path
    default: [/var/lib]
extends_documentation_fragment:
  - edgeha.iotedge.read_only
"""

EXAMPLES = r"""
- name: Look at the machine
  edgeha.iotedge.node_probe:
    packages: [open-iscsi, nfs-common]
    modules: [overlay, br_netfilter]
    sysctls:
      net.ipv4.ip_forward: 1
  register: node
"""

RETURN = r"""
problems:
  description: What is not as wanted and cannot be set on this machine; empty when there is nothing.
  returned: always
  type: list
  elements: dict
  contains:
    subject:
      description: What it is about, such as V(sysctl vm.overcommit_memory).
      type: str
      returned: always
    fact:
      description: What is the case.
      type: str
      returned: always
    fix:
      description: What to do about it.
      type: str
      returned: always
node:
  description: The machine.
  returned: always
  type: dict
  contains:
    hostname:
      description: Its host name.
      type: str
      returned: always
    machine_id:
      description: Content of C(/etc/machine-id).
      type: str
      returned: always
    interfaces:
      description: Name, mac and addresses of its interfaces, without loopback.
      type: list
      elements: dict
      returned: always
    os:
      description: id, version, major, name and family (V(debian), V(redhat), or empty) of the distribution.
      type: dict
      returned: always
    kernel:
      description: Its release, architecture, and the kind of container, empty for a real or virtual machine.
      type: dict
      returned: always
    modules:
      description:
        - For each of O(modules) its state, which is V(loaded), V(builtin), V(available) or V(missing),
          whether it is persisted, as_wanted (both), and whether it is loadable on this machine.
      type: dict
      returned: always
    sysctls:
      description:
        - For each of O(sysctls) the values wanted, live and persisted, whether all three are as_wanted,
          whether it is settable on this machine, and the file that it is overridden_by.
      type: dict
      returned: always
    swap:
      description: Swap that is live, in fstab, and in units of systemd, and whether it is settable here.
      type: dict
      returned: always
    cgroups:
      description: Version, controllers, and those that a kubelet needs and that are missing.
      type: dict
      returned: always
    clock:
      description: Its epoch in seconds, whether it is synchronised and by which service, and is settable.
      type: dict
      returned: always
    firewall:
      description:
        - Its kind, which is V(firewalld), V(ufw), V(nftables), V(iptables) or V(none), and the ports and
          source networks that the first two let in for good.
      type: dict
      returned: always
    selinux:
      description: State now, and configured for the next start.
      type: dict
      returned: always
    apparmor:
      description: Whether the kernel enforces AppArmor profiles.
      type: bool
      returned: always
    packages:
      description: Version of each of O(packages), null when it is not installed.
      type: dict
      returned: always
    services:
      description: Units with load, active, enabled and file.
      type: dict
      returned: always
    files:
      description: SHA-256 of each of O(files), null for one that is not there.
      type: dict
      returned: always
    blocks:
      description: What each of O(block_files) holds between our marks, null without them.
      type: dict
      returned: always
    iscsi:
      description: Name of the initiator, empty when there is none.
      type: dict
      returned: always
    nfs:
      description: Whether the client's programs and the kernel's file system are there.
      type: dict
      returned: always
    memory_mib:
      description: Memory in MiB.
      type: int
      returned: always
    cpus:
      description: Processors.
      type: int
      returned: always
    disks:
      description: Whole disks with path, size_bytes, signatures, mounts, parts, and whether they are empty.
      type: list
      elements: dict
      returned: always
    paths:
      description: For each of O(paths) free_bytes, total_bytes and filesystem.
      type: dict
      returned: always
    ports:
      description: Protocol and port of what listens.
      type: list
      elements: dict
      returned: always
    reboot:
      description: Why the machine should start again; empty when it need not, and for a container.
      type: list
      elements: str
      returned: always
"""

import ctypes
import os
import struct
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    node_facts,
    node_look,
    this_machine,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.this_machine import read, text

_UNITS = (
    "firewalld.service",
    "ufw.service",
    "nftables.service",
    "iptables.service",
    "netfilter-persistent.service",
    "chrony.service",
    "chronyd.service",
    "systemd-timesyncd.service",
    "ntpsec.service",
    "iscsid.service",
    "iscsid.socket",
    "multipathd.service",
    "nm-cloud-setup.service",
)
_CLOCK_UNITS = ("chrony.service", "chronyd.service", "systemd-timesyncd.service", "ntpsec.service")
_MODULE_FOLDERS = ("/etc/modules-load.d", "/run/modules-load.d", "/usr/lib/modules-load.d")
_SYSCTL_FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d")
_TIMEX_BYTES = 208
_TIMEX_STATUS = 40
_UNSYNCHRONISED = 0x40


def files_in(*folders: str) -> list[str]:
    return [str(file) for folder in folders for file in sorted(Path(folder).glob("*.conf"))]


class Machine:
    """Reads one machine; each part once."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._params: dict[str, Any] = module.params
        self._container = node_look.container()

    def _output(self, *words: str) -> str:
        return this_machine.output(self._module, *words)

    def facts(self) -> dict[str, Any]:
        look = node_look.look(self._output)
        units = self._units()
        modules = self._modules()
        return {
            **look,
            "modules": modules,
            "sysctls": self._sysctls(modules),
            "swap": {
                "live": node_facts.swaps(text("/proc/swaps")),
                "fstab": node_facts.fstab_swaps(text("/etc/fstab")),
                "units": node_facts.swap_units(units),
                "settable": not self._container,
            },
            "clock": self._clock(units),
            "firewall": self._firewall(units),
            "selinux": node_facts.selinux(read("/sys/fs/selinux/enforce"), text("/etc/selinux/config")),
            "apparmor": text("/sys/module/apparmor/parameters/enabled").strip() == "Y",
            "packages": node_look.packages(self._output, look["os"]["family"], self._params["packages"]),
            "services": units,
            "files": {path: self._digest(path) for path in this_machine.expanded(self._params["files"])},
            "blocks": {
                path: node_facts.managed_block(text(path), self._params["block_name"])
                for path in self._params["block_files"]
            },
            "iscsi": {"initiator": node_facts.initiator(text("/etc/iscsi/initiatorname.iscsi"))},
            "nfs": {
                "client": self._module.get_bin_path("mount.nfs", opt_dirs=["/sbin"]) is not None,
                "kernel": "nfs4" in node_facts.filesystem_names(text("/proc/filesystems"))
                or "nfsv4" in node_look.available_modules(),
            },
            "disks": self._disks(),
            "paths": {path: node_look.space(path) for path in self._params["paths"]},
            "ports": node_facts.listening(
                {name: text(f"/proc/net/{name}") for name in ("tcp", "tcp6", "udp", "udp6")}
            ),
            "reboot": node_facts.reboot_reasons(
                look["kernel"]["release"],
                [folder.parent.name for folder in Path("/lib/modules").glob("*/modules.dep")],
                Path("/run/reboot-required").exists(),
                self._container,
            ),
        }

    def _units(self) -> dict[str, dict[str, str]]:
        properties = "--property=Id,LoadState,ActiveState,UnitFileState,FragmentPath"
        names = [*_UNITS, *self._params["services"], "*.swap"]
        return node_facts.units(self._output("systemctl", "show", properties, *names))

    def _modules(self) -> dict[str, dict[str, Any]]:
        kept = {
            name
            for file in ["/etc/modules", *files_in(*_MODULE_FOLDERS)]
            for name in node_facts.first_words(text(file))
        }
        found = {}
        for name, state in node_look.module_states(self._params["modules"]).items():
            # What is built in is there at every start.
            persisted = state == "builtin" or name.replace("-", "_") in kept
            found[name] = {
                "state": state,
                "persisted": persisted,
                "as_wanted": persisted and state in ("loaded", "builtin"),
                "loadable": state in ("loaded", "available") and not self._container,
            }
        return found

    def _sysctls(self, modules: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        wanted = {name: str(value) for name, value in self._params["sysctls"].items()}
        places = {name: "/proc/sys/" + name.replace(".", "/") for name in wanted}
        live = {name: read(place) for name, place in places.items()}
        bridge = modules.get("br_netfilter", {"loadable": False})["loadable"]
        files = node_facts.sysctl_files([*files_in(*_SYSCTL_FOLDERS), "/etc/sysctl.conf"])
        return node_facts.sysctl_view(
            wanted,
            {name: None if value is None else " ".join(value.split()) for name, value in live.items()},
            node_facts.persisted_sysctls((file, text(file)) for file in files),
            [
                name
                for name, place in places.items()
                if os.access(place, os.W_OK) or (bridge and name.startswith("net.bridge."))
            ],
            bool(self._container),
            self._params["sysctl_file"],
        )

    def _clock(self, units: dict[str, dict[str, str]]) -> dict[str, Any]:
        active = [name for name in _CLOCK_UNITS if units.get(name, {}).get("active") == "active"]
        # adjtimex(2) with no mode bits only reads.
        state = ctypes.create_string_buffer(_TIMEX_BYTES)
        code = ctypes.CDLL(None, use_errno=True).adjtimex(state)
        (status,) = struct.unpack_from("i", state.raw, _TIMEX_STATUS)
        return {
            "epoch": round(time.time(), 3),
            "synchronised": code >= 0 and not status & _UNSYNCHRONISED,
            "service": active[0] if active else "",
            "settable": not self._container,
        }

    def _digest(self, path: str) -> str | None:
        try:
            return this_machine.sha256(path)
        except OSError:
            return None

    def _disks(self) -> list[dict[str, Any]]:
        columns = "NAME,TYPE,SIZE,FSTYPE,PTTYPE,MOUNTPOINT"
        listed = self._output("lsblk", "--json", "--bytes", "--output", columns)
        # A container sees its host's disks; what is on them is not its own, and it may not open them.
        paths = [] if self._container else node_facts.disk_paths(listed)
        return node_facts.disks(
            listed, {path: self._output("wipefs", "--no-act", "--json", path) for path in paths}
        )

    def _firewall(self, units: dict[str, dict[str, str]]) -> dict[str, Any]:
        kind = node_facts.firewall(units, text("/etc/ufw/ufw.conf"))
        ports: list[str] = []
        sources: list[str] = []
        if kind == "ufw":
            ports, sources = node_facts.ufw_opened(text("/etc/ufw/user.rules"))
        elif kind == "firewalld":
            ports = sorted(self._output("firewall-cmd", "--permanent", "--list-ports").split())
            trusted = self._output("firewall-cmd", "--permanent", "--zone=trusted", "--list-sources")
            sources = sorted(trusted.split())
        return {"kind": kind, "ports": ports, "sources": sources}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "default": []},
            "modules": {"type": "list", "elements": "str", "default": []},
            "sysctls": {"type": "dict", "default": {}},
            "sysctl_file": {"type": "path", "default": "/etc/sysctl.d/99-edgeha.conf"},
            "services": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
            "block_files": {"type": "list", "elements": "path", "default": []},
            "block_name": {"type": "str", "default": "edgeha.iotedge"},
            "paths": {"type": "list", "elements": "path", "default": ["/var/lib"]},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="node_probe needs root to see all of a machine: set become: true")
    facts = Machine(module).facts()
    module.exit_json(changed=False, node=facts, problems=node_facts.cannot_be_set(facts))


if __name__ == "__main__":
    main()
