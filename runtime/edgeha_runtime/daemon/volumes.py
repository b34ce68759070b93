# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a pod waits for its volumes. Its own state does not tell: it says ContainerCreating, or nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from .kube import ERRORS, describe
from .logs import fields
from .pods import Board, Pod, Trouble

# Between two looks at what pods wait for.
LOOK_SECONDS = 5.0

MOUNT_REASONS = frozenset({"FailedAttachVolume", "FailedMapVolume", "FailedMount"})


_log = logging.getLogger(__name__)


class Claims(Protocol):
    """Who knows claims and events of the cluster; both raise `kube.ERRORS`."""

    async def claim_phase(self, name: str) -> str:
        """Phase of a claim: Pending, Bound or Lost; empty where there is no such claim."""

    async def warnings(self, kind: str, name: str) -> list[tuple[str, str]]:
        """Reason and message of each warning about an object, the newest last."""


async def trouble(pod: Pod, cluster: Claims) -> Trouble | None:
    """What keeps a pod from its volumes; None where nothing is known to."""
    for claim in pod.claims:
        phase = await cluster.claim_phase(claim)
        if phase == "Lost":
            return Trouble(f"its claim {claim} has lost its volume: restore the volume, or the claim", True)
        if phase == "Pending":
            told = await cluster.warnings("PersistentVolumeClaim", claim)
            if told:
                return Trouble(f"its claim {claim} cannot be bound: {': '.join(told[-1])}", True)
            return Trouble(f"its claim {claim} is not bound yet", False)
    mounts = [one for one in await cluster.warnings("Pod", pod.name) if one[0] in MOUNT_REASONS]
    # It may still come right: a volume leaves a machine that died after some minutes.
    return Trouble(f"its volumes are not there: {': '.join(mounts[-1])}", False) if mounts else None


class Volumes:
    """What keeps the pods on a board from their volumes.

    `late` is called with a module and a text for what waiting alone will not change.
    """

    def __init__(self, cluster: Claims, board: Board, late: Callable[[str, str], None]) -> None:
        self._cluster = cluster
        self._board = board
        self._late = late
        self._found: dict[str, Trouble] = {}  # by pod
        self._wake = asyncio.Event()

    def of(self, pod: Pod) -> Trouble | None:
        """What keeps a pod from its volumes, as of the last look."""
        return self._found.get(pod.name)

    def look(self) -> None:
        """Something moved on the board."""
        self._wake.set()

    async def run(self) -> None:
        """Look while pods wait, until cancelled."""
        before: set[str] = set()
        while True:
            waiting = {pod.name: pod for pod in self._board.waiting()}
            looked: dict[str, Trouble] = {}
            # A pod that only starts is not worth a question.
            for name in sorted(before & waiting.keys()):
                found = await self._look_at(waiting[name])
                if found is None:
                    continue
                looked[name] = found
                if found.lasting and found != self._found.get(name):
                    self._late(waiting[name].module, found.text)
            self._found = looked
            before = set(waiting)
            self._wake.clear()
            if waiting:
                await asyncio.sleep(LOOK_SECONDS)
            else:
                await self._wake.wait()

    async def _look_at(self, pod: Pod) -> Trouble | None:
        try:
            return await trouble(pod, self._cluster)
        except ERRORS as error:
            _log.info("volumes not looked for", extra=fields(pod=pod.name, reason=describe(error)))
            return self._found.get(pod.name)
        except Exception:
            # A word less is no reason to end the daemon that signs for running modules.
            _log.exception("volumes not looked for", extra=fields(pod=pod.name))
            return None
