# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of logs as the contract writes them, and exactly the wanted lines in Docker's frames."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from edgeha_runtime.daemon import log_options
from edgeha_runtime.daemon.log_options import LogOptionError, LogOptions
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000.5
BEGIN = datetime(2026, 3, 1, 10, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1 day", 86400),
        ("1d", 86400),
        ("90m", 5400),
        ("1h30m", 5400),
        ("2 days 3 hours 2 minutes", 2 * 86400 + 3 * 3600 + 120),
        ("1d 12h 30m", 86400 + 43200 + 1800),
        (" 5 Sec ", 5),
        ("1w", 604800),
        ("1M", 2_630_016),
        ("1y", 31_557_600),
    ],
)
def test_a_duration_is_that_long_before_now(text: str, seconds: int) -> None:
    assert log_options.moment("since", text, NOW) == NOW - seconds


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("0", 0),
        ("1772359200", 1772359200),
        ("1772359200.25", 1772359200.25),
        ("2026-03-01T10:00:00Z", 1772359200),
        ("2026-03-01T10:00:00.250000000Z", 1772359200.25),
        ("2026-03-01T12:00:00+02:00", 1772359200),
        ("2026-03-01T12:00:00 02:00", 1772359200),
        ("2026-03-01T10:00:00", 1772359200),
        ("2026-03-01 10:00:00", 1772359200),
        ("0001-01-01T00:00:00Z", 0),
        ("999999999w", 0),
    ],
)
def test_times_are_seconds_since_1970_and_never_before(text: str, at: float) -> None:
    assert log_options.moment("since", text, NOW) == at


@given(
    moment=st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)),
    offset=st.integers(-23 * 60, 23 * 60),
)
def test_any_time_of_rfc_3339_is_read(moment: datetime, offset: int) -> None:
    at = moment.replace(tzinfo=timezone(timedelta(minutes=offset)))
    assert log_options.moment("since", at.isoformat(), NOW) == max(0, at.timestamp())
    assert log_options.moment("since", at.isoformat().replace("+", " "), NOW) == max(0, at.timestamp())


@given(st.lists(st.tuples(st.integers(0, 99), st.sampled_from(["s", "m", "h", "d"])), min_size=1, max_size=4))
def test_parts_of_a_duration_add_up(parts: list[tuple[int, str]]) -> None:
    factors = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    expected = NOW - sum(number * factors[unit] for number, unit in parts)
    assert log_options.moment("since", "".join(f"{number}{unit}" for number, unit in parts), NOW) == expected
    assert (
        log_options.moment("since", " ".join(f"{number} {unit}" for number, unit in parts), NOW) == expected
    )


@given(st.one_of(st.text(), st.from_regex(r"[0-9dhmsMTZ:.+ -]{1,30}", fullmatch=True)))
def test_any_text_is_a_moment_or_refused(text: str) -> None:
    with contextlib.suppress(LogOptionError):
        assert log_options.moment("since", text, NOW) >= 0


@pytest.mark.parametrize(
    "text", ["", "yesterday", "1 fortnight", "1d x", "1h30", "-5m", "2026-13-01T00:00:00Z"]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(LogOptionError, match=r"until is .*: give a duration"):
        log_options.moment("until", text, NOW)


def test_no_option_asks_for_the_whole_log() -> None:
    assert log_options.read({}, NOW) == LogOptions()
    assert log_options.read({"since": "", "until": " ", "tail": "all"}, NOW) == LogOptions()


def test_all_options_are_read() -> None:
    query = {"follow": "", "timestamps": "True", "tail": " 10 ", "since": "10s", "until": "5"}
    assert log_options.read(query, NOW) == LogOptions(True, True, 10, NOW - 10, 5)
    assert log_options.read({"follow": "false", "tail": "0"}, NOW) == LogOptions(tail=0)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"tail": ""}, "tail is '': give all"),
        ({"tail": "-1"}, "tail is '-1'"),
        ({"tail": "10000001"}, "tail is '10000001'"),
        ({"tail": "9" * 5000}, "tail is '9999"),
        ({"follow": "1"}, "follow is '1': give true or false"),
        ({"timestamps": "yes"}, "timestamps is 'yes'"),
        ({"since": "soon"}, "since is 'soon'"),
        ({"until": "soon"}, "until is 'soon'"),
    ],
)
def test_an_option_that_the_contract_does_not_know_is_named(query: dict[str, str], reason: str) -> None:
    with pytest.raises(LogOptionError, match=reason):
        log_options.read(query, NOW)


@given(st.lists(st.text()))
def test_frames_are_taken_apart_as_docker_clients_do(lines: list[str]) -> None:
    raw = b"".join(map(log_options.frame, lines))
    found = []
    while raw:
        stream, length = struct.unpack(">BxxxI", raw[:8])
        assert stream == 1
        found.append(raw[8 : 8 + length].decode())
        raw = raw[8 + length :]
    assert found == lines


def test_bytes_that_are_no_utf_8_stay_what_they_are() -> None:
    assert log_options.frame(b"\xff\n".decode(errors="surrogateescape")) == b"\1\0\0\0\0\0\0\2\xff\n"


