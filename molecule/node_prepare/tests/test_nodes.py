# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What node_prepare left on two machines, seen from outside of Ansible."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from testinfra.host import Host

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
import machines

MOST_EXECUTED = 15


@pytest.fixture(params=["server1", "agent1"])
def machine(request: pytest.FixtureRequest) -> Host:
    return machines.machine(request.param)


def agent() -> Host:
    return machines.machine("agent1")


def test_packages_are_installed(machine: Host) -> None:
    for name in ("conntrack", "ethtool", "nfs-common", "open-iscsi", "socat"):
        assert machine.package(name).is_installed, name


def test_no_swap_at_start(machine: Host) -> None:
    assert "swap" not in machine.file("/etc/fstab").content_string


def test_forwarding_is_on_now_and_at_start(machine: Host) -> None:
    assert machine.sysctl("net.ipv4.ip_forward") == 1
    assert "net.ipv4.ip_forward=1" in machine.file("/etc/sysctl.d/99-edgeha.conf").content_string


def test_settings_of_the_host_are_left_alone(machine: Host) -> None:
    assert "vm." not in machine.file("/etc/sysctl.d/99-edgeha.conf").content_string


def test_machines_know_each_other_by_name(machine: Host) -> None:
    lines = machine.check_output("getent ahostsv4 server1.plant07.test").splitlines()
    addresses = {line.split()[0] for line in lines}
    assert addresses == {machines.addresses()["server1"]}


def test_the_nfs_client_starts(machine: Host) -> None:
    unit = machine.service("nfs-client.target")
    assert unit.is_running
    assert unit.is_enabled


def test_multipath_and_firewall_of_the_one_that_has_them() -> None:
    assert 'vendor "IET"' in agent().file("/etc/multipath/conf.d/edgeha.conf").content_string
    status = agent().check_output("ufw status")
    for rule in ("6443/tcp", "2379:2380/tcp", "8472/udp", "10.42.0.0/16"):
        assert re.search(rf"(^|\s){re.escape(rule)}\s", status), status


def test_check_mode_on_finished_machines_changes_nothing_and_executes_little() -> None:
    done = machines.play("converge.yml", "--check", "--diff", inventory="inventory/hosts.yml")
    rows = machines.nothing_to_change(done)
    assert set(rows) == {"server1", "agent1"}
    assert all(row.executed <= MOST_EXECUTED for row in rows.values()), done.stdout[-3000:]
    assert re.search(r"server1 +kernel module iscsi_tcp +not loaded", done.stdout), done.stdout[-3000:]
