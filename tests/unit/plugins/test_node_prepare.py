# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What node_prepare decides on machines that the lab cannot be: other systems, swap, a newer kernel."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.edgeha.iotedge.plugins.module_utils import kubeadm_rules

from tests.mapping import mapping
from tests.unit.plugins.playbook import run_play

ROOT = Path(__file__).resolve().parents[3]
ROLE = ROOT / "roles" / "node_prepare"
DECISIONS = [
    "is_known", "missing_packages", "swap_units", "modules_to_load", "sysctls_to_set", "sets_clock",
    "ntp_block", "hosts_block", "reboot_reasons", "problems", "ufw_ports", "trust_changes", "trust_text",
    "trust_differs", "todo",
]  # fmt: skip


TRUST_LIST = "/etc/edgeha/trusted"
MULTIPATH = "/etc/multipath/conf.d/edgeha.conf"
NO_SERVICE = {"load": "not-found", "active": "inactive", "enabled": ""}
RUNS = {"load": "loaded", "active": "active", "enabled": "enabled"}
# What is around certificates in a bundle, and how its lines end, is no matter.
CERTIFICATES = [
    f"-----BEGIN CERTIFICATE-----\n{word}\n-----END CERTIFICATE-----\n" for word in ("AAAA", "BBBB")
]
BUNDLE = (
    "# root\n" + CERTIFICATES[0].replace("\n", "\r\n") + "\n# other\n" + CERTIFICATES[1] + CERTIFICATES[0]
)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def trusted(folder: str, suffix: str) -> dict[str, str]:
    """Return path and digest of the files that the bundle becomes."""
    return {f"{folder}/edgeha-{digest(text)[:16]}{suffix}": digest(text) for text in CERTIFICATES}


def trust_list(*paths: str) -> str:
    head = "# Kept by edgeha.iotedge: certificates of edge_ca_bundle that this machine trusts\n"
    return head + "".join(f"{path}\n" for path in paths)


DEBIAN_TRUST = trusted("/usr/local/share/ca-certificates", ".crt")
REDHAT_TRUST = trusted("/etc/pki/ca-trust/source/anchors", ".pem")


def system(family: str, name: str, version: str, **changes: Any) -> dict[str, Any]:
    """A bare machine with a kernel of its own."""
    major = version.partition(".")[0]
    return {
        "os": {"family": family, "id": name, "version": version, "major": major, "name": name},
        "apparmor": name == "ubuntu",
        "clock": {"settable": True, "service": "", "synchronised": False},
        "packages": {"ca-certificates": "1", "socat": None},
        "swap": {"settable": True, "units": [], "fstab": []},
        "modules": {"overlay": {"state": "available", "as_wanted": False, "loadable": True}},
        "sysctls": {},
        "firewall": {"kind": "none", "ports": [], "sources": []},
        "reboot": [],
        "files": {TRUST_LIST: None, MULTIPATH: None},
        "selinux": {"state": "enforcing", "configured": "enforcing"},
        "blocks": {"/etc/hosts": None, "/etc/chrony/chrony.conf": None, "/etc/chrony.conf": None},
        "services": {
            "iscsid.service": NO_SERVICE, "multipathd.service": NO_SERVICE, "nfs-client.target": NO_SERVICE,
        },
        **changes,
    }  # fmt: skip


