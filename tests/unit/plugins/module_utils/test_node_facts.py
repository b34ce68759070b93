# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files in the form in which Debian, Ubuntu and RHEL write them, and what is read in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import node_facts

OS_RELEASES = {
    "debian 12": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\n'
    'VERSION="12 (bookworm)"\nVERSION_CODENAME=bookworm\nID=debian\nHOME_URL="https://www.debian.org/"\n',
    "debian 13": 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nNAME="Debian GNU/Linux"\nVERSION_ID="13"\n'
    'VERSION="13 (trixie)"\nVERSION_CODENAME=trixie\nDEBIAN_VERSION_FULL=13.1\nID=debian\n',
    "debian 22.04": 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\nNAME="Ubuntu"\nVERSION_ID="22.04"\n'
    'VERSION="22.04.5 LTS (Jammy Jellyfish)"\nID=ubuntu\nID_LIKE=debian\nUBUNTU_CODENAME=jammy\n',
    "debian 24.04": 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\nNAME="Ubuntu"\nVERSION_ID="24.04"\n'
    'VERSION="24.04.1 LTS (Noble Numbat)"\nID=ubuntu\nID_LIKE=debian\nLOGO=ubuntu-logo\n',
    "redhat 9.4": 'NAME="Red Hat Enterprise Linux"\nVERSION="9.4 (Plow)"\nID="rhel"\nID_LIKE="fedora"\n'
    'VERSION_ID="9.4"\nPLATFORM_ID="platform:el9"\nPRETTY_NAME="Red Hat Enterprise Linux 9.4 (Plow)"\n',
    "redhat 9.3": 'NAME="Rocky Linux"\nVERSION="9.3 (Blue Onyx)"\nID="rocky"\nID_LIKE="rhel centos fedora"\n'
    'VERSION_ID="9.3"\nPRETTY_NAME="Rocky Linux 9.3 (Blue Onyx)"\n',
    " 3.20.3": 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.20.3\nPRETTY_NAME="Alpine Linux v3.20"\n',
}


@pytest.mark.parametrize("expected", OS_RELEASES)
def test_family_and_version_of_each_distribution(expected: str) -> None:
    found = node_facts.os_release(OS_RELEASES[expected])
    family, _space, version = expected.partition(" ")
    assert (found["family"], found["version"]) == (family, version)
    assert found["major"] == version.partition(".")[0]
    assert found["name"].split()[0] in OS_RELEASES[expected]


@pytest.mark.parametrize(
    ("environment", "systemd", "dockerenv", "kind"),
    [
        ("HOME=/\0container=docker\0", "", False, "docker"),
        ("HOME=/\0container=\0", "lxc\n", True, "lxc"),
        ("HOME=/\0", "", True, "docker"),
        ("HOME=/\0notcontainer=x\0", "", False, ""),
    ],
)
def test_a_container_is_known(environment: str, systemd: str, dockerenv: bool, kind: str) -> None:
    assert node_facts.container(environment, systemd, dockerenv) == kind


def test_interfaces_without_loopback_and_link_local() -> None:
    said = [
        {"ifname": "lo", "link_type": "loopback", "addr_info": [{"local": "127.0.0.1", "scope": "host"}]},
        {
            "ifname": "ens3", "link_type": "ether", "address": "52:54:00:12:34:56",
            "addr_info": [
                {"local": "10.7.0.11", "prefixlen": 24, "scope": "global"},
                {"local": "fe80::1", "prefixlen": 64, "scope": "link"},
            ],
        },
        {},
    ]  # fmt: skip
    found = node_facts.interfaces(json.dumps(said))
    assert found == [{"name": "ens3", "mac": "52:54:00:12:34:56", "addresses": ["10.7.0.11/24"]}]
    assert node_facts.interfaces("") == []


