# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one who tells whether an upgrade was silent can tell it."""

from __future__ import annotations

import importlib.util
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[3] / "molecule" / "shared" / "watch.py"
SPEC = importlib.util.spec_from_file_location("watch", PATH)
assert SPEC is not None
assert SPEC.loader is not None
watch = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(watch)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], []),
        ([(1.0, True), (2.0, True)], []),
        ([(1.0, True), (2.0, False), (3.0, False), (4.5, True), (5.0, False), (5.2, True)], [2.5, 0.2]),
        ([(1.0, False), (2.0, False)], [9.0]),
    ],
)
def test_silence_lasts_from_the_first_request_without_an_answer(
    answers: list[tuple[float, bool]], expected: list[float]
) -> None:
    assert watch.silences(answers, 10.0) == pytest.approx(expected)


class Hangs(BaseHTTPRequestHandler):
    """Answers, but for one request that it never answers."""

    asked = 0
    hung = threading.Event()

    def do_GET(self) -> None:
        type(self).asked += 1
        if type(self).asked == 3:
            self.hung.wait(20)
            return
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


def test_a_request_that_hangs_is_broken_and_no_silence() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hangs) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with watch.Watch(web=watch.Target(f"http://127.0.0.1:{server.server_port}/")) as seen:
            deadline = time.monotonic() + 30
            while Hangs.asked < 8:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        Hangs.hung.set()
        server.shutdown()
    result = seen.result()
    assert (result["web_asked"] >= 8, result["web_broken"], result["web_silent_s"]) == (True, 1, 0)


def test_nobody_there_is_silence() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with watch.Watch(web=watch.Target(f"http://127.0.0.1:{closed.getsockname()[1]}/")) as seen:
            time.sleep(1.5)  # As long as a silence that counts.
    result = seen.result()
    assert result["web_broken"] == result["web_asked"] > 0
    assert result["web_silent_s"] >= 1
