# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No disk that holds anything is ever formatted, whoever holds it and however it is named."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import disk_rules

DISK = {"device": "/dev/sdb", "filesystem": "ext4", "mount": "/srv/data", "label": "edge-data"}
OPTIONS = "defaults,noatime"
OURS = {"type": "ext4", "label": "edge-data"}


def device(**changes: Any) -> dict[str, Any]:
    """An empty disk."""
    return {
        "path": "/dev/sdb", "exists": True, "block": True, "read": True, "busy": False, "signatures": [],
        "children": [], "holders": [], "mounts": [], **changes,
    }  # fmt: skip


def look(state: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    place = {"source": "", "fstab": None, "files": []}
    return {
        "devices": {"/dev/sdb": state or device()}, "labels": {}, "mounts": {"/srv/data": place},
        "missing": [], **changes,
    }  # fmt: skip


def finished() -> dict[str, Any]:
    state = device(signatures=[OURS], mounts=["/srv/data"], busy=True)
    entry = {"source": "LABEL=edge-data", "type": "ext4", "options": OPTIONS}
    place = {"source": "/dev/sdb", "fstab": entry, "files": []}
    return look(state, labels={"edge-data": ["/dev/sdb"]}, mounts={"/srv/data": place})


def test_an_empty_disk_is_formatted_and_mounted() -> None:
    plan = disk_rules.plan([DISK], look(missing=["ext4", "xfs"]), OPTIONS)
    assert plan == {
        "problems": [],
        "format": [DISK],
        "mount": [DISK],
        "packages": ["e2fsprogs"],
        "act": True,
    }


def test_a_finished_disk_needs_nothing() -> None:
    plan = disk_rules.plan([DISK], finished(), OPTIONS)
    assert plan == {"problems": [], "format": [], "mount": [], "packages": [], "act": False}


def test_ours_is_mounted_and_never_formatted_again() -> None:
    plan = disk_rules.plan([DISK], look(device(signatures=[OURS])), OPTIONS)
    assert plan["format"] == []
    assert plan["mount"] == [DISK]


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"exists": False}, "is not there"),
        ({"block": False}, "is no disk"),
        ({"read": False}, "cannot be read"),
        ({"signatures": [{"type": "ext4", "label": ""}]}, "is not empty: ext4"),
        ({"signatures": [{"type": "ext4", "label": "other"}]}, "ext4 other"),
        ({"signatures": [{"type": "xfs", "label": "edge-data"}]}, "xfs edge-data"),
        ({"signatures": [OURS, {"type": "gpt", "label": ""}]}, "gpt"),
        ({"signatures": [OURS], "children": ["/dev/sdb1"]}, "partition or volume /dev/sdb1"),
        ({"signatures": [{"type": "gpt", "label": ""}]}, "gpt"),
        ({"signatures": [{"type": "LVM2_member", "label": ""}]}, "LVM2_member"),
        ({"signatures": [{"type": "linux_raid_member", "label": "host:0"}]}, "linux_raid_member host:0"),
        ({"children": ["/dev/mapper/a"]}, "partition or volume /dev/mapper/a"),
        ({"holders": ["dm-0"]}, "held by dm-0"),
        ({"mounts": ["/home"]}, "mounted on /home"),
        ({"busy": True}, "in use by the kernel"),
        ({"signatures": [OURS], "mounts": ["/other"]}, "is mounted on /other"),
    ],
)
def test_everything_else_is_refused(changes: dict[str, Any], fact: str) -> None:
    plan = disk_rules.plan([DISK], look(device(**changes)), OPTIONS)
    assert [fact in problem["fact"] for problem in plan["problems"]] == [True], plan["problems"]
    assert plan["problems"][0]["fix"]
    assert not plan["act"]
    assert plan["format"] == plan["mount"] == []


@pytest.mark.parametrize(
    ("place", "fact"),
    [
        ({"source": "/dev/sda3", "fstab": None, "files": []}, "/dev/sda3 is mounted on /srv/data"),
        ({"source": "", "fstab": None, "files": ["a", "b"]}, "would hide: a, b"),
        (
            {"source": "", "fstab": {"source": "UUID=1", "type": "ext4", "options": ""}, "files": []},
            "/etc/fstab has UUID=1",
        ),
    ],
)
def test_a_folder_that_is_taken(place: dict[str, Any], fact: str) -> None:
    plan = disk_rules.plan([DISK], look(mounts={"/srv/data": place}), OPTIONS)
    assert [fact in problem["fact"] for problem in plan["problems"]] == [True], plan["problems"]
    assert not plan["act"]


