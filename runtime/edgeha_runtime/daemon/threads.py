# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes in a thread that end before anybody else begins one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


async def to_the_end(work: Callable[..., Answer], *args: object) -> Answer:
    """Run `work` in a thread. Who cancels this waits until the thread is done.

    A thread goes on when whoever waits for it is cancelled. With a lock around this, and not around
    `asyncio.to_thread`, the next one to have the lock never writes beside it.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, so that nobody warns of one that nobody waits for
        raise
