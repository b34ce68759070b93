# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes and removes the pods of modules, one in each slot.

It is what a Deployment would be with `Recreate`, but for one thing, for which there is no such object: a
module that ended by itself stays ended until somebody starts it, as on a stock device, where edgeAgent
decides by the module's restartPolicy. What was taken from a module (its machine, an eviction, somebody's
delete) is made anew at once.

Nothing here is remembered that the cluster does not tell, so a daemon that starts anew makes nothing twice.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lightkube import ApiError

from . import pods
from .kube import Applied, describe
from .logs import fields
from .manifests import Manifest, digest
from .pods import Pod

# A pod that a kubelet keeps giving back is not made anew more often than this.
LOST_SECONDS = 10.0
# How long past its time a pod that goes on another machine counts as one that may still run. Later it is lost
# with its machine. Counted from when this daemon saw it first: the machine's clock may be wrong.
GRACE_SECONDS = 2.0
# Until the next look at a pod that goes on the daemon's own machine, whose kubelet will tell when it is gone.
LOOK_SECONDS = 60.0

_log = logging.getLogger(__name__)


class Maker(Protocol):
    """Who makes and deletes pods; each raises one of `kube.ERRORS`."""

    async def apply(self, manifest: Manifest, *, dry_run: bool = False) -> Applied:
        """Make an object, or only let the API server judge it."""

    async def delete(self, kind: str, name: str) -> None:
        """Delete an object; gone already is fine."""

    async def give_up(self, pod: str) -> None:
        """Take a pod out of its slot; gone already is fine."""


@dataclass
class Placed:
    """What became of the pods of a module.

    `there`: the pods that stay, by slot. `refused`: why the API server makes none, by slot. `wait`: seconds
    after which to look again, None where all is as it is wanted.
    """

    there: dict[str, Pod] = field(default_factory=dict)
    made: dict[str, Applied] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    wait: float | None = None

    def later(self, seconds: float) -> None:
        """Look again after so long, or earlier where something else wants that."""
        self.wait = seconds if self.wait is None else min(self.wait, seconds)


class Placement:
    """The pods of one gateway. `node`: the daemon's machine. `clock` counts seconds from somewhere."""

    def __init__(self, cluster: Maker, node: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._node = node
        self._clock = clock
        self._going: dict[str, float] = {}  # pod: when it was first seen going
        self._made: dict[str, float] = {}  # pod: when it was made, if by this daemon

    async def place(self, wanted: Mapping[str, Manifest], found: Iterable[Pod]) -> Placed:
        """See that a module has these pods and no others.

        `wanted`: by slot, the one that works first. `found`: all pods of the module as the API server lists
        them now. Raises `kube.ERRORS` where a pod cannot be deleted or given up.
        """
        placed = Placed()
        listed = list(found)
        staying = [pod for pod in listed if not pod.going]
        for pod in staying:
            manifest = wanted.get(pod.slot)
            if manifest is not None and pod.digest == digest(manifest) and not pod.lost:
                placed.there.setdefault(pod.slot, pod)
        for pod in staying:
            slot, manifest = pod.slot, wanted.get(pod.slot)
            if pod is placed.there.get(slot) or slot in placed.refused:
                continue
            if manifest is not None and slot not in placed.there:
                if pod.lost and (pause := self._pause(pod)) > 0:
                    placed.later(pause)
                    continue
                if not pod.finished and (refusal := await self._refusal(manifest)):
                    # Better the module as it was than none.
                    placed.refused[slot] = refusal
                    continue
            await self._cluster.delete("Pod", pod.name)
            _log.info("pod removed", extra=fields(module=pod.module, pod=pod.name, lost=pod.lost))
        for slot, manifest in wanted.items():
            if slot in placed.there or slot in placed.refused:
                continue
            # Two at a time would be two clients of the hub with one identity, and two writers of a volume.
            mine = [pod for pod in listed if pod.slot == slot]
            left = max((self._left(pod) for pod in mine if not pod.finished), default=0.0)
            pause = max((self._pause(pod) for pod in mine if pod.lost and not pod.going), default=0.0)
            if max(left, pause) > 0:
                placed.later(max(left, pause))
                continue
            for pod in mine:
                if pod.going and not pod.finished:
                    await self._cluster.give_up(pod.name)
                    _log.warning("pod given up", extra=fields(module=pod.module, pod=pod.name, node=pod.node))
            try:
                made = await self._cluster.apply(_named(manifest))
            except ApiError as error:
                placed.refused[slot] = describe(error)
                continue
            placed.made[slot] = made
            self._made[made.name] = self._clock()
            _log.info("pod made", extra=fields(slot=slot, pod=made.name))
        return placed

    async def _refusal(self, manifest: Manifest) -> str:
        """Why the API server would not take a pod, or did not say; empty where it would, if all else went."""
        try:
            await self._cluster.apply(_named(manifest), dry_run=True)
        except ApiError as error:
            # A quota may be full because of the pod that is to go. Whatever else: nobody said that the next
            # one would be taken, and one that cannot be judged now can be later.
            if error.status.code != 403 or "exceeded quota" not in (error.status.message or ""):
                return describe(error)
        return ""

    def keep(self, found: Iterable[Pod]) -> None:
        """Forget what is of no use any more: pods that are none of these, and those made long ago."""
        names, now = {pod.name for pod in found}, self._clock()
        self._going = {name: at for name, at in self._going.items() if name in names}
        self._made = {name: at for name, at in self._made.items() if now - at < LOST_SECONDS}

    def _left(self, pod: Pod) -> float:
        """Seconds for which a pod that goes, or that was deleted just now, may still run."""
        if pod.node == self._node:
            return LOOK_SECONDS
        now = self._clock()
        return max(0.0, self._going.setdefault(pod.name, now) + pod.grace + GRACE_SECONDS - now)

    def _pause(self, pod: Pod) -> float:
        """Seconds until a pod that was lost may be made anew."""
        made = self._made.get(pod.name)
        return 0.0 if made is None else max(0.0, made + LOST_SECONDS - self._clock())


def _named(manifest: Manifest) -> Manifest:
    """The manifest with a name that no pod had before."""
    metadata = manifest["metadata"]
    return {**manifest, "metadata": {**metadata, "name": f"{metadata['name']}-{secrets.token_hex(3)}"}}


def listed(found: Iterable[object]) -> list[Pod]:
    """The pods of modules among those of the cluster (of lightkube), the oldest first."""
    seen = [pod for one in found if (pod := pods.view(one)) is not None]
    return sorted(seen, key=lambda pod: (pod.created, pod.name))
