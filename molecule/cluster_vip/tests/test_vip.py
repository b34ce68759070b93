# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One address for three servers: one holds it, another takes it, and nobody takes it from one that works.

How long the API did not answer at the address is printed as JSON and judged by no test.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
import machines
from machines import INVENTORY, LAB, PROJECT, machine
from watch import Target, Watch

SERVERS = {name: address for name, address in machines.addresses().items() if name.startswith("server")}
VIP = machines.vip()
LIMIT = 120.0


def holders() -> list[str]:
    return [name for name in SERVERS if f"{VIP}/32" in machine(name).check_output("ip -4 -brief address")]


def wait_for(what: str, condition: Any) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"no {what} in {LIMIT} s"
        time.sleep(0.5)


def the_holder() -> str:
    wait_for("single holder", lambda: len(holders()) == 1)
    return holders()[0]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    kubeconfig = machine("server1").check_output("cat /etc/rancher/k3s/k3s.yaml")
    return machines.administrator(kubeconfig, tmp_path_factory.mktemp("keys"))


@contextmanager
def probe(context: ssl.SSLContext) -> Iterator[Watch]:
    """Ask the API at the address, from when it answers until it answers again."""
    target = Target(f"https://{VIP}:6443/readyz", context)
    wait_for(f"answer at {VIP}", target.answers)
    with Watch(api=target) as watch:
        yield watch
        wait_for(f"answer at {VIP}", target.answers)


def handover(name: str, state: str) -> dict[str, Any]:
    words = ["ansible", name, "--inventory", str(INVENTORY), "--module-name", "edgeha.iotedge.vip_handover"]
    done = subprocess.run(
        [*words, "--args", f"address={VIP} state={state} limit=60"],
        cwd=PROJECT, capture_output=True, text=True, timeout=120, check=True,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": f"{PROJECT}/.collections",
             "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1"},
    )  # fmt: skip
    answer = json.loads(done.stdout[done.stdout.index("{\n") :])
    found: dict[str, Any] = answer["plays"][0]["tasks"][0]["hosts"][name]
    return found


@pytest.fixture
def healthy() -> Iterator[None]:
    """Every server's check says yes before a test takes one away, and after it."""
    check = "/usr/libexec/keepalived/edgeha-vip-check"
    wait_for("healthy servers", lambda: all(machine(name).run(check).rc == 0 for name in SERVERS))
    yield
    wait_for("healthy servers", lambda: all(machine(name).run(check).rc == 0 for name in SERVERS))


def test_one_server_holds_the_address() -> None:
    assert the_holder() in SERVERS


def test_servers_speak_to_each_other_only() -> None:
    for name, address in SERVERS.items():
        text = machine(name).file("/etc/keepalived/keepalived.conf").content_string
        assert f"unicast_src_ip {address}" in text
        assert set(re.findall(r"^        (\S+)$", text, re.MULTILINE)) >= set(SERVERS.values()) - {address}
        assert "virtual_router_id 250" in text
        assert "auth_pass" not in text


@pytest.mark.usefixtures("healthy")
def test_a_server_that_leaves_on_purpose(context: ssl.SSLContext) -> None:
    before = the_holder()
    with probe(context) as watch:
        result = handover(before, "away")
        assert (result["held"], result["moved"]) == (True, True)
        after = the_holder()
        assert after != before
        machine(before).check_output("systemctl restart k3s")
    watch.say("handover and restart of k3s")
    assert handover(before, "back")["changed"]
    assert the_holder() == after


@pytest.mark.usefixtures("healthy")
def test_a_server_whose_k3s_dies(context: ssl.SSLContext) -> None:
    before = the_holder()
    with probe(context) as watch:
        machine(before).check_output("systemctl kill --signal=KILL k3s; systemctl stop k3s")
        wait_for("other holder", lambda: holders() not in ([], [before]))
    watch.say("k3s killed")
    machine(before).check_output("systemctl start k3s")
    # It does not come back by itself.
    after = the_holder()
    assert after != before


@pytest.mark.usefixtures("healthy")
def test_a_server_whose_power_is_cut(context: ssl.SSLContext) -> None:
    before = the_holder()
    lab = [str(PROJECT / "lab" / "lab"), "--name", LAB, "fault"]
    others = [name for name in SERVERS if name != before]
    try:
        with probe(context) as watch:
            subprocess.run([*lab, "power", before], check=True, capture_output=True, timeout=60)
            command = "ip -4 -brief address"
            wait_for(
                "other holder",
                lambda: any(f"{VIP}/32" in machine(name).check_output(command) for name in others),
            )
        watch.say("power cut")
    finally:
        subprocess.run([*lab, "heal", before], check=True, capture_output=True, timeout=120)


@pytest.mark.usefixtures("healthy")
def test_check_mode_on_finished_servers_finds_nothing_to_change() -> None:
    done = machines.play("../shared/converge.yml", "--check", "--diff")
    assert set(machines.nothing_to_change(done)) >= set(SERVERS)
