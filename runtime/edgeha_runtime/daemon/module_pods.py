# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sees that each module has the pods that its run is to have, and remembers where that is so.

How pods are made and removed is placement.py's. Which of them are wanted is decided here: one in each slot,
of the run that was asked for last, or none where that run ended by itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from . import manifests, moduleset, placement
from .deployment import Deployment
from .events import Events
from .kube import Cluster
from .manifests import MODULE_LABEL, Addresses, Manifest, OwnerReference
from .moduleset import Module
from .placement import Placed, Placement
from .pods import Board, Ended, Pod
from .settings import Settings


class Basis(NamedTuple):
    """What a module's objects are made of besides the settings, which stay.

    `generation`: of its identity. `addresses`: of the gateway's Services. It tells one wanted state of the
    objects from another, at no cost for who probes.
    """

    module: Module
    generation: str
    owner: OwnerReference
    addresses: Addresses


class Listing(NamedTuple):
    """Pods by module as the API server told them, and how often each module's had moved before that."""

    pods: Mapping[str, list[Pod]]
    moved: Mapping[str, int]


class _Known(NamedTuple):
    """A pod as it was seen."""

    uid: str
    finished: bool


class PodRefusedError(Exception):
    """The cluster makes no pod of a module; the message says in which slot and why."""


