# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What node_prepare left on two machines, seen from outside of Ansible."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host

PROJECT = Path(__file__).resolve().parents[3]
SCENARIO = Path(__file__).resolve().parents[1]
LAB_HOME = Path(os.environ.get("EDGEHA_LAB_HOME") or Path.home() / ".cache" / "edgeha-lab")
INVENTORY = LAB_HOME / "run" / os.environ["EDGEHA_LAB_NAME"] / "inventory" / "hosts.yml"
MOST_EXECUTED = 15


@pytest.fixture(params=["server1", "agent1"])
def machine(request: pytest.FixtureRequest) -> Host:
    return testinfra.get_host(f"ansible://{request.param}?ansible_inventory={INVENTORY}")


def agent() -> Host:
    return testinfra.get_host(f"ansible://agent1?ansible_inventory={INVENTORY}")


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
    assert addresses == {re.findall(r"server1:\n\s+ansible_host: (\S+)", INVENTORY.read_text())[0]}


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
    """Molecule's own check step stays green whatever it finds, so its recap is read here."""
    done = subprocess.run(
        ["ansible-playbook", "--check", "--diff", "converge.yml", "--inventory", "inventory/hosts.yml"],
        cwd=SCENARIO, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": f"{PROJECT}/.collections", "ANSIBLE_FORCE_COLOR": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    recap = re.findall(r"^(\S+)\s*: ok=(\d+)\s+changed=(\d+) .*failed=(\d+)", done.stdout, re.MULTILINE)
    assert {name for name, *_ in recap} == {"server1", "agent1"}
    for name, executed, changed, failed in recap:
        assert (changed, failed) == ("0", "0"), f"{name}: {done.stdout[-3000:]}"
        assert int(executed) <= MOST_EXECUTED
    assert re.search(r"server1 +kernel module iscsi_tcp +not loaded", done.stdout), done.stdout[-3000:]