def test_one_bad_disk_keeps_all_of_the_machine_untouched() -> None:
    other = {**DISK, "device": "/dev/sdc", "mount": "/srv/more", "label": "edge-more"}
    seen = look()
    seen["devices"]["/dev/sdc"] = device(path="/dev/sdc", signatures=[{"type": "xfs", "label": ""}])
    seen["mounts"]["/srv/more"] = {"source": "", "fstab": None, "files": []}
    plan = disk_rules.plan([DISK, other], seen, OPTIONS)
    assert [problem["subject"] for problem in plan["problems"]] == ["disk /dev/sdc"]
    assert plan["format"] == plan["mount"] == []


def test_two_names_of_one_disk() -> None:
    other = {**DISK, "device": "/dev/disk/by-id/x", "mount": "/srv/more", "label": "edge-more"}
    seen = look()
    seen["devices"]["/dev/disk/by-id/x"] = device()
    seen["mounts"]["/srv/more"] = {"source": "", "fstab": None, "files": []}
    facts = {problem["fact"] for problem in disk_rules.plan([DISK, other], seen, OPTIONS)["problems"]}
    assert facts == {"is the same disk as another one of the list"}


def test_a_label_that_another_disk_has_too() -> None:
    plan = disk_rules.plan([DISK], look(labels={"edge-data": ["/dev/sdb", "/dev/sdq1"]}), OPTIONS)
    assert "/dev/sdq1 has the label edge-data too" in plan["problems"][0]["fact"]


def test_changed_options_are_mounted_anew() -> None:
    assert disk_rules.plan([DISK], finished(), "defaults")["mount"] == [DISK]


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"device": "sdb"}, "is no path of a device"),
        ({"filesystem": "btrfs"}, "filesystem btrfs is not known"),
        ({"filesystem": "xfs", "label": "thirteen-char"}, "is none that xfs can have"),
        ({"label": ""}, "is none that ext4 can have"),
        ({"label": "a b"}, "is none that ext4 can have"),
        ({"mount": "/"}, "is no folder that a disk can be mounted on"),
        ({"mount": "srv"}, "is no folder that a disk can be mounted on"),
    ],
)
def test_wishes_that_cannot_be(changes: dict[str, str], fact: str) -> None:
    assert [fact in problem[1] for problem in disk_rules.wish_problems([{**DISK, **changes}])] == [True]


def test_wishes_that_contradict_each_other() -> None:
    subjects = [problem[0] for problem in disk_rules.wish_problems([DISK, DISK])]
    assert subjects == ["device /dev/sdb", "mount /srv/data", "label edge-data"]


def test_what_programs_and_files_say() -> None:
    wipefs = '{"signatures": [{"type": "ext4", "label": "a"}, {"type": "gpt"}, {"type": "gpt"}]}'
    assert disk_rules.signatures(wipefs) == [{"type": "ext4", "label": "a"}, {"type": "gpt", "label": ""}]
    assert disk_rules.signatures("") == []
    lsblk = """{"blockdevices": [{"name": "sdb", "path": "/dev/sdb", "children": [
        {"name": "sdb1", "path": "/dev/sdb1", "children": [{"name": "vg", "path": "/dev/mapper/vg"}]}]}]}"""
    assert disk_rules.members(lsblk) == ["/dev/sdb1", "/dev/mapper/vg"]
    text = "# old\nLABEL=a /srv/with\\040blank ext4 defaults 0 2\n"
    text += "#LABEL=b /srv/b ext4 defaults 0 2\nswap none swap sw\n"
    assert disk_rules.fstab(text) == {
        "/srv/with blank": {"source": "LABEL=a", "type": "ext4", "options": "defaults"}
    }
    assert disk_rules.mounts("/dev/sdb /srv/with\\040blank ext4 rw 0 0\nproc /proc proc rw 0 0\n") == {
        "/dev/sdb": ["/srv/with blank"]
    }
    assert disk_rules.hidden_files(["lost+found", "b", "a"]) == ["a", "b"]
