# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The address of a cluster, held by one of its servers through keepalived: what is to be there. Pure.

All servers start as backups, and nobody takes the address from a server that works (nopreempt), so it does
not come back to a server that returns. A server that is about to stop on purpose lets go through a file, and
one whose check fails does so too: both say it to the others, and that with the highest priority is next.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CONFIG_FILE = "/etc/keepalived/keepalived.conf"
# keepalived's own folder for scripts: SELinux lets it run what is in there.
SCRIPT_FILE = "/usr/libexec/keepalived/edgeha-vip-check"
LEAVING_FILE = "/run/edgeha-vip-leaving"
UFW_FILE = "/etc/ufw/before.rules"
UNIT = "keepalived.service"
# A backup waits (256 - priority) / 256 s after a server has said that it lets go (RFC 5798, skew time).
# Servers that wait equally long take the address together, and neighbours believe the one that gives it back.
_HIGHEST = 254
_DISTANCE = 25
_LOWEST = 4
_VRRP = 112
_STEPS = ("install", "write_script", "write_config", "rules", "rules_gone", "come_back", "start", "reload")


class PlaceError(ValueError):
    """No interface for the address. fact and fix as in a problem."""

    def __init__(self, fact: str, fix: str) -> None:
        super().__init__(f"{fact}: {fix}")
        self.fact = fact
        self.fix = fix


def router_id(address: str) -> int:
    """Return the VRRP id (1 to 255) of an address: its last number, so that it is known on sight."""
    return int(address.rpartition(".")[2]) or 255


