# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module set of a gateway: what the ConfigMap says, checked, with the names its objects get."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import create_options
from .create_options import Parts
from .settings import DEVICE_ID

# Room for the ReplicaSet's and the pod's suffixes (17 characters) within the 63 of a host name.
MAX_OBJECT_NAME = 46
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
RESERVED_ENV = "IOTEDGE_"
_KEYS = {"name", "image", "env", "imagePullPolicy", "createOptions"}
_NOT_DNS = re.compile(r"[^a-z0-9]+")
_ENV_NAME = re.compile(r"[!-<>-~]+")


class ModuleSetError(Exception):
    """The ConfigMap holds no module set at all."""


@dataclass(frozen=True)
class Module:
    """One desired module. `object_name` names its Deployment, its ServiceAccount and its Service.

    `env` is the module's own, with that of createOptions under it; `parts` is what createOptions say else.
    """

    name: str
    image: str
    env: tuple[tuple[str, str], ...]
    image_pull_policy: str
    object_name: str
    parts: Parts


@dataclass(frozen=True)
class ModuleSet:
    """Desired modules; `refused` tells by name what is wrong with the others, whose objects stay."""

    modules: tuple[Module, ...]
    refused: dict[str, str]

    @property
    def names(self) -> frozenset[str]:
        """Names of all modules, the refused ones too."""
        return frozenset(module.name for module in self.modules) | self.refused.keys()

    @property
    def accounts(self) -> dict[str, str]:
        """ServiceAccount name to module id."""
        return {module.object_name: module.name for module in self.modules}


def object_name(release: str, module: str) -> str:
    """Kubernetes name for a module's objects; one that had to be cut ends in a hash of the whole."""
    name = f"{release}-{_NOT_DNS.sub('-', module.lower()).strip('-')}".strip("-")
    if len(name) <= MAX_OBJECT_NAME:
        return name
    digest = hashlib.sha256(f"{release}/{module}".encode()).hexdigest()[:8]
    return f"{name[: MAX_OBJECT_NAME - 9].rstrip('-')}-{digest}"


def parse(
    text: str, release: str, *, shares_volumes: bool = True, own_secrets: frozenset[str] = frozenset()
) -> ModuleSet:
    """Read `modules.json`: a list of objects with name, image, env (strings by name), imagePullPolicy and
    createOptions.

    shares_volumes: whether pods on several nodes may have a claim. own_secrets: no module may mount these.
    Raises ModuleSetError when it is not such a list. A module that is wrong, or whose object name, port or
    volume another one has too, is refused by name; the others stand.
    """
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModuleSetError(f"modules.json is not JSON: {error}") from error
    if not isinstance(entries, list):
        raise ModuleSetError("modules.json is not a list of modules")
    refused: dict[str, str] = {}
    read: list[Module] = []
    for position, entry in enumerate(entries):
        name, problems = _problems(entry)
        parts = Parts()
        if isinstance(entry, dict):
            try:
                options = create_options.read(entry.get("createOptions"))
                parts = create_options.translate(options, release, own_secrets)
            except ValueError as error:
                problems.append(str(error))
        problems += parts.problems + _reserved(parts.env)
        if problems:
            refused[name or f"#{position}"] = "; ".join(problems)
        else:
            read.append(_module(entry, release, parts))
    takers: dict[str, list[str]] = {f"{release}-daemon": ["the daemon"]}
    for module in read:
        takers.setdefault(module.object_name, []).append(f"module {module.name}")
    for module in read:
        others = [taker for taker in takers[module.object_name] if taker != f"module {module.name}"]
        if len(takers[module.object_name]) > 1:
            twin = ", ".join(others) or "another module of that very name"
            refused[module.name] = f"its object name {module.object_name} belongs to {twin} too: rename one"
    refused |= _quarrels(read, shares_volumes=shares_volumes)
    return ModuleSet(tuple(module for module in read if module.name not in refused), refused)


def _quarrels(modules: list[Module], *, shares_volumes: bool) -> dict[str, str]:
    """What two modules of one gateway cannot both have: a port of the host, and a volume of one node."""
    holders: dict[str, list[str]] = {}
    for module in modules:
        for port in module.parts.bound:
            holders.setdefault(f"port {port.port}/{port.protocol.lower()}", []).append(module.name)
        if not shares_volumes:
            for volume in module.parts.claims:
                holders.setdefault(f"volume {volume}", []).append(module.name)
    found: dict[str, str] = {}
    for what, names in holders.items():
        for name in names if len(names) > 1 else ():
            others = ", ".join(other for other in names if other != name)
            way = "take another one" if what.startswith("port") else "use ReadWriteMany, or a volume for each"
            found.setdefault(name, f"its {what} is that of {others} too: {way}")
    return found


def _reserved(env: Iterable[str]) -> list[str]:
    return [f"env {name} is set by the daemon: leave it out" for name in env if name.startswith(RESERVED_ENV)]


def _problems(entry: Any) -> tuple[str, list[str]]:
    if not isinstance(entry, dict):
        return "", ["not an object"]
    problems: list[str] = []
    name = entry.get("name")
    if not isinstance(name, str) or not DEVICE_ID.fullmatch(name):
        problems.append("name is no module id (1-128 letters, digits or -:.+%_#*?!(),=@;$')")
    elif not _NOT_DNS.sub("", name.lower()):
        problems.append("name has no letter or digit to name its objects by")
    if not isinstance(entry.get("image"), str) or not entry["image"].strip():
        problems.append("image is missing")
    if entry.get("imagePullPolicy", "IfNotPresent") not in PULL_POLICIES:
        problems.append(f"imagePullPolicy is none of {', '.join(PULL_POLICIES)}")
    problems += [f"unknown key {key!r}" for key in sorted(entry.keys() - _KEYS)]
    env = entry.get("env", {})
    if not isinstance(env, dict):
        problems.append("env is not an object")
        env = {}
    for key, value in env.items():
        if not _ENV_NAME.fullmatch(key):
            problems.append(f"env name {key!r} is not printable ASCII without '='")
        if not isinstance(value, str):
            problems.append(f"env {key} is not a string")
    problems += _reserved(env)
    return name if isinstance(name, str) else "", problems


def _module(entry: dict[str, Any], release: str, parts: Parts) -> Module:
    return Module(
        name=entry["name"],
        image=entry["image"].strip(),
        env=tuple(sorted((parts.env | entry.get("env", {})).items())),
        image_pull_policy=entry.get("imagePullPolicy", "IfNotPresent"),
        object_name=object_name(release, entry["name"]),
        parts=parts,
    )
