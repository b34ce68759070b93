# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the lab's agent keeps on disk, and what it does where that is broken."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import requests

LAB = Path(__file__).parents[3] / "lab"
sys.path.append(str(LAB / "images"))
sys.path.append(str(LAB / "images" / "agent"))

import agent  # noqa: E402 - found on the path set above
import plan  # noqa: E402 - the same
import storage  # noqa: E402 - the same

DEPLOYMENT = {
    "$version": 3,
    "schemaVersion": "1.1",
    "modules": {"m": {"settings": {"image": "r/m:1"}, "env": {"PASSWORD": {"value": "hush"}}}},
}


class Cipher:
    """Encrypts for this module only while it answers."""

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.calls = 0

    def encrypt(self, plaintext: bytes, vector: bytes) -> bytes:
        self.calls += 1
        if self.away:
            raise requests.ConnectionError("refused")
        return vector + bytes(byte ^ 0xFF for byte in plaintext)

    def decrypt(self, ciphertext: bytes, vector: bytes) -> bytes:
        if self.away:
            raise requests.ConnectionError("refused")
        if not ciphertext.startswith(vector):
            raise ValueError("not under this vector")
        return bytes(byte ^ 0xFF for byte in ciphertext[len(vector) :])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "edgeAgent"


@pytest.mark.parametrize("name", ["storageFolder", "StorageFolder", "STORAGEFOLDER"])
def test_the_folder_is_the_one_that_the_variable_names_in_any_case(name: str) -> None:
    assert storage.folder({name: "/data"}) == Path("/data/edgeAgent")


def test_without_the_variable_it_is_among_the_temporary_ones() -> None:
    assert storage.folder({}) == Path(tempfile.gettempdir(), "edgeAgent")
    assert storage.folder({"storageFolder": ""}) == Path(tempfile.gettempdir(), "edgeAgent")


def test_a_deployment_is_kept_encrypted_and_read_again(folder: Path) -> None:
    cipher = Cipher()
    kept = storage.Storage(folder, cipher)
    assert kept.deployment() is None
    kept.keep(DEPLOYMENT)
    kept.keep(dict(DEPLOYMENT))
    assert cipher.calls == 1, "the same one is not written again"
    file = folder / "backup.json"
    assert "hush" not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert storage.Storage(folder, cipher).deployment() == DEPLOYMENT
    first = json.loads(file.read_text())["initializationVector"]
    kept.keep(DEPLOYMENT | {"$version": 4})
    assert json.loads(file.read_text())["initializationVector"] != first
    assert [path.name for path in folder.iterdir()] == ["backup.json"], "nothing half-written stays"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"initializationVector": "AA==", "ciphertext": 1}',
        '{"initializationVector": "AA==", "ciphertext": "?"}',
        '{"initializationVector": "AA==", "ciphertext": "AQ=="}',
        '{"initializationVector": "", "ciphertext": "zs4="}',
    ],
)
def test_a_backup_that_cannot_be_read_is_told_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    folder.mkdir()
    (folder / "backup.json").write_text(text)
    made = an_agent(folder)
    assert made.kept() is None
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["event"] == "no-backup"
    assert str(folder / "backup.json") in json.loads(line)["reason"]
    made.keep(DEPLOYMENT)
    assert an_agent(folder).kept() == DEPLOYMENT


