# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The live device connections, as the rest of the hub sees them."""

from collections.abc import Mapping
from typing import Any, Protocol

Key = tuple[str, str]
"""(device id, module id or '')"""


class LiveConnection(Protocol):
    """What the hub may do to a connection."""

    def close(self, reason: str) -> None:
        """End it now; `reason` goes to the log."""

    def push_desired(self, patch: Mapping[str, Any], version: int) -> None:
        """Tell the device of a change of its desired properties, if it subscribed to that."""


class Connections:
    """One connection for each identity; the newest wins."""

    def __init__(self) -> None:
        self._live: dict[Key, LiveConnection] = {}

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
