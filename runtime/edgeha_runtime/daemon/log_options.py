# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which lines of a module's log somebody wants, and the frames in which clients of IoT Edge expect them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

_SECOND, _MINUTE, _HOUR, _DAY = 1, 60, 3600, 86400
_UNITS = {
    "s": _SECOND, "sec": _SECOND, "secs": _SECOND, "second": _SECOND, "seconds": _SECOND,
    "m": _MINUTE, "min": _MINUTE, "mins": _MINUTE, "minute": _MINUTE, "minutes": _MINUTE,
    "h": _HOUR, "hr": _HOUR, "hrs": _HOUR, "hour": _HOUR, "hours": _HOUR,
    "d": _DAY, "day": _DAY, "days": _DAY,
    "w": 7 * _DAY, "week": 7 * _DAY, "weeks": 7 * _DAY,
    "M": 2_630_016, "month": 2_630_016, "months": 2_630_016,
    "y": 31_557_600, "year": 31_557_600, "years": 31_557_600,
}  # fmt: skip
_DURATION = re.compile(r"\s*([0-9]{1,9})\s*([a-z]+)\s*", re.IGNORECASE)
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d) (.*)", re.DOTALL)
_MAX_TAIL = 10_000_000
# How often a log may rotate between being counted and being read.
_TRIES = 3
# stdout: Kubernetes keeps one log for both.
_STREAM = 1


class LogOptionError(Exception):
    """An option is not what the contract knows; the message names it."""


@dataclass(frozen=True)
class LogOptions:
    """Times are seconds since 1970; `tail` None means all."""

    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: float = 0
    until: float | None = None


def moment(name: str, text: str, now: float) -> float:
    """A moment as the contract writes it, in seconds since 1970.

    A duration before now (1d, 90m, "2 days 3 hours 2 minutes"; M are months), a time of RFC 3339, or seconds
    since 1970. What lies before 1970 is 1970: the cluster's API takes no duration of more than 292 years.
    """
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
        return float(text)
    seconds, position = 0, 0
    while found := _DURATION.match(text, position):
        unit = _UNITS.get(found[2]) or _UNITS.get(found[2].lower())
        if unit is None:
            break
        seconds, position = seconds + int(found[1]) * unit, found.end()
    if position and position == len(text):
        return max(0.0, now - seconds)
    try:
        # A plus sign that a client did not encode arrives as a space.
        at = datetime.fromisoformat(text.replace(" ", "+") if text.count(":") > 1 else text)
        return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise LogOptionError(
            f"{name} is {text[:64]!r}: give a duration (90m), a time of RFC 3339, or seconds since 1970"
        ) from None


def flag(name: str, text: str) -> bool:
    """A boolean of the query; one that is there without a value is true."""
    if text.lower() in ("", "true"):
        return True
    if text.lower() == "false":
        return False
    raise LogOptionError(f"{name} is {text[:64]!r}: give true or false")


def read(query: Mapping[str, str], now: float) -> LogOptions:
    """The options of a request. Raises LogOptionError."""
    tail = query.get("tail", "all").strip()
    if tail != "all" and not (re.fullmatch(r"[0-9]{1,8}", tail) and int(tail) <= _MAX_TAIL):
        raise LogOptionError(f"tail is {tail[:64]!r}: give all, or a number of lines")
    until = query.get("until", "").strip()
    return LogOptions(
        follow="follow" in query and flag("follow", query["follow"]),
        timestamps="timestamps" in query and flag("timestamps", query["timestamps"]),
        tail=None if tail == "all" else int(tail),
        since=moment("since", query.get("since", "").strip() or "0", now),
        until=moment("until", until, now) if until else None,
    )


def frame(line: str) -> bytes:
    """A line in Docker's frame for logs: stream, three zeros, length (big-endian), text."""
    raw = line.encode(errors="surrogateescape")
    return bytes((_STREAM, 0, 0, 0)) + len(raw).to_bytes(4, "big") + raw


def _stamped(line: str) -> tuple[float, str] | None:
    """Time and text of a line, None where it has no time stamp."""
    stamp = _STAMP.fullmatch(line)
    if stamp is None:
        return None
    try:
        at = datetime.fromisoformat(stamp[1] + stamp[3].replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return None  # a text that only looks like one
    return at + float(stamp[2] or 0), stamp[4]


async def chosen(source: Callable[[], AsyncGenerator[str]], options: LogOptions) -> AsyncGenerator[str]:
    """The wanted lines of a log, which `source` reads, with the time stamps of the cluster's API.

    Where the tail of what is older than `until` begins, nobody knows before all of it was read. So it is read
    twice and not held in memory, and once more where it rotated in between.
    """
    tail = None if options.until is None else options.tail
    for left in reversed(range(_TRIES)):
        first, number = "", 0
        if tail is not None:
            async with contextlib.aclosing(_between(source(), options)) as counted:
                async for begins, text in counted:
                    first = first if number else text
                    number += begins
        skipped = 0 if tail is None else max(0, number - tail)
        number = 0
        async with contextlib.aclosing(_between(source(), options)) as found:
            async for begins, text in found:
                if skipped and not number and text != first and left:
                    break
                number += begins
                if number > skipped:
                    yield text
            else:
                return


async def _between(lines: AsyncGenerator[str], options: LogOptions) -> AsyncGenerator[tuple[bool, str]]:
    """The lines from `since` to `until`. Each piece of one with whether the line begins with it."""
    wanted = begins = True
    async with contextlib.aclosing(lines):
        async for line in lines:
            stamped = _stamped(line) if begins else None
            # A line without a stamp goes on what the one before it began.
            if stamped:
                at = stamped[0]
                if options.until is not None and at > options.until:
                    break
                wanted = at >= options.since
            if wanted:
                yield begins, line if options.timestamps or not stamped else stamped[1]
            begins = line.endswith("\n")
