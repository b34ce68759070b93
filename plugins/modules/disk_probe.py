#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: disk_probe
short_description: Look at what disks hold and who uses them
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Tells in one run what is on some disks, who holds them, where they are mounted, and what is at the folders
    on which they are to be mounted.
  - It reads the disks themselves, not what udev remembers of them.
  - Needs root, and Linux with util-linux.
options:
  devices:
    description:
      - Disks or partitions to look at.
    type: list
    elements: path
    required: true
  mounts:
    description:
      - Folders on which they are to be mounted.
    type: list
    elements: path
    default: []
extends_documentation_fragment:
  - edgeha.iotedge.read_only
"""

EXAMPLES = r"""
- name: Look at the second disk
  edgeha.iotedge.disk_probe:
    devices: [/dev/sdb]
    mounts: [/var/lib/rancher]
  register: look
"""

RETURN = r"""
disks:
  description: What is there.
  returned: always
  type: dict
  contains:
    devices:
      description:
        - For each of O(devices) its path without links, whether it exists, is a block device, was read, and
          is busy; the signatures on it (type and label); children, which are partitions and volumes on it;
          holders; and mounts.
      type: dict
      returned: always
    labels:
      description: Paths of the file systems with each label that this machine has.
      type: dict
      returned: always
    mounts:
      description:
        - For each of O(mounts) the source that is mounted there, its line in fstab, and the files that are in
          it while nothing is mounted.
      type: dict
      returned: always
    missing:
      description: Kinds of file systems that nothing here can make.
      type: list
      elements: str
      returned: always
    family:
      description: V(debian), V(redhat), or empty for another distribution.
      type: str
      returned: always
"""

import contextlib
import errno
import os
import re
import stat
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import disk_rules, node_facts


def text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def run(module: AnsibleModule, *words: str) -> tuple[int, str]:
    program = module.get_bin_path(words[0], required=True)
    code, said, _errors = module.run_command([program, *words[1:]], environ_update={"LC_ALL": "C"})
    return int(code), str(said)


def is_busy(path: str) -> bool:
    """Whether the kernel lets nobody have the device alone: it is mounted, swap, or part of something."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def holders(path: str) -> list[str]:
    try:
        return sorted(entry.name for entry in Path(f"/sys/class/block/{Path(path).name}/holders").iterdir())
    except OSError:
        return []


def look_at(module: AnsibleModule, device: str, mounted: dict[str, list[str]]) -> dict[str, Any]:
    path = os.path.realpath(device)
    state: dict[str, Any] = {
        "path": path,
        "exists": Path(path).exists(),
        "block": False,
        "read": False,
        "busy": False,
        "signatures": [],
        "children": [],
        "holders": [],
        "mounts": [],
    }
    if not state["exists"]:
        return state
    state["block"] = stat.S_ISBLK(Path(path).stat().st_mode)
    if not state["block"]:
        return state
    code, listed = run(module, "wipefs", "--no-act", "--json", path)
    children_code, children = run(module, "lsblk", "--json", "--output", "NAME,PATH", path)
    state["read"] = code == 0 and children_code == 0
    if state["read"]:
        state["signatures"] = disk_rules.signatures(listed)
        state["children"] = disk_rules.members(children)
    state["holders"] = holders(path)
    state["mounts"] = sorted(
        place
        for source, places in mounted.items()
        if os.path.realpath(source) in (path, *state["children"])
        for place in places
    )
    state["busy"] = is_busy(path)
    return state


def labels(module: AnsibleModule) -> dict[str, list[str]]:
    """Return the paths of file systems by their label. blkid reads what it does not remember."""
    found: dict[str, list[str]] = {}
    _code, listed = run(module, "blkid", "-c", "/dev/null", "-s", "LABEL")
    for path, label in re.findall(r'(?m)^(/\S+): LABEL="([^"]*)"', listed):
        found.setdefault(label, []).append(os.path.realpath(path))
    return found


def look_at_place(
    place: str, mounted: dict[str, list[str]], entries: dict[str, dict[str, str]]
) -> dict[str, Any]:
    sources = [source for source, places in mounted.items() if place in places]
    files: list[str] = []
    if not sources:
        with contextlib.suppress(FileNotFoundError):
            files = disk_rules.hidden_files(entry.name for entry in Path(place).iterdir())
    return {
        "source": os.path.realpath(sources[-1]) if sources else "",
        "fstab": entries.get(place),
        "files": files[:20],
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "devices": {"type": "list", "elements": "path", "required": True},
            "mounts": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    mounted = disk_rules.mounts(text("/proc/self/mounts"))
    entries = disk_rules.fstab(text("/etc/fstab"))
    missing = [
        kind
        for kind, (_longest, program, _package) in disk_rules.FILESYSTEMS.items()
        if module.get_bin_path(program, opt_dirs=["/sbin", "/usr/sbin"]) is None
    ]
    release = node_facts.os_release(text("/etc/os-release") or text("/usr/lib/os-release"))
    module.exit_json(
        changed=False,
        disks={
            "devices": {device: look_at(module, device, mounted) for device in module.params["devices"]},
            "labels": labels(module),
            "mounts": {place: look_at_place(place, mounted, entries) for place in module.params["mounts"]},
            "missing": missing,
            "family": release["family"],
        },
    )


if __name__ == "__main__":
    main()
