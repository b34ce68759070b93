# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which disks of a machine may be formatted and mounted. Pure.

A disk is ours when it holds nothing but a file system of the wanted kind with the wanted label. Any other
disk that holds something, whatever it is, is refused: nothing here ever overwrites.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import mount_table

# Longest label, and the package with the program that makes the file system.
FILESYSTEMS: Mapping[str, tuple[int, str, str]] = {
    "ext4": (16, "mkfs.ext4", "e2fsprogs"),
    "xfs": (12, "mkfs.xfs", "xfsprogs"),
}
_FREE_FOLDERS = ("lost+found",)


def wish_problems(wanted: Sequence[Mapping[str, str]]) -> list[tuple[str, str, str]]:
    """Return (subject, fact, fix) of what is wrong with the wishes themselves."""
    found = []
    for disk in wanted:
        subject = f"disk {disk['device']}"
        if not re.fullmatch(r"/dev/\S+", disk["device"]):
            found.append((subject, "is no path of a device", "write it as /dev/…, best as /dev/disk/by-id/…"))
        if disk["filesystem"] not in FILESYSTEMS:
            fix = f"use {' or '.join(FILESYSTEMS)}"
            found.append((subject, f"filesystem {disk['filesystem']} is not known", fix))
        elif not re.fullmatch(rf"[A-Za-z0-9._-]{{1,{FILESYSTEMS[disk['filesystem']][0]}}}", disk["label"]):
            longest = FILESYSTEMS[disk["filesystem"]][0]
            fact = f"label {disk['label']!r} is none that {disk['filesystem']} can have"
            found.append((subject, fact, f"use 1 to {longest} letters, digits, dots, dashes or underscores"))
        if not re.fullmatch(r"(/[^/\s]+)+", disk["mount"]):
            fact = f"mount {disk['mount']!r} is no folder that a disk can be mounted on"
            found.append((subject, fact, "use an absolute path without blanks, and not /"))
    for key in ("device", "mount", "label"):
        for value, number in Counter(disk[key] for disk in wanted).items():
            if number > 1:
                found.append((f"{key} {value}", f"is named {number} times", "name it once"))
    return found


def plan(wanted: Sequence[Mapping[str, str]], look: Mapping[str, Any], options: str) -> dict[str, Any]:
    """Return what is to be done on a machine.

    wanted:  device, filesystem, mount and label of each disk.
    look:    what the module ``disk_probe`` tells as ``disks``.
    options: of the mount.

    problems: subject, fact and fix of what must not be touched; with any of them, nothing is to be done.
    format, mount: the disks that need it. packages: to be installed for the first.
    """
    problems = wish_problems(wanted)
    to_format, to_mount = [], []
    paths = Counter(look["devices"].get(disk["device"], {}).get("path", "") for disk in wanted)
    for disk in wanted if not problems else ():
        state = look["devices"][disk["device"]]
        subject = f"disk {disk['device']}"
        wrong = _refused(disk, state, look["labels"].get(disk["label"], []))
        if paths[state["path"]] > 1 and state["exists"]:
            wrong.append(("is the same disk as another one of the list", "name it once"))
        place = look["mounts"][disk["mount"]]
        wrong += _place_problems(disk, state, place)
        problems += [(subject, fact, fix) for fact, fix in wrong]
        if not is_ours(disk, state):
            to_format.append(dict(disk))
        entry = place["fstab"]
        as_wanted = entry == {
            "source": f"LABEL={disk['label']}",
            "type": disk["filesystem"],
            "options": options,
        }
        if not as_wanted or place["source"] != state["path"]:
            to_mount.append(dict(disk))
    kinds = {disk["filesystem"] for disk in to_format}
    packages = sorted(FILESYSTEMS[kind][2] for kind in kinds if kind in look["missing"])
    return {
        "problems": [{"subject": subject, "fact": fact, "fix": fix} for subject, fact, fix in problems],
        "format": [] if problems else to_format,
        "mount": [] if problems else to_mount,
        "packages": [] if problems else packages,
        "act": not problems and bool(to_format or to_mount),
    }


