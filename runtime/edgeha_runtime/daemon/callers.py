# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who calls: a ServiceAccount token made for this gateway, reviewed by the API server, names the module."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from . import metrics
from .logs import fields

CACHE_SECONDS = 10.0
REFUSED_CACHE_SECONDS = 2.0
CACHE_ENTRIES = 1024
MAX_TOKEN = 8192
PARALLEL_REVIEWS = 8
_USER_PREFIX = "system:serviceaccount:"

_log = logging.getLogger(__name__)


class CallerRefusedError(Exception):
    """Not a caller of this gateway: `status` 401 for no valid token, 403 for a token of somebody else."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ReviewUnavailableError(Exception):
    """The API server could not be asked."""


@dataclass(frozen=True)
class Review:
    """What the API server says of a token."""

    authenticated: bool
    username: str = ""
    audiences: tuple[str, ...] = ()
    pod: str = ""


class Reviewer(Protocol):
    """Asks the API server about a token (TokenReview). Raises ReviewUnavailableError."""

    async def __call__(self, token: str, audience: str) -> Review: ...


@dataclass(frozen=True)
class Caller:
    """A module of this gateway, and the pod it speaks from where the API server names it."""

    module: str
    pod: str


class Callers:
    """Maps bearer tokens to modules.

    `modules` gives ServiceAccount names and module ids as they are now, None before they are known. Answers
    are kept for seconds, by the token's hash; requests with the same token share one review.
    """

    def __init__(
        self,
        review: Reviewer,
        *,
        namespace: str,
        audience: str,
        modules: Callable[[], Mapping[str, str] | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._review = review
        self._namespace = namespace
        self._audience = audience
        self._modules = modules
        self._clock = clock
        self._cache: OrderedDict[bytes, tuple[float, Review]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Review]] = {}
        self._slots = asyncio.Semaphore(PARALLEL_REVIEWS)

    async def identify(self, authorization: str | None) -> Caller:
        """The module behind an Authorization header.

        Raises CallerRefusedError, or ReviewUnavailableError when the API server cannot be asked.
        """
        scheme, _space, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise CallerRefusedError(
                401, "no bearer token: call through the workload proxy of the module's pod"
            )
        if len(token) > MAX_TOKEN or not token.isascii() or not token.isprintable():
            raise CallerRefusedError(401, "the bearer token is not a ServiceAccount token")
        review = await self._known(token)
        if not review.authenticated or self._audience not in review.audiences:
            raise CallerRefusedError(401, f"the token is not valid for audience {self._audience}")
        if not review.username.startswith(_USER_PREFIX):
            raise CallerRefusedError(403, f"{review.username} is not a ServiceAccount")
        namespace, _colon, account = review.username.removeprefix(_USER_PREFIX).partition(":")
        modules = self._modules()
        if modules is None:
            # As after a start: a module that is told so asks again, one that is refused may give up.
            raise ReviewUnavailableError("the module set was not seen yet")
        module = modules.get(account) if namespace == self._namespace else None
        if module is None:
            raise CallerRefusedError(
                403, f"ServiceAccount {namespace}/{account} is no module of this gateway"
            )
        return Caller(module, review.pod)

    async def _known(self, token: str) -> Review:
        key = hashlib.sha256(token.encode()).digest()
        held = self._cache.get(key)
        if held and held[0] > self._clock():
            return held[1]
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(key, token))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        # A caller that hangs up must not take the answer from the others.
        return await asyncio.shield(task)

    async def _ask(self, key: bytes, token: str) -> Review:
        async with self._slots:
            try:
                review = await self._review(token, self._audience)
            except ReviewUnavailableError:
                metrics.REVIEWS.labels("unavailable").inc()
                raise
        metrics.REVIEWS.labels("known" if review.authenticated else "refused").inc()
        keep = CACHE_SECONDS if review.authenticated else REFUSED_CACHE_SECONDS
        self._cache[key] = (self._clock() + keep, review)
        self._cache.move_to_end(key)
        while len(self._cache) > CACHE_ENTRIES:
            self._cache.popitem(last=False)
        return review


def log_refusal(
    status: int, reason: str, *, path: str, peer: str | None, caller: Caller | None = None
) -> None:
    """One line for each refusal: who, what, why. The token is not part of it."""
    _log.warning(
        "refused",
        extra=fields(
            status=status,
            reason=reason,
            path=path[:256],
            peer=peer,
            module=caller.module if caller else None,
            pod=caller.pod if caller else None,
        ),
    )