BUILTIN = "kernel/fs/overlayfs/overlay.ko\nkernel/net/netfilter/nf_conntrack.ko\n"
DEPENDENCIES = (
    "kernel/net/bridge/br_netfilter.ko.xz: kernel/net/bridge/bridge.ko.xz\n"
    "kernel/drivers/scsi/iscsi-tcp.ko.zst: kernel/drivers/scsi/libiscsi_tcp.ko.zst\n"
)


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("vxlan", "loaded"),
        ("overlay", "builtin"),
        ("nfs", "builtin"),
        ("ip_tables", "builtin"),
        ("br_netfilter", "available"),
        ("iscsi_tcp", "available"),
        ("bridge", "missing"),
    ],
)
def test_where_a_kernel_module_is(name: str, state: str) -> None:
    """Names with '-' and '_' are one; RHEL and Debian 13 compress with xz, Ubuntu 24.04 with zstd."""
    found = node_facts.module_state(
        name,
        node_facts.first_words("vxlan 155648 0 - Live 0x0000000000000000\n"),
        node_facts.module_names(BUILTIN),
        node_facts.module_names(DEPENDENCIES),
        node_facts.filesystem_names("nodev\tsysfs\n\text4\nnodev\tnfs\n"),
        ["/proc/net/ip_tables_names"],
    )
    assert found == state


def test_modules_that_load_at_every_start() -> None:
    assert node_facts.first_words("# for k3s\nbr-netfilter\n; not this\n\noverlay\n") == {
        "br_netfilter",
        "overlay",
    }


def test_sysctl_files_hide_and_follow_each_other() -> None:
    order = node_facts.sysctl_files(
        ["/etc/sysctl.d/90-site.conf", "/usr/lib/sysctl.d/50-default.conf", "/usr/lib/sysctl.d/90-site.conf",
         "/usr/lib/sysctl.d/10-first.conf", "/etc/sysctl.d/README", "/etc/sysctl.conf"]
    )  # fmt: skip
    assert order == [
        "/usr/lib/sysctl.d/10-first.conf",
        "/usr/lib/sysctl.d/50-default.conf",
        "/etc/sysctl.d/90-site.conf",
        "/etc/sysctl.conf",
    ]
    kept = node_facts.persisted_sysctls(
        [("/a", "net.ipv4.ip_forward = 0\n# vm.swappiness=1\n-net/ipv4/tcp_rmem=1\t2 3\n"),
         ("/b", "net.ipv4.ip_forward=1\n; x=1\n")]
    )  # fmt: skip
    assert kept == {"net.ipv4.ip_forward": ("1", "/b"), "net.ipv4.tcp_rmem": ("1 2 3", "/a")}


OURS = "/etc/sysctl.d/99-edgeha.conf"


def sysctl(kept: tuple[str, str] | None, writable: bool, in_container: bool, name: str) -> dict[str, Any]:
    view = node_facts.sysctl_view(
        {name: "1"}, {name: "0"}, {name: kept} if kept else {}, [name] if writable else [], in_container, OURS
    )
    return view[name]


def test_a_container_sets_only_what_its_network_holds() -> None:
    assert sysctl(None, True, True, "net.ipv4.ip_forward")["settable"]
    assert not sysctl(None, True, True, "vm.overcommit_memory")["settable"]
    assert sysctl(None, True, False, "vm.overcommit_memory")["settable"]
    assert not sysctl(None, False, False, "net.bridge.bridge-nf-call-iptables")["settable"]


@pytest.mark.parametrize(
    ("kept", "overridden"),
    [
        (("0", "/etc/sysctl.conf"), "/etc/sysctl.conf"),
        (("0", "/etc/sysctl.d/99-local.conf"), "/etc/sysctl.d/99-local.conf"),
        (("0", "/usr/lib/sysctl.d/50-default.conf"), ""),
        (("1", "/etc/sysctl.d/99-local.conf"), ""),
        (None, ""),
    ],
)
def test_a_later_file_that_says_otherwise_is_named(kept: tuple[str, str] | None, overridden: str) -> None:
    assert sysctl(kept, True, False, "net.ipv4.ip_forward")["overridden_by"] == overridden


def test_swap_in_use_and_at_start() -> None:
    live = node_facts.swaps(
        "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/dm-1 partition\t2097148\t\t0\t\t-2\n"
    )
    assert live == [{"name": "/dev/dm-1", "kind": "partition", "size_kib": 2097148}]
    fstab = (
        "# /etc/fstab\nUUID=1-2 / ext4 errors=remount-ro 0 1\n/swap.img\tnone\tswap\tsw\t0\t0\n"
        "/dev/mapper/rhel-swap none swap defaults 0 0\n#/dev/sdb none swap sw 0 0\n"
    )
    assert node_facts.fstab_swaps(fstab) == [
        {"source": "/swap.img", "target": "none"},
        {"source": "/dev/mapper/rhel-swap", "target": "none"},
    ]


