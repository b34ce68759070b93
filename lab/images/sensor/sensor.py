# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in sensor module: sends a growing sequence of JSON messages, as a real module would.

A part of the lab, not of the product. It uses azure-iot-device alone, through `create_from_edge_environment`,
so whatever serves it serves any module built on that SDK.

Environment: SEND_INTERVAL_SECONDS (default 5), ACK_TIMEOUT_SECONDS (default 120), NODE_NAME (set by the
daemon). Message: {"sequence": 1.., "boot": hex id of this process, "node": name, "sent": Unix seconds,
"temperature": Celsius}. A message is repeated with the same message_id until the hub acknowledges it, so none
is lost and doubles can be told. Exit code 1: identity refused, or nothing was acknowledged for too long;
the kubelet then starts it anew.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import threading
import time
import uuid
from types import FrameType

from azure.iot.device import IoTHubModuleClient, Message
from azure.iot.device.exceptions import ClientError, CredentialError

RETRY_SECONDS = 2.0


def say(event: str, **fields: object) -> None:
    """One JSON line on stdout."""
    print(json.dumps({"time": round(time.time(), 3), "event": event, **fields}), flush=True)


def seconds(name: str, default: float) -> float:
    """A positive number of seconds from the environment. Raises SystemExit with the fix."""
    raw = os.environ.get(name, "")
    try:
        value = float(raw) if raw else default
    except ValueError:
        value = math.nan
    if not value > 0:
        sys.exit(f"{name} is {raw!r}: give a positive number of seconds")
    return value


def message(sequence: int, boot: str) -> Message:
    """Message number `sequence` of this process."""
    body = {
        "sequence": sequence,
        "boot": boot,
        "node": os.environ.get("NODE_NAME", ""),
        "sent": round(time.time(), 3),
        "temperature": round(21 + 3 * math.sin(sequence / 10), 2),
    }
    # The SDK has no types here.
    made = Message(  # type: ignore[no-untyped-call]
        json.dumps(body), content_encoding="utf-8", content_type="application/json"
    )
    made.message_id = f"{boot}-{sequence}"
    return made


class Watchdog:
    """Ends the process when nothing was acknowledged for `limit` seconds: the SDK may wait for ever."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._timer: threading.Timer | None = None
        self.fed()

    def fed(self) -> None:
        """Start counting anew."""
        if self._timer:
            self._timer.cancel()
        self._timer = threading.Timer(self._limit, self._bite)
        self._timer.daemon = True
        self._timer.start()

    def _bite(self) -> None:
        say("gave-up", reason=f"nothing acknowledged for {self._limit:g} s")
        os._exit(1)


def run() -> int:
    """Send until SIGTERM. Answers the exit code."""
    interval = seconds("SEND_INTERVAL_SECONDS", 5.0)
    watchdog = Watchdog(seconds("ACK_TIMEOUT_SECONDS", 120.0))
    stop = threading.Event()

    def stopped(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, stopped)
    signal.signal(signal.SIGINT, stopped)
    boot = uuid.uuid4().hex
    try:
        client = IoTHubModuleClient.create_from_edge_environment(keep_alive=20, connection_retry_interval=2)
    except (OSError, ValueError) as error:
        say("no-identity", reason=f"{error}: {error.__cause__}")
        return 1
    say("started", boot=boot, module=os.environ["IOTEDGE_MODULEID"], device=os.environ["IOTEDGE_DEVICEID"])
    sequence = 1
    while not stop.is_set():
        due = time.monotonic() + interval
        try:
            # Returns with the hub's PUBACK, so the next number is used only when this one arrived.
            client.send_message(message(sequence, boot))
        except CredentialError as error:
            say("refused", reason=str(error))
            return 1
        except ClientError as error:
            say("not-sent", sequence=sequence, reason=f"{type(error).__name__}: {error}")
            stop.wait(RETRY_SECONDS)
            continue
        watchdog.fed()
        say("acknowledged", sequence=sequence)
        sequence += 1
        stop.wait(max(0.0, due - time.monotonic()))
    client.shutdown()
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    sys.exit(run())
