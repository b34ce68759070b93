# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an acknowledgement is worth, and how the process starts, stops and shows its log."""

import itertools
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

from tests.integration.hub.conftest import (
    EMULATOR,
    HubFactory,
    free_address,
    run_cli,
    wait_for,
)


def test_every_acknowledged_message_survives_kill_9(make_hub: HubFactory) -> None:
    hub = make_hub().start()
    device = hub.paho("steady", hub.create_device("steady"))
    sent: dict[int, int] = {}
    stop = threading.Event()

    def send() -> None:
        for number in itertools.count():
            # Never far ahead, so that the kill hits messages that were just acknowledged.
            while len(sent) - len(device.acknowledged) > 100 and not stop.wait(0.001):
                pass
            if stop.is_set():
                return
            topic = f"devices/steady/messages/events/%24.mid={number}"
            sent[device.client.publish(topic, f"{number}", qos=1).mid] = number

    sender = threading.Thread(target=send)
    sender.start()
    try:
        wait_for("600 acknowledgements", lambda: len(device.acknowledged) >= 600, 15)
        hub.kill()
    finally:
        stop.set()
        sender.join(timeout=5)
    assert device.disconnected.wait(5)
    acknowledged = [sent[packet_id] for packet_id in device.acknowledged]

    hub.start()
    assert hub.registry().get_twin("steady").connection_state == "Disconnected"
    stored = [int(entry["messageId"]) for entry in hub.log("--device", "steady")]
    assert set(acknowledged) <= set(stored)
    assert stored == list(range(len(stored))), "in the order of sending, without a gap"
    assert device.acknowledged == sorted(device.acknowledged), "acknowledged in the order of sending"


def test_nothing_is_acknowledged_before_its_commit(make_hub: HubFactory) -> None:
    hub = make_hub().start()
    device = hub.paho("patient", hub.create_device("patient"))
    lines: list[str] = []
    device.client.on_log = lambda _client, _data, _level, line: lines.append(line)
    topic = "devices/patient/messages/events/"
    device.client.publish(topic, "stored", qos=1).wait_for_publish(5)
    database = sqlite3.connect(hub.state / "hub.sqlite3", isolation_level=None)
    try:
        # With the write lock in other hands the hub cannot commit.
        database.execute("BEGIN IMMEDIATE")
        held = device.client.publish(topic, "held", qos=1)
        # The hub handles packets in order and answers a ping at once: a sign that it has "held".
        device.client._send_pingreq()
        wait_for("the answer to a ping", lambda: "Received PINGRESP" in lines)
        assert not held.is_published()
        assert [entry["body"] for entry in hub.log("--device", "patient")] == ["stored"]
        database.execute("ROLLBACK")
        held.wait_for_publish(5)
        assert held.is_published()
    finally:
        database.close()
    assert [entry["body"] for entry in hub.log("--device", "patient")] == ["stored", "held"]


def test_registry_and_twins_survive_kill_9(make_hub: HubFactory) -> None:
    hub = make_hub().start()
    hub.create_device("kept", edge=True)
    hub.request("PATCH", "/twins/kept", body={"tags": {"site": "a"}})
    before = hub.request("GET", "/devices/kept").json(), hub.request("GET", "/twins/kept").json()
    hub.kill()
    hub.start()
    assert (hub.request("GET", "/devices/kept").json(), hub.request("GET", "/twins/kept").json()) == before


def test_sigterm_ends_cleanly(make_hub: HubFactory) -> None:
    hub = make_hub().start()
    device = hub.paho("told", hub.create_device("told"))
    assert hub.kill(signal.SIGTERM) == 0
    assert device.disconnected.wait(5)
    assert hub.events()[-1]["event"] == "stopped"
    assert not (hub.state / "serve.pid").exists()
    assert not (hub.state / "hub.sqlite3-wal").exists(), "the database was closed"
    hub.start()
    assert hub.request("GET", "/twins/told").json()["connectionState"] == "Disconnected"


def test_second_server_on_the_same_state_is_refused(make_hub: HubFactory) -> None:
    hub = make_hub().start()
    pid = (hub.state / "serve.pid").read_text().strip()
    second = run_cli("serve", "--state", str(hub.state), "--listen", free_address(), "--https-port", "8443")
    assert second.returncode == 1
    assert f"another server (process {pid})" in second.stderr
    assert (hub.state / "serve.pid").read_text().strip() == pid
    assert hub.request("GET", "/devices").status_code == 200


def test_address_in_use_is_a_clear_error(make_hub: HubFactory) -> None:
    first = make_hub().start()
    second = make_hub()
    result = run_cli("serve", "--state", str(second.state), "--listen", first.address, "--https-port", "8443")
    assert result.returncode == 1
    assert f"cannot listen on {first.address}:8443" in result.stderr


def test_serve_and_log_before_init(tmp_path: Path) -> None:
    for command in (["serve", "--listen", "127.0.0.1"], ["log"]):
        result = run_cli(*command, "--state", str(tmp_path))
        assert result.returncode == 1
        assert f"run init --state {tmp_path}" in result.stderr


def test_init_twice_changes_nothing_and_a_new_name_only_the_server_certificate(tmp_path: Path) -> None:
    state = tmp_path / "state"

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in state.iterdir()}

    assert run_cli("init", "--state", str(state), "--name", "172.29.0.1").returncode == 0
    first = files()
    own = {"ca.pem", "ca.key", "server.pem", "server.key", "policies.json", "hub.json", "dps.json"}
    assert first.keys() == own
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for name in ("ca.key", "server.key", "policies.json"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600
    again = run_cli("init", "--state", str(state), "--name", "172.29.0.1")
    assert "nothing new" in again.stdout
    assert files() == first
    assert run_cli("init", "--state", str(state), "--name", "localhost").returncode == 0
    changed = {name for name, content in files().items() if content != first[name]}
    assert changed == {"server.pem", "server.key", "hub.json"}
    assert json.loads((state / "hub.json").read_text())["names"] == ["172.29.0.1", "localhost"]
    bad = run_cli("init", "--state", str(state), "--name", "hub:8443")
    assert bad.returncode == 1
    assert "without a port" in bad.stderr


def test_log_for_people_follow_and_after(make_hub: HubFactory) -> None:
    hub = make_hub().start()
    device = hub.paho("logged", hub.create_device("logged"))
    follow = subprocess.Popen(
        [sys.executable, "-m", "iothub_emulator", "log", "--state", str(hub.state), "--follow"],
        env=os.environ | {"PYTHONPATH": str(EMULATOR)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follow.stdout is not None
    try:
        for body in ("one", "two\nlines", "three"):
            topic = "devices/logged/messages/events/%24.mid=m&color=red"
            device.client.publish(topic, body, qos=1).wait_for_publish(5)
        lines = [follow.stdout.readline() for _ in range(3)]
    finally:
        follow.terminate()
        follow.wait(timeout=5)
        follow.stdout.close()
    assert lines[0].split("  ")[0::2] == ["1", "logged", "one"]
    assert lines[0].endswith("color=red\n")
    assert "two\\nlines" in lines[1]
    assert [entry["seq"] for entry in hub.log("--after", "2")] == [3]
    assert hub.log("--device", "another") == []
