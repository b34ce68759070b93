#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_files
short_description: Write several files of root in one step
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Brings files to the content and mode that are wanted, all in one step. Each is replaced as a whole and is
    on the disk before the module returns, so a power cut leaves the old one or the new one.
  - A file that is as wanted is not touched, and a mode or an owner that is set does not make it newer.
  - Contents are not written to the log of the system. A diff hides those that only root may read, and values
    that look like secrets.
  - The files belong to root. A symbolic link stays one, and its target is written.
options:
  files:
    description:
      - The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description:
          - Where it is. Folders that are missing are made.
        type: path
        required: true
      content:
        description:
          - Its content. It is needed unless O(files[].state=absent).
        type: str
      mode:
        description:
          - Its mode in octal digits.
        type: str
        default: '0600'
      hidden:
        description:
          - Keep its content out of diffs and results. By default that is so for files that only root may
            read.
        type: bool
      state:
        description:
          - Whether it is there.
        type: str
        choices: [present, absent]
        default: present
  directory_mode:
    description:
      - Mode in octal digits of folders that are made.
    type: str
    default: '0755'
attributes:
  check_mode:
    description: Tells what it would write, and writes nothing.
    support: full
  diff_mode:
    description: Shows the lines that change, without those that are hidden.
    support: full
"""

EXAMPLES = r"""
- name: Configure k3s
  edgeha.iotedge.node_files:
    files:
      - path: /etc/rancher/k3s/config.yaml
        content: "{{ config }}"
        hidden: false
      - path: /etc/rancher/k3s/token
        content: "{{ token }}"
      - path: /etc/systemd/system/k3s.service
        content: "{{ unit }}"
        mode: '0644'
      - path: /etc/rancher/k3s/registries.yaml
        state: absent
  register: written
"""

RETURN = r"""
paths:
  description: Paths of the files that were changed, or would be in check mode, as they were given.
  returned: always
  type: list
  elements: str
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

_HIDDEN = "(content hidden)"
_OTHERS_READ = stat.S_IRGRP | stat.S_IROTH
# What follows a key that says what it is. A path of a file and a switch tell nothing.
_SECRET_VALUE = re.compile(
    r"""(?imx)^(\s*(?:-\s+)?["']?[\w.-]*
    (?:token|passw|secret|credential|private.?key|datastore-endpoint|\bauth\b)
    [\w.-]*(?<!file)["']?\s*[:=]\s*) (?!(?:true|false|["']?/[\w./-]+["']?)\s*$) \S.*$"""
)
_SECRET_IN_URL = re.compile(r"(://[^/\s:@]+:)[^/\s@]+(?=@)")


class QuietModule(AnsibleModule):  # type: ignore[misc]  # ansible-core ships no types
    """Does not write its arguments to the system's log: they are files, some of them secret."""

    def _log_invocation(self) -> None:
        return None


@dataclass(frozen=True)
class Current:
    """What is there. content is None when there is no file."""

    content: bytes | None
    mode: int = 0
    is_roots: bool = True


@dataclass(frozen=True)
class Wanted:
    """What is asked for. content is None for a file that is not to be there."""

    path: str
    content: bytes | None
    mode: int
    hidden: bool


class FileError(Exception):
    """A file that cannot be brought to what is wanted."""


def parse_mode(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3,4}", text):
        raise FileError(f"the mode {text} is no octal number such as '0600'")
    return int(text, 8)


def wanted_of(entry: dict[str, Any]) -> Wanted:
    """Return what one entry of the option asks for."""
    mode = parse_mode(entry["mode"])
    hidden = entry["hidden"]
    if hidden is None:
        hidden = not mode & _OTHERS_READ
    if entry["state"] == "absent":
        return Wanted(entry["path"], None, mode, hidden)
    if entry["content"] is None:
        raise FileError(f"{entry['path']} has no content")
    return Wanted(entry["path"], entry["content"].encode(), mode, hidden)


def look(path: str, owner: int = 0) -> Current:
    """Return what is at a path. Raises FileError for what is no file."""
    try:
        found = Path(path).stat()
        if not stat.S_ISREG(found.st_mode):
            raise FileError(f"{path} is there and is no file")
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return Current(None)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error
    is_roots = (found.st_uid, found.st_gid) == (owner, owner)
    return Current(content, stat.S_IMODE(found.st_mode), is_roots)


