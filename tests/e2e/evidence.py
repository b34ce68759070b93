# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looks for keys in whatever a run leaves behind, and watches what exists only while it goes on."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

LOOK_SECONDS = 0.1
# Files that are larger hold no output of a run.
LARGEST_FILE_BYTES = 64 * 2**20
# Signatures and tokens that open something, whatever key they were made with.
TOKENS = {
    "SAS token": re.compile(rb"sig=[A-Za-z0-9%+/]{40,}"),
    "ServiceAccount token": re.compile(rb"eyJ[\w-]{20,}\.eyJ[\w-]{20,}\.[\w-]{40,}"),
    "private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
}


class Keys(dict[str, str]):
    """Keys (base64 text) by a name that may be shown; a report of a failed test shows no more."""

    def __repr__(self) -> str:
        return f"Keys of {sorted(self)}"


def forms(key: str) -> set[bytes]:
    """A base64 key as it may stand somewhere: plain, in a URL, in JSON, in base64 again, in hex, as bytes."""
    raw = base64.b64decode(key)
    found = {key.encode(), quote(key, safe="").encode(), key.replace("/", "\\/").encode(), raw}
    found |= {raw.hex().encode(), repr(raw)[2:-1].encode(), raw.hex().upper().encode()}
    found.add(base64.urlsafe_b64encode(raw).rstrip(b"="))
    for inner in (raw, key.encode()):
        for shift in range(3):
            # What stands before a text decides how base64 cuts it; the ends are mixed with the neighbours.
            coded = base64.b64encode(b"\0" * shift + inner).rstrip(b"=")
            found.add(coded[4 if shift else 0 : -2])
    return found


def leaks(text: bytes | str, keys: Mapping[str, str], tokens: bool = True) -> list[str]:
    """Names of the keys (base64 text by name), and of the kinds of tokens, that occur in a text."""
    data = text.encode() if isinstance(text, str) else text
    found = [name for name, key in keys.items() if any(form in data for form in forms(key))]
    return found + ([name for name, pattern in TOKENS.items() if pattern.search(data)] if tokens else [])


def wide_files(places: Iterable[Path], since: float, keys: Mapping[str, str]) -> list[str]:
    """Files changed since a moment (Unix time) that others may read and that hold a key.

    A key is found whatever the folders above allow: files are copied, folders are opened.
    """
    found = []
    for file in _files(places):
        with contextlib.suppress(OSError):
            status = file.lstat()
            if status.st_mtime >= since - 1 and status.st_mode & 0o077:
                names = leaks(_content(file, status.st_size), keys, tokens=False)
                found += [f"{file} ({stat.filemode(status.st_mode)}): {name}" for name in names]
    return found


def made_since(folder: Path, since: float) -> list[Path]:
    """What appeared in a folder that everybody on this machine uses."""
    found = []
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):
            if entry.lstat().st_ctime >= since - 1:
                found.append(entry)
    return found


def _files(places: Iterable[Path]) -> Iterator[Path]:
    """Ordinary files at and below these places, without what is mounted there and without links."""
    for place in places:
        if place.is_file() and not place.is_symlink():
            yield place
            continue
        for folder, names, files in os.walk(place):
            names[:] = [name for name in names if not Path(folder, name).is_mount()]
            for name in files:
                path = Path(folder, name)
                with contextlib.suppress(OSError):
                    if stat.S_ISREG(path.lstat().st_mode):
                        yield path


def _content(file: Path, size: int) -> bytes:
    return file.read_bytes() if size < LARGEST_FILE_BYTES else b""


class Watch:
    """Arguments of every process on this machine, and files in folders, as long as the block goes on.

    arguments: each command line that was seen, its words apart by NUL.
    files:     (path, mode) and content of every version of a file that was seen.
    """

    def __init__(self, folders: list[Path]) -> None:
        self._folders = folders
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._seen: dict[Path, tuple[int, int]] = {}
        self.arguments: set[bytes] = set()
        self.files: list[tuple[Path, int, bytes]] = []

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def leaks(self, keys: Mapping[str, str]) -> list[str]:
        """Processes that were given a key, and files with a key that others could read."""
        found = []
        for line in self.arguments:
            found += [f"arguments of {line.split(bytes(1))[0]!r}: {name}" for name in leaks(line, keys)]
        for path, mode, content in self.files:
            if mode & 0o077:
                names = leaks(content, keys, tokens=False)
                found += [f"{path} ({stat.filemode(mode)}): {name}" for name in names]
        return sorted(set(found))

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            for process in Path("/proc").iterdir():
                if process.name.isdigit():
                    with contextlib.suppress(OSError):
                        self.arguments.add((process / "cmdline").read_bytes())
            for file in _files(self._folders):
                with contextlib.suppress(OSError):
                    self._look(file)

    def _look(self, file: Path) -> None:
        status = file.stat()
        version = (status.st_mtime_ns, status.st_size)
        if self._seen.get(file) != version:
            self._seen[file] = version
            self.files.append((file, status.st_mode, _content(file, status.st_size)))
