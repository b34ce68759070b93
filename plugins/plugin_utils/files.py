# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that the inventory names, as the controller sees them."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import context
from ansible_collections.edgeha.iotedge.plugins.module_utils.inventory_rules import FileMissingError


def search_path(variables: Mapping[str, Any]) -> list[Path]:
    """Return the folders in which relative paths are looked up, in order.

    The inventory's folder, the folder of the playbook named on the command line (an operator's own site.yml
    that imports ours keeps its files beside itself), and the folder of the playbook that runs; in each the
    folder ``files`` comes second, as Ansible does for files.
    """
    bases = [variables.get("inventory_dir")]
    bases += [
        str(Path(name).resolve().parent) for name in context.CLIARGS.get("args", ()) if Path(name).is_file()
    ]
    bases.append(variables.get("playbook_dir"))
    folders: list[Path] = []
    for base in filter(None, bases):
        for folder in (Path(str(base)), Path(str(base)) / "files"):
            if folder not in folders:
                folders.append(folder)
    return folders


def find(path: str, variables: Mapping[str, Any]) -> Path:
    """Return the file; raises FileMissingError with the places that were searched."""
    wanted = Path(path).expanduser()
    places = [wanted] if wanted.is_absolute() else [folder / wanted for folder in search_path(variables)]
    for place in places:
        if place.is_file():
            return place
    raise FileMissingError([str(place) for place in places])


def file_error(path: str, variables: Mapping[str, Any]) -> str | None:
    """Return why a file cannot be read, None when it can."""
    try:
        with find(path, variables).open("rb"):
            return None
    except FileMissingError as error:
        return f"the file {path} does not exist (searched: {', '.join(error.searched)})"
    except OSError as error:
        return f"the file {path} cannot be read: {error.strerror}"


def certificate_error(path: str, variables: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a PEM file of CA certificates, None when it is good."""
    error = file_error(path, variables)
    if error:
        return error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=str(find(path, variables)))
    except ssl.SSLError:
        return f"the file {path} holds no PEM certificate"
    return None
