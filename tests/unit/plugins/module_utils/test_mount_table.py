# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.edgeha.iotedge.plugins.module_utils import mount_table
from ansible_collections.edgeha.iotedge.plugins.module_utils.mount_table import Entry


def test_mounts_with_blanks_in_their_names() -> None:
    text = "/dev/sdb /srv/with\\040a\\011blank ext4 rw,relatime 0 0\nproc /proc proc rw 0 0\n\n"
    assert mount_table.mounted(text) == [
        Entry("/dev/sdb", "/srv/with a\tblank", "ext4", "rw,relatime"),
        Entry("proc", "/proc", "proc", "rw"),
    ]


def test_a_name_with_a_blank_that_the_kernel_does_not_escape_stays_whole() -> None:
    assert mount_table.mounted("/dev/sdb /srv/no\u00a0break ext4 rw 0 0")[0].place == "/srv/no\u00a0break"


def test_fstab_without_its_comments() -> None:
    text = "# disks\n  # more\n\nUUID=1\t/data\\040one  ext4 noatime 0 2\n/swap none swap\nbroken\n"
    assert mount_table.fstab(text) == [
        Entry("UUID=1", "/data one", "ext4", "noatime"),
        Entry("/swap", "none", "swap", ""),
    ]
