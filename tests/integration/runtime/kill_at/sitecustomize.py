# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends the process that it is imported by with SIGKILL at its n-th write step, of disk, hub or cluster.

A step is the moment before or after a write to a file, a sync, a rename, an unlink, and a request that
changes something. Python imports this by itself where the folder is in PYTHONPATH; the daemon is as shipped.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import aiohttp
import httpx2

_at = int(os.environ.get("KILL_AT", "0"))
_seen = 0


def _step() -> None:
    global _seen
    _seen += 1
    if _seen == _at:
        os.kill(os.getpid(), signal.SIGKILL)


def _around(name: str) -> None:
    original = getattr(os, name)

    def call(*arguments: Any, **options: Any) -> Any:
        # What goes to a terminal or a log is no state.
        if name == "write" and arguments[0] <= 2:
            return original(*arguments, **options)
        _step()
        found = original(*arguments, **options)
        _step()
        return found

    setattr(os, name, call)


for _name in ("write", "fsync", "replace", "rename", "unlink"):
    _around(_name)

_request, _send = aiohttp.ClientSession._request, httpx2.AsyncClient.send


async def _to_hub(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
    if method == "GET":
        return await _request(self, method, *arguments, **options)
    _step()
    found = await _request(self, method, *arguments, **options)
    _step()
    return found


async def _to_cluster(self: Any, request: Any, **options: Any) -> Any:
    if request.method == "GET":
        return await _send(self, request, **options)
    _step()
    found = await _send(self, request, **options)
    _step()
    return found


if _at:
    aiohttp.ClientSession._request = _to_hub  # type: ignore[method-assign]
    httpx2.AsyncClient.send = _to_cluster  # type: ignore[method-assign,assignment]
