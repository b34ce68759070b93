# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a pod waits for its volumes. Its own state does not tell: it says ContainerCreating, or nothing."""

from __future__ import annotations

from typing import Protocol

from .pods import Pod, Trouble

MOUNT_REASONS = frozenset({"FailedAttachVolume", "FailedMapVolume", "FailedMount"})


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
