#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_restore
short_description: Give a stopped k3s server the datastore of a snapshot
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - One server of a cluster takes the snapshot; the datastores of the others are set aside, and they join it.
  - What is replaced is kept beside it under another name, until somebody deletes it.
  - A restore that was interrupted after it took place is not done again with the same snapshot.
  - Needs root. k3s must not run.
options:
  state:
    description:
      - V(restored) takes the datastore from O(snapshot). V(set_aside) leaves the server without a datastore.
      - V(verified) changes nothing, and fails when O(snapshot) is not whole. k3s may run meanwhile.
    type: str
    choices: [restored, set_aside, verified]
    required: true
  snapshot:
    description:
      - Path of the snapshot on this machine. One of SQLite ends in C(.sqlite).
    type: path
  config:
    description:
      - The configuration of the server. Its folder C(config.yaml.d), which names the servers to join, is not
        read.
    type: path
    default: /etc/rancher/k3s/config.yaml
  limit:
    description:
      - Seconds that k3s may take.
    type: int
    default: 300
extends_documentation_fragment:
  - edgeha.iotedge.k3s
  - edgeha.iotedge.k3s.program
attributes:
  check_mode:
    support: full
    description: Says what would be replaced.
  diff_mode:
    support: full
    description: Shows what becomes of the datastore.
"""

EXAMPLES = r"""
- name: Take the datastore from a snapshot
  edgeha.iotedge.k3s_restore:
    state: restored
    snapshot: /var/lib/rancher/k3s/server/db/snapshots/on-demand-gw1-1700000000

- name: Join that server without an old datastore
  edgeha.iotedge.k3s_restore:
    state: set_aside
"""

RETURN = r"""
kept:
  description: Where the datastore is that was replaced; empty when there was none.
  returned: always
  type: str
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_options
from ansible_collections.edgeha.iotedge.plugins.module_utils.this_machine import sha256

_MARK = "edgeha-restored"
_LINES = 12
# etcd writes whole pages and a digest after them.
_PAGE = 512
_DIGEST_BYTES = 32


class Refused(Exception):  # noqa: N818 - a state that the operator is told of
    """The text is for the operator."""


def is_whole(path: Path) -> bool:
    """Whether a file can be a snapshot: one of etcd ends with the SHA-256 of what stands before."""
    if path.suffix in (".sqlite", ".zip"):
        beginning = b"SQLite format 3\0" if path.suffix == ".sqlite" else b"PK"
        with path.open("rb") as source:
            return source.read(len(beginning)) == beginning
    size = path.stat().st_size
    if size % _PAGE != _DIGEST_BYTES:
        return False
    found = hashlib.sha256()
    with path.open("rb") as source:
        left = size - _DIGEST_BYTES
        while left:
            part = source.read(min(left, 1 << 20))
            if not part:
                return False
            found.update(part)
            left -= len(part)
        return found.digest() == source.read()


