# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`lab hub`: the IoT Hub emulator of an instance, on the host's address in the lab's network."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from edgeha_lab import paths, process
from edgeha_lab.paths import Instance
from edgeha_lab.progress import LabError, say, step, wait_for

_START_LIMIT = 30.0
_STOP_LIMIT = 20.0
# Where the provisioning service listens, beside the hub.
DPS_PORT = 8444


def start(instance: Instance, address: str, clock_offset: float = 0.0) -> None:
    """Starts the emulator, or leaves the one alone that runs with the same clock."""
    state = instance.hub
    wanted = f"{address} {clock_offset:g} {DPS_PORT}"
    setting = state / "lab-setting"
    if pid(instance) is not None:
        if setting.read_text() == wanted:
            return
        stop(instance)
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    log = instance.logs / "hub.log"
    log.parent.mkdir(exist_ok=True)
    with step(f"starting the IoT Hub emulator on {address}", log):
        process.run([*_emulator(), "init", "--state", state, "--name", address], env=_environment(), log=log)
        (state / "hostname").write_text(f"{address}\n")
        setting.write_text(wanted)
        command = [*_emulator(), "serve", "--state", str(state), "--listen", address]
        command += ["--dps-port", str(DPS_PORT)]
        command += ["--clock-offset", f"{clock_offset:g}"] if clock_offset else []
        with log.open("ab") as output:
            server = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={**os.environ, **_environment()},
            )  # fmt: skip

        def listens() -> bool:
            if server.poll() is not None:
                raise LabError(f"the IoT Hub emulator ended with {server.returncode}:\n{process.tail(log)}")
            return pid(instance) == server.pid

        wait_for("the IoT Hub emulator to listen", listens, _START_LIMIT)
    where = f"REST on 443, MQTT on 8883, provisioning on {DPS_PORT}"
    say(f"hub {address}: {where}; policy keys in {state / 'policies.json'}")


def stop(instance: Instance) -> None:
    running = pid(instance)
    if running is None:
        return
    with step("stopping the IoT Hub emulator"):
        os.kill(running, signal.SIGTERM)
        wait_for("the IoT Hub emulator to end", lambda: not _is_emulator(running), _STOP_LIMIT)


def pid(instance: Instance) -> int | None:
    """Process id of the emulator that serves this instance, or None."""
    try:
        number = int((instance.hub / "serve.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return number if _is_emulator(number) else None


def log(instance: Instance, arguments: list[str]) -> int:
    """Messages in order of arrival; the emulator's own `log` prints them."""
    command = [*_emulator(), "log", "--state", str(instance.hub), *arguments]
    return subprocess.run(command, env={**os.environ, **_environment()}, check=False).returncode


def _emulator() -> list[str]:
    return [sys.executable, "-m", "iothub_emulator"]


def _environment() -> dict[str, str]:
    return {"PYTHONPATH": str(paths.LAB_SOURCES / "iothub-emulator")}


def _is_emulator(number: int) -> bool:
    try:
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
        return b"iothub_emulator" in words and ") Z " not in Path(f"/proc/{number}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
