#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_snapshot
short_description: Take and list snapshots of a k3s server's datastore
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Of etcd, k3s itself takes the snapshot. Of SQLite, the module copies the running database with SQLite's
    own means into the same folder.
  - Needs root on a server of the cluster.
options:
  state:
    description:
      - V(taken) takes one more snapshot each time. V(listed) only tells which are there.
    type: str
    choices: [taken, listed]
    default: taken
  name:
    description:
      - What the name of the snapshot begins with; k3s adds the node and the time.
    type: str
    default: on-demand
  keep:
    description:
      - So many snapshots under this name are kept on the server. V(0) keeps all.
    type: int
    default: 0
  folder:
    description:
      - Folder of the snapshots, by default that of k3s in O(data_dir).
    type: path
  limit:
    description:
      - Seconds that a snapshot may take.
    type: int
    default: 300
extends_documentation_fragment:
  - edgeha.iotedge.k3s
  - edgeha.iotedge.k3s.program
attributes:
  check_mode:
    support: full
    description: Says that a snapshot would be taken.
  diff_mode:
    support: full
    description: Shows the names of the snapshots before and after.
"""

EXAMPLES = r"""
- name: Take a snapshot
  edgeha.iotedge.k3s_snapshot:
    name: before-change
    keep: 5
  register: snapshot
"""

RETURN = r"""
snapshot:
  description:
    - The new snapshot with name, path, size, sha256 and taken; empty in check mode and when only listed.
  returned: always
  type: dict
snapshots:
  description: All snapshots with name, path, size and taken (in seconds since 1970), the oldest first.
  returned: always
  type: list
  elements: dict
removed:
  description: Names of the snapshots that O(keep) left no room for.
  returned: always
  type: list
  elements: str
"""

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_options, k3s_snapshots, this_machine

try:
    import sqlite3
except ImportError:
    # Distributions have it in a package of its own; it is needed for SQLite only.
    HAS_SQLITE = False
else:
    HAS_SQLITE = True

_LEFT_OVER = (".part", "-journal", "-wal", "-shm")


class Refused(Exception):  # noqa: N818 - a state that the operator is told of
    """The text is for the operator."""


class Store:
    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._params = module.params
        self._db = Path(module.params["data_dir"]) / "server" / "db"
        self.folder = Path(module.params["folder"] or self._db / "snapshots")

    def is_etcd(self) -> bool:
        return (self._db / "etcd" / "member").is_dir()

    def is_sqlite(self) -> bool:
        return (self._db / "state.db").is_file() and not self.is_etcd()

    def require(self) -> None:
        if not k3s_snapshots.is_name(self._params["name"]):
            raise Refused(
                f"{self._params['name']!r} cannot begin the name of a snapshot: use a-z, 0-9, '-' and '.', "
                f"at most 63 of them"
            )
        if not self.is_etcd() and not self.is_sqlite():
            raise Refused(
                f"{self._db} holds neither etcd nor SQLite: take snapshots of an external datastore with its "
                f"own means, and of a cluster on one of its servers"
            )

    def listed(self) -> list[dict[str, Any]]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for file in self.folder.iterdir():
                if file.is_file() and not file.name.endswith(_LEFT_OVER) and not file.name.startswith("."):
                    taken = k3s_snapshots.taken_at(file.name) or int(file.stat().st_mtime)
                    found.append(
                        {"name": file.name, "path": str(file), "size": file.stat().st_size, "taken": taken}
                    )
        return sorted(found, key=lambda entry: (entry["taken"], entry["name"]))

    def take(self) -> dict[str, Any]:
        before = {entry["name"] for entry in self.listed()}
        if self.is_etcd():
            self._run("save", "--name", self._params["name"])
        else:
            self._copy_database()
        new = [entry for entry in self.listed() if entry["name"] not in before]
        if not new:
            raise Refused(
                f"k3s said that it took a snapshot, and none is in {self.folder}: check etcd-snapshot-dir"
            )
        found = dict(new[-1])
        if not found["size"]:
            raise Refused(f"the snapshot {found['path']} is empty: look at the free space of its disk")
        Path(found["path"]).chmod(0o600)
        return {**found, "sha256": this_machine.sha256(found["path"])}

    def prune(self, node: str) -> list[str]:
        names = [entry["name"] for entry in self.listed()]
        surplus = k3s_snapshots.surplus(names, self._params["name"], node, self._params["keep"])
        for name in surplus:
            if self.is_etcd():
                self._run("delete", name)
            else:
                (self.folder / name).unlink()
        return surplus

    def _run(self, *words: str) -> None:
        command = [self._params["binary"], "etcd-snapshot", *words]
        command += ["--data-dir", self._params["data_dir"], "--etcd-snapshot-dir", str(self.folder)]
        # A command of k3s may wait for ever for an etcd that has no majority.
        command = ["timeout", "--kill-after", "5", str(self._params["limit"]), *command]
        code, out, error = self._module.run_command(command)
        if code in (124, 137):
            raise Refused(
                f"'k3s etcd-snapshot {words[0]}' did not end in {self._params['limit']} s: look whether "
                f"etcd has a majority"
            )
        if code:
            raise Refused(f"'k3s etcd-snapshot {words[0]}' failed: {(error or out).strip()[-800:]}")

    def _copy_database(self) -> None:
        if not HAS_SQLITE:
            raise Refused("Python's module sqlite3 is missing here: install the distribution's full python3")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = k3s_snapshots.file_name(self._params["name"], socket.gethostname().lower(), time.time())
        part = self.folder / f"{name}.part"
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        source = sqlite3.connect(f"file:{self._db / 'state.db'}?mode=ro", uri=True, timeout=30)
        target = sqlite3.connect(part)
        try:
            with contextlib.closing(source), contextlib.closing(target):
                source.backup(target)
                (verdict,) = target.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as error:
            part.unlink(missing_ok=True)
            raise Refused(f"SQLite could not copy its database: {error}") from error
        if verdict != "ok":
            part.unlink(missing_ok=True)
            raise Refused(f"the copy of the database is damaged: {verdict}")
        part.rename(self.folder / name)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["taken", "listed"], "default": "taken"},
            "name": {"type": "str", "default": "on-demand"},
            "keep": {"type": "int", "default": 0},
            "folder": {"type": "path"},
            **k3s_options.DATA_DIR,
            **k3s_options.PROGRAM,
            "limit": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    store = Store(module)
    before = store.listed()
    if module.params["state"] == "listed":
        module.exit_json(changed=False, snapshot={}, snapshots=before, removed=[])
    snapshot: dict[str, Any] = {}
    removed: list[str] = []
    try:
        store.require()
        if not module.check_mode:
            snapshot = store.take()
            # By the name that k3s gave: a node may be called otherwise than its machine.
            node = snapshot["name"][len(module.params["name"]) + 1 :].rpartition("-")[0]
            removed = store.prune(node)
    except Refused as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename or store.folder}: {error.strerror or error}")
    after = store.listed()
    said = [entry["name"] for entry in after]
    if module.check_mode:
        said.append(f"{module.params['name']}-NODE-TIME")
    module.exit_json(
        changed=True,
        snapshot=snapshot,
        snapshots=after,
        removed=removed,
        diff={
            "before": "".join(f"{entry['name']}\n" for entry in before),
            "after": "".join(f"{name}\n" for name in said),
        },
    )


if __name__ == "__main__":
    main()
