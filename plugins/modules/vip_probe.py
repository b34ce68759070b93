#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vip_probe
short_description: Look at what a server has for the address of its cluster
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Tells in one run what keepalived has and does on a server, on which interface the cluster's address
    belongs, and what the firewall lets in, so that the tasks after it act only on what differs.
  - Needs root, and Linux with systemd.
options:
  address:
    description:
      - Address of the cluster. Empty to see what an earlier one has left.
    type: str
    default: ""
  interface:
    description:
      - Interface for the address. Empty for the one in whose subnet it is.
    type: str
    default: ""
  node_address:
    description:
      - The machine's own address, where it has several in that subnet.
    type: str
    default: ""
  packages:
    description:
      - Packages to look for.
    type: list
    elements: str
    default: []
  programs:
    description:
      - Programs that may come from packages of several names, as V(PATH=PACKAGE). Where the program is
        missing, its package is told as missing.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - edgeha.iotedge.read_only
"""

EXAMPLES = r"""
- name: Look at keepalived
  edgeha.iotedge.vip_probe:
    address: 10.7.0.10
    packages: [keepalived]
    programs: [/usr/bin/curl=curl]
  register: look
"""

RETURN = r"""
vip:
  description: What is there.
  returned: always
  type: dict
  contains:
    interface:
      description: Interface on which the address belongs; empty when there is none.
      type: str
      returned: always
    source:
      description: The machine's own address on it.
      type: str
      returned: always
    fact:
      description: Why there is no interface for the address; empty when there is one.
      type: str
      returned: always
    fix:
      description: What to do about it.
      type: str
      returned: always
    held:
      description: Whether this machine has the address now.
      type: bool
      returned: always
    missing:
      description: Packages that are not installed.
      type: list
      elements: str
      returned: always
    family:
      description: V(debian), V(redhat), or empty for another distribution.
      type: str
      returned: always
    leaving:
      description: Whether the server was told to hand the address over and not yet to take part again.
      type: bool
      returned: always
    unit:
      description: C(load), C(active) and C(enabled) of keepalived.service.
      type: dict
      returned: always
    stale:
      description: Whether the configuration was written after the service last read it.
      type: bool
      returned: always
    config:
      description: C(exists), our C(block) (null without one), and whether something C(foreign) is there.
      type: dict
      returned: always
    script:
      description: Text of our check, null when it is not there.
      type: str
      returned: always
    firewall:
      description: C(kind), our C(block) in the rules of ufw, and C(rules) of firewalld that let VRRP in.
      type: dict
      returned: always
"""

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import node_facts, node_look, vip
from ansible_collections.edgeha.iotedge.plugins.module_utils.this_machine import output, read, text

_BLOCK_NAME = "edgeha.iotedge"
_UNITS = (
    vip.UNIT,
    "firewalld.service",
    "nftables.service",
    "iptables.service",
    "netfilter-persistent.service",
)


def missing(module: AnsibleModule, family: str) -> list[str]:
    """Return the packages that are to be installed."""
    packages = module.params["packages"]
    found = node_look.packages(lambda *words: output(module, *words), family, packages)
    programs = [entry.partition("=") for entry in module.params["programs"]]
    return [name for name in packages if not found[name]] + [
        package for path, _separator, package in programs if not Path(path).exists()
    ]


def is_stale(active: bool, unit_changed_us: str) -> bool:
    """Whether the configuration is newer than what the service read when it last started or reloaded."""
    file = Path(vip.CONFIG_FILE)
    if not active or not file.exists() or not unit_changed_us.isdigit():
        return False
    # systemd tells the monotonic clock; that of files is the other one.
    uptime = float((text("/proc/uptime") or "0").split()[0])
    changed = time.time() - (uptime - int(unit_changed_us) / 1e6)
    return file.stat().st_mtime > changed + 0.5


def look(module: AnsibleModule) -> dict[str, Any]:
    interfaces = node_facts.interfaces(output(module, "ip", "-json", "address"))
    address = module.params["address"]
    where, source, fact, fix = "", "", "", ""
    if address:
        try:
            where, source = vip.place(
                interfaces, address, module.params["interface"], module.params["node_address"]
            )
        except vip.PlaceError as error:
            fact, fix = error.fact, error.fix
    properties = (
        "--property=Id,LoadState,ActiveState,UnitFileState,FragmentPath,StateChangeTimestampMonotonic"
    )
    shown = output(module, "systemctl", "show", properties, *_UNITS)
    units = node_facts.units(shown)
    unit = units.get(vip.UNIT, {"load": "not-found", "active": "inactive", "enabled": ""})
    changed = node_facts.unit_properties(shown).get(vip.UNIT, {}).get("StateChangeTimestampMonotonic", "")
    config = read(vip.CONFIG_FILE)
    family = node_look.os_release()["family"]
    kind = node_facts.firewall(units, text("/etc/ufw/ufw.conf"))
    listed = output(module, "firewall-cmd", "--permanent", "--list-rich-rules") if kind == "firewalld" else ""
    return {
        "interface": where,
        "source": source,
        "fact": fact,
        "fix": fix,
        "held": any(f"{address}/32" in link["addresses"] for link in interfaces),
        "family": family,
        "leaving": Path(vip.LEAVING_FILE).exists(),
        "missing": missing(module, family),
        "unit": {name: unit[name] for name in ("load", "active", "enabled")},
        "stale": is_stale(unit["active"] == "active", changed),
        "config": {
            "exists": config is not None,
            "block": node_facts.managed_block(config or "", _BLOCK_NAME),
            "foreign": vip.foreign(config or "", _BLOCK_NAME),
        },
        "script": read(vip.SCRIPT_FILE),
        "firewall": {
            "kind": kind,
            "block": node_facts.managed_block(text(vip.UFW_FILE), _BLOCK_NAME),
            "rules": vip.our_rules(listed),
        },
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "default": ""},
            "interface": {"type": "str", "default": ""},
            "node_address": {"type": "str", "default": ""},
            "packages": {"type": "list", "elements": "str", "default": []},
            "programs": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, vip=look(module))


if __name__ == "__main__":
    main()
