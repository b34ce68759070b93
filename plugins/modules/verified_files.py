#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: verified_files
short_description: Install files whose SHA-256 is known
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Installs files from a URL that the machine reaches, or from the controller. A file takes its place in
    one step, and only when its content is the one that is expected.
  - A file of the controller is verified there before it is sent, and on the machine like any other.
options:
  files:
    description:
      - The files.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - What the file is, for whoever chooses among files. The module does not use it.
        type: str
      source:
        description:
          - A URL that begins with C(http://) or C(https://), or the path of a file on the controller.
        type: str
        required: true
      dest:
        description:
          - Path on the machine. Its folder is made when it is missing.
        type: path
        required: true
      sha256:
        description:
          - The SHA-256 of the content, in hexadecimal.
        type: str
        required: true
      mode:
        description:
          - Mode of the file, in octal.
        type: str
        default: '0644'
      keep_previous:
        description:
          - Keep the file that was there before under its name with C(.previous) at the end.
        type: bool
        default: false
      staged:
        description:
          - Where the controller has put the file on the machine. The action plugin sets it.
        type: path
  ca_pem:
    description:
      - Certificates that are trusted for URLs besides those of the machine, as PEM.
    type: str
    default: ''
  timeout:
    description:
      - Seconds that a server may be silent.
    type: int
    default: 30
notes:
  - A proxy is taken from the environment of the task.
attributes:
  check_mode:
    description: Says what it would install, and fetches nothing.
    support: full
  diff_mode:
    description: Shows the SHA-256 before and after.
    support: full
"""

EXAMPLES = r"""
- name: Install k3s
  edgeha.iotedge.verified_files:
    files:
      - source: https://mirror.example.org/k3s/v1.34.3%2Bk3s1/k3s
        dest: /usr/local/bin/k3s
        sha256: f95350e3997165974d1d1406f01aabaf869aed7ca790cc2d83a92a82f26a06c5
        mode: "0755"
        keep_previous: true
"""

RETURN = r"""
installed:
  description: Paths that were installed, or would be.
  returned: success
  type: list
  elements: str
"""

import hashlib
import http.client
import os
import tempfile
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.edgeha.iotedge.plugins.module_utils import this_machine

_CHUNK = 1 << 20
_ATTEMPTS = 3


class FileError(Exception):
    """A file cannot be installed. The text names the file, what is the case, and what to do."""


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, an empty text when there is none."""
    try:
        return this_machine.sha256(path)
    except FileNotFoundError:
        return ""


def differs(entry: dict[str, Any], before: str) -> bool:
    """Whether content or mode of the file is not as wanted."""
    path = Path(entry["dest"])
    return before != entry["sha256"].lower() or path.stat().st_mode & 0o7777 != int(entry["mode"], 8)


def install(entry: dict[str, Any], before: str, ca_file: str | None, timeout: int) -> None:
    """Put the file in its place. Whatever stops it, what was there before is still there."""
    path = Path(entry["dest"])
    mode = int(entry["mode"], 8)
    if before == entry["sha256"].lower():
        path.chmod(mode)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    new = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _fill(file, entry, ca_file, timeout)
            file.flush()
            os.fsync(file.fileno())
        new.chmod(mode)
        if entry["keep_previous"] and before:
            previous = path.with_name(f"{path.name}.previous")
            link = path.with_name(f".{path.name}.previous")
            link.unlink(missing_ok=True)
            os.link(path.resolve(), link)
            link.replace(previous)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _fill(file: BinaryIO, entry: dict[str, Any], ca_file: str | None, timeout: int) -> None:
    """Write the content, from where the controller has put it or from its URL, and verify it."""
    problem = ""
    for _attempt in range(_ATTEMPTS if not entry["staged"] else 1):
        file.seek(0)
        file.truncate()
        digest = hashlib.sha256()
        try:
            for chunk in _content(entry, ca_file, timeout):
                file.write(chunk)
                digest.update(chunk)
        except urllib.error.HTTPError as error:
            problem = f"the server answers {error.code} {error.reason}"
            if error.code < 500:
                break
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            problem = f"it cannot be fetched: {getattr(error, 'reason', error)}"
        else:
            if digest.hexdigest() == entry["sha256"].lower():
                return
            raise FileError(
                f"{entry['source']} has the SHA-256 {digest.hexdigest()}, expected is {entry['sha256']}: "
                "it is damaged or another file; correct the source or the lock file"
            )
    raise FileError(
        f"{entry['source']}: {problem}; check the source, the network of this machine and its proxy"
    )


def _content(entry: dict[str, Any], ca_file: str | None, timeout: int) -> Iterator[bytes]:
    if entry["staged"]:
        with Path(entry["staged"]).open("rb") as file:
            yield from _chunks(file)
        return
    with open_url(entry["source"], timeout=timeout, ca_path=ca_file, http_agent="edgeha.iotedge") as answer:
        yield from _chunks(answer)


def _chunks(file: Any) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str"},
                    "source": {"type": "str", "required": True},
                    "dest": {"type": "path", "required": True},
                    "sha256": {"type": "str", "required": True},
                    "mode": {"type": "str", "default": "0644"},
                    "keep_previous": {"type": "bool", "default": False},
                    "staged": {"type": "path"},
                },
            },
            "ca_pem": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    ca_file = None
    if module.params["ca_pem"]:
        ca_file = str(Path(module.tmpdir) / "ca.pem")
        Path(ca_file).write_text(module.params["ca_pem"])
    installed = []
    diff = []
    try:
        for entry in module.params["files"]:
            before = sha256_of(Path(entry["dest"]))
            if not differs(entry, before):
                continue
            if not module.check_mode:
                install(entry, before, ca_file, module.params["timeout"])
            installed.append(entry["dest"])
            header = {"before_header": entry["dest"], "after_header": entry["dest"]}
            after = f"sha256 {entry['sha256'].lower()} mode {entry['mode']}\n"
            diff.append({**header, "before": f"sha256 {before}\n" if before else "", "after": after})
    except FileError as error:
        module.fail_json(msg=str(error), installed=installed)
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}", installed=installed)
    module.exit_json(changed=bool(installed), installed=installed, diff=diff)


if __name__ == "__main__":
    main()
