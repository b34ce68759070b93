# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throttles: what passes at once, what waits and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iothub_emulator.errors import HubError
from iothub_emulator.operations import TIERS, OperationClass
from iothub_emulator.throttle import Meter, rates


def meter(rate: float = 1.0, burst: float = 5.0, backlog: float = 3.0) -> Meter:
    return Meter(OperationClass.QUERY, rate, burst, backlog)


def test_a_burst_passes_then_calls_wait_then_they_are_refused() -> None:
    one = meter()
    assert [one.take(100.0) for _call in range(5)] == [0] * 5
    assert [round(one.take(100.0), 3) for _call in range(3)] == [1, 2, 3]
    codes = []
    for _call in range(3):
        with pytest.raises(HubError, match="10 seconds") as error:
            one.take(100.0)
        assert error.value.status == 429
        assert "queries" in error.value.text
        assert not error.value.headers, "no Retry-After, as on the hub"
        codes.append(error.value.code)
    assert codes == ["ThrottleBacklogLimitExceeded", "ThrottlingException", "ThrottlingException"]
    assert round(one.take(101.0), 3) == 3, "a second later one more has room"
    assert one.take(200.0) == 0


@given(
    st.floats(0.1, 100),
    st.floats(0.1, 100),
    st.floats(0, 20),
    st.lists(st.floats(0, 5), min_size=1, max_size=80),
)
def test_never_more_than_the_limit(rate: float, burst: float, backlog: float, pauses: list[float]) -> None:
    one = meter(rate, burst, backlog)
    now, done = 1000.0, []
    for pause in pauses:
        now += pause
        try:
            delay = one.take(now)
        except HubError:
            continue
        assert 0 <= delay <= backlog
        done.append(now + delay)
    assert done == sorted(done), "the queue keeps its order"
    for start, first in enumerate(done):
        for end, last in enumerate(done[start:], 1):
            assert end <= rate * (last - first + burst) + 1 + 1e-3, f"{end} from {start}"


@given(st.floats(0.5, 100), st.integers(1, 50))
def test_who_keeps_to_the_limit_never_waits(rate: float, count: int) -> None:
    one = meter(rate, burst=1 / rate)
    assert [one.take(1000 + number / rate) for number in range(count)] == [0] * count


def test_limits_of_the_tiers() -> None:
    registry, reads, writes = OperationClass.IDENTITY, OperationClass.TWIN_READ, OperationClass.TWIN_WRITE
    assert rates("S1", 1)[registry] * 60 == pytest.approx(100)
    assert rates("S1", 3)[registry] * 60 == pytest.approx(300)
    assert (rates("S1", 3)[reads], rates("S1", 3)[writes]) == (100, 50)
    assert (rates("S2", 5)[reads], rates("S2", 20)[reads], rates("S2", 20)[writes]) == (100, 200, 100)
    assert (rates("S3", 2)[reads], rates("S3", 2)[writes]) == (1000, 500)
    assert rates("S3", 1)[OperationClass.QUERY] * 60 == pytest.approx(1000)
    for tier in TIERS:
        assert rates(tier, 1)[OperationClass.CONFIGURATION] * 60 == pytest.approx(20)
        assert OperationClass.OTHER not in rates(tier, 1)