SWAP = {"name": "swap.img.swap", "active": True, "from_fstab": True}
SYSCTL = {"as_wanted": False, "settable": True, "overridden_by": "", "wanted": "1", "live": "0"}
GONE = {"nfs": {"state": "missing", "as_wanted": False, "loadable": False}}
OLD_KERNEL = ["kernel 6.1 runs and its modules are gone; 6.2 is installed"]
MACHINES: dict[str, dict[str, Any]] = {
    "debian12": system("debian", "debian", "12"),
    "debian13": system("debian", "debian", "13"),
    "debian11": system("debian", "debian", "11"),
    "jammy": system("debian", "ubuntu", "22.04"),
    "noble": system("debian", "ubuntu", "24.04"),
    "focal": system("debian", "ubuntu", "20.04"),
    "rhel": system("redhat", "rhel", "9.4"),
    "rocky": system("redhat", "rocky", "9.3"),
    "el8": system("redhat", "almalinux", "8.10"),
    "alpine": system("", "alpine", "3.20"),
    "swap": system("debian", "debian", "12", swap={"settable": True, "units": [SWAP], "fstab": []}),
    "container": system(
        "debian", "debian", "12", swap={"settable": False, "units": [SWAP], "fstab": []},
        clock={"settable": False, "service": "", "synchronised": False},
    ),
    "timesyncd": system(
        "debian", "debian", "12", clock={"settable": True, "service": "systemd-timesyncd.service"}
    ),
    "sysctls": system(
        "debian", "debian", "12",
        sysctls={"a": SYSCTL, "b": SYSCTL | {"settable": False}, "c": SYSCTL | {"as_wanted": True},
                 "d": SYSCTL | {"overridden_by": "/etc/sysctl.conf"}},
    ),
    "nftables": system("debian", "debian", "12", firewall={"kind": "nftables", "ports": [], "sources": []}),
    "waits": system("debian", "debian", "12", reboot=["a package asks for it"]),
    "old_kernel": system("debian", "debian", "12", reboot=OLD_KERNEL, modules=GONE),
    "old_kernel_works": system("debian", "debian", "12", reboot=OLD_KERNEL),
    "trusts": system("debian", "debian", "12",
                     files={**DEBIAN_TRUST, TRUST_LIST: digest(trust_list(*DEBIAN_TRUST))}),
    "trusts_half": system("debian", "debian", "12", files={**DEBIAN_TRUST, TRUST_LIST: None}),
    "trusts_older": system(
        "redhat", "rocky", "9.3",
        files={"/etc/pki/ca-trust/source/anchors/edgeha-0.pem": "0", TRUST_LIST: "0", **REDHAT_TRUST},
    ),
    "trusts_no_more": system("debian", "debian", "12", files={**DEBIAN_TRUST, TRUST_LIST: "0"}),
    "trusted_once": system("debian", "debian", "12", files={TRUST_LIST: digest(trust_list())}),
    "upgraded": system("debian", "debian", "12", reboot=["a package asks for it"]),
}  # fmt: skip


PACKAGES = ("ca-certificates", "conntrack", "ethtool", "iptables", "socat", "chrony", "nfs-common")


def finished(**changes: Any) -> dict[str, Any]:
    """A machine on which all is as wanted."""
    done = {
        "packages": dict.fromkeys(PACKAGES, "1"),
        "clock": {"settable": True, "service": "chrony.service", "synchronised": True},
        "modules": {"overlay": {"state": "loaded", "as_wanted": True, "loadable": True}},
        "blocks": {"/etc/hosts": HOSTS, "/etc/chrony/chrony.conf": NTP, "/etc/chrony.conf": None},
        "services": {**MULTIPATHD, "multipathd.service": NO_SERVICE},
        "files": {**DEBIAN_TRUST, TRUST_LIST: digest(trust_list(*DEBIAN_TRUST)), MULTIPATH: None},
    }  # fmt: skip
    return system("debian", "debian", "12", **{**done, **changes})


