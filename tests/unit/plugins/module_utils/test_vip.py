# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the address of a cluster belongs, and what of it differs on a server."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import vip

LINKS = [
    {"name": "eth0", "addresses": ["10.7.0.11/24", "fe80::1/64"]},
    {"name": "eth1", "addresses": ["192.168.9.11/24"]},
    {"name": "flannel.1", "addresses": ["10.42.0.0/32"]},
]


def test_the_interface_is_the_one_in_whose_subnet_the_address_is() -> None:
    assert vip.place(LINKS, "10.7.0.10") == ("eth0", "10.7.0.11")
    assert vip.place(LINKS, "192.168.9.10") == ("eth1", "192.168.9.11")
    # Who holds the address has it as a lone address, which says nothing of a subnet.
    held = [{"name": "eth0", "addresses": ["10.7.0.10/32", "10.7.0.11/24"]}]
    assert vip.place(held, "10.7.0.10") == ("eth0", "10.7.0.11")


def test_what_the_operator_sets_comes_first() -> None:
    assert vip.place(LINKS, "10.7.0.10", interface="eth1") == ("eth1", "192.168.9.11")
    several = [{"name": "eth0", "addresses": ["10.7.0.11/24", "10.7.0.21/24"]}]
    assert vip.place(several, "10.7.0.10", node_address="10.7.0.21") == ("eth0", "10.7.0.21")


@pytest.mark.parametrize(
    ("address", "interface", "fact"),
    [
        ("10.9.0.10", "", "no interface is in the subnet of 10.9.0.10; there are eth0 10.7.0.0/24"),
        ("10.7.0.10", "eth7", "the interface eth7 is not there; there are eth0, eth1, flannel.1"),
        ("10.7.0.10", "flannel.1", "flannel.1 has no IPv4 address"),
        ("10.7.0.11", "", "10.7.0.11 is the machine's own address on eth0"),
    ],
)
def test_an_address_that_belongs_nowhere(address: str, interface: str, fact: str) -> None:
    with pytest.raises(vip.PlaceError, match=fact) as caught:
        vip.place(LINKS, address, interface)
    assert caught.value.fix


def test_vrrp_id_is_the_last_number() -> None:
    assert [vip.router_id(text) for text in ("10.7.0.10", "10.7.0.255", "10.7.1.0")] == [10, 255, 255]


def test_servers_speak_to_each_other_only() -> None:
    text = vip.block("10.7.0.10", "eth0", "10.7.0.11", ["10.7.0.13", "10.7.0.9", "10.7.0.11"])
    assert (
        "    unicast_src_ip 10.7.0.11\n    unicast_peer {\n        10.7.0.9\n        10.7.0.13\n    }" in text
    )
    assert "        10.7.0.10/32 dev eth0" in text
    assert "auth" not in text
    # Without others there is nobody to name.
    assert "unicast" not in vip.block("10.7.0.10", "eth0", "10.7.0.11", [])


def test_no_two_servers_take_the_address_together() -> None:
    servers = ["10.7.0.13", "10.7.0.9", "10.7.0.11"]
    found = {own: vip.priority(own, servers) for own in servers}
    assert found == {"10.7.0.9": 254, "10.7.0.11": 229, "10.7.0.13": 204}
    text = vip.block("10.7.0.10", "eth0", "10.7.0.11", servers)
    assert "    priority 229\n    nopreempt\n" in text
    # VRRP knows 1 to 254; 255 is for whoever owns the address.
    many = [f"10.7.0.{number}" for number in range(1, 30)]
    assert len({vip.priority(own, many) for own in many}) == len(many)
    assert all(1 <= vip.priority(own, many) <= 254 for own in many)


def test_the_check_is_a_script_of_sh_with_a_limit(tmp_path: Path) -> None:
    file = tmp_path / "check"
    file.write_text(vip.check_script("/var/lib/rancher/k3s", 6443, 9345))
    assert subprocess.run(["sh", "-n", file], check=False).returncode == 0
    text = file.read_text()
    assert "--max-time 2" in text
    assert "https://127.0.0.1:6443/readyz" in text
    assert "https://127.0.0.1:9345/cacerts" in text
    assert max(map(len, text.splitlines())) < 120


WANTED = {
    "address": "10.7.0.10",
    "peers": {"gw2": "10.7.0.12", "gw1": "10.7.0.11"},
    "data_dir": "/var/lib/rancher/k3s",
    "api_port": 6443,
    "join_port": 6443,
    "firewall": True,
}


def machine(**changes: Any) -> dict[str, Any]:
    """A server on which nothing is set up yet."""
    return {
        "interface": "eth0", "source": "10.7.0.11", "fact": "", "fix": "", "held": False, "family": "debian",
        "missing": ["keepalived"], "leaving": False, "stale": False, "script": None,
        "unit": {"load": "not-found", "active": "inactive", "enabled": ""},
        "config": {"exists": False, "block": None, "foreign": False},
        "firewall": {"kind": "none", "block": None, "rules": []},
        **changes,
    }  # fmt: skip


