# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads what preflight wants to know of a machine: texts and bytes in, plain data out. It opens no file.

It runs on the machine itself, so it keeps to what Python 3.9 (RHEL 9) knows.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import ssl
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import node_facts

# Why a file cannot be had from a place that answers.
NO_FILE = "it has no such file"
_ETHER_ARP = 0x0806
_ARP_REQUEST, _ARP_REPLY = 1, 2


def wanted_ports(texts: Iterable[str]) -> set[tuple[str, int]]:
    """Return (protocol, port) of each ``6443/tcp``."""
    found = set()
    for text in texts:
        port, _slash, protocol = text.partition("/")
        found.add((protocol or "tcp", int(port)))
    return found


def sockets(tables: Mapping[str, str], wanted: set[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Return the inode of a listening socket for each wanted port that has one; tables as in node_facts."""
    return {
        (protocol, port): inode
        for protocol, port, inode in node_facts.sockets(tables)
        if (protocol, port) in wanted
    }


def unit_of(cgroup: str) -> str:
    """Return the systemd service that a process belongs to by /proc/PID/cgroup, empty without one."""
    for line in cgroup.splitlines():
        for part in reversed(line.split(":", 2)[-1].split("/")):
            if part.endswith(".service"):
                return part
    return ""


def default_route(ip_json: str) -> dict[str, str]:
    """Return interface and source of `ip -json route get ADDRESS`, both empty without a route."""
    try:
        routes = json.loads(ip_json or "[]")
    except ValueError:
        routes = []
    first = routes[0] if routes else {}
    return {"interface": str(first.get("dev", "")), "source": str(first.get("prefsrc", ""))}


def bypasses(no_proxy: str, host: str) -> bool:
    """Whether a host is reached without the proxy: by name, domain, address or network."""
    try:
        number = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        number = None
    for part in no_proxy.split(","):
        entry = part.strip().lower()
        if not entry:
            continue
        if entry == "*" or entry.strip("[]") == host.strip("[]").lower():
            return True
        if number is None:
            if host.lower().endswith("." + entry.lstrip("*").lstrip(".")):
                return True
            continue
        try:
            if number in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False


def arp_request(mac: bytes, address: str) -> bytes:
    """Return a frame that asks who has an address. It comes from nobody, so no neighbour learns anything."""
    head = b"\xff" * 6 + mac + struct.pack("!H", _ETHER_ARP)
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, _ARP_REQUEST)
    return head + body + mac + b"\0" * 4 + b"\0" * 6 + socket.inet_aton(address)


def arp_answer(frame: bytes, address: str) -> str:
    """Return the MAC address of who says that it has the address, empty for any other frame."""
    if len(frame) < 42 or struct.unpack("!H", frame[12:14])[0] != _ETHER_ARP:
        return ""
    if struct.unpack("!H", frame[20:22])[0] != _ARP_REPLY or frame[28:32] != socket.inet_aton(address):
        return ""
    return ":".join(f"{byte:02x}" for byte in frame[22:28])


def interface_for(interfaces: Iterable[Mapping[str, Any]], address: str, named: str) -> str:
    """Return the interface that an address belongs on: the named one, or the one in whose network it is."""
    for link in interfaces:
        if named:
            if link["name"] == named:
                return named
            continue
        for text in link["addresses"]:
            own = ipaddress.ip_interface(text)
            if own.network.num_addresses > 1 and ipaddress.ip_address(address) in own.network:
                return str(link["name"])
    return ""


def latency(seconds: Sequence[float]) -> dict[str, Any]:
    """Return writes, and in milliseconds the median, what nine of ten stay under, and the longest."""
    ordered = sorted(seconds)
    if not ordered:
        return {"writes": 0, "median_ms": 0.0, "p90_ms": 0.0, "max_ms": 0.0}

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 2)

    return {
        "writes": len(ordered),
        "median_ms": at(0.5),
        "p90_ms": at(0.9),
        "max_ms": round(ordered[-1] * 1000, 2),
    }


def why(error: BaseException) -> str:
    """Return in a few words why an address cannot be reached, without what may stand in the address."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its TLS certificate is not trusted ({reason.verify_message})"
    if isinstance(reason, ssl.SSLError):
        return "it does not speak TLS"
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, socket.gaierror):
        return "the name cannot be resolved"
    if isinstance(reason, ConnectionRefusedError):
        return "the connection is refused"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror.lower()
    return type(reason).__name__
