# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where k3s comes from, as the controller sees it: the lock with its digests, and the mirror or folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_config, machine_rules
from ansible_collections.edgeha.iotedge.plugins.module_utils.inventory_rules import FileMissingError
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import k3s_lock

Finding = tuple[str, str, str]
# Machines that k3s is made for, as they name themselves.
ARCHITECTURES = ("x86_64", "aarch64")
_DEFAULTS = Path(__file__).resolve().parents[2] / "roles" / "k3s_artifacts" / "defaults" / "main.yml"


@dataclass(frozen=True)
class Source:
    """lock: digests by version. place: URL or folder, or empty. problems: (variable, fact, fix).

    known: whether all of it can be relied on; a variable whose form is wrong is told of elsewhere.
    chosen: whether the operator names the version.
    """

    lock: Mapping[str, Any]
    version: str
    place: str
    images: bool
    data_dir: str
    problems: list[Finding]
    forms: bool = True
    chosen: bool = False

    @property
    def known(self) -> bool:
        return self.forms and not self.problems

    @property
    def is_folder(self) -> bool:
        return bool(self.place) and "://" not in self.place

    def release(self, architecture: str) -> dict[str, Any]:
        return k3s_config.release(
            self.lock,
            self.version,
            architecture,
            images=self.images,
            source=self.place,
            data_dir=self.data_dir,
        )

    def addresses(self) -> list[dict[str, Any]]:
        """Return what machines download, as the module machine_check takes it."""
        if self.is_folder or not self.place:
            return []
        return [
            {
                "name": machine_rules.SOURCE,
                "url": file["source"],
                "file": True,
                "architecture": architecture,
            }
            for architecture in ARCHITECTURES
            for file in self.release(architecture)["files"]
        ]

    def artifact(self, architecture: str, version: str = "") -> tuple[str, str] | None:
        """Return fact and fix of what keeps machines of an architecture from being installed, or None."""
        if version and version != self.version:
            return replace(self, version=version).artifact(architecture)
        if architecture not in ARCHITECTURES:
            return "k3s is not made for it", "use a machine with x86_64 or aarch64"
        found = self.release(architecture)
        if found["problem"]:
            return found["problem"]["fact"], found["problem"]["fix"]
        for file in found["files"] if self.is_folder else []:
            error = _content_error(Path(file["source"]).expanduser(), file["sha256"])
            if error:
                return f"{file['source']} {error}", "put the file of that version there, or correct the lock"
        return None


def load(get: Callable[[str], Any], given: Callable[[str], bool], variables: Mapping[str, Any]) -> Source:
    """Return where the k3s of a cluster comes from.

    get: returns a usable value, or the default, or None. given: whether the operator says anything.
    """
    problems: list[Finding] = []
    lock: Mapping[str, Any] = {}
    path = str(get("edge_k3s_lock") or "")
    try:
        lock = k3s_lock.load(path, variables)
    except FileMissingError as error:
        fact = f"the file {path} does not exist (searched: {', '.join(error.searched)})"
        problems.append(("edge_k3s_lock", fact, "correct the path"))
    except OSError as error:
        fact = f"the file {path} cannot be read: {error.strerror}"
        problems.append(("edge_k3s_lock", fact, "make it readable"))
    except k3s_lock.LockError as error:
        problems.append(("edge_k3s_lock", str(error), "correct the file"))
    source = Source(
        lock=lock,
        version=str(get("edge_k3s_version") or k3s_config.newest(lock)),
        chosen=bool(get("edge_k3s_version")),
        place=str(get("edge_k3s_source") or _default_source()),
        images=str(get("edge_k3s_images") or False).lower() in ("true", "yes", "1"),
        data_dir=str(get("edge_k3s_data_dir")),
        problems=problems,
        forms=all(
            get(name) is not None or not given(name)
            for name in ("edge_k3s_lock", "edge_k3s_source", "edge_k3s_version")
        ),
    )
    if lock and source.version not in lock:
        found = source.release(ARCHITECTURES[0])["problem"]
        problems.append(("edge_k3s_version", found["fact"], found["fix"]))
    if source.is_folder:
        folder = Path(source.place).expanduser()
        if not folder.is_absolute():
            fix = "give the whole path, such as {{ inventory_dir }}/k3s"
            problems.append(
                ("edge_k3s_source", f"{source.place!r} is neither an address nor a whole path", fix)
            )
        elif not folder.is_dir():
            fix = "make the folder on the controller, or give an address"
            problems.append(("edge_k3s_source", f"{source.place} is no folder of the controller", fix))
    return source


def _default_source() -> str:
    # In a copy of the collection without that role nothing is installed from anywhere.
    if not _DEFAULTS.is_file():
        return ""
    return str(yaml.safe_load(_DEFAULTS.read_text("utf-8")).get("k3s_artifacts_source") or "")


def _content_error(path: Path, digest: str) -> str:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "is not on the controller"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if found == digest else "has another SHA-256 than the lock says"
