# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lock of k3s's versions, as the controller sees it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_config
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import files

_OWN = Path(__file__).resolve().parents[2] / "roles" / "k3s_artifacts" / "vars" / "main.yml"


class LockError(Exception):
    """A lock file cannot be used. The text says why."""


def load(path: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the lock of this collection with that of the operator over it.

    It maps version → artifact → architecture → SHA-256. The operator's versions come first, and of each
    lock the newest ones.
    path: the operator's lock, searched as all files that the inventory names; empty for none.
    Raises FileMissingError, OSError, LockError.
    """
    lock: dict[str, Any] = yaml.safe_load(_OWN.read_text("utf-8"))["__k3s_artifacts_lock"]
    if not path:
        return _ordered(lock)
    try:
        given = yaml.safe_load(files.find(path, variables).read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LockError(f"the lock file {path} is no YAML: {' '.join(str(error).split())}") from error
    well_formed = isinstance(given, Mapping) and all(
        isinstance(artifacts, Mapping) and all(isinstance(sums, Mapping) for sums in artifacts.values())
        for artifacts in given.values()
    )
    if not well_formed:
        raise LockError(f"the lock file {path} is not version: artifact: architecture: SHA-256")
    return {**_ordered(given), **_ordered({name: lock[name] for name in lock if name not in given})}


def _ordered(lock: Mapping[str, Any]) -> dict[str, Any]:
    by_name = {str(name): artifacts for name, artifacts in lock.items()}
    return {name: by_name[name] for name in k3s_config.newest_first(by_name)}
