# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who calls: a ServiceAccount token made for this gateway, reviewed by the API server, names the module."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
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
# Of one address, so that whoever sends forged tokens fills neither the slots nor the cache.
PEER_REVIEWS = 2
PEER_WAITING = 32
PEER_REFUSED = 64
MAX_TOKEN = 8192
PARALLEL_REVIEWS = 8
_USER_PREFIX = "system:serviceaccount:"

_log = logging.getLogger(__name__)


class CallerRefusedError(Exception):
    """Not a caller of this gateway: `status` 401 for no valid token, 403 for a token of somebody else."""

    def __init__(self, status: int, message: str, caller: Caller | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.caller = caller


class ReviewUnavailableError(Exception):
    """The API server could not be asked."""


@dataclass(frozen=True)
class Review:
    """What the API server says of a token; `pod` and `uid` of the pod that it is bound to."""

    authenticated: bool
    username: str = ""
    audiences: tuple[str, ...] = ()
    pod: str = ""
    uid: str = ""


@dataclass(frozen=True)
class Place:
    """Where a pod is in the network: its addresses, none as long as nobody gave it one.

    `on_node`: it has the node's network, and may have any address that is none of `others`.
    """

    uid: str
    addresses: frozenset[str]
    on_node: bool = False
    others: frozenset[str] = frozenset()

    def holds(self, address: str) -> bool:
        """Whether the pod may have an address."""
        return address in self.addresses or (self.on_node and address not in self.others)


class Reviewer(Protocol):
    """Asks the API server about a token (TokenReview). Raises ReviewUnavailableError."""

    async def __call__(self, token: str, audience: str) -> Review: ...


class Placer(Protocol):
    """Asks the API server where a pod is, None for one that is gone. Raises ReviewUnavailableError."""

    async def __call__(self, pod: str) -> Place | None: ...


@dataclass(frozen=True)
class Caller:
    """A module of this gateway, and the pod it speaks from where the API server names it."""

    module: str
    pod: str


def normal(address: str) -> str:
    """One text for each address: of IPv4 in IPv6 that of IPv4, without a zone; what is none stays."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


class _Peer:
    """What one address asks for, besides what is known."""

    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(PEER_REVIEWS)
        self.waiting = 0
        self.refused: OrderedDict[bytes, float] = OrderedDict()


class Callers:
    """Maps bearer tokens to modules.

    `modules` gives ServiceAccount names and module ids as they are now, None before they are known. `place`
    tells where a pod is: a token counts from the addresses of its own pod alone; without it from anywhere.
    Answers are kept for seconds, by the token's hash; requests with the same token from one address share one
    review.
    """

    def __init__(
        self,
        review: Reviewer,
        *,
        place: Placer | None,
        namespace: str,
        audience: str,
        modules: Callable[[], Mapping[str, str] | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._review = review
        self._place = place
        self._namespace = namespace
        self._audience = audience
        self._modules = modules
        self._clock = clock
        self._cache: OrderedDict[bytes, tuple[float, Review, Place | None]] = OrderedDict()
        self._asking: dict[tuple[bytes, str], asyncio.Task[tuple[Review, Place | None]]] = {}
        self._slots = asyncio.Semaphore(PARALLEL_REVIEWS)
        self._peers: OrderedDict[str, _Peer] = OrderedDict()

    async def identify(self, authorization: str | None, peer: str) -> Caller:
        """The module behind an Authorization header that came from the address `peer`.

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
        peer = normal(peer)
        key = hashlib.sha256(token.encode()).digest()
        review, place = await self._known(key, token, peer)
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
        caller = Caller(module, review.pod)
        if self._place is not None and not _is_there(review, place, peer):
            await self._look_again(key, token, caller, peer)
        return caller

    async def _look_again(self, key: bytes, token: str, caller: Caller, peer: str) -> None:
        """Refuse a caller that is not where its pod is, unless it is there by now."""
        one = self._peer(peer)
        review, place = await self._known(key, token, peer, fresh=not self._is_refused(one, key))
        if _is_there(review, place, peer):
            return
        if place is not None and place.uid == review.uid and not place.addresses:
            raise ReviewUnavailableError(f"pod {review.pod} has no address yet")
        self._refuse(one, key)
        if not review.pod:
            reason = "is of no pod: only tokens that are bound to their pod count"
        elif place is None or place.uid != review.uid:
            reason = f"is of pod {review.pod}, which is gone"
        else:
            reason = (
                f"is of pod {review.pod} at {', '.join(sorted(place.addresses))}, and came from {peer}; "
                "where the cluster rewrites addresses of its pods set callers.checkAddress to false"
            )
        raise CallerRefusedError(403, f"the token of module {caller.module} {reason}", caller)

    def _peer(self, address: str) -> _Peer:
        found = self._peers.pop(address, None) or _Peer()
        self._peers[address] = found
        while len(self._peers) > CACHE_ENTRIES:
            self._peers.popitem(last=False)
        return found

    def _is_refused(self, peer: _Peer, key: bytes) -> bool:
        return peer.refused.get(key, 0.0) > self._clock()

    def _refuse(self, peer: _Peer, key: bytes) -> None:
        peer.refused[key] = self._clock() + REFUSED_CACHE_SECONDS
        peer.refused.move_to_end(key)
        while len(peer.refused) > PEER_REFUSED:
            peer.refused.popitem(last=False)

    async def _known(
        self, key: bytes, token: str, peer: str, *, fresh: bool = False
    ) -> tuple[Review, Place | None]:
        held = self._cache.get(key)
        if held and held[0] > self._clock() and not fresh:
            return held[1], held[2]
        one = self._peer(peer)
        if not held and self._is_refused(one, key):
            return Review(authenticated=False), None
        task = self._asking.get((key, peer))
        if task is None:
            if one.waiting >= PEER_WAITING:
                raise ReviewUnavailableError(f"more than {PEER_WAITING} unknown tokens at once from {peer}")
            one.waiting += 1
            task = asyncio.create_task(self._ask(key, token, one))
            self._asking[(key, peer)] = task

            def done(_task: object) -> None:
                one.waiting -= 1
                self._asking.pop((key, peer), None)

            task.add_done_callback(done)
        # A caller that hangs up must not take the answer from the others.
        return await asyncio.shield(task)

    async def _ask(self, key: bytes, token: str, peer: _Peer) -> tuple[Review, Place | None]:
        # The peer's first: of those that wait for a slot of all, none has more than its part.
        async with peer.slots, self._slots:
            try:
                review = await self._review(token, self._audience)
                place = None
                if self._place is not None and review.authenticated and review.pod:
                    place = await self._place(review.pod)
            except ReviewUnavailableError:
                metrics.REVIEWS.labels("unavailable").inc()
                raise
        metrics.REVIEWS.labels("known" if review.authenticated else "refused").inc()
        if not review.authenticated:
            self._cache.pop(key, None)
            self._refuse(peer, key)
            return review, place
        self._cache[key] = (self._clock() + CACHE_SECONDS, review, place)
        self._cache.move_to_end(key)
        while len(self._cache) > CACHE_ENTRIES:
            self._cache.popitem(last=False)
        return review, place


def _is_there(review: Review, place: Place | None, peer: str) -> bool:
    """Whether a token came from the pod that it is bound to."""
    return place is not None and bool(review.uid) and place.uid == review.uid and place.holds(peer)


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
