# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real files: what is written, what is left alone, and what a diff may show."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.edgeha.iotedge.plugins.modules import node_files
from ansible_collections.edgeha.iotedge.plugins.modules.node_files import Current, FileError, Wanted

ROOT = Path(__file__).resolve().parents[4]
OWNER = os.geteuid()


def entry(path: Path, content: str | None = "a: 1\n", **more: Any) -> dict[str, Any]:
    return {
        "path": str(path),
        "content": content,
        "mode": "0600",
        "hidden": None,
        "state": "present",
        **more,
    }


def bring(item: dict[str, Any]) -> bool:
    """Bring one file to what is wanted, and return whether it was not so."""
    wanted = node_files.wanted_of(item)
    current = node_files.look(wanted.path, OWNER)
    if not node_files.differs(current, wanted):
        return False
    node_files.apply(current, wanted, 0o755, OWNER)
    return True


def mode_of(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def test_a_file_is_made_with_its_folders_and_then_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "etc" / "k3s" / "config.yaml"
    assert bring(entry(file))
    assert (file.read_text(), mode_of(file), mode_of(file.parent)) == ("a: 1\n", "0600", "0755")
    before = file.stat()
    assert not bring(entry(file))
    assert file.stat() == before


def test_another_content_replaces_the_file_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    with file.open() as reader:
        assert bring(entry(file, "new", mode="0644"))
        # Who had it open still reads the old one.
        assert reader.read() == "old"
    assert (file.read_text(), mode_of(file)) == ("new", "0644")
    assert [place.name for place in tmp_path.iterdir()] == ["file"]


def test_another_mode_does_not_make_the_file_newer(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("a: 1\n")
    file.chmod(0o644)
    os.utime(file, (5, 5))
    assert bring(entry(file))
    assert (mode_of(file), file.stat().st_mtime) == ("0600", 5)


def test_a_file_that_is_not_to_be_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert bring(entry(file, None, state="absent"))
    assert not file.exists()
    assert not bring(entry(file, None, state="absent"))


def test_a_link_stays_one_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to("real/file")
    assert bring(entry(link, "x"))
    assert (tmp_path / "real" / "file").read_text() == "x"
    assert link.is_symlink()
    assert bring(entry(link, None, state="absent"))
    assert not link.is_symlink()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("old")

    def no_space(_number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(FileError, match="file cannot be written: No space left"):
        bring(entry(file, "new"))
    assert file.read_text() == "old"
    assert [place.name for place in tmp_path.iterdir()] == ["file"]


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is no file"):
        node_files.look(str(tmp_path))
    with pytest.raises(FileError, match="octal"):
        node_files.wanted_of(entry(tmp_path, mode="rw"))
    with pytest.raises(FileError, match="no content"):
        node_files.wanted_of(entry(tmp_path, None))


def diff(before: bytes | None, after: bytes | None, *, mode: int = 0o644, hidden: bool = False) -> str:
    current = Current(before, 0o644)
    found = node_files.difference(current, Wanted("/f", after, mode, hidden))
    assert found["before"] != found["after"]
    return f"{found['before']}--\n{found['after']}"


def test_a_diff_shows_lines_and_modes() -> None:
    assert diff(b"a: 1\n", b"a: 2\n") == "mode: 0644\na: 1\n--\nmode: 0644\na: 2\n"
    assert diff(None, b"a: 2\n") == "--\nmode: 0644\na: 2\n"
    assert diff(b"a: 2\n", None) == "mode: 0644\na: 2\n--\n"
    assert diff(b"a", b"a", mode=0o600) == "mode: 0644\na\n--\nmode: 0600\na\n"
    stranger = node_files.difference(Current(b"a", 0o644, is_roots=False), Wanted("/f", b"a", 0o644, False))
    assert (stranger["before"], stranger["after"]) == (
        "owner: not root\nmode: 0644\na\n",
        "owner: root\nmode: 0644\na\n",
    )


def test_a_diff_shows_nothing_of_what_is_hidden() -> None:
    assert "geheim" not in diff(b"geheim", b"geheim2", hidden=True)
    assert node_files.wanted_of(entry(Path("/f"))).hidden
    assert not node_files.wanted_of(entry(Path("/f"), mode="0640")).hidden
    assert not node_files.wanted_of(entry(Path("/f"), hidden=False)).hidden


@pytest.mark.parametrize(
    "line",
    [
        "token: geheim",
        '"agent-token": "geheim"',
        "K3S_TOKEN=geheim",
        "  password: geheim",
        "  - secret=geheim",
        "datastore-endpoint: postgres://u:geheim@h/d",
        "HTTP_PROXY=http://user:geheim@proxy:3128",
        "      auth: geheim",
    ],
)
def test_a_value_that_looks_like_a_secret_is_not_shown(line: str) -> None:
    shown = diff(None, f"a: 1\n{line}\nb: 2\n".encode())
    assert "geheim" not in shown
    assert "a: 1\n" in shown
    assert "b: 2\n" in shown
    # A change of nothing else still is one.
    assert "a hidden value differs" in diff(line.encode(), line.replace("geheim", "other").encode())


@pytest.mark.parametrize(
    "line",
    ["secrets-encryption: true", "token-file: /etc/rancher/k3s/token", "server: https://10.7.0.10:6443"],
)
def test_what_is_no_secret_is_shown(line: str) -> None:
    assert line in diff(None, line.encode())


def run(arguments: dict[str, Any], **internal: Any) -> dict[str, Any]:
    """Run the module itself as Ansible does."""
    given = {"ANSIBLE_MODULE_ARGS": {**arguments, **{f"_ansible_{k}": v for k, v in internal.items()}}}
    done = subprocess.run(
        [sys.executable, "-m", "ansible_collections.edgeha.iotedge.plugins.modules.node_files"],
        input=json.dumps(given), capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".collections")},
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


# The files of the module belong to root, so only root can write them.
as_root = pytest.mark.skipif(OWNER != 0, reason="writes files of root")


@as_root
def test_the_module_as_a_whole(tmp_path: Path) -> None:
    plain, secret = tmp_path / "plain", tmp_path / "secret"
    files = [
        {"path": str(plain), "content": "a: 1\n", "mode": "0644"},
        {"path": str(secret), "content": "geheim\nzwei\n"},
    ]
    checked = run({"files": files}, check_mode=True, diff=True)
    assert (checked["changed"], checked["paths"]) == (True, [str(plain), str(secret)])
    assert list(tmp_path.iterdir()) == []
    done = run({"files": files}, diff=True)
    assert done["diff"] == checked["diff"]
    assert done["diff"][0]["after"] == "mode: 0644\na: 1\n"
    assert "geheim" not in json.dumps(done)
    again = run({"files": files})
    assert (again["changed"], again["paths"], again["diff"]) == (False, [], [])
    assert secret.read_text() == "geheim\nzwei\n"


@as_root
def test_a_secret_inside_of_a_file_that_is_shown_is_in_no_result(tmp_path: Path) -> None:
    text = "a: 1\ndatastore-endpoint: postgres://u:geheim@h/d\n"
    done = run({"files": [{"path": str(tmp_path / "a"), "content": text, "hidden": False}]}, diff=True)
    assert "a: 1" in done["diff"][0]["after"]
    assert "geheim" not in json.dumps(done)
    assert done["invocation"]["module_args"]["files"][0]["path"] == str(tmp_path / "a")


@as_root
def test_nothing_is_written_when_one_file_cannot_be(tmp_path: Path) -> None:
    files = [{"path": str(tmp_path / "a"), "content": "a"}, {"path": str(tmp_path), "content": "geheim"}]
    failed = run({"files": files})
    assert failed["failed"] is True
    assert "is no file" in failed["msg"]
    assert list(tmp_path.iterdir()) == []


@as_root
def test_the_systems_log_is_told_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[str] = []

    def log(_self: object, message: str, log_args: Any = None) -> None:
        logged.append(f"{message} {log_args}")

    monkeypatch.setattr(node_files.AnsibleModule, "log", log)
    files = [{"path": str(tmp_path / "a"), "content": "geheim\nzwei"}]
    with patch_module_args({"files": files}), pytest.raises(SystemExit):
        node_files.main()
    assert (tmp_path / "a").exists()
    assert logged == []