class Server:
    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._params = module.params
        self._db = Path(module.params["data_dir"]) / "server" / "db"
        self._snapshot = Path(module.params["snapshot"] or "/")

    def require_stopped(self) -> None:
        binary = Path(self._params["binary"])
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                program = str((folder / "exe").readlink()).removesuffix(" (deleted)")
                is_ours = program == str(binary) or program.startswith(f"{self._params['data_dir']}/data/")
                # The program gives itself a title such as "k3s server".
                if is_ours and any(word in (b"server", b"k3s server") for word in words[:2]):
                    raise Refused(f"k3s runs as process {folder.name}: stop the service first")

    def is_restored(self) -> bool:
        """Whether this snapshot was taken in already, and k3s has not been started since."""
        with contextlib.suppress(OSError):
            wanted = sha256(self._snapshot)
            if self._snapshot.suffix == ".sqlite":
                return sha256(self._db / "state.db") == wanted
            return (self._db / "reset-flag").exists() and (self._db / _MARK).read_text() == wanted
        return False

    def restore(self) -> str:
        if self._snapshot.suffix == ".sqlite":
            return self._restore_sqlite()
        return self._restore_etcd()

    def set_aside(self) -> str:
        """Rename what there is; snapshots stay where they are looked for."""
        there = self.datastores()
        if not there or self._module.check_mode:
            return ", ".join(there)
        aside = self._db / f"old-{int(time.time())}"
        aside.mkdir(mode=0o700)
        for name in (*there, _MARK, "reset-flag"):
            with contextlib.suppress(FileNotFoundError):
                (self._db / name).rename(aside / name)
        return str(aside)

    def datastores(self) -> list[str]:
        names = ("etcd", "state.db", "state.db-wal", "state.db-shm")
        return [name for name in names if (self._db / name).exists()]

    def require_snapshot(self) -> None:
        if not self._snapshot.is_file() or not self._snapshot.stat().st_size:
            raise Refused(f"there is no snapshot {self._snapshot} on this machine: correct edge_snapshot")
        if not is_whole(self._snapshot):
            raise Refused(f"the snapshot {self._snapshot} is damaged or none: take another one")

    def _restore_sqlite(self) -> str:
        kept = self.set_aside()
        self._db.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self._db / "state.db.part"
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        shutil.copyfile(self._snapshot, part)
        part.rename(self._db / "state.db")
        return kept

    def _restore_etcd(self) -> str:
        before = {path.name for path in self._db.glob("etcd*")}
        # k3s asks for a start between two resets; it was stopped on purpose here.
        (self._db / "reset-flag").unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix="edgeha-restore-", dir="/run") as folder:
            config = Path(folder) / "config.yaml"
            os.close(os.open(config, os.O_WRONLY | os.O_CREAT, 0o600))
            with contextlib.suppress(FileNotFoundError):
                config.write_bytes(Path(self._params["config"]).read_bytes())
            command = ["timeout", "--kill-after", "10", str(self._params["limit"]), self._params["binary"]]
            command += ["server", "--config", str(config), "--data-dir", self._params["data_dir"]]
            command += ["--cluster-reset", f"--cluster-reset-restore-path={self._snapshot}"]
            code, out, error = self._module.run_command(command)
        said = "\n".join((error or out).strip().splitlines()[-_LINES:])
        if code in (124, 137):
            raise Refused(f"k3s did not end its reset in {self._params['limit']} s. It said last: {said}")
        if code:
            raise Refused(f"k3s could not restore the snapshot: {said}")
        if not (self._db / "etcd" / "member").is_dir():
            raise Refused(f"k3s ended its reset without an etcd in {self._db}: {said}")
        (self._db / _MARK).write_text(sha256(self._snapshot))
        kept = sorted({path.name for path in self._db.glob("etcd*")} - before - {"etcd"})
        return str(self._db / kept[-1]) if kept else ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["restored", "set_aside", "verified"], "required": True},
            "snapshot": {"type": "path"},
            **k3s_options.DATA_DIR,
            "config": {"type": "path", "default": "/etc/rancher/k3s/config.yaml"},
            **k3s_options.PROGRAM,
            "limit": {"type": "int", "default": 300},
        },
        required_if=[("state", "restored", ["snapshot"]), ("state", "verified", ["snapshot"])],
        supports_check_mode=True,
    )
    server = Server(module)
    before = server.datastores()
    restored = module.params["state"] == "restored"
    kept = ""
    if module.params["state"] == "verified":
        try:
            # In check mode nobody has sent it.
            if not module.check_mode or Path(module.params["snapshot"]).exists():
                server.require_snapshot()
        except Refused as error:
            module.fail_json(msg=str(error))
        module.exit_json(changed=False, kept="")
    try:
        if not module.check_mode:
            server.require_stopped()
        if restored and not module.check_mode:
            server.require_snapshot()
        changed = not server.is_restored() if restored else bool(before)
        if changed and not module.check_mode:
            kept = server.restore() if restored else server.set_aside()
    except Refused as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror or error}")
    after = f"that of {Path(module.params['snapshot']).name}" if restored else "none"
    module.exit_json(
        changed=changed,
        kept=kept,
        diff={
            "before": f"datastore: {', '.join(before) or 'none'}\n",
            "after": f"datastore: {after if changed else ', '.join(before) or 'none'}\n",
        },
    )


if __name__ == "__main__":
    main()
