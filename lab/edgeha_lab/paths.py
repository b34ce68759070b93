# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the lab keeps things: builds by content in `cache/`, one folder per instance in `run/`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LAB_SOURCES = CHECKOUT / "lab"


def home() -> Path:
    """The lab's folder outside the checkout (`EDGEHA_LAB_HOME`)."""
    configured = os.environ.get("EDGEHA_LAB_HOME")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "edgeha-lab"


def cache() -> Path:
    return home() / "cache"


def binaries() -> Path:
    """Programs of the last `lab build`, for people and for `PATH`."""
    return cache() / "bin"


@dataclass(frozen=True)
class Instance:
    """One lab: a cluster, a hub and a network of its own, under one name."""

    name: str

    @property
    def folder(self) -> Path:
        return home() / "run" / self.name

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def hub(self) -> Path:
        return self.folder / "hub"

    @property
    def shared(self) -> Path:
        """The directory that stands in for an NFS share on every node."""
        return self.folder / "shared"

    @property
    def network(self) -> str:
        return f"edgeha-{self.name}"

    @property
    def cluster(self) -> str:
        return f"edgeha-{self.name}"


def instances() -> list[Instance]:
    run = home() / "run"
    if not run.is_dir():
        return []
    return [Instance(folder.name) for folder in sorted(run.iterdir()) if (folder / "instance.json").exists()]
