# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who answers while something happens: asks URLs all the time and tells how long there was no answer."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

PERIOD = 0.2
LIMIT = 2.0


class Target(NamedTuple):
    """What is asked: a URL, whom it trusts, and the statuses that count as an answer."""

    url: str
    context: ssl.SSLContext | None = None
    statuses: Collection[int] = (200,)

    def answers(self) -> bool:
        """Ask it once, by a connection of its own."""
        try:
            # The caller's own addresses.
            with urllib.request.urlopen(self.url, timeout=LIMIT, context=self.context) as answer:  # noqa: S310
                return answer.status in self.statuses
        except urllib.error.HTTPError as error:
            return error.code in self.statuses
        except (OSError, http.client.HTTPException):
            return False


class Watch:
    """Asks each target every PERIOD seconds, answered or not, until it is left.

    A request on its way while an address moves loses its connection, and whoever sent it waits for a limit
    of its own. That is counted as broken. Silence is another thing: the time in which whoever came anew got
    no answer either.
    """

    def __init__(self, **targets: Target) -> None:
        self._targets = targets
        self._asked: dict[str, list[tuple[float, Future[bool]]]] = {name: [] for name in targets}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._end = 0.0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        # As many as can be on their way at once, and one to spare.
        with ThreadPoolExecutor(len(self._targets) * (int(LIMIT / PERIOD) + 1)) as pool:
            while not self._over.wait(PERIOD):
                for name, target in self._targets.items():
                    self._asked[name].append((time.monotonic(), pool.submit(target.answers)))
            self._end = time.monotonic()

    def result(self) -> dict[str, Any]:
        """Return for each target requests, broken ones, whole silent seconds, and the longest silence."""
        found: dict[str, Any] = {}
        for name, asked in self._asked.items():
            answers = [(at, future.result()) for at, future in asked]
            lengths = silences(answers, self._end)
            found |= {
                f"{name}_asked": len(answers),
                f"{name}_broken": sum(not answered for _at, answered in answers),
                f"{name}_silent_s": sum(int(length) for length in lengths),
                f"{name}_longest_silence_s": round(max(lengths, default=0.0), 2),
            }
        return found

    def say(self, what: str) -> None:
        """Print the result as JSON, for the log of the run."""
        print(json.dumps({"what": what, **self.result()}))  # noqa: T201 - see above


def silences(answers: Iterable[tuple[float, bool]], end: float) -> list[float]:
    """Return how long each silence was: from a request without an answer to the next one that has one.

    answers: when each request was sent, in seconds and in order, and whether it was answered.
    end: until when a last silence lasted.
    """
    found: list[float] = []
    since: float | None = None
    for at, answered in answers:
        if not answered and since is None:
            since = at
        elif answered and since is not None:
            found.append(at - since)
            since = None
    return found if since is None else [*found, end - since]
