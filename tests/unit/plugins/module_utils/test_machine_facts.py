# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
import ssl
import urllib.error

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import machine_facts

TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode
   0: 00000000:192B 00000000:0000 0A 00000000:00000000 0 0 0 0 4711 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 0 0 0 0 4712 1 0 100 0 0 10 0
   2: 0100007F:192B 0100007F:9999 01 00000000:00000000 0 0 0 0 4713 1 0 100 0 0 10 0
"""
UDP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode ref
   5: 00000000:2118 00000000:0000 07 00000000:00000000 0 0 0 0 0 2 0 0
"""
LINKS = [{"name": "eth0", "addresses": ["10.7.0.11/24"]}, {"name": "eth1", "addresses": ["10.8.0.11/32"]}]


def test_only_wanted_ports_that_are_listened_on() -> None:
    wanted = machine_facts.wanted_ports(["6443/tcp", "8472/udp", "10250"])
    assert wanted == {("tcp", 6443), ("udp", 8472), ("tcp", 10250)}
    assert machine_facts.sockets({"tcp": TCP, "udp6": UDP, "tcp6": ""}, wanted) == {
        ("tcp", 6443): "4711",
        ("udp", 8472): "0",
    }


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/nginx.service\n", "nginx.service"),
        ("3:cpu:/\n1:name=systemd:/system.slice/k3s.service/init\n", "k3s.service"),
        ("0::/user.slice/user-0.slice/session-1.scope\n", ""),
        ("", ""),
    ],
)
def test_unit_of_a_process(cgroup: str, unit: str) -> None:
    assert machine_facts.unit_of(cgroup) == unit


def test_way_out() -> None:
    told = '[{"dst": "192.0.2.1", "dev": "eth0", "prefsrc": "10.7.0.11"}]'
    assert machine_facts.default_route(told) == {"interface": "eth0", "source": "10.7.0.11"}
    assert machine_facts.default_route("") == {"interface": "", "source": ""}
    assert machine_facts.default_route("none") == {"interface": "", "source": ""}


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("", "mirror.example.org", False),
        ("*", "mirror.example.org", True),
        ("mirror.example.org", "mirror.example.org", True),
        (".example.org", "mirror.example.org", True),
        ("example.org", "mirror.example.org", True),
        ("ample.org", "mirror.example.org", False),
        ("10.0.0.0/8, fd00::/8", "10.7.0.1", True),
        ("10.0.0.0/8", "[fd00::1]", False),
        ("fd00::/8", "[fd00::1]", True),
        ("example.org", "10.7.0.1", False),
    ],
)
def test_what_goes_without_the_proxy(no_proxy: str, host: str, direct: bool) -> None:
    assert machine_facts.bypasses(no_proxy, host) is direct


def test_asking_who_has_an_address() -> None:
    mine, other = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
    frame = machine_facts.arp_request(mine, "10.7.0.10")
    assert len(frame) == 42
    assert machine_facts.arp_answer(frame, "10.7.0.10") == ""
    address = socket.inet_aton("10.7.0.10")
    reply = mine + other + frame[12:20] + b"\x00\x02" + other + address + mine + b"\0" * 4
    assert machine_facts.arp_answer(reply, "10.7.0.10") == "02:00:00:00:00:02"
    assert machine_facts.arp_answer(reply, "10.7.0.11") == ""
    assert machine_facts.arp_answer(b"short", "10.7.0.10") == ""


def test_interface_of_an_address() -> None:
    assert machine_facts.interface_for(LINKS, "10.7.0.10", "") == "eth0"
    assert machine_facts.interface_for(LINKS, "10.7.0.10", "eth1") == "eth1"
    assert machine_facts.interface_for(LINKS, "10.8.0.11", "") == ""
    assert machine_facts.interface_for(LINKS, "10.7.0.10", "eth7") == ""


def test_latency() -> None:
    assert machine_facts.latency([0.001] * 9 + [0.5]) == {
        "writes": 10,
        "median_ms": 1.0,
        "p90_ms": 500.0,
        "max_ms": 500.0,
    }
    assert machine_facts.latency([])["writes"] == 0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (urllib.error.URLError(ConnectionRefusedError()), "the connection is refused"),
        (urllib.error.URLError(socket.gaierror(-2, "x")), "the name cannot be resolved"),
        (TimeoutError(), "no answer in time"),
        (urllib.error.URLError(ssl.SSLError(1, "wrong version")), "it does not speak TLS"),
        (urllib.error.URLError(OSError(113, "No route to host")), "no route to host"),
        (ValueError("https://user:password@host"), "ValueError"),
    ],
)
def test_why_an_address_cannot_be_reached(error: Exception, words: str) -> None:
    assert machine_facts.why(error) == words