def priority(source: str, others: Iterable[str]) -> int:
    """Return the VRRP priority (4 to 254) of a server: each has its own, by the order of the addresses."""
    everybody = sorted({source, *others}, key=ipaddress.IPv4Address)
    distance = min(_DISTANCE, (_HIGHEST - _LOWEST) // max(len(everybody) - 1, 1))
    return _HIGHEST - distance * everybody.index(source)


def place(
    interfaces: Sequence[Mapping[str, Any]], address: str, interface: str = "", node_address: str = ""
) -> tuple[str, str]:
    """Return the interface for the address, and the machine's own address on it.

    interfaces: as ``node_facts.interfaces`` tells them. interface, node_address: what the operator set.
    Raises PlaceError.
    """
    wanted = ipaddress.IPv4Address(address)
    found: list[tuple[str, ipaddress.IPv4Interface]] = []
    for link in interfaces:
        for text in link["addresses"]:
            if ":" in text:
                continue
            own = ipaddress.IPv4Interface(text)
            # A lone address is one that somebody added, such as ours.
            if own.network.prefixlen == 32:
                continue
            if own.ip == wanted:
                raise PlaceError(
                    f"{address} is the machine's own address on {link['name']}",
                    "set edge_cluster_vip to an address of the subnet that nobody has",
                )
            found.append((str(link["name"]), own))
    if interface:
        if interface not in {link["name"] for link in interfaces}:
            names = ", ".join(str(link["name"]) for link in interfaces) or "none"
            raise PlaceError(
                f"the interface {interface} is not there; there are {names}",
                "correct edge_cluster_vip_interface",
            )
        found = [(name, own) for name, own in found if name == interface]
        if not found:
            raise PlaceError(
                f"the interface {interface} has no IPv4 address",
                "give it one, or correct edge_cluster_vip_interface",
            )
    inside = [(name, own) for name, own in found if wanted in own.network]
    candidates = inside or (found if interface else [])
    if not candidates:
        networks = ", ".join(f"{name} {own.network}" for name, own in found) or "none"
        raise PlaceError(
            f"no interface is in the subnet of {address}; there are {networks}",
            "correct edge_cluster_vip, or set edge_cluster_vip_interface",
        )
    for name, own in candidates:
        if node_address and str(own.ip) == node_address:
            return name, node_address
    return candidates[0][0], str(candidates[0][1].ip)


def block(address: str, interface: str, source: str, peers: Iterable[str]) -> str:
    """Return our part of keepalived's configuration, which may stand beside parts of others."""
    others = sorted(set(peers) - {source}, key=ipaddress.IPv4Address)
    lines = [
        "global_defs {",
        "    enable_script_security",
        "    script_user root",
        "}",
        "vrrp_script edgeha_api {",
        f'    script "{SCRIPT_FILE}"',
        "    user root",
        "    interval 2",
        "    timeout 5",
        "    fall 2",
        "    rise 2",
        "    init_fail",
        "}",
        "track_file edgeha_leaving {",
        f'    file "{LEAVING_FILE}"',
        # Anything but 0 in it is a failure.
        "    weight 0",
        "}",
        "vrrp_instance edgeha {",
        "    state BACKUP",
        f"    interface {interface}",
        f"    virtual_router_id {router_id(address)}",
        f"    priority {priority(source, others)}",
        "    nopreempt",
        "    advert_int 1",
        "    garp_master_refresh 60",
    ]
    if others:
        lines += [f"    unicast_src_ip {source}", "    unicast_peer {"]
        lines += [f"        {peer}" for peer in others]
        lines += ["    }"]
    lines += [
        "    virtual_ipaddress {",
        f"        {address}/32 dev {interface}",
        "    }",
        "    track_script {",
        "        edgeha_api",
        "    }",
        "    track_file {",
        "        edgeha_leaving",
        "    }",
        "}",
    ]
    return "\n".join(lines)


def check_script(data_dir: str, api_port: int, join_port: int) -> str:
    """Return the script that keepalived asks; it takes two seconds for each of the two at the most.

    The API allows nothing without a name, so the script shows the certificate that the server keeps for root.
    """
    tls = f"{data_dir}/server/tls"
    return "\n".join(
        [
            "#!/bin/sh",
            "# Written by edgeha.iotedge. Whether this server may hold the cluster's address: its API is",
            "# ready, and a machine could join through it.",
            "exec /usr/bin/curl --disable --silent --fail --fail-early --max-time 2 --noproxy '*' \\",
            f"  --cacert '{tls}/server-ca.crt' \\",
            f"  --cert '{tls}/client-admin.crt' --key '{tls}/client-admin.key' \\",
            f"  --output /dev/null https://127.0.0.1:{api_port}/readyz \\",
            f"  --output /dev/null https://127.0.0.1:{join_port}/cacerts",
            "",
        ]
    )


def ufw_block(peers: Iterable[str]) -> str:
    """Return rules for ufw's file of rules, because its command does not know VRRP everywhere."""
    return "\n".join(f"-A ufw-before-input -p {_VRRP} -s {peer} -j ACCEPT" for peer in peers)


def rich_rules(peers: Iterable[str]) -> list[str]:
    """Return rules for firewalld, as it lists them itself."""
    return [f'rule family="ipv4" source address="{peer}" protocol value="vrrp" accept' for peer in peers]


def plan(look: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be done on a server.

    look:   what the module ``vip_probe`` tells as ``vip``.
    wanted: address (empty: there is to be none), peers, data_dir, api_port, join_port, firewall (whether
            firewalls are opened).

    problems:   (fact, fix) of what keeps the address from being set up.
    act:        whether anything differs; remove: whether something of ours is left that must go.
    block, script: texts as they are to be. write_config, write_script, install, start, reload: what differs.
    ufw:        rules for ufw's file, None when they are as wanted. rules, rules_gone: for firewalld.
    """
    if not wanted["address"]:
        return _removal(look)
    if look["fact"]:
        return {
            "act": False,
            "remove": False,
            "problems": [{"subject": "edge_cluster_vip", "fact": look["fact"], "fix": look["fix"]}],
        }
    peers, problems = [], []
    for name, peer in sorted(wanted["peers"].items()):
        if not _is_ipv4(peer):
            fix = f"set edge_node_ip of {name}"
            problems.append({"subject": name, "fact": f"its address is not known ({peer})", "fix": fix})
        elif peer != look["source"]:
            peers.append(peer)
    if problems:
        return {"act": False, "remove": False, "problems": problems}
    peers.sort(key=ipaddress.IPv4Address)
    text = block(wanted["address"], look["interface"], look["source"], peers)
    script = check_script(wanted["data_dir"], wanted["api_port"], wanted["join_port"])
    kind = look["firewall"]["kind"] if wanted["firewall"] else ""
    rules = rich_rules(peers) if kind == "firewalld" else []
    there = look["firewall"]["rules"]
    ufw = ufw_block(peers)
    write_config = look["config"]["block"] != text
    active = look["unit"]["active"] == "active"
    answer = {
        "problems": [],
        "remove": False,
        "block": text,
        "script": script,
        "install": look["missing"],
        "write_script": look["script"] != script,
        "write_config": write_config,
        "ufw": ufw if kind == "ufw" and (look["firewall"]["block"] or "") != ufw else None,
        "rules": [rule for rule in rules if rule not in there],
        "rules_gone": [rule for rule in there if rule not in rules] if kind == "firewalld" else [],
        # An operation that was interrupted has left it.
        "come_back": look["leaving"],
        "start": not active or look["unit"]["enabled"] != "enabled",
        "reload": active and (write_config or look["stale"]),
    }
    answer["act"] = any(answer[name] for name in _STEPS)
    answer["act"] = answer["act"] or answer["ufw"] is not None
    return answer


def _removal(look: Mapping[str, Any]) -> dict[str, Any]:
    there = look["firewall"]["rules"]
    left = [look["config"]["block"] is not None, look["script"] is not None]
    left += [look["firewall"]["block"] is not None, bool(there)]
    return {
        "problems": [],
        "act": any(left),
        "remove": any(left),
        "rules_gone": there,
        # What others wrote into the configuration goes on running.
        "stop": not look["config"]["foreign"] and look["unit"]["load"] == "loaded",
        "reload": look["config"]["foreign"] and look["unit"]["active"] == "active",
    }


def our_rules(listed: str) -> list[str]:
    """Return those of `firewall-cmd --list-rich-rules` that let VRRP in from a machine."""
    marks = ('rule family="ipv4" source address="', '" protocol value="vrrp" accept')
    return sorted(
        line.strip()
        for line in listed.splitlines()
        if line.strip().startswith(marks[0]) and line.strip().endswith(marks[1])
    )


def foreign(text: str, name: str) -> bool:
    """Whether a configuration holds anything besides comments and our block."""
    inside = False
    for line in text.splitlines():
        if line == f"# BEGIN {name}":
            inside = True
        elif line == f"# END {name}":
            inside = False
        elif not inside and line.strip() and not line.lstrip().startswith(("#", "!")):
            return True
    return False


def _is_ipv4(text: Any) -> bool:
    try:
        ipaddress.IPv4Address(str(text))
    except ValueError:
        return False
    return True