SHOW = (
    "Id=firewalld.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n"
    "FragmentPath=/usr/lib/systemd/system/firewalld.service\n\n"
    "Id=nftables.service\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\nFragmentPath=\n"
)


def test_units_of_systemd() -> None:
    found = node_facts.units(SHOW)
    assert found["firewalld.service"]["active"] == "active"
    assert found["firewalld.service"]["enabled"] == "enabled"
    assert found["nftables.service"]["load"] == "not-found"
    assert node_facts.units("") == {}


@pytest.mark.parametrize(
    ("active", "ufw", "kind"),
    [
        ("firewalld.service", "ENABLED=no\n", "firewalld"),
        ("ufw.service", "# /etc/ufw/ufw.conf\nENABLED=yes\nLOGLEVEL=low\n", "ufw"),
        ("ufw.service", "ENABLED=no\n", "none"),
        ("nftables.service", "", "nftables"),
        ("netfilter-persistent.service", "", "iptables"),
        ("", "", "none"),
    ],
)
def test_kinds_of_firewall(active: str, ufw: str, kind: str) -> None:
    assert node_facts.firewall({active: {"active": "active"}}, ufw) == kind


UFW_RULES = """*filter
:ufw-user-input - [0:0]
### RULES ###

### tuple ### allow tcp 6443 0.0.0.0/0 any 0.0.0.0/0 in
-A ufw-user-input -p tcp --dport 6443 -j ACCEPT

### tuple ### allow tcp 2379:2380 0.0.0.0/0 any 0.0.0.0/0 in
### tuple ### allow any any 0.0.0.0/0 any 10.42.0.0/16 in
### tuple ### deny tcp 23 0.0.0.0/0 any 0.0.0.0/0 in
### tuple ### allow tcp 22 0.0.0.0/0 any 10.7.0.1 in
### END RULES ###
"""


def test_what_ufw_lets_in() -> None:
    assert node_facts.ufw_opened(UFW_RULES) == (["2379:2380/tcp", "6443/tcp"], ["10.42.0.0/16"])


def test_swap_units_and_where_they_come_from() -> None:
    show = (
        "Id=swap.img.swap\nLoadState=loaded\nActiveState=active\nUnitFileState=generated\n"
        "FragmentPath=/run/systemd/generator/swap.img.swap\n\n"
        "Id=dev-zram0.swap\nLoadState=loaded\nActiveState=inactive\nUnitFileState=static\n"
        "FragmentPath=/run/systemd/generator.late/dev-zram0.swap\n\n"
        "Id=gone.swap\nLoadState=masked\nActiveState=inactive\nUnitFileState=masked\nFragmentPath=\n"
    )
    assert node_facts.swap_units(node_facts.units(show)) == [
        {"name": "dev-zram0.swap", "active": False, "from_fstab": False},
        {"name": "swap.img.swap", "active": True, "from_fstab": True},
    ]


@pytest.mark.parametrize(
    ("enforce", "config", "state", "configured"),
    [
        ("1", "# comment\nSELINUX=enforcing\nSELINUXTYPE=targeted\n", "enforcing", "enforcing"),
        ("0\n", "SELINUX=permissive\n", "permissive", "permissive"),
        (None, "SELINUX=enforcing\n", "disabled", "enforcing"),
        (None, "", "disabled", "disabled"),
    ],
)
def test_selinux_now_and_at_the_next_start(
    enforce: str | None, config: str, state: str, configured: str
) -> None:
    assert node_facts.selinux(enforce, config) == {"state": state, "configured": configured}


CGROUPS_V1 = (
    "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"
    "cpuset\t3\t4\t1\ncpu\t1\t4\t1\nmemory\t0\t1\t0\npids\t8\t26\t1\n"
)