def differs(current: Current, wanted: Wanted) -> bool:
    if wanted.content is None or current.content is None:
        return current.content != wanted.content
    return current.content != wanted.content or current.mode != wanted.mode or not current.is_roots


def shown(content: bytes | None, mode: int, hidden: bool) -> str:
    """Return what a diff says of a file: its mode, and its lines where they may be seen."""
    if content is None:
        return ""
    text = _HIDDEN if hidden else content.decode(errors="replace")
    text = _SECRET_IN_URL.sub(_cover, _SECRET_VALUE.sub(_cover, text))
    return f"mode: {mode:04o}\n{text}".rstrip("\n") + "\n"


def _cover(found: re.Match[str]) -> str:
    return f"{found.group(1)}(hidden)"


def difference(current: Current, wanted: Wanted) -> dict[str, str]:
    """Return the diff of one file."""
    before = shown(current.content, current.mode, wanted.hidden)
    after = shown(wanted.content, wanted.mode, wanted.hidden)
    both = current.content is not None and wanted.content is not None
    if both and current.content != wanted.content:
        # What is hidden differs, and must not look the same.
        if wanted.hidden:
            after = after.replace(_HIDDEN, "(other content, hidden)")
        elif before == after:
            after += "(a hidden value differs)\n"
    if both and not current.is_roots:
        before, after = f"owner: not root\n{before}", f"owner: root\n{after}"
    return {
        "before_header": wanted.path,
        "after_header": wanted.path,
        "before": before,
        "after": after,
    }


def sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def make_folder(folder: Path, mode: int) -> None:
    """Make a folder and those above it, each of them on the disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent, mode)
    folder.mkdir(exist_ok=True)
    folder.chmod(mode)
    sync_folder(folder.parent)


def replace(path: Path, wanted: Wanted, owner: int) -> None:
    """Put a file with the content there, as a whole."""
    # No service takes a name with a dot before and nothing known behind for one of its own.
    partial = path.with_name(f".{path.name}.{os.getpid()}.new")
    number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(number, "wb") as out:
            out.write(wanted.content or b"")
            out.flush()
            os.fchown(out.fileno(), owner, owner)
            os.fchmod(out.fileno(), wanted.mode)
            os.fsync(out.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def apply(current: Current, wanted: Wanted, directory_mode: int, owner: int = 0) -> None:
    """Bring one file to what is wanted. Raises FileError when the system refuses."""
    # A link that somebody made stays one.
    path = Path(os.path.realpath(wanted.path))
    try:
        if wanted.content is None:
            Path(wanted.path).unlink()
            sync_folder(Path(wanted.path).parent)
            return
        if current.content == wanted.content:
            os.chown(path, owner, owner)
            path.chmod(wanted.mode)
            return
        make_folder(path.parent, directory_mode)
        replace(path, wanted, owner)
    except OSError as error:
        raise FileError(f"{wanted.path} cannot be written: {error.strerror}") from error


def main() -> None:
    module = QuietModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "no_log": True},
                    "mode": {"type": "str", "default": "0600"},
                    "hidden": {"type": "bool"},
                    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                },
                "required_if": [("state", "present", ["content"])],
            },
            "directory_mode": {"type": "str", "default": "0755"},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="node_files writes files of root: set become: true")
    paths: list[str] = []
    # A content that is not hidden as a whole may hold a secret, so results carry none but in a diff.
    told = [
        {name: value for name, value in entry.items() if name != "content"}
        for entry in module.params["files"]
    ]
    invocation = {"module_args": {**module.params, "files": told}}
    try:
        directory_mode = parse_mode(module.params["directory_mode"])
        wanted = [wanted_of(entry) for entry in module.params["files"]]
        # Contents that may be seen are shown in diffs; hidden ones stay masked wherever they turn up.
        hidden = {entry.content.decode() for entry in wanted if entry.hidden and entry.content is not None}
        module.no_log_values &= hidden
        # What cannot be done is found before anything is changed.
        current = [(look(entry.path), entry) for entry in wanted]
        diffs = []
        for found, entry in current:
            if not differs(found, entry):
                continue
            diffs.append(difference(found, entry))
            if not module.check_mode:
                apply(found, entry, directory_mode)
            paths.append(entry.path)
    except FileError as error:
        changed = bool(paths) and not module.check_mode
        module.fail_json(msg=str(error), changed=changed, paths=paths, invocation=invocation)
    module.exit_json(changed=bool(paths), paths=paths, diff=diffs, invocation=invocation)


if __name__ == "__main__":
    main()
