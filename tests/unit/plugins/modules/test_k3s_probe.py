# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is told of a folder as k3s leaves it, and of a process that really runs."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.modules import k3s_probe

from tests import tls


class Module:
    """Stands in for AnsibleModule: systemctl says what the test wants, everything else runs."""

    def __init__(self, place: Path, **params: Any) -> None:
        self.params = {
            "data_dir": str(place / "data"), "config_dir": str(place / "etc"),
            "binary": str(place / "bin/k3s"), "units": ["k3s", "k3s-agent"], "files": [],
            "restart_files": None, "read_token": False,
            "ask_nodes": True, "api_port": 1, "timeout": 1, "patience": 0, **params,
        }  # fmt: skip
        self.pid = 0

    def get_bin_path(self, name: str, opt_dirs: list[str]) -> str | None:
        return shutil.which(name, path=":".join([*opt_dirs, os.environ["PATH"]]))

    def run_command(
        self, words: list[str], executable: str | None = None, **_rest: Any
    ) -> tuple[int, str, str]:
        if words[0] == "systemctl":
            state = "active" if self.pid else "inactive"
            return (0, f"Id=k3s.service\nLoadState=loaded\nActiveState={state}\nMainPID={self.pid}\n", "")
        done = subprocess.run(words, executable=executable, capture_output=True, text=True, check=False)
        return (done.returncode, done.stdout, done.stderr)


