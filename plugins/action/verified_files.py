# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Verifies files of the controller and brings them to the machine; the module does the rest."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        files = arguments.get("files")
        if not isinstance(files, list) or not all(isinstance(entry, dict) for entry in files):
            raise AnsibleActionFail("files: give a list of mappings")
        try:
            arguments["files"] = [self._bring(index, dict(entry)) for index, entry in enumerate(files)]
            result.update(
                self._execute_module("edgeha.iotedge.verified_files", arguments, task_vars=task_vars)
            )
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _bring(self, index: int, entry: dict[str, Any]) -> dict[str, Any]:
        """Return the entry with the place on the machine where the controller has put its file."""
        source = str(entry.get("source", ""))
        if source.startswith(("http://", "https://")):
            return entry
        path = Path(source).expanduser()
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise AnsibleActionFail(
                f"the file {source} of the controller cannot be read: {error.strerror}; put it there, "
                "or correct edge_k3s_source"
            ) from error
        if found != str(entry.get("sha256", "")).lower():
            raise AnsibleActionFail(
                f"the file {source} of the controller has the SHA-256 {found}, expected is "
                f"{entry.get('sha256')}: it is damaged or another file; fetch it anew, or correct the lock"
            )
        if self._task.check_mode:
            return entry
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        staged = self._connection._shell.join_path(self._connection._shell.tmpdir, f"file{index}")
        self._transfer_file(str(path), staged)
        self._fixup_perms2((self._connection._shell.tmpdir, staged))
        return {**entry, "staged": staged}
