# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The live device connections, as the rest of the hub sees them."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Key = tuple[str, str]
"""(device id, module id or '')"""


@dataclass(frozen=True)
class MethodAnswer:
    """What a device answered to a direct method; the payload is meant to be JSON."""

    status: int
    payload: bytes


class LiveConnection(Protocol):
    """What the hub may do to a connection."""

    def close(self, reason: str) -> None:
        """End it now; `reason` goes to the log."""

    def push_desired(self, patch: Mapping[str, Any], version: int) -> None:
        """Tell the device of a change of its desired properties, if it subscribed to that."""

    def call_method(self, name: str, payload: bytes) -> "asyncio.Future[MethodAnswer] | None":
        """Call a direct method; None when the device is not subscribed to them.

        The answer is a ConnectionError when the connection ends first.
        """

    def takes_messages(self) -> bool:
        """Whether the device is subscribed to messages from the cloud."""

    def send_message(self, bag: str, body: bytes, delivered: Callable[[], None]) -> bool:
        """Send a message from the cloud with the properties `bag`; False when it is not subscribed.

        `delivered` is called when the device has acknowledged it, with QoS 0 at once.
        """


class Connections:
    """One connection for each identity; the newest wins."""

    def __init__(self) -> None:
        self._live: dict[Key, LiveConnection] = {}
        # Who waits for a device that becomes ready for methods.
        self._waiting: dict[Key, list[asyncio.Event]] = {}
        self._watchers: list[Callable[[Key], None]] = []

    def replace(self, key: Key, connection: LiveConnection) -> None:
        """Make `connection` the identity's one and close the one before it."""
        old = self._live.get(key)
        self._live[key] = connection
        if old is not None:
            old.close("another connection of the same identity")

    def remove(self, key: Key, connection: LiveConnection) -> bool:
        """Forget `connection`; False when a newer one has its place."""
        if self._live.get(key) is not connection:
            return False
        del self._live[key]
        return True

    def push_desired(self, key: Key, patch: Mapping[str, Any], version: int) -> None:
        connection = self._live.get(key)
        if connection is not None:
            connection.push_desired(patch, version)

    def live(self, key: Key) -> LiveConnection | None:
        return self._live.get(key)

    def watch_ready(self, watcher: Callable[[Key], None]) -> None:
        """Call `watcher` whenever an identity connects or subscribes."""
        self._watchers.append(watcher)

    def note_ready(self, key: Key) -> None:
        """Say that an identity connected or subscribed."""
        for watcher in self._watchers:
            watcher(key)
        for ready in self._waiting.get(key, ()):
            ready.set()

    async def call_method(
        self, key: Key, name: str, payload: bytes, seconds: float
    ) -> "asyncio.Future[MethodAnswer] | None":
        """Call a direct method once the device is ready for it; None when it is not within `seconds`."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            connection = self._live.get(key)
            answer = connection.call_method(name, payload) if connection else None
            if answer is not None or seconds <= 0:
                return answer
            ready = asyncio.Event()
            waiting = self._waiting.setdefault(key, [])
            waiting.append(ready)
            try:
                async with asyncio.timeout_at(deadline):
                    await ready.wait()
            except TimeoutError:
                return None
            finally:
                waiting.remove(ready)
                if not waiting and self._waiting.get(key) is waiting:
                    del self._waiting[key]

    def drop_device(self, device_id: str, reason: str) -> None:
        """Close the connections of a device and of its modules."""
        for key, connection in list(self._live.items()):
            if key[0] == device_id:
                connection.close(reason)

    def drop(self, key: Key, reason: str) -> None:
        connection = self._live.get(key)
        if connection is not None:
            connection.close(reason)

    def drop_all(self, reason: str) -> None:
        for connection in list(self._live.values()):
            connection.close(reason)
