# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What both sides of the hub need of a connection: its packets one by one, and numbers for its messages."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Container, Coroutine
from typing import Any

from iothub_emulator.mqtt_codec import Decoder, Packet


class Packets:
    """What a peer sends, packet by packet.

    At its end comes `ended`; after `patience` seconds without a byte, where that is a number, TimeoutError.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        decoder: Decoder,
        ended: Exception,
        patience: float | None = None,
    ) -> None:
        self._reader = reader
        self._decoder = decoder
        self._ended = ended
        self._patience = patience
        self._ready: deque[Packet] = deque()

    def __aiter__(self) -> Packets:
        return self

    async def __anext__(self) -> Packet:
        while not self._ready:
            async with asyncio.timeout(self._patience):
                data = await self._reader.read(65536)
            if not data:
                raise self._ended
            self._ready.extend(self._decoder.feed(data))
        return self._ready.popleft()


async def until_one_ends(*works: Coroutine[Any, Any, None], timeout: float | None = None) -> None:
    """Do all of it until one ends or fails, or so many seconds are over. Raises what it failed with."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _pending = await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def next_id(last: int, taken: Container[int]) -> int:
    """The packet id after `last` that no message on its way has."""
    while True:
        last = last % 65535 + 1
        if last not in taken:
            return last
