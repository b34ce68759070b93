# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Long work shows what it does, what it waits for and how long it has taken."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STARTED = time.monotonic()
_SIGN_OF_LIFE_SECONDS = 15.0
_print_lock = threading.Lock()


class LabError(Exception):
    """What went wrong, on what, and what to do about it; shown to the user as it is."""


def say(text: str) -> None:
    with _print_lock:
        print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)


@contextmanager
def step(title: str, log: Path | None = None) -> Iterator[None]:
    """Announces a step, gives a sign of life while it runs, and closes with its seconds."""
    began = time.monotonic()
    done = threading.Event()
    where = f" (log: {log})" if log else ""

    def signs_of_life() -> None:
        while not done.wait(_SIGN_OF_LIFE_SECONDS):
            say(f"  … {title}: {time.monotonic() - began:.0f} s so far{where}")

    say(f"{title}{where}")
    teller = threading.Thread(target=signs_of_life, daemon=True)
    teller.start()
    try:
        yield
    except BaseException:
        say(f"{title}: failed after {time.monotonic() - began:.1f} s{where}")
        raise
    else:
        say(f"{title}: done in {time.monotonic() - began:.1f} s")
    finally:
        done.set()
        teller.join()


def wait_for(what: str, ready: Callable[[], bool], limit: float, pause: float = 0.2) -> None:
    """Waits until `ready()`; after `limit` seconds a LabError says what never came."""
    deadline = time.monotonic() + limit
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(f"waited {limit:.0f} s for {what}, and it did not come")
        time.sleep(pause)


def fail(error: Exception) -> int:
    sys.stdout.flush()
    print(f"lab: {error}", file=sys.stderr, flush=True)
    return 1
