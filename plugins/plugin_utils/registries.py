# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands in a registries.yaml, as far as preflight judges it, and whence images of the gateways come."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import yaml

KEYS = ("mirrors", "configs", "auths")
IMAGES = "variable edge_image_registry"
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](?::[0-9]{1,5})?")
_DOCKER = "docker.io"
_FIX = "give the text of a registries.yaml"


def check(text: str) -> list[tuple[str, str]]:
    """Return (fact, fix) of what is wrong. The text may hold passwords, so no line of it is shown."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        return [(f"is not YAML (line {mark.line + 1})" if mark else "is not YAML", _FIX)]
    if not isinstance(document, Mapping):
        return [("is not a mapping", _FIX)]
    found = []
    for key, entry in document.items():
        if key not in KEYS:
            found.append((f"the key {key} is not known", f"known are {', '.join(KEYS)}"))
        elif not isinstance(entry, Mapping):
            found.append((f"{key} is not a mapping", "name a registry below it"))
    for name, entry in _mirrors(document).items():
        if not _is_list(entry.get("endpoint", [])):
            found.append(
                (f"the endpoint of the mirror {name} is not a list", "write it as a list of addresses")
            )
    return found


def endpoints(text: str) -> list[str]:
    """Return the addresses that images come from, without passwords; none when the text is not valid."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        return []
    found = set()
    for entry in _mirrors(document).values():
        listed = entry.get("endpoint", [])
        found |= {
            re.sub("//[^/@]*@", "//", endpoint)
            for endpoint in (listed if _is_list(listed) else [])
            if isinstance(endpoint, str) and urlsplit(endpoint).scheme in ("http", "https")
        }
    return sorted(found)


def source(registry: str, text: str) -> dict[str, Any] | None:
    """Return where machines ask for the gateways' images, as the module machine_check takes it, or None.

    registry: edge_image_registry, a host with or without a path. text: a registries.yaml, or empty.
    None where it is not the registry that is asked, but the machine itself or a mirror, looked at as one.
    """
    first, slash, _path = registry.partition("/")
    # As all programs read the name of an image.
    named = "." in first or ":" in first or first == "localhost"
    host = first if named else _DOCKER
    if not _HOST.fullmatch(host) or (not named and not slash and not first):
        return None
    name = urlsplit(f"//{host}").hostname or ""
    if name in ("localhost", "::1") or name.startswith("127."):
        return None
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    mirrors = _mirrors(document)
    if any(mirrors.get(key, {}).get("endpoint") for key in (host, "*")):
        return None
    configs = document.get("configs") if isinstance(document, Mapping) else None
    own = configs.get(host) if isinstance(configs, Mapping) else None
    # Whom such a registry is trusted by, only containerd can tell.
    verify = not (isinstance(own, Mapping) and own.get("tls"))
    place = "registry-1.docker.io" if host == _DOCKER else host
    return {"name": IMAGES, "url": f"https://{place}/v2/", "always": True, "verify": verify}


def _mirrors(document: Any) -> dict[str, Mapping[str, Any]]:
    mirrors = document.get("mirrors") if isinstance(document, Mapping) else None
    entries = mirrors.items() if isinstance(mirrors, Mapping) else ()
    return {str(name): entry for name, entry in entries if isinstance(entry, Mapping)}


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