def judge(wanted: Sequence[Mapping[str, str]], look: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (subject, fact, fix) of what `plan` would refuse."""
    found = plan(wanted, {"missing": [], **look}, "")["problems"]
    return [(entry["subject"], entry["fact"], entry["fix"]) for entry in found]


def is_ours(disk: Mapping[str, str], state: Mapping[str, Any]) -> bool:
    """Whether a disk holds our file system and nothing besides."""
    signatures = [(entry["type"], entry.get("label")) for entry in state["signatures"]]
    return bool(signatures == [(disk["filesystem"], disk["label"])] and not state["children"])


def _refused(
    disk: Mapping[str, str], state: Mapping[str, Any], others: Iterable[str]
) -> list[tuple[str, str]]:
    if not state["exists"]:
        return [("is not there", "correct the path, or attach the disk")]
    if not state["block"]:
        return [("is no disk", "correct the path")]
    if not state["read"]:
        return [("cannot be read", "look at the kernel's log")]
    doubles = sorted(set(others) - {state["path"]})
    if doubles:
        return [
            (
                f"{', '.join(doubles)} has the label {disk['label']} too",
                "choose another label, because the disk is mounted by it",
            )
        ]
    if is_ours(disk, state):
        strangers = [place for place in state["mounts"] if place != disk["mount"]]
        if strangers:
            return [(f"is mounted on {', '.join(strangers)}", f"unmount it, or set mount to {strangers[0]}")]
        return []
    held = [
        f"{entry['type']} {entry['label']}" if entry.get("label") else str(entry["type"])
        for entry in state["signatures"]
    ]
    held += [f"partition or volume {child}" for child in state["children"]]
    held += [f"held by {holder}" for holder in state["holders"]]
    held += [f"mounted on {place}" for place in state["mounts"]]
    if not held and state["busy"]:
        held = ["in use by the kernel"]
    if not held:
        return []
    fix = "take it out of edge_node_disks, or empty it yourself if nobody needs it: "
    fix += f"wipefs --all {state['path']}"
    return [(f"is not empty: {', '.join(held)}", fix)]


def _place_problems(
    disk: Mapping[str, str], state: Mapping[str, Any], place: Mapping[str, Any]
) -> list[tuple[str, str]]:
    found = []
    if not place.get("folder", True):
        found.append((f"{disk['mount']} is a file", "choose another folder"))
    if place["source"] and place["source"] != state["path"]:
        found.append((f"{place['source']} is mounted on {disk['mount']}", "choose another folder"))
    elif not place["source"] and place["files"]:
        names = ", ".join(place["files"][:3])
        fact = f"{disk['mount']} holds files that the disk would hide: {names}"
        found.append((fact, "move them, or choose another folder"))
    source = (place["fstab"] or {}).get("source", "")
    if source not in ("", f"LABEL={disk['label']}"):
        found.append((f"/etc/fstab has {source} on {disk['mount']}", "take that line out of /etc/fstab"))
    return found


def signatures(wipefs_json: str) -> list[dict[str, str]]:
    """Return type and label of what `wipefs --no-act --json` found, each kind once."""
    found = json.loads(wipefs_json or "{}").get("signatures", [])
    kinds = {(str(entry.get("type")), str(entry.get("label") or "")) for entry in found}
    return [{"type": kind, "label": label} for kind, label in sorted(kinds)]


def members(lsblk_json: str) -> list[str]:
    """Return the paths of all that stands on a device: partitions, volumes, arrays."""

    def below(device: Mapping[str, Any]) -> list[str]:
        return [
            path for child in device.get("children", []) for path in (str(child.get("path")), *below(child))
        ]

    return [
        path for device in json.loads(lsblk_json or "{}").get("blockdevices", []) for path in below(device)
    ]


def mounts(mountinfo: str) -> dict[str, list[str]]:
    """Return where each device is mounted, from /proc/self/mounts."""
    found: dict[str, list[str]] = {}
    for entry in mount_table.mounted(mountinfo):
        if entry.source.startswith("/"):
            found.setdefault(entry.source, []).append(entry.place)
    return found


def fstab(text: str) -> dict[str, dict[str, str]]:
    """Return source, type and options of what /etc/fstab mounts on each folder."""
    return {
        entry.place: {"source": entry.source, "type": entry.kind, "options": entry.options}
        for entry in mount_table.fstab(text)
        if entry.place.startswith("/") and entry.options
    }


def hidden_files(names: Iterable[str]) -> list[str]:
    """Return what of a folder's content counts."""
    return sorted(name for name in names if name not in _FREE_FOLDERS)
