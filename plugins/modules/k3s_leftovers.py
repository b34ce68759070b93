#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_leftovers
short_description: Find and remove what k3s left on a machine
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Processes, mounts, interfaces, rules of iptables and files of k3s and its pods. The service must be
    stopped.
  - Files are never deleted through a mount. Mounts that stand in C(/etc/fstab) are the machine's own and
    stay, with what is on them; only what k3s keeps on the disk of its data folder goes.
  - Needs root.
options:
  state:
    description:
      - V(listed) only tells what is there. V(absent) removes it, and fails when something stays.
    type: str
    choices: [listed, absent]
    default: listed
  limit:
    description:
      - Seconds that processes may take to end.
    type: int
    default: 30
extends_documentation_fragment:
  - edgeha.iotedge.k3s
  - edgeha.iotedge.k3s.program
attributes:
  check_mode:
    support: full
    description: Tells what would be removed.
  diff_mode:
    support: full
    description: Shows what goes.
"""

EXAMPLES = r"""
- name: Remove what k3s left
  edgeha.iotedge.k3s_leftovers:
    state: absent
"""

RETURN = r"""
found:
  description: What was there, such as V(process 71 k3s) or V(mount /run/netns/cni-1).
  returned: always
  type: list
  elements: str
left:
  description: What is still there; with O(state=listed) and in check mode the same as RV(found).
  returned: always
  type: list
  elements: str