def test_a_backup_waits_for_a_daemon_that_is_away(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage.Storage(folder, Cipher()).keep(DEPLOYMENT)
    cipher = Cipher(away=True)
    made = an_agent(folder, cipher)
    assert made.kept() is None
    assert json.loads(capsys.readouterr().out)["event"] == "no-backup"
    cipher.away = False
    assert made.kept() == DEPLOYMENT


def test_what_cannot_be_kept_stops_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cipher = Cipher(away=True)
    made = an_agent(folder, cipher)
    made.keep(DEPLOYMENT)
    assert json.loads(capsys.readouterr().out)["event"] == "not-kept"
    cipher.away = False
    made.keep(DEPLOYMENT)
    assert an_agent(folder).kept() == DEPLOYMENT


@pytest.mark.parametrize("bad", [{"$version": 4}, DEPLOYMENT | {"schemaVersion": "9"}])
def test_only_a_good_deployment_is_kept(folder: Path, bad: dict[str, Any]) -> None:
    made = an_agent(folder)
    made.keep(DEPLOYMENT)
    made.keep(bad)
    assert an_agent(folder).kept() == DEPLOYMENT


class Management(agent.Management):
    """A daemon with one module, which notes what it is asked for."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status
        self.calls: list[str] = []

    def call(self, method: str, path: str, *_body: object, **_query: str) -> requests.Response:
        found = requests.Response()
        found.status_code = 200
        found._content = json.dumps({"osType": "Linux", "architecture": "x86_64"}).encode()
        if method != "GET":
            self.calls.append(f"{method} {path}")
        return found

    def identities(self) -> dict[str, str]:
        return {"m": "1"}

    def modules(self) -> dict[str, dict[str, Any]]:
        [wanted] = plan.read(DEPLOYMENT)
        return {"m": plan.spec(wanted, "1", {}) | {"status": self.status}}


def an_agent(folder: Path, cipher: Cipher | None = None, management: Management | None = None) -> agent.Agent:
    kept = storage.Storage(folder, cipher or Cipher())
    return agent.Agent(management or Management({}), {}, kept)


FAILED = {"runtimeStatus": {"status": "failed"}, "startTime": "2026-01-01T00:00:00Z"} | {
    "exitStatus": {"exitTime": "2026-01-01T00:00:00Z", "statusCode": "1"}
}


def test_a_restart_is_a_stop_and_a_start_and_is_counted_beyond_a_restart_of_its_own(folder: Path) -> None:
    management = Management(FAILED)
    first = an_agent(folder, management=management).carry_out(DEPLOYMENT)["modules"]["m"]
    assert management.calls == ["POST /modules/m/stop", "POST /modules/m/start"]
    assert (first["restartCount"], first["runtimeStatus"]) == (1, "backoff")
    assert first["lastRestartTimeUtc"] > "2026-01-01T00:00:00Z"
    second = an_agent(folder, management=management).carry_out(DEPLOYMENT)["modules"]["m"]
    assert second["restartCount"] == 2


def test_of_a_daemon_that_knows_no_status_no_module_is_reported(folder: Path) -> None:
    management = Management({"runtimeStatus": {"status": "unknown"}})
    found = an_agent(folder, management=management).carry_out(DEPLOYMENT)
    assert management.calls == []
    assert found["lastDesiredStatus"]["code"] == 500
    assert "module m" in found["lastDesiredStatus"]["description"]
    assert (found["systemModules"], found["modules"]) == ({}, {})


@pytest.mark.parametrize("text", ["", "[]", '{"m": {}}', '{"m": 1}'])
def test_a_memory_that_cannot_be_read_is_told_and_made_anew(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    folder.mkdir()
    (folder / "modules.json").write_text(text)
    made = an_agent(folder, management=Management(FAILED))
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["event"] == "not-remembered"
    made.carry_out(DEPLOYMENT)
    assert storage.Storage(folder, Cipher()).memories()["m"].restarts == 1


def test_the_workload_api_is_asked_as_this_module(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def post(_self: object, url: str, **given: Any) -> requests.Response:
        asked.append((url, given["params"], given["json"]))
        found = requests.Response()
        found.status_code = 200
        found._content = b'{"ciphertext": "Yg==", "plaintext": "YQ=="}'
        return found

    monkeypatch.setattr(requests.Session, "post", post)
    workload = storage.Workload(
        {
            "IOTEDGE_MODULEID": "$edgeAgent",
            "IOTEDGE_MODULEGENERATIONID": "7",
            "IOTEDGE_WORKLOADURI": "http://127.0.0.1:1/",
        }
    )
    assert (workload.encrypt(b"a", b"v"), workload.decrypt(b"b", b"v")) == (b"b", b"a")
    base, version = "http://127.0.0.1:1/modules/%24edgeAgent/genid/7", {"api-version": "2020-07-07"}
    assert asked == [
        (f"{base}/encrypt", version, {"plaintext": "YQ==", "initializationVector": "dg=="}),
        (f"{base}/decrypt", version, {"ciphertext": "Yg==", "initializationVector": "dg=="}),
    ]
