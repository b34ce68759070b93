# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A zip of what somebody needs who looks for a fault: logs of modules, what they are and how they do.

It is made while it is sent, so that its size costs no memory. Values of variables, logins of registries and
keys are not in it.
"""

from __future__ import annotations

import contextlib
import json
import time
import zipfile
from collections.abc import AsyncGenerator, Mapping
from typing import Any

# Of one log; the kubelet keeps 10 MiB of a container by default.
MAX_LOG = 16 * 1024 * 1024
_FLUSH = 64 * 1024


class _Pipe:
    """What a zip is written to: a file that cannot go back, emptied by the one who sends."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        self._size += len(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """What is there can still be taken."""

    def taken(self, least: int = 0) -> bytes:
        """What was written since, if it is `least` bytes or more."""
        if self._size < max(least, 1):
            return b""
        data, self._parts, self._size = b"".join(self._parts), [], 0
        return data


def without_secrets(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A ModuleSpec or ModuleDetails without values of variables and logins of registries."""
    shown = json.loads(json.dumps(spec))
    config = shown.get("config") or {}
    config["env"] = [{"key": entry.get("key"), "value": "..."} for entry in config.get("env") or []]
    settings = config.get("settings") or {}
    if settings.get("auth"):
        settings["auth"] = "..."
    options = settings.get("createOptions")
    if isinstance(options, str):
        settings["createOptions"] = "..."
    elif isinstance(options, dict):
        if isinstance(options.get("Env"), list):
            options["Env"] = [f"{str(entry).partition('=')[0]}=..." for entry in options["Env"]]
        if isinstance(options.get("Labels"), dict):
            # edgeAgent writes its variables and createOptions into labels of its own.
            options["Labels"] = dict.fromkeys(options["Labels"], "...")
    return dict(shown)


async def stream(
    documents: Mapping[str, Any], logs: Mapping[str, AsyncGenerator[str]]
) -> AsyncGenerator[bytes]:
    """The zip, part by part: each of `documents` as JSON, each of `logs` as text, by their paths in it.

    No more of a log is read than is in it, but for the line by which it is too long.
    """
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, document in documents.items():
            archive.writestr(_entry(name), json.dumps(document, indent=2, sort_keys=True) + "\n")
        for name, lines in logs.items():
            # Closed before the next one begins, and with it the connection that it comes by.
            async with contextlib.aclosing(lines):
                with archive.open(_entry(name), "w", force_zip64=True) as file:
                    size, within = 0, b""
                    async for line in lines:
                        raw = line.encode(errors="surrogateescape")
                        size += len(raw)
                        if size > MAX_LOG:
                            file.write(within + b"... cut here: the log is longer\n")
                            break
                        file.write(raw)
                        # A piece of a long line.
                        within = b"" if raw.endswith(b"\n") else b"\n"
                        if data := pipe.taken(_FLUSH):
                            yield data
            if data := pipe.taken(_FLUSH):
                yield data
    if data := pipe.taken():
        yield data


def _entry(name: str) -> zipfile.ZipInfo:
    # A zip knows no time before 1980, which a machine has before its clock is set.
    entry = zipfile.ZipInfo(name, max(time.gmtime()[:6], (1980, 1, 1, 0, 0, 0)))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return entry
