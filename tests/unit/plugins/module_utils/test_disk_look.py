# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a machine without such disks tells of them. What disks hold is for the scenario with a kernel."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.edgeha.iotedge.plugins.module_utils import disk_look


def blkid(*words: str) -> tuple[int, str]:
    assert words[0] == "blkid"
    return 0, '/dev/nope1: LABEL="edge-data"\n/dev/nope2: LABEL="other"\n'


def test_devices_and_folders(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "state.db").write_text("state")
    (tmp_path / "folder" / "lost+found").mkdir()
    (tmp_path / "file").write_text("no folder")
    link = tmp_path / "by-id"
    link.symlink_to("/dev/null")
    folders = [str(tmp_path / name) for name in ("folder", "file", "new")]
    told = disk_look.look(blkid, ["/dev/nope", str(link)], folders)
    assert not told["devices"]["/dev/nope"]["exists"]
    other = told["devices"][str(link)]
    assert (other["path"], other["exists"], other["block"]) == ("/dev/null", True, False)
    assert told["labels"] == {"edge-data": ["/dev/nope1"], "other": ["/dev/nope2"]}
    assert [told["mounts"][name]["files"] for name in folders] == [["state.db"], [], []]
    assert [told["mounts"][name]["folder"] for name in folders] == [True, False, True]
    assert {told["mounts"][name]["source"] for name in folders} == {""}