def test_cgroups_of_both_versions() -> None:
    two = node_facts.cgroups("cgroup2", "cpuset cpu io memory hugetlb pids rdma misc\n", CGROUPS_V1)
    assert (two["version"], two["missing"]) == (2, [])
    one = node_facts.cgroups("tmpfs", "", CGROUPS_V1)
    assert (one["version"], one["missing"]) == (1, ["memory"])


DPKG = (
    "Package: open-iscsi\nStatus: install ok installed\nVersion: 2.1.8-1\nDescription: a\n b: c\n\n"
    "Package: nfs-common\nStatus: deinstall ok config-files\nVersion: 1:2.6.2-4\n\n"
    "Package: vim\nStatus: install ok installed\nVersion: 2:9.0\n"
)


def test_versions_of_packages() -> None:
    wanted = ["open-iscsi", "nfs-common", "chrony"]
    assert node_facts.dpkg_versions(DPKG, wanted) == {
        "open-iscsi": "2.1.8-1",
        "nfs-common": None,
        "chrony": None,
    }
    said = "iscsi-initiator-utils 6.2.1.9-1.gita65a472.el9\npackage nfs-utils is not installed\n"
    assert node_facts.rpm_versions(said, ["iscsi-initiator-utils", "nfs-utils"]) == {
        "iscsi-initiator-utils": "6.2.1.9-1.gita65a472.el9",
        "nfs-utils": None,
    }


def test_memory_and_ports() -> None:
    assert node_facts.memory_mib("MemTotal:        4020044 kB\nMemFree: 1 kB\n") == 3925
    head = "  sl  local_address rem_address   st\n"
    rest = "00000000:00000000 00:00000000 00000000 0 0 4711 1\n"
    tables = {
        "tcp": f"{head}   0: 00000000:0016 00000000:0000 0A {rest}   1: 0B00070A:0016 01:9C40 01 {rest}",
        "tcp6": f"{head}   0: {'0' * 32}:192B 0:0 0A {rest}   1: 0:0016 0:0 0A {rest}",
        "udp": f"{head}   0: 0100007F:0143 00000000:0000 07 {rest}",
    }
    assert node_facts.listening(tables) == [
        {"protocol": "tcp", "port": 22},
        {"protocol": "tcp", "port": 6443},
        {"protocol": "udp", "port": 323},
    ]


LSBLK = {
    "blockdevices": [
        {"name": "vda", "type": "disk", "size": 42949672960, "pttype": "gpt", "mountpoint": None,
         "children": [{"name": "vda1", "type": "part", "size": 1, "fstype": "ext4", "mountpoint": "/"}]},
        {"name": "vdb", "type": "disk", "size": 1073741824, "fstype": None, "mountpoint": None},
        {"name": "vdc", "type": "disk", "size": "1073741824", "fstype": None, "mountpoints": [None]},
        {"name": "sr0", "type": "rom", "size": 1},
        {"name": "zram0", "type": "disk", "size": 1},
    ]
}  # fmt: skip


def test_disks_and_what_is_on_them() -> None:
    """lsblk knows what udev knows; a signature that only wipefs reads counts, and so does a disk not read."""
    nothing = '{"signatures": []}'
    wiped = {"/dev/vdb": nothing, "/dev/vdc": '{"signatures": [{"device": "vdc", "type": "LVM2_member"}]}'}
    found = {disk["path"]: disk for disk in node_facts.disks(json.dumps(LSBLK), wiped)}
    assert list(found) == ["/dev/vda", "/dev/vdb", "/dev/vdc"]
    assert found["/dev/vda"]["signatures"] == ["ext4", "gpt"]
    assert found["/dev/vda"]["mounts"] == ["/"]
    assert [disk["empty"] for disk in found.values()] == [False, True, False]
    assert found["/dev/vdc"]["size_bytes"] == 1073741824
    assert not any(disk["empty"] for disk in node_facts.disks(json.dumps(LSBLK), {}))
    assert node_facts.disks("", {}) == []
    assert node_facts.disk_paths(json.dumps(LSBLK)) == ["/dev/vda", "/dev/vdb", "/dev/vdc"]


