# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What node_prepare and node_disks left on a machine with a kernel of its own, before and after a power cut.

The machine's processor may be emulated, so each test asks it once.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from testinfra.host import Host

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
import machines
from machines import INVENTORY, LAB, PROJECT

MOST_EXECUTED = 17
_PLAYBOOK_LIMIT = 1800

MODULES = {"overlay", "br_netfilter", "nf_conntrack", "vxlan", "iscsi_tcp"}
SETTINGS = {
    "net/ipv4/ip_forward": "1",
    "net/bridge/bridge-nf-call-iptables": "1",
    "net/bridge/bridge-nf-call-ip6tables": "1",
    "fs/inotify/max_user_instances": "8192",
    "fs/inotify/max_user_watches": "524288",
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
}
NFS = """
set -e
apt-get install -y -qq --no-install-recommends nfs-kernel-server > /dev/null
mkdir -p /srv/share /mnt/share
echo '/srv/share 127.0.0.1(rw,sync,no_subtree_check,no_root_squash,fsid=0)' > /etc/exports
exportfs -ra
mount -t nfs4 127.0.0.1:/ /mnt/share
echo acknowledged > /mnt/share/message
flock --nonblock /mnt/share/message true
findmnt --noheadings --output FSTYPE /mnt/share
umount /mnt/share
cat /srv/share/message
"""
ISCSI = """
set -e
apt-get install -y -qq --no-install-recommends tgt > /dev/null
truncate -s 16M /srv/volume.img
target=iqn.2026-01.test.edgeha:volume
tgtadm --lld iscsi --op new --mode target --tid 1 --targetname $target
tgtadm --lld iscsi --op new --mode logicalunit --tid 1 --lun 1 --backing-store /srv/volume.img
tgtadm --lld iscsi --op bind --mode target --tid 1 --initiator-address ALL
iscsiadm --mode discovery --type sendtargets --portal 127.0.0.1 > /dev/null
iscsiadm --mode node --targetname $target --portal 127.0.0.1 --login > /dev/null
udevadm settle
lsblk --noheadings --output SIZE,TRAN --scsi
iscsiadm --mode node --targetname $target --portal 127.0.0.1 --logout > /dev/null
"""


def machine() -> Host:
    return machines.machine("server1")


def lab(*words: str) -> str:
    done = subprocess.run(
        [PROJECT / "lab" / "lab", "--name", LAB, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def play(playbook: str, *options: str) -> subprocess.CompletedProcess[str]:
    # No connection of an earlier playbook is used: one from before a power cut is dead and does not show it.
    alone = ["--extra-vars", '{"ansible_ssh_args": "-o ControlMaster=no"}']
    return machines.play(playbook, *options, *alone, inventory="inventory/hosts.yml", limit=_PLAYBOOK_LIMIT)


def boot_id() -> str:
    return str(machine().check_output("cat /proc/sys/kernel/random/boot_id"))


def assert_the_kernel_is_a_node_s() -> None:
    host = machine()
    files = " ".join(f"/proc/sys/{name}" for name in SETTINGS)
    state = host.check_output(
        # After a start ssh answers before all else runs; whether units failed is judged below.
        "systemctl is-system-running --wait > /dev/null || true;"
        f"lsmod; echo ---; cat {files}; echo ---; cat /proc/swaps; echo ---; grep swap /etc/fstab || true;"
        "echo ---; findmnt --noheadings --output SOURCE,FSTYPE,OPTIONS /var/lib/rancher;"
        "blkid --match-tag LABEL --output value /dev/vdc; echo ---;"
        "systemctl is-active iscsid nfs-client.target"
    )
    loaded, settings, swap, fstab, disk, services = (part.strip() for part in state.split("---"))
    assert {line.split()[0] for line in loaded.splitlines()} >= MODULES
    assert dict(zip(SETTINGS, settings.splitlines(), strict=True)) == SETTINGS
    assert len(swap.splitlines()) == 1, swap
    assert not fstab
    assert re.match(r"/dev/vdc +xfs +\S*noatime\S*\nedge-k3s$", disk), disk
    assert services.splitlines() == ["active", "active"]


def test_the_package_that_asks_for_a_restart_got_one() -> None:
    said = machine().check_output(
        "set -e; dpkg --status lab-wants-restart > /dev/null;"
        "test -e /run/reboot-required && echo asked || echo quiet;"
        "cat /root/boot-before /proc/sys/kernel/random/boot_id"
    )
    state, before, now = said.splitlines()
    assert state == "quiet"
    assert before != now


def test_the_kernel_is_a_node_s() -> None:
    assert_the_kernel_is_a_node_s()


def test_swap_that_is_off_cannot_come_back_by_its_unit() -> None:
    units = machine().check_output("systemctl list-units --all --plain --no-legend --type=swap")
    assert " active " not in units


def test_a_disk_of_somebody_else_is_refused_and_untouched() -> None:
    done = play("refused.yml")
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert re.search(r"/dev/disk/by-id/virtio-lab-used +is not empty: ext4 orders", said), said
    assert re.search(r"server1 +: ok=\d+ +changed=0 .*failed=1", said), said
    assert (
        machine().check_output("sha256sum --check /root/disk-before; ls /var/lib/longhorn || true")
        == "/dev/vdd: OK"
    )


def test_a_share_is_mounted_by_the_kernel_s_nfs_client() -> None:
    assert machine().check_output(NFS).split() == ["nfs4", "acknowledged"]


def test_a_volume_is_a_disk_by_the_kernel_s_iscsi_client() -> None:
    assert machine().check_output(ISCSI).split() == ["16M", "iscsi"]


def test_a_power_cut_takes_nothing_away() -> None:
    machine().check_output("echo kept > /var/lib/rancher/message && sync /var/lib/rancher/message")
    before = boot_id()
    lab("fault", "power", "server1")
    states = json.loads(lab("status", "--json"))["labs"][LAB]
    assert states["nodes"] == {f"edgeha-{LAB}-server1": "exited"}
    assert states["inventory"] == str(INVENTORY)
    lab("fault", "heal", "server1")
    assert boot_id() != before
    assert_the_kernel_is_a_node_s()
    assert machine().check_output("cat /var/lib/rancher/message") == "kept"


def test_check_mode_on_a_finished_machine_changes_nothing_and_executes_little() -> None:
    rows = machines.nothing_to_change(play("converge.yml", "--check", "--diff"))
    assert set(rows) == {"server1"}
    assert rows["server1"].executed <= MOST_EXECUTED
