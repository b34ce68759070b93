# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module identities: at the hub with keys of ours, and in the store with the generation that the hub gave."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping

from .hub import HubClient
from .keystore import KeyStore
from .logs import fields
from .threads import to_the_end

_log = logging.getLogger(__name__)


class Identities:
    """The identities of one device. `changed` is called when one became known or got a new generation.

    All calls raise HubError, and OSError when the store cannot be written.
    """

    def __init__(self, store: KeyStore, hub: HubClient, changed: Callable[[], None]) -> None:
        self._store = store
        self._hub = hub
        self._changed = changed
        self._checked: set[str] = set()
        self._writing = asyncio.Lock()
        self._busy: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def known(self) -> Mapping[str, str]:
        """Name to generation, as the hub last said."""
        return self._store.identities

    def is_checked(self, name: str) -> bool:
        """Whether the hub was asked for it since the last `forget_checks`."""
        return name in self._checked

    def forget_checks(self) -> None:
        """Ask the hub for each anew when it is next wanted."""
        self._checked.clear()

    async def ensure(self, name: str, *, create: bool = True) -> str | None:
        """See that the hub has the identity with our keys. Answers its generation, None when it has none."""
        async with self._busy[name]:
            identity = await self._hub.get_module(name)
            made = identity is None
            if identity is None:
                if not create:
                    self._checked.add(name)
                    return None
                identity = await self._hub.create_module(name)
            primary = self._store.module_key(name, identity.generation_id, "primary")
            secondary = self._store.module_key(name, identity.generation_id, "secondary")
            if (identity.primary_key, identity.secondary_key) != (_base64(primary), _base64(secondary)):
                identity = await self._hub.set_keys(name, primary, secondary)
            known = self._store.identities.get(name)
            async with self._writing:
                await to_the_end(self._store.remember, name, identity.generation_id)
            self._checked.add(name)
        if known != identity.generation_id:
            _log.info(
                "module identity", extra=fields(module=name, generation=identity.generation_id, created=made)
            )
            self._changed()
        return identity.generation_id

    async def remove(self, name: str) -> None:
        """Delete the identity; those that come with the device are only forgotten here."""
        async with self._busy[name]:
            # Names of dots were taken once; the hub never had one.
            if not name.startswith("$") and name.strip("."):
                await self._hub.delete_module(name)
            async with self._writing:
                await to_the_end(self._store.forget, name)
            self._checked.discard(name)
        _log.info("module identity removed", extra=fields(module=name))


def _base64(key: bytes) -> str:
    return base64.b64encode(key).decode()