class ModulePods:
    """The pods of the modules of one gateway.

    `board`: what the watch tells of them. `certificate`: the daemon's, in PEM. `look` asks for another pass.
    """

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        deployment: Deployment,
        events: Events,
        board: Board,
        *,
        certificate: str,
        look: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._deployment = deployment
        self._events = events
        self._board = board
        self._certificate = certificate
        self._look = look
        self._placement = Placement(cluster, settings.node_name)
        # By object name: what the pods were last made of, as far as all was done.
        self._settled: dict[str, Basis] = {}
        # The pods that were as they are wanted when they were last looked at, by slot.
        self._known: dict[str, dict[str, _Known]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}  # object: the next look at its pods
        self._moved: Counter[str] = Counter()  # module: how often its pods gave a reason to look at them
        self._refused: dict[str, dict[str, str]] = {}  # object: why the cluster makes no pod, by slot

    def is_settled(self, basis: Basis) -> bool:
        """Whether the pods of a module are those of this basis, and nothing told otherwise since."""
        return self._settled.get(basis.module.object_name) == basis

    def refused(self, module: Module) -> Mapping[str, str]:
        """Why the cluster makes no pod of a module, by slot."""
        return self._refused.get(module.object_name, {})

    def has_any(self, module: Module) -> bool:
        """Whether a module had a pod when its pods were last looked at."""
        return bool(self._known.get(module.object_name))

    def of_run(self, name: str) -> list[Pod]:
        """The pods of a module. One of a run before this one that ended is only in the way of the next."""
        run = self._deployment.run_of(name)
        return [
            replace(pod, lost=True) if pod.run != run and not (pod.started or pod.waits) else pod
            for pod in self._board.of(name)
        ]

    def ended(self, name: str) -> Ended | None:
        """How the run of a module ended by itself, as it is noted; None where it did not."""
        kept = self._deployment.ended(name)
        return Ended.of(kept) if kept else None

    def has_ended(self, name: str) -> bool:
        """Whether a module ended by itself, as far as is known now: it may not be noted yet."""
        return self.ended(name) is not None or any(
            pod.ended and not (pod.started or pod.lost or pod.going) for pod in self.of_run(name)
        )

    def saw(self, pod: Pod, *, gone: bool) -> bool:
        """Take what the watch tells of a pod. Answers whether its module's pods are to be looked at."""
        known = self._known.get(self._object_name(pod.module), {}).get(pod.slot)
        if known is None:
            # Perhaps the one that a new pod waits for, or one that was made just now.
            matters = gone or pod.finished
        elif known.uid != pod.uid:
            # The same, or a second one, whose making was not answered.
            matters = gone or pod.finished or not pod.going
        else:
            matters = gone or pod.going or pod.finished != known.finished
        if matters:
            self.unsettle(pod.module)
        return matters

    def unsettle(self, module: str) -> None:
        """Something about a module's pods gives a reason to look at them."""
        self._moved[module] += 1
        self._settled.pop(self._object_name(module), None)

    async def listing(self, module: str | None) -> Listing:
        """The pods of a module as the API server knows them now; None: of all modules.

        Raises `kube.ERRORS`.
        """
        moved = self._moved.copy()
        chosen = {} if module is None else {MODULE_LABEL: moduleset.label(module)}
        found: dict[str, list[Pod]] = {}
        listed = await self._cluster.pods(manifests.selector(self._settings.release) | chosen)
        for pod in placement.listed(listed):
            found.setdefault(pod.module, []).append(pod)
        return Listing(found, moved)

    async def place(self, basis: Basis, there: Listing | None) -> None:
        """Make and remove the pods of a module. `there`: those of all modules, where they were listed.

        Raises PodRefusedError, and `kube.ERRORS`.
        """
        module = basis.module
        self._settled.pop(module.object_name, None)
        listing = await self.listing(module.name) if there is None else there
        found = listing.pods.get(module.name, [])
        wanted = {
            slot: manifests.pod(
                module,
                basis.generation,
                self._settings,
                basis.owner,
                self._certificate,
                basis.addresses,
                slot,
            )
            for slot in self._settings.slots
            if module.running
        }
        placed = await self._placement.place(await self._of_this_run(module, wanted, found), found)
        self._note(module, placed)
        if timer := self._timers.pop(module.object_name, None):
            timer.cancel()
        if placed.wait is not None:
            loop = asyncio.get_running_loop()
            self._timers[module.object_name] = loop.call_later(placed.wait, self._look)
        elif self._moved[module.name] != listing.moved.get(module.name, 0):
            self._look()
        elif not placed.refused:
            self._settled[module.object_name] = basis
        if placed.refused:
            slot, reason = next(iter(placed.refused.items()))
            raise PodRefusedError(f"its pod in slot {slot} is not made: {reason}")

    async def _of_this_run(
        self, module: Module, wanted: dict[str, Manifest], found: list[Pod]
    ) -> dict[str, Manifest]:
        """Of the wanted pods those that this run has: where it ended, the pod that ended alone."""
        own = self._settings.slot
        if own not in wanted:
            return wanted
        # Whatever became of the rest of what a pod is made of: the run is the same one.
        mine = [pod for pod in found if pod.slot == own and pod.run == module.restarts and not pod.going]
        ends = [pod for pod in mine if pod.finished and not pod.lost]
        for pod in ends:
            if pod.ended:
                await self._deployment.note_end(module.name, module.restarts, pod.ended.document())
                break
        if self.ended(module.name) is None:
            return wanted
        digest = manifests.digest(wanted[own])
        return {own: wanted[own]} if any(pod.digest == digest for pod in ends) else {}

    def _note(self, module: Module, placed: Placed) -> None:
        """Remember what became of the pods of a module."""
        name = module.object_name
        self._known[name] = {
            **{slot: _Known(pod.uid, pod.finished) for slot, pod in placed.there.items()},
            **{slot: _Known(made.uid, False) for slot, made in placed.made.items()},
        }
        own = placed.there.get(self._settings.slot) or placed.made.get(self._settings.slot)
        if own is not None:
            self._events.know(name, "Pod", own.name, own.uid)
        self._refused[name] = dict(placed.refused)

    def forget(self, name: str) -> None:
        """Forget what a module that is gone had; `name`: of its objects."""
        self._settled.pop(name, None)
        self._known.pop(name, None)
        self._refused.pop(name, None)

    def tidy(self) -> None:
        """Forget pods that are no more."""
        self._placement.keep(self._board.all())

    def _object_name(self, module: str) -> str:
        return moduleset.object_name(self._settings.release, module)