"""

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_leftovers as core
from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_options, mount_table
from ansible_collections.edgeha.iotedge.plugins.module_utils.this_machine import text

_PAUSE = 0.2


class Machine:
    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._data_dir: str = module.params["data_dir"].rstrip("/")
        self._binary: str = module.params["binary"]

    def found(self) -> list[str]:
        """Return all that is there, as texts."""
        lines = [f"process {pid} {text(f'/proc/{pid}/comm').strip()}" for pid in self._processes()]
        lines += [f"mount {point}" for point in self._mounts()]
        lines += [f"interface {name}" for name in self._interfaces()]
        lines += [f"{count} rules of {family}" for family, _kept, count in self._rules()]
        lines += [f"file {path}" for path in self._files()]
        return lines

    def remove(self) -> None:
        self._end_processes()
        for point in self._mounts():
            if self._module.run_command(["timeout", "20", "umount", point])[0]:
                # A mount whose server is gone answers nobody; it ends when its last user does.
                self._module.run_command(["umount", "--lazy", point])
        for name in self._interfaces():
            self._module.run_command(["ip", "link", "delete", name])
        for family, kept, _count in self._rules():
            restore = self._program(f"{family}-restore")
            if restore:
                self._module.run_command([restore], data=kept)
        if self._mounts():
            return
        for path in self._files():
            self._delete(Path(path))
        self._module.run_command(["systemctl", "daemon-reload"])

    def _processes(self) -> list[int]:
        parents: dict[int, int] = {}
        programs: dict[int, str] = {}
        groups: dict[int, str] = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            pid = int(folder.name)
            with contextlib.suppress(OSError, IndexError, ValueError):
                # The name of a program stands in brackets and may hold anything.
                parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                groups[pid] = text(folder / "cgroup")
                programs[pid] = str((folder / "exe").readlink())
        found = core.processes(parents, programs, groups, self._data_dir, self._binary)
        mine = os.getpid()
        while mine > 1:
            if mine in found:
                found.remove(mine)
            mine = parents.get(mine, 0)
        return found

    def _end_processes(self) -> None:
        """Ask all to end, then kill. What was asked once is not asked again; who comes new is."""
        half = self._module.params["limit"] / 2
        for kind in (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + half
            told: set[int] = set()
            while time.monotonic() < until:
                there = set(self._processes())
                if not there:
                    return
                for pid in there - told:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, kind)
                told |= there
                time.sleep(_PAUSE)

    def _mounts(self) -> list[str]:
        return core.mounts(
            text("/proc/self/mounts"),
            self._data_dir,
            [entry.place for entry in mount_table.fstab(text("/etc/fstab"))],
        )

    def _interfaces(self) -> list[str]:
        masters = {}
        for folder in Path("/sys/class/net").iterdir():
            master = ""
            with contextlib.suppress(OSError):
                master = (folder / "master").readlink().name
            masters[folder.name] = master
        return core.interfaces(masters)

    def _rules(self) -> list[tuple[str, str, int]]:
        found = []
        for family in ("iptables", "ip6tables"):
            program = self._program(f"{family}-save")
            if program is None:
                continue
            code, saved, _error = self._module.run_command([program])
            kept, count = core.strip_rules(saved) if not code else ("", 0)
            if count:
                found.append((family, kept, count))
        return found

    def _program(self, name: str) -> str | None:
        """Return a program of the system, or else the one that k3s brings."""
        bundled = Path(self._data_dir) / "data" / "current" / "bin" / "aux" / name
        return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") or (
            str(bundled) if bundled.exists() else None
        )

    def _files(self) -> list[str]:
        folder = Path(self._binary).parent
        paths = [Path(path) for path in core.FOLDERS]
        paths += [Path(self._binary), Path(f"{self._binary}.previous")]
        for name in core.LINKS:
            with contextlib.suppress(OSError):
                if (folder / name).readlink().name == Path(self._binary).name:
                    paths.append(folder / name)
        for unit in core.UNITS:
            paths += [Path(f"/etc/systemd/system/{unit}.service{end}") for end in ("", ".env", ".d")]
        paths += [Path(self._data_dir)]
        there = [path for path in paths if path.exists() or path.is_symlink()]
        return [str(path) for path in there if not self._own_disks(path) or self._content(path)]

    def _own_disks(self, folder: Path) -> list[str]:
        """Return mount points at or below a folder; those of k3s are gone when files are deleted."""
        if folder.is_symlink() or not folder.is_dir():
            return []
        points = {entry.place for entry in mount_table.mounted(text("/proc/self/mounts"))}
        foreign = points - set(self._mounts())
        return sorted(point for point in foreign if point == str(folder) or core.under(point, str(folder)))

    def _content(self, folder: Path) -> list[Path]:
        """Return what in a folder is no disk of the machine, not on the way to one, not its file system's."""
        disks = self._own_disks(folder)
        return [
            path
            for path in folder.iterdir()
            if path.name != "lost+found"
            and not any(point == str(path) or core.under(point, str(path)) for point in disks)
        ]

    def _delete(self, path: Path) -> None:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        disks = self._own_disks(path)
        if not disks:
            shutil.rmtree(path, ignore_errors=True)
            return
        for inner in self._content(path):
            if inner.is_dir() and not inner.is_symlink():
                shutil.rmtree(inner, ignore_errors=True)
            else:
                inner.unlink(missing_ok=True)
        for inner in list(path.iterdir()):
            # What is on the way to a disk may hold more than the way.
            if str(inner) not in disks and inner.is_dir() and not inner.is_symlink():
                self._delete(inner)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["listed", "absent"], "default": "listed"},
            **k3s_options.DATA_DIR,
            **k3s_options.PROGRAM,
            "limit": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="k3s_leftovers needs root: set become: true")
    if not core.is_safe(module.params["data_dir"]):
        module.fail_json(
            msg=f"{module.params['data_dir']} is no folder that may be emptied: correct edge_k3s_data_dir"
        )
    machine = Machine(module)
    found = machine.found()
    left = found
    absent = module.params["state"] == "absent"
    if absent and found and not module.check_mode:
        machine.remove()
        left = machine.found()
        if left:
            module.fail_json(
                msg=f"this stays of k3s: {', '.join(left[:20])}. Stop what uses it, or restart the machine, "
                f"and run this again",
                found=found,
                left=left,
            )
    result: dict[str, Any] = {"changed": absent and bool(found), "found": found, "left": left}
    if absent:
        result["diff"] = {"before": "".join(f"{line}\n" for line in found), "after": ""}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
