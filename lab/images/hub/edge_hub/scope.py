# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may connect: the modules and devices in the gateway's scope, as the hub told, and their tokens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import aiohttp
from iothub_emulator.auth import SasToken
from iothub_emulator.errors import HubError

from edge_hub.logs import say
from edge_hub.store import Store
from edge_hub.workload import Workload, WorkloadError

Key = tuple[str, str]
REFRESH_SECONDS = 60.0
_ASK_AGAIN_SECONDS = 2.0
_KEPT = "scope"


class RefusedError(Exception):
    """A client is not let in; the message says why, for the log."""


@dataclass(frozen=True)
class Child:
    """An identity in scope; keys in base64. edge: a gateway below this one."""

    enabled: bool
    keys: tuple[str, ...]
    edge: bool = False


class Scope:
    """The children of a gateway. `ask` gets a page of them from the hub, given a continuation token."""

    def __init__(
        self, store: Store, workload: Workload, ask: Callable[[str], Awaitable[dict[str, Any]]]
    ) -> None:
        self._store = store
        self._workload = workload
        self._ask = ask
        self._children: dict[Key, Child] = {}
        self._stored: dict[Key, Child] = {}
        self._asked = 0.0
        self._asking = asyncio.Lock()

    async def load(self) -> None:
        """Take what is known from before: the cloud may be away."""
        sealed = await self._store.kept(_KEPT)
        if sealed is None:
            return
        try:
            kept = json.loads(await self._workload.unseal(sealed))
        except (WorkloadError, ValueError) as error:
            say("scope-not-read", reason=error)
            return
        self._children = self._stored = {
            (device, module): Child(enabled, tuple(keys), *edge)
            for device, module, enabled, keys, *edge in kept
        }

    async def refresh(self) -> bool:
        """Ask the hub. Answers whether it told; what was known stays when it did not."""
        async with self._asking:
            return await self._refresh()

    async def _child(self, key: Key) -> Child | None:
        """What is known of an identity, with the answer that is on its way."""
        if key not in self._children and self._asking.locked():
            async with self._asking:
                pass
        return self._children.get(key)

    async def _refresh(self) -> bool:
        self._asked = time.monotonic()
        found: dict[Key, Child] = {}
        token = ""
        try:
            while True:
                page = await self._ask(token)
                enabled = {entry["deviceId"]: entry["status"] == "enabled" for entry in page["devices"]}
                for entry in [*page["devices"], *page["modules"]]:
                    device = entry["deviceId"]
                    keys = (entry.get("authentication") or {}).get("symmetricKey") or {}
                    on = enabled.get(device, found[device, ""].enabled if (device, "") in found else False)
                    known = tuple(key for key in (keys.get("primaryKey"), keys.get("secondaryKey")) if key)
                    edge = bool((entry.get("capabilities") or {}).get("iotEdge"))
                    found[device, entry.get("moduleId", "")] = Child(on, known, edge)
                token = page.get("continuationLink", "").partition("continuationToken=")[2]
                if not token:
                    break
        except (aiohttp.ClientError, WorkloadError, TimeoutError, OSError, KeyError, ValueError) as error:
            say("scope-not-told", reason=f"{type(error).__name__}: {error}")
            return False
        if found != self._children:
            self._children = found
            say("scope", children=len(found))
        if found != self._stored:
            kept = [[*key, child.enabled, list(child.keys), child.edge] for key, child in found.items()]
            try:
                await self._store.keep(_KEPT, await self._workload.seal(json.dumps(kept)))
                self._stored = found
            except WorkloadError as error:
                say("scope-not-kept", reason=error)  # the next look tries again
        return True

    async def is_below(self, device: str) -> bool:
        """Whether a device is a gateway whose parent this one is."""
        child = await self._child((device, ""))
        if child is None and time.monotonic() - self._asked > _ASK_AGAIN_SECONDS:
            await self.refresh()
            child = self._children.get((device, ""))
        return child is not None and child.edge and child.enabled

    async def check(self, key: Key, password: bytes | None) -> float:
        """Let a client in. Answers when its token ends, in seconds since 1970. Raises RefusedError."""
        try:
            token = SasToken.parse((password or b"").decode())
        except (UnicodeDecodeError, HubError):
            raise RefusedError("no shared access signature") from None
        path = ["devices", key[0], *(["modules", key[1]] if key[1] else [])]
        segments = [unquote(part) for part in unquote(token.resource).split("/")[1:]]
        if not segments or segments != path[: len(segments)]:
            raise RefusedError(f"the token is for {'/'.join(segments)!r}")
        if token.expiry <= time.time():
            raise RefusedError("the token has expired")
        child = await self._child(key)
        if (child is None or not child.enabled or not token.signed_by(child.keys)) and (
            time.monotonic() - self._asked > _ASK_AGAIN_SECONDS
        ):
            # New, enabled again, or with new keys: the hub knows.
            await self.refresh()
            child = self._children.get(key)
        if child is None:
            raise RefusedError("not in this gateway's scope")
        if not child.enabled:
            raise RefusedError("disabled at the hub")
        if not token.signed_by(child.keys):
            raise RefusedError("wrong key")
        return float(token.expiry)
