# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Callers: only this gateway's modules, by a token made for it, with few questions to the API server."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from edgeha_runtime.daemon.callers import (
    CACHE_ENTRIES,
    CACHE_SECONDS,
    PEER_REVIEWS,
    PEER_WAITING,
    REFUSED_CACHE_SECONDS,
    Caller,
    CallerRefusedError,
    Callers,
    Place,
    Review,
    ReviewUnavailableError,
    normal,
)

GOOD = Review(True, "system:serviceaccount:edge-gw:gw-sensor", ("edgeha-gw",), "gw-sensor-abc", "u1")
HERE = "10.0.0.7"
THERE = "10.0.0.8"


class ApiServer:
    """Stand-in for TokenReview and pods: knows some tokens and where their pods are, counts the questions.

    Tokens that begin with `slow` are reviewed once `answer` is set; `most` were so at one time.
    """

    def __init__(self, **tokens: Review) -> None:
        self.tokens = tokens
        self.pods: dict[str, Place] = {GOOD.pod: Place("u1", frozenset({HERE}))}
        self.asked = 0
        self.now = 0.0
        self.answer = asyncio.Event()
        self.slow = self.most = 0

    async def place(self, pod: str) -> Place | None:
        return self.pods.get(pod)

    async def __call__(self, token: str, audience: str) -> Review:
        assert audience == "edgeha-gw"
        self.asked += 1
        await asyncio.sleep(0)
        if token.startswith("slow"):
            self.slow += 1
            self.most = max(self.most, self.slow)
            await self.answer.wait()
            self.slow -= 1
        return self.tokens.get(token, Review(False))

    def callers(self, *, check: bool = True) -> Callers:
        return Callers(
            self,
            place=self.place if check else None,
            namespace="edge-gw",
            audience="edgeha-gw",
            modules=lambda: {"gw-sensor": "Sensor"},
            clock=lambda: self.now,
        )


async def test_a_modules_token_names_the_module() -> None:
    assert await ApiServer(t=GOOD).callers().identify("Bearer t", HERE) == Caller("Sensor", "gw-sensor-abc")


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
        await ApiServer(t=review).callers().identify(header, HERE)
    assert refused.value.status == status
    assert "t" * 100 not in str(refused.value)


async def test_one_question_serves_many_requests_for_a_short_time() -> None:
    api = ApiServer(t=GOOD)
    callers = api.callers()
    await asyncio.gather(*(callers.identify("Bearer t", HERE) for _ in range(20)))
    assert api.asked == 1
    api.tokens.clear()
    api.now = CACHE_SECONDS - 0.1
    await callers.identify("Bearer t", HERE)
    api.now = CACHE_SECONDS + 0.1
    with pytest.raises(CallerRefusedError):
        await callers.identify("Bearer t", HERE)
    assert api.asked == 2


async def test_a_caller_that_hangs_up_does_not_take_the_answer_from_the_others() -> None:
    api = ApiServer(t=GOOD)
    callers = api.callers()
    impatient = asyncio.create_task(callers.identify("Bearer t", HERE))
    patient = asyncio.create_task(callers.identify("Bearer t", HERE))
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await patient).module == "Sensor"
    assert api.asked == 1


async def test_before_the_module_set_is_known_nobody_is_told_to_be_a_stranger() -> None:
    callers = Callers(
        ApiServer(t=GOOD), place=None, namespace="edge-gw", audience="edgeha-gw", modules=lambda: None
    )
    with pytest.raises(ReviewUnavailableError, match="not seen yet"):
        await callers.identify("Bearer t", HERE)
    with pytest.raises(CallerRefusedError):
        await callers.identify("Bearer x", HERE)


async def test_a_token_counts_from_the_addresses_of_its_own_pod_alone() -> None:
    api = ApiServer(t=GOOD)
    callers = api.callers()
    await callers.identify("Bearer t", HERE)
    with pytest.raises(CallerRefusedError) as refused:
        await callers.identify("Bearer t", THERE)
    assert refused.value.status == 403
    assert refused.value.caller == Caller("Sensor", "gw-sensor-abc")
    for told in (HERE, THERE, GOOD.pod, "callers.checkAddress"):
        assert told in str(refused.value)
    # The thief takes nothing from the pod, and asks the API server no more than now and then.
    before = api.asked
    for _ in range(20):
        with pytest.raises(CallerRefusedError):
            await callers.identify("Bearer t", THERE)
        await callers.identify("Bearer t", HERE)
    assert api.asked == before