def program(path: Path, version: str) -> None:
    """Put a program there that says its version, and sleeps when it is asked to be a server."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name("new")
    shutil.copy(shutil.which("bash") or "/bin/bash", partial)
    with partial.open("ab") as out:
        out.write(version.encode())
    partial.chmod(0o755)
    partial.rename(path)


def look(module: Module) -> dict[str, Any]:
    return k3s_probe.Machine(cast(AnsibleModule, module)).facts()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Module]:
    """A server that runs: its program is a shell that waits."""
    module = Module(tmp_path)
    program(tmp_path / "bin/k3s", "1")
    process = subprocess.Popen(
        [tmp_path / "bin/k3s", "-c", "read -r line", "server", "--cluster-init"], stdin=subprocess.PIPE
    )
    module.pid = process.pid
    yield module
    process.communicate(timeout=10)


def test_a_bare_machine(tmp_path: Path) -> None:
    found = look(Module(tmp_path, files=[str(tmp_path / "no")]))
    assert found["binary"]["sha256"] == found["binary"]["version"] == ""
    assert found["data"]["datastore"] == "none"
    assert not found["data"]["server"]
    assert not found["api"]["reachable"]
    assert found["files"] == {str(tmp_path / "no"): {
        "exists": False, "sha256": "", "mode": "", "uid": -1, "mtime": 0
    }}  # fmt: skip
    assert found["stale"] == []


def test_a_server_that_is_down_tells_what_it_holds(tmp_path: Path) -> None:
    server = tmp_path / "data/server"
    for folder in ("db/etcd/member/wal", "db/snapshots", "tls", "cred"):
        (server / folder).mkdir(parents=True)
    (server / "db/etcd/name").write_text("gw1-1a2b3c4d\n")
    (server / "db/snapshots/etcd-snapshot-1").write_text("")
    (server / "db/reset-flag").write_text("")
    (server / "tls/server-ca.crt").write_text("authority")
    (server / "token").write_text("K10" + "a" * 64 + "::server:secret\n")
    (tmp_path / "etc/k3s/config.yaml.d").mkdir(parents=True)
    (tmp_path / "etc/k3s/config.yaml").write_text("node-name: GW1\nserver: https://old:6443\n")
    (tmp_path / "etc/k3s/config.yaml.d/50.yaml").write_text("server: https://10.7.0.10:6443\n")
    (tmp_path / "etc/node").mkdir()
    (tmp_path / "etc/node/password").write_text("secret")
    found = look(Module(tmp_path))
    data = found["data"]
    assert (data["datastore"], data["etcd_name"], data["server"]) == ("etcd", "gw1-1a2b3c4d", True)
    assert (data["reset_flag"], data["snapshots"]) == (True, ["etcd-snapshot-1"])
    assert found["config"]["server"] == "https://10.7.0.10:6443"
    assert found["node"] == {
        "name": "gw1", "name_from": "config", "name_file": str(tmp_path / "etc/node/password")
    }  # fmt: skip
    assert "secret" not in str(found).replace(str(tmp_path), "")


def test_a_start_that_was_interrupted_is_half_a_server(tmp_path: Path) -> None:
    for folder in ("tls", "cred"):
        (tmp_path / "data/server" / folder).mkdir(parents=True)
    (tmp_path / "data/server/tls/server-ca.key").write_text("")
    data = look(Module(tmp_path))["data"]
    assert (data["half"], data["server"], data["datastore"]) == (True, False, "none")
    # An authority that the operator put there before the first start is no server.
    (tmp_path / "data/server/cred").rmdir()
    assert not look(Module(tmp_path))["data"]["half"]


def test_a_process_and_what_changed_since_it_started(machine: Module, tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    for file in (old, new):
        file.write_text("")
    os.utime(old, (1, 1))
    time.sleep(0.05)
    new.touch()
    machine.params["files"] = [str(tmp_path / "*.yaml")]
    found = look(machine)
    assert abs(found["unit"]["started"] - time.time()) < 30
    assert found["unit"]["exe_sha256"] == found["binary"]["sha256"]
    assert found["stale"] == [str(new)]
    assert found["config"]["cluster_init"] is True
    # Others may want to know of a file that is no reason to restart.
    machine.params["restart_files"] = [str(old)]
    found = look(machine)
    assert found["stale"] == []
    assert set(found["files"]) == {str(old), str(new)}


def test_a_program_that_was_replaced(machine: Module, tmp_path: Path) -> None:
    program(tmp_path / "bin/k3s", "2")
    found = look(machine)
    assert found["stale"] == ["binary"]
    assert found["unit"]["exe_deleted"] is True
    assert found["unit"]["exe_path"] == str(tmp_path / "bin/k3s")
    assert found["unit"]["exe_sha256"] != found["binary"]["sha256"]
    # The same content again is the same program.
    program(tmp_path / "bin/k3s", "1")
    assert look(machine)["stale"] == []


def test_a_program_that_unpacks_itself_is_known_by_its_archive(tmp_path: Path) -> None:
    archive = "0f" * 32
    unpacked = tmp_path / "data/data" / archive / "bin/k3s"
    program(unpacked, "inner")
    program(tmp_path / "bin/k3s", f"data/{archive}.tar.zst")
    module = Module(tmp_path)
    process = subprocess.Popen([unpacked, "-c", "read -r line"], stdin=subprocess.PIPE)
    module.pid = process.pid
    try:
        assert look(module)["stale"] == []
        program(tmp_path / "bin/k3s", f"data/{'1e' * 32}.tar.zst")
        assert look(module)["stale"] == ["binary"]
    finally:
        process.communicate(timeout=10)


def test_a_process_that_is_gone_is_none(tmp_path: Path) -> None:
    module = Module(tmp_path)
    module.pid = 4_194_305
    assert look(module)["unit"]["main_pid"] == 0


@pytest.mark.parametrize(("patience", "ready"), [(30, True), (0, False)])
def test_a_server_that_runs_is_asked_again_until_it_is_ready(
    machine: Module, tmp_path: Path, patience: int, ready: bool
) -> None:
    """etcd may be choosing a leader: a server that is not ready now is a moment later."""

    class Api(http.server.BaseHTTPRequestHandler):
        answers: ClassVar = [500, 500]

        def do_GET(self) -> None:
            self.send_response(self.answers.pop() if self.answers else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None:
            pass

    chain, key = tls.issue("server", address="127.0.0.1").write(tmp_path)
    with tls.serving(Api, chain, key) as port:
        machine.params |= {"api_port": port, "patience": patience}
        assert look(machine)["api"]["readyz"] is ready