def test_the_file_system_below_a_path() -> None:
    mounts = "overlay / overlay rw 0 0\n/dev/sdb /var/lib xfs rw 0 0\n/dev/sdc /var/lib\\040two ext4 rw 0 0\n"
    assert node_facts.filesystem_of(mounts, "/var/lib/rancher") == "xfs"
    assert node_facts.filesystem_of(mounts, "/var/library") == "overlay"
    assert node_facts.filesystem_of(mounts, "/var/lib two/a") == "ext4"


def test_our_block_in_a_file_of_others() -> None:
    text = "127.0.0.1 localhost\n# BEGIN edgeha.iotedge\n10.7.0.11 gw1\n10.7.0.12 gw2\n# END edgeha.iotedge\n"
    assert node_facts.managed_block(text, "edgeha.iotedge") == "10.7.0.11 gw1\n10.7.0.12 gw2"
    assert node_facts.managed_block("127.0.0.1 localhost\n", "edgeha.iotedge") is None


def test_the_name_of_the_iscsi_initiator() -> None:
    assert node_facts.initiator("## comment\nInitiatorName=iqn.1993-08.org.debian:01:ab\n") == (
        "iqn.1993-08.org.debian:01:ab"
    )
    assert node_facts.initiator("GenerateName=yes\n") == ""


def machine(**changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "kernel": {"release": "6.1.0", "container": ""},
        "modules": {},
        "sysctls": {},
        "swap": {"live": []},
        "clock": {"synchronised": True},
        "cgroups": {"missing": []},
    }
    return facts | changes


IN_CONTAINER = {"release": "6.1.0", "container": "docker"}
LIVE_SYSCTL = {"wanted": "1", "live": "0", "persisted": None, "settable": False, "overridden_by": ""}


@pytest.mark.parametrize(
    ("changes", "subject", "fact", "fix"),
    [
        ({"modules": {"nfs": {"state": "missing"}}}, "kernel module nfs", "6.1.0 does not", "extra"),
        ({"modules": {"nfs": {"state": "available"}}, "kernel": IN_CONTAINER}, "kernel module nfs",
         "container", "on the host"),
        ({"sysctls": {"a.b": LIVE_SYSCTL}, "kernel": IN_CONTAINER}, "sysctl a.b", "0 instead of 1", "a.b=1"),
        ({"sysctls": {"a.b": LIVE_SYSCTL | {"live": None}}}, "sysctl a.b", "does not have", "load the"),
        ({"sysctls": {"a.b": LIVE_SYSCTL | {"live": "1", "overridden_by": "/etc/x", "persisted": "0"}}},
         "sysctl a.b", "/etc/x sets 0", "out of /etc/x"),
        ({"swap": {"live": [{}]}, "kernel": IN_CONTAINER}, "swap", "container", "on the host"),
        ({"clock": {"synchronised": False}, "kernel": IN_CONTAINER}, "clock", "not synchronised", "host"),
        ({"cgroups": {"missing": ["memory"]}}, "cgroups", "memory", "memory"),
    ],
)  # fmt: skip
def test_what_cannot_be_set_is_told(changes: dict[str, Any], subject: str, fact: str, fix: str) -> None:
    (problem,) = node_facts.cannot_be_set(machine(**changes))
    assert problem["subject"] == subject
    assert fact in problem["fact"]
    assert fix in problem["fix"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"modules": {"nfs": {"state": "available"}}},
        {"sysctls": {"a.b": LIVE_SYSCTL | {"settable": True}}},
        {"swap": {"live": [{}]}},
        {"clock": {"synchronised": False}},
    ],
)
def test_what_a_role_can_set_is_no_problem(changes: dict[str, Any]) -> None:
    assert node_facts.cannot_be_set(machine(**changes)) == []


def test_reasons_to_start_again() -> None:
    packages, kernel = node_facts.reboot_reasons("6.1.0-20", ["6.1.0-31"], True, "")
    assert "/run/reboot-required" in packages
    assert "6.1.0-31 is installed" in kernel
    assert node_facts.reboot_reasons("6.1.0-20", ["6.1.0-31"], True, "docker") == []
    assert node_facts.reboot_reasons("6.1.0-31", ["6.1.0-20", "6.1.0-31"], False, "") == []


def test_a_kernel_that_needs_no_modules_is_no_reason() -> None:
    assert node_facts.reboot_reasons("6.1.0", [], False, "") == []
