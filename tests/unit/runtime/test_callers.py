# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Callers: only this gateway's modules, by a token made for it, with few questions to the API server."""

from __future__ import annotations

import asyncio

import pytest
from edgeha_runtime.daemon.callers import (
    CACHE_SECONDS,
    Caller,
    CallerRefusedError,
    Callers,
    Review,
    ReviewUnavailableError,
)

GOOD = Review(True, "system:serviceaccount:edge-gw:gw-sensor", ("edgeha-gw",), "gw-sensor-abc")


class ApiServer:
    """Stand-in for TokenReview: knows some tokens, counts the questions."""

    def __init__(self, **tokens: Review) -> None:
        self.tokens = tokens
        self.asked = 0
        self.now = 0.0

    async def __call__(self, token: str, audience: str) -> Review:
        assert audience == "edgeha-gw"
        self.asked += 1
        await asyncio.sleep(0)
        return self.tokens.get(token, Review(False))

    def callers(self) -> Callers:
        return Callers(
            self,
            namespace="edge-gw",
            audience="edgeha-gw",
            modules=lambda: {"gw-sensor": "Sensor"},
            clock=lambda: self.now,
        )


async def test_a_modules_token_names_the_module() -> None:
    assert await ApiServer(t=GOOD).callers().identify("Bearer t") == Caller("Sensor", "gw-sensor-abc")


@pytest.mark.parametrize(
    ("header", "review", "status"),
    [
        (None, GOOD, 401),
        ("Basic t", GOOD, 401),
        ("Bearer ", GOOD, 401),
        ("Bearer " + "t" * 9000, GOOD, 401),
        ("Bearer t\u00fc", GOOD, 401),
        ("Bearer t", Review(False), 401),
        ("Bearer t", Review(True, GOOD.username, ()), 401),
        ("Bearer t", Review(True, GOOD.username, ("edgeha-other",)), 401),
        ("Bearer t", Review(True, "system:serviceaccount:edge-other:gw-sensor", ("edgeha-gw",)), 403),
        ("Bearer t", Review(True, "system:serviceaccount:edge-gw:gw-daemon", ("edgeha-gw",)), 403),
        ("Bearer t", Review(True, "kubernetes-admin", ("edgeha-gw",)), 403),
    ],
)
async def test_everybody_else_is_refused(header: str | None, review: Review, status: int) -> None:
    with pytest.raises(CallerRefusedError) as refused:
        await ApiServer(t=review).callers().identify(header)
    assert refused.value.status == status
    assert "t" * 100 not in str(refused.value)


async def test_one_question_serves_many_requests_for_a_short_time() -> None:
    api = ApiServer(t=GOOD)
    callers = api.callers()
    await asyncio.gather(*(callers.identify("Bearer t") for _ in range(20)))
    assert api.asked == 1
    api.tokens.clear()
    api.now = CACHE_SECONDS - 0.1
    await callers.identify("Bearer t")
    api.now = CACHE_SECONDS + 0.1
    with pytest.raises(CallerRefusedError):
        await callers.identify("Bearer t")
    assert api.asked == 2


async def test_a_caller_that_hangs_up_does_not_take_the_answer_from_the_others() -> None:
    api = ApiServer(t=GOOD)
    callers = api.callers()
    impatient = asyncio.create_task(callers.identify("Bearer t"))
    patient = asyncio.create_task(callers.identify("Bearer t"))
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await patient).module == "Sensor"
    assert api.asked == 1


async def test_before_the_module_set_is_known_nobody_is_told_to_be_a_stranger() -> None:
    callers = Callers(ApiServer(t=GOOD), namespace="edge-gw", audience="edgeha-gw", modules=lambda: None)
    with pytest.raises(ReviewUnavailableError, match="not seen yet"):
        await callers.identify("Bearer t")
    with pytest.raises(CallerRefusedError):
        await callers.identify("Bearer x")