def stamp(second: float) -> str:
    return (BEGIN + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


class Log:
    """A log, with what was read of it each time that it was."""

    def __init__(self, *versions: list[str]) -> None:
        self.versions = versions
        self.read: list[int] = []
        self.closed = 0

    async def source(self) -> AsyncGenerator[str]:
        number = len(self.read)
        self.read.append(0)
        try:
            for line in self.versions[min(number, len(self.versions) - 1)]:
                self.read[number] += 1
                yield line
        finally:
            self.closed += 1


def chosen(lines: list[str], options: LogOptions, *later: list[str]) -> list[str]:
    """The wanted lines; later: what the log is when it is read again."""
    log = Log(lines, *later)

    async def collect() -> list[str]:
        return [line async for line in log_options.chosen(log.source, options)]

    found = asyncio.run(collect())
    assert log.closed == len(log.read)
    return found


LINES = [f"{stamp(second)} line {second}\n" for second in range(5)]


def at(second: float) -> float:
    return BEGIN.timestamp() + second


def test_stamps_are_there_only_when_wanted() -> None:
    assert chosen(LINES, LogOptions(timestamps=True)) == LINES
    assert chosen([f"{stamp(1)} \n", *LINES[:1]], LogOptions()) == ["\n", "line 0\n"]


def test_only_lines_from_since_to_until_come() -> None:
    assert chosen(LINES, LogOptions(since=at(1), until=at(3))) == ["line 1\n", "line 2\n", "line 3\n"]
    assert chosen([f"{stamp(0.5)} a\n", f"{stamp(0.75)} b\n"], LogOptions(since=at(0.6))) == ["b\n"]
    assert chosen(["2026-03-01T12:00:09+02:00 a\n"], LogOptions(since=at(9), until=at(9))) == ["a\n"]


def test_the_tail_is_counted_back_from_until() -> None:
    assert chosen(LINES, LogOptions(until=at(3), tail=2)) == ["line 2\n", "line 3\n"]
    assert chosen(LINES, LogOptions(until=at(3), tail=0)) == []


async def test_no_line_waits_in_memory_for_the_end_of_the_tail() -> None:
    log = Log([f"{stamp(second)} line {second}\n" for second in range(500)])
    lines = log_options.chosen(log.source, LogOptions(until=at(449), tail=400))
    assert await anext(lines) == "line 50\n"
    assert log.read == [451, 51], "counted up to the one that is too new, and then read up to the first one"
    assert await anext(lines) == "line 51\n"
    assert log.read[1] == 52
    await lines.aclose()
    assert log.closed == 2


def test_a_log_that_rotates_between_two_looks_is_counted_again() -> None:
    options = LogOptions(until=at(4), tail=2)
    assert chosen(LINES, options, LINES[2:]) == ["line 3\n", "line 4\n"]
    assert chosen(LINES, options, LINES[4:]) == ["line 4\n"]
    assert chosen(LINES, options, []) == []
    # One that never stays is not read for ever.
    assert len(chosen(LINES, options, *([LINES[1:], LINES] * 10))) <= 2


def test_a_long_line_in_pieces_is_one_line() -> None:
    # The second piece looks like a line of another time.
    pieces = [f"{stamp(1)} begins ", f"{stamp(9)} goes on ", "ends\n"]
    whole = ["begins ", f"{stamp(9)} goes on ", "ends\n"]
    assert chosen([LINES[0], *pieces, LINES[2]], LogOptions(until=at(2), tail=2)) == [*whole, "line 2\n"]
    assert chosen([*pieces, LINES[2]], LogOptions(since=at(2))) == ["line 2\n"]


def test_a_line_without_a_stamp_goes_with_the_one_before() -> None:
    lines = [LINES[0], "more of 0\n", LINES[1], "more of 1\n"]
    assert chosen(lines, LogOptions(since=at(1))) == ["line 1\n", "more of 1\n"]
    assert chosen(lines, LogOptions(since=at(1), timestamps=True)) == lines[2:]


def test_a_text_that_only_looks_like_a_stamp_is_text() -> None:
    assert chosen(["2026-99-01T00:00:00Z a\n"], LogOptions(since=0, until=1)) == ["2026-99-01T00:00:00Z a\n"]


@given(
    seconds=st.lists(st.integers(0, 20)).map(sorted),
    since=st.integers(0, 20),
    until=st.none() | st.integers(0, 20),
    tail=st.none() | st.integers(0, 5),
)
def test_chosen_are_the_lines_between_and_the_tail_of_them(
    seconds: list[int], since: int, until: int | None, tail: int | None
) -> None:
    options = LogOptions(since=at(since), until=None if until is None else at(until), tail=tail)
    wanted = [f"{second}\n" for second in seconds if since <= second <= (20 if until is None else until)]
    if until is not None and tail is not None:
        wanted = wanted[len(wanted) - min(tail, len(wanted)) :]
    assert chosen([f"{stamp(second)} {second}\n" for second in seconds], options) == wanted


@given(
    st.lists(
        st.one_of(
            st.text(),
            st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d) x", fullmatch=True),
        )
    )
)
def test_no_line_of_a_module_ends_the_log_with_an_error(lines: list[str]) -> None:
    assert len(chosen(lines, LogOptions(since=1, timestamps=True))) <= len(lines)
