# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds kept by what they are made of: same inputs, same folder, no second build."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from edgeha_lab import paths, process

_KEY_LENGTH = 16


def fingerprint(*parts: str | Path) -> str:
    """Digest over strings and over files (folders: every file below, with its name and mode)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            for file in _files(part):
                digest.update(f"{file.relative_to(part.parent)} {file.stat().st_mode & 0o111:o}\0".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
        else:
            digest.update(f"{part}\0".encode())
    return digest.hexdigest()[:_KEY_LENGTH]


def _files(place: Path) -> Iterable[Path]:
    if place.is_file():
        return [place]
    return sorted(
        file
        for file in place.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc"
    )


def cached(name: str, key: str, build: Callable[[Path], None]) -> tuple[Path, bool]:
    """The folder `cache/NAME-KEY`, and whether `build` had to fill it.

    A build works in a folder beside it that is renamed when it is whole, so an
    interrupted build leaves nothing that looks finished.
    """
    folder = paths.cache() / f"{name}-{key}"
    if folder.is_dir():
        return folder, False
    work = folder.with_name(folder.name + ".partial")
    _unmount_below(work)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    build(work)
    work.rename(folder)
    _drop_older(name, folder)
    return folder, True


def _drop_older(name: str, newest: Path) -> None:
    """Keeps the newest and one before it: switching between two branches stays cheap."""
    others = [
        folder
        for folder in paths.cache().glob(f"{name}-{'[0-9a-f]' * _KEY_LENGTH}")
        if folder != newest and folder.is_dir()
    ]
    for folder in sorted(others, key=lambda place: place.stat().st_mtime, reverse=True)[1:]:
        shutil.rmtree(folder)


def _unmount_below(folder: Path) -> None:
    """An interrupted debootstrap leaves /proc mounted in its root: never delete through a mount."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{folder}/")), reverse=True):
        process.output(["umount", mount])