async def test_where_addresses_are_rewritten_the_check_can_be_left_out() -> None:
    api = ApiServer(t=GOOD)
    assert (await api.callers(check=False).identify("Bearer t", THERE)).module == "Sensor"


@pytest.mark.parametrize("review", [replace(GOOD, pod="", uid=""), replace(GOOD, uid="u2")])
async def test_a_token_of_no_pod_or_of_one_that_is_gone_does_not_count(review: Review) -> None:
    with pytest.raises(CallerRefusedError, match=r"is of no pod|which is gone") as refused:
        await ApiServer(t=review).callers().identify("Bearer t", HERE)
    assert refused.value.status == 403


async def test_a_new_pod_is_looked_for_again_before_it_is_refused() -> None:
    api = ApiServer(t=GOOD)
    api.pods[GOOD.pod] = Place("u1", frozenset())
    callers = api.callers()
    with pytest.raises(ReviewUnavailableError, match="has no address yet"):
        await callers.identify("Bearer t", HERE)
    # Its address is there before what is kept has run out.
    api.pods[GOOD.pod] = Place("u1", frozenset({HERE}))
    await callers.identify("Bearer t", HERE)
    # As after a new sandbox of the same pod.
    api.pods[GOOD.pod] = Place("u1", frozenset({THERE}))
    await callers.identify("Bearer t", THERE)


async def test_a_pod_on_the_nodes_network_has_any_address_but_those_of_other_pods() -> None:
    api = ApiServer(t=GOOD)
    api.pods[GOOD.pod] = Place("u1", frozenset({"192.0.2.1"}), on_node=True, others=frozenset({THERE}))
    callers = api.callers()
    for address in ("192.0.2.1", "10.0.0.1"):
        await callers.identify("Bearer t", address)
    with pytest.raises(CallerRefusedError):
        await callers.identify("Bearer t", THERE)


@pytest.mark.parametrize(
    ("address", "one"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("::FFFF:0a00:0007", "10.0.0.7"),
        ("FD00:0::7", "fd00::7"),
        ("fe80::1%eth0", "fe80::1"),
        ("", ""),
        ("socket", "socket"),
    ],
)
async def test_each_address_has_one_text(address: str, one: str) -> None:
    assert normal(address) == one
    if one == HERE:
        await ApiServer(t=GOOD).callers().identify("Bearer t", address)


async def test_forged_tokens_of_one_address_hold_nobody_else_up() -> None:
    api = ApiServer(t=GOOD)
    callers = api.callers()
    forged = [
        asyncio.create_task(callers.identify(f"Bearer slow{number}", THERE))
        for number in range(PEER_WAITING + 1)
    ]
    async with asyncio.timeout(60):
        while api.slow < PEER_REVIEWS:
            await asyncio.sleep(0)
        await callers.identify("Bearer t", HERE)
    assert api.most == PEER_REVIEWS
    assert isinstance(forged[-1].exception(), ReviewUnavailableError), "more than may wait"
    api.answer.set()
    for task in forged[:-1]:
        with pytest.raises(CallerRefusedError):
            await task


async def test_a_forged_token_is_asked_for_once_in_a_while_and_pushes_no_good_one_out() -> None:
    api = ApiServer(t=GOOD)
    callers = api.callers()
    await callers.identify("Bearer t", HERE)
    for _ in range(3):
        with pytest.raises(CallerRefusedError):
            await callers.identify("Bearer x", THERE)
    assert api.asked == 2
    for number in range(CACHE_ENTRIES + 1):
        with pytest.raises(CallerRefusedError):
            await callers.identify(f"Bearer x{number}", THERE)
    asked = api.asked
    await callers.identify("Bearer t", HERE)
    assert api.asked == asked
    api.now += REFUSED_CACHE_SECONDS + 0.1
    api.tokens["x"] = GOOD
    await callers.identify("Bearer x", HERE)
