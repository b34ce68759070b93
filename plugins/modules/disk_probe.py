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
        - For each of O(mounts) the source that is mounted there, its line in fstab, the files that are in
          it while nothing is mounted, and whether it is a folder or can be made one.
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import disk_look, disk_rules, node_look


def run(module: AnsibleModule, *words: str) -> tuple[int, str]:
    program = module.get_bin_path(words[0], required=True)
    code, said, _errors = module.run_command([program, *words[1:]], environ_update={"LC_ALL": "C"})
    return int(code), str(said)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "devices": {"type": "list", "elements": "path", "required": True},
            "mounts": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    missing = [
        kind
        for kind, (_longest, program, _package) in disk_rules.FILESYSTEMS.items()
        if module.get_bin_path(program, opt_dirs=["/sbin", "/usr/sbin"]) is None
    ]
    found = disk_look.look(
        lambda *words: run(module, *words), module.params["devices"], module.params["mounts"]
    )
    module.exit_json(
        changed=False, disks={**found, "missing": missing, "family": node_look.os_release()["family"]}
    )


if __name__ == "__main__":
    main()
