# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What comes between a list and the hub: lost answers, throttles, other people, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.integration.modules.conftest import Hub, Run

    Play = Callable[..., Run]

LIMIT_SECONDS = 60
BULK = {"method": "POST", "path": "/devices"}


def devices(count: int, **extra: Any) -> dict[str, Any]:
    items = [{"device_id": f"d-{number:04}", **extra} for number in range(count)]
    return {"edgeha.iotedge.iothub_devices": {"devices": items}}


def inject(hub: Hub, **fault: Any) -> None:
    client = hub.client()
    client.request("POST", "/$emulator/faults", body=fault)
    client.close()


def calls(hub: Hub, operation: str) -> int:
    client = hub.client()
    body = client.request("GET", "/$emulator/statistics").body
    client.close()
    return int(body["calls"].get(operation, 0))


def wait_until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"waited {LIMIT_SECONDS} s until {what}"
        time.sleep(0.1)


def test_answer_that_was_lost_is_asked_for_again(hub: Hub, play: Play) -> None:
    # Carried out, and the answer says it was not: the client asks again and finds the devices there.
    inject(hub, **BULK, status=503, when="after", count=1)
    run = play({"make": devices(3, tags={"a": 1}), "again": devices(3, tags={"a": 1})})
    assert run.failures == []
    assert len(hub.device_ids()) == 3
    assert run.results["again"]["changed"] is False


def test_connection_that_breaks_is_told_and_the_next_run_finishes(hub: Hub, play: Play) -> None:
    inject(hub, **BULK, cut=True, count=2)
    run = play({"make": devices(150)})
    [message] = run.failures
    assert "no connection" in message
    assert "run again to finish" in message
    run = play({"make": devices(150), "again": devices(150)})
    assert run.failures == []
    assert len(hub.device_ids()) == 150
    assert run.results["again"]["changed"] is False


def test_throttle_without_retry_after_is_waited_out(hub: Hub, play: Play) -> None:
    inject(hub, **BULK, status=429, count=1)
    began = time.monotonic()
    run = play({"make": devices(2)})
    assert run.failures == []
    # The hub's text says ten seconds, and coming back earlier would be counted against the limit again.
    assert time.monotonic() - began >= 10
    assert calls(hub, "identityRegistry") == 2


def test_change_of_somebody_else_meanwhile_is_never_overwritten(hub: Hub, play: Play) -> None:
    assert play({"make": devices(2)}).failures == []
    before = calls(hub, "identityRegistry")
    inject(hub, **BULK, delay=4, count=1)
    found: list[Run] = []
    thread = threading.Thread(target=lambda: found.append(play({"change": devices(2, status="disabled")})))
    thread.start()
    # Two reads of identities and the bulk call that waits.
    wait_until("the module writes", lambda: calls(hub, "identityRegistry") >= before + 3)
    client = hub.client()
    identity = client.get_device("d-0001")
    assert identity is not None
    client.put_device({**identity, "statusReason": "mine"}, identity["etag"])
    thread.join(LIMIT_SECONDS)
    [message] = found[0].failures
    assert "device 'd-0001': PreconditionFailed" in message
    assert "Somebody else changed it meanwhile: run again" in message
    assert "Changed all the same: 1 devices" in message
    mine, other = client.get_device("d-0001"), client.get_device("d-0000")
    client.close()
    assert mine is not None
    assert other is not None
    assert (mine["statusReason"], mine["status"], other["status"]) == ("mine", "enabled", "disabled")


def test_run_that_is_interrupted_half_way_is_finished_by_the_next(
    hub: Hub, play: Play, write_playbook: Callable[..., Path]
) -> None:
    inject(hub, **BULK, delay=1, probability=0.5)
    playbook = write_playbook({"make": devices(2000, tags={"a": 1})})
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(playbook)],
        cwd=Path(__file__).resolve().parents[3],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(Path(__file__).resolve().parents[3] / ".collections"),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # A shell that runs tests in the background makes them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        start_new_session=True,
    )
    client = hub.client()
    wait_until("some devices are there", lambda: client.count_devices() >= 100)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(LIMIT_SECONDS) != 0
    there = client.count_devices()
    assert 100 <= there < 2000
    client.request("DELETE", "/$emulator/faults")
    run = play({"make": devices(2000, tags={"a": 1}), "again": devices(2000, tags={"a": 1})})
    assert run.failures == []
    assert client.count_devices() == 2000
    client.close()
    assert run.results["again"]["changed"] is False