def finished(**changes: Any) -> dict[str, Any]:
    plan = vip.plan(machine(), WANTED)
    return machine(
        **{
            "missing": [],
            "script": plan["script"],
            "unit": {"load": "loaded", "active": "active", "enabled": "enabled"},
            "config": {"exists": True, "block": plan["block"], "foreign": False},
            **changes,
        }
    )


def test_bare_server_needs_everything_and_no_reload() -> None:
    plan = vip.plan(machine(), WANTED)
    assert plan["act"]
    assert plan["install"] == ["keepalived"]
    assert plan["write_config"]
    assert plan["write_script"]
    assert plan["start"]
    assert not plan["reload"]
    assert plan["ufw"] is None
    # The server itself is no peer of its own.
    assert "10.7.0.12" in plan["block"]
    assert "        10.7.0.11\n" not in plan["block"]


def test_finished_server_needs_nothing() -> None:
    plan = vip.plan(finished(), WANTED)
    assert not plan["act"]
    assert not plan["remove"]


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"stale": True}, "reload"),
        ({"config": {"exists": True, "block": "old", "foreign": True}}, "reload"),
        ({"script": "old"}, "write_script"),
        ({"leaving": True}, "come_back"),
        ({"unit": {"load": "loaded", "active": "failed", "enabled": "enabled"}}, "start"),
        ({"unit": {"load": "loaded", "active": "active", "enabled": "disabled"}}, "start"),
        ({"firewall": {"kind": "firewalld", "block": None, "rules": []}}, "rules"),
        ({"firewall": {"kind": "ufw", "block": None, "rules": []}}, "ufw"),
    ],
)
def test_each_difference_has_its_step(changes: dict[str, Any], step: str) -> None:
    plan = vip.plan(finished(**changes), WANTED)
    assert plan["act"]
    assert plan[step]


def test_a_changed_check_is_no_reason_to_reload() -> None:
    assert not vip.plan(finished(script="old"), WANTED)["reload"]


def test_firewalls_let_in_the_other_servers_only() -> None:
    ufw = vip.plan(finished(firewall={"kind": "ufw", "block": None, "rules": []}), WANTED)["ufw"]
    assert ufw == "-A ufw-before-input -p 112 -s 10.7.0.12 -j ACCEPT"
    assert not vip.plan(finished(firewall={"kind": "ufw", "block": ufw, "rules": []}), WANTED)["act"]
    gone = 'rule family="ipv4" source address="10.7.0.19" protocol value="vrrp" accept'
    plan = vip.plan(finished(firewall={"kind": "firewalld", "block": None, "rules": [gone]}), WANTED)
    assert plan["rules"] == vip.rich_rules(["10.7.0.12"])
    assert plan["rules_gone"] == [gone]
    assert not vip.plan(
        finished(firewall={"kind": "firewalld", "block": None, "rules": [gone]}),
        {**WANTED, "firewall": False},
    )["act"]


def test_listed_rules_of_others_are_not_ours() -> None:
    ours = vip.rich_rules(["10.7.0.12"])
    listed = "\n".join(
        [*ours, 'rule protocol value="esp" accept', 'rule family="ipv4" service name="ssh" accept']
    )
    assert vip.our_rules(listed) == ours


def test_problems_name_the_fix() -> None:
    lost = machine(interface="", source="", fact="no interface", fix="correct it")
    assert vip.plan(lost, WANTED)["problems"] == [
        {"subject": "edge_cluster_vip", "fact": "no interface", "fix": "correct it"}
    ]
    plan = vip.plan(machine(), {**WANTED, "peers": {"gw2": "gw2.plant.test"}})
    assert plan["problems"][0]["fix"] == "set edge_node_ip of gw2"
    assert not plan["act"]


def test_taking_the_address_away() -> None:
    nothing = {**WANTED, "address": ""}
    assert not vip.plan(machine(), nothing)["act"]
    plan = vip.plan(finished(), nothing)
    assert plan["act"]
    assert plan["remove"]
    assert plan["stop"]
    assert not plan["reload"]
    # What somebody else has in the file goes on running.
    config = {**finished()["config"], "foreign": True}
    plan = vip.plan(finished(config=config), nothing)
    assert plan["reload"]
    assert not plan["stop"]


def test_comments_and_our_block_are_nothing_foreign() -> None:
    ours = "! note\n# BEGIN edgeha.iotedge\nvrrp_instance a {\n}\n# END edgeha.iotedge\n\n"
    assert not vip.foreign(ours, "edgeha.iotedge")
    assert vip.foreign(ours + "vrrp_instance b {\n}\n", "edgeha.iotedge")