NTP = "server 10.7.0.1 iburst\nserver 10.7.0.2 iburst"
HOSTS = "10.7.0.11 gw1 gw1.plant07\n10.7.0.12 gw2"
MULTIPATHD = {"iscsid.service": NO_SERVICE, "multipathd.service": RUNS, "nfs-client.target": RUNS}
UFW = {"kind": "ufw", "ports": [], "sources": []}
# For each part a machine on which it alone is not as wanted.
PARTS: dict[str, dict[str, Any]] = {
    "trust": finished(files={TRUST_LIST: None, MULTIPATH: None}),
    "packages": finished(packages={**finished()["packages"], "socat": None}),
    "restart": finished(reboot=OLD_KERNEL, modules=GONE),
    "swap": finished(swap={"settable": True, "units": [], "fstab": [{"source": "/swap", "target": "none"}]}),
    "modules": finished(modules={"overlay": {"state": "available", "as_wanted": False, "loadable": True}}),
    "sysctl": finished(sysctls={"a": SYSCTL}),
    "time": finished(blocks={"/etc/hosts": HOSTS, "/etc/chrony/chrony.conf": None}),
    "firewall": finished(firewall=UFW),
    "hosts": finished(blocks={"/etc/hosts": None, "/etc/chrony/chrony.conf": NTP}),
    "nfs_client": finished(
        services={**MULTIPATHD, "multipathd.service": NO_SERVICE, "nfs-client.target": NO_SERVICE}
    ),
    "multipath": finished(services=MULTIPATHD),
}
MACHINES |= {f"only_{part}": machine for part, machine in PARTS.items()} | {"finished": finished()}
WITHOUT_BUNDLE = ("trusts_no_more", "trusted_once", "debian13")


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Each decision for each machine, by one run of Ansible over all of them."""
    place = tmp_path_factory.mktemp("decisions")
    hosts: dict[str, Any] = {}
    for name, node in copy.deepcopy(MACHINES).items():
        node["packages"]["apparmor"] = None
        hosts[name] = {"__node_prepare_look": {"node": node, "problems": []}}
        for register in ("apt", "dnf", "selinux"):
            hosts[name][f"__node_prepare_{register}"] = {"changed": False}
    (place / "ca.pem").write_bytes(BUNDLE.encode())
    for name in WITHOUT_BUNDLE:
        hosts[name]["bundle"] = ""
    hosts["upgraded"]["__node_prepare_waited"] = []
    hosts["rhel"]["__node_prepare_selinux"] = {"changed": True, "reboot_required": True}
    variables = {
        "node_prepare_ca_file": f"{{{{ bundle | default('{place}/ca.pem') }}}}",
        "role_path": str(ROLE),
        "node_prepare_ntp_servers": ["10.7.0.1", "10.7.0.2"],
        "node_prepare_host_entries": [
            {"address": "10.7.0.11", "names": ["gw1", "gw1.plant07"]},
            {"address": "10.7.0.12", "names": ["gw2"]},
        ],
    }
    answer = ", ".join(f"'{name}': __node_prepare_{name}" for name in DECISIONS)
    task = {
        "name": "Write the decisions",
        "ansible.builtin.copy": {
            "dest": f"{place}/{{{{ inventory_hostname }}}}.json",
            "content": f"{{{{ {{{answer}}} | to_json }}}}",
        },
    }
    files = [ROLE / "defaults" / "main.yml", *sorted((ROLE / "vars" / "main").iterdir())]
    # Variables of a play's files hide those of the inventory, so the user's come as extra variables.
    done = run_play(place, hosts, [task], "--extra-vars", json.dumps(variables), files=files)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return {name: json.loads((place / f"{name}.json").read_text()) for name in MACHINES}


def test_systems_that_are_known(decided: dict[str, dict[str, Any]]) -> None:
    unknown = {name for name, decisions in decided.items() if not decisions["is_known"]}
    assert unknown == {"debian11", "focal", "el8", "alpine"}


@pytest.mark.parametrize(
    ("machine", "packages"),
    [
        ("debian12", {"conntrack", "ethtool", "iptables", "socat", "chrony", "nfs-common"}),
        ("noble", {"conntrack", "ethtool", "iptables", "socat", "chrony", "nfs-common", "apparmor"}),
        ("rocky", {"conntrack-tools", "ethtool", "iptables-nft", "socat", "chrony", "nfs-utils",
                   "container-selinux", "python3-libselinux"}),
        ("container", {"conntrack", "ethtool", "iptables", "socat", "nfs-common"}),
        ("timesyncd", {"conntrack", "ethtool", "iptables", "socat", "nfs-common"}),
    ],
)  # fmt: skip
def test_packages_of_each_family(
    decided: dict[str, dict[str, Any]], machine: str, packages: set[str]
) -> None:
    assert set(decided[machine]["missing_packages"]) == packages


def test_a_machine_that_is_as_wanted_has_nothing_to_do(decided: dict[str, dict[str, Any]]) -> None:
    assert decided["finished"]["todo"] == []


@pytest.mark.parametrize("part", PARTS)
def test_what_differs_is_done_and_nothing_else(decided: dict[str, dict[str, Any]], part: str) -> None:
    assert decided[f"only_{part}"]["todo"] == [part]


def test_selinux_and_iscsi_only_where_they_are_wanted(decided: dict[str, dict[str, Any]]) -> None:
    assert "security" not in decided["rocky"]["todo"]
    assert "iscsi" not in decided["debian12"]["todo"]


def test_swap_and_clock_of_a_container_are_its_hosts(decided: dict[str, dict[str, Any]]) -> None:
    assert decided["swap"]["swap_units"] == [SWAP]
    assert decided["container"]["swap_units"] == []
    clocks = {name for name in ("debian12", "container", "timesyncd") if decided[name]["sets_clock"]}
    assert clocks == {"debian12"}


def test_only_settings_that_differ_and_can_be_set(decided: dict[str, dict[str, Any]]) -> None:
    assert [entry["key"] for entry in decided["sysctls"]["sysctls_to_set"]] == ["a"]
    assert decided["debian12"]["modules_to_load"] == ["overlay"]
    assert decided["old_kernel"]["modules_to_load"] == []


def test_blocks_are_written_line_by_line(decided: dict[str, dict[str, Any]]) -> None:
    assert decided["rhel"]["ntp_block"] == "server 10.7.0.1 iburst\nserver 10.7.0.2 iburst"
    assert decided["rhel"]["hosts_block"] == "10.7.0.11 gw1 gw1.plant07\n10.7.0.12 gw2"
    assert "2379:2380/tcp" in decided["rhel"]["ufw_ports"]


def test_a_restart_only_for_what_the_run_brought(decided: dict[str, dict[str, Any]]) -> None:
    reasons = {name: decisions["reboot_reasons"] for name, decisions in decided.items()}
    assert {name: why for name, why in reasons.items() if why} == {
        "rhel": ["SELinux changed"],
        "old_kernel": OLD_KERNEL,
        "only_restart": OLD_KERNEL,
        "upgraded": ["a package asks for it"],
    }


def test_what_the_role_leaves_to_people_is_told(decided: dict[str, dict[str, Any]]) -> None:
    (firewall,) = decided["nftables"]["problems"]
    assert (firewall["host"], firewall["subject"]) == ("nftables", "firewall")
    assert "6443/tcp" in firewall["fix"]
    (restart,) = decided["waits"]["problems"]
    assert restart["subject"] == "restart"
    assert decided["debian12"]["problems"] == []


@pytest.mark.parametrize(("machine", "files"), [("debian12", DEBIAN_TRUST), ("rocky", REDHAT_TRUST)])
def test_certificates_are_trusted_one_file_each(
    decided: dict[str, dict[str, Any]], machine: str, files: dict[str, str]
) -> None:
    found = decided[machine]
    assert {entry["path"]: digest(entry["content"]) for entry in found["trust_changes"]} == files
    assert {(entry["state"], entry["mode"]) for entry in found["trust_changes"]} == {("present", "0644")}
    assert found["trust_text"] == trust_list(*files)
    assert found["trust_differs"] is True


@pytest.mark.parametrize(
    ("machine", "differs", "gone"),
    [
        ("trusts", False, []),
        # Killed before the list was written: what the system knows is not certain.
        ("trusts_half", True, []),
        ("trusts_older", True, ["/etc/pki/ca-trust/source/anchors/edgeha-0.pem"]),
        ("trusts_no_more", True, list(DEBIAN_TRUST)),
        ("trusted_once", False, []),
        ("debian13", False, []),
    ],
)
def test_what_is_trusted_already_and_no_longer(
    decided: dict[str, dict[str, Any]], machine: str, differs: bool, gone: list[str]
) -> None:
    found = decided[machine]
    assert found["trust_differs"] is differs
    assert [(entry["path"], entry["state"]) for entry in found["trust_changes"]] == [
        (path, "absent") for path in sorted(gone)
    ]


def test_services_look_at_the_list_of_what_is_trusted() -> None:
    named = yaml.safe_load((ROLE / "vars" / "main" / "wanted.yml").read_text())["__node_prepare_trust_list"]
    join = yaml.safe_load((ROOT / "roles" / "cluster_join" / "vars" / "main.yml").read_text())
    assert named == TRUST_LIST == kubeadm_rules.TRUST_LIST
    assert named in mapping()["__node_files"]
    assert named in join["__cluster_join_k3s_files"]
