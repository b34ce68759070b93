# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module set of a gateway: what the ConfigMap says and what edgeAgent deployed, checked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import create_options
from .create_options import Parts
from .settings import DEVICE_ID

# Room for the suffixes of slot (2 characters), ReplicaSet and pod (17) within the 63 of a host name.
MAX_OBJECT_NAME = 44
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
# Stands for the gateway above at the start of an image, as in "$upstream:443/sensor:1".
UPSTREAM = "$upstream"
RESERVED_ENV = "IOTEDGE_"
EDGE_AGENT = "edgeAgent"
# Their identities at the hub, made with the device, are called $edgeAgent and $edgeHub.
SYSTEM_MODULES = frozenset({EDGE_AGENT, "edgeHub"})
# Pull policies of the management API, and what Kubernetes calls them.
CONTRACT_PULL_POLICIES = {"On-Create": "IfNotPresent", "Never": "Never"}
_KEYS = {"name", "image", "env", "imagePullPolicy", "createOptions"}
_NOT_DNS = re.compile(r"[^a-z0-9]+")
# Of Kubernetes (RFC 1035).
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_NOT_LABEL = re.compile(r"[^A-Za-z0-9_.-]")
_ENV_NAME = re.compile(r"[!-<>-~]+")
_MAX_DEPTH = 64  # of lists and objects in each other; Python gives up at some hundreds


class ModuleSetError(Exception):
    """The ConfigMap holds no module set at all."""


@dataclass(frozen=True)
class Registry:
    """Who pulls a module's image: the registryCredentials of its deployment."""

    server: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Module:
    """One desired module. `object_name` names ServiceAccount and Service, with a slot and more its pods.

    `env` is the module's own, with that of createOptions under it; `parts` is what createOptions say else.
    `deployed`: by edgeAgent, which then gives it some variables of the contract. `running` is false for one
    that edgeAgent stopped; `restarts` counts how often it asked for a restart.
    """

    name: str
    image: str
    env: tuple[tuple[str, str], ...]
    image_pull_policy: str
    object_name: str
    parts: Parts
    deployed: bool = False
    running: bool = True
    restarts: int = 0
    registry: Registry | None = None

    @property
    def identity(self) -> str:
        """Name of its identity at the hub."""
        return identity_name(self.name)

    @property
    def host_name(self) -> str:
        """Name by which the other modules of the gateway reach it, empty where DNS can have no such name."""
        return host_name(self.name)

    @property
    def service_names(self) -> tuple[str, ...]:
        """Names of its Services in the cluster, that of its ports first."""
        return (self.object_name, self.host_name) if self.host_name else (self.object_name,)

    @property
    def is_agent(self) -> bool:
        """Whether it is edgeAgent, which may use the management API."""
        return self.identity == identity_name(EDGE_AGENT)


@dataclass(frozen=True)
class Candidate:
    """A module as somebody wants it, before it is compared with the others."""

    name: str
    module: Module | None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModuleSet:
    """Desired modules; `refused` tells by name what is wrong with the others, whose objects stay.

    `held`: ServiceAccounts of refused modules, whose pods go on as they are, to names of identities.
    """

    modules: tuple[Module, ...]
    refused: dict[str, str]
    held: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Names of all modules, the refused ones too."""
        return frozenset(module.name for module in self.modules) | self.refused.keys()

    @property
    def identities(self) -> frozenset[str]:
        """Names of the identities of all modules, the refused ones too."""
        return frozenset(identity_name(name) for name in self.names)

    @property
    def accounts(self) -> dict[str, str]:
        """ServiceAccount name to the name of the module's identity."""
        return self.held | {module.object_name: module.identity for module in self.modules}

    @property
    def agent(self) -> str:
        """Identity of edgeAgent where it is one of the modules, a refused one too; otherwise empty."""
        return identity_name(EDGE_AGENT) if EDGE_AGENT in self.names else ""


def identity_name(module: str) -> str:
    """Name of a module's identity at the hub."""
    return f"${module}" if module in SYSTEM_MODULES else module


def object_name(release: str, module: str) -> str:
    """Kubernetes name for a module's objects; one that had to be cut ends in a hash of the whole."""
    name = f"{release}-{_NOT_DNS.sub('-', module.lower()).strip('-')}".strip("-")
    if len(name) <= MAX_OBJECT_NAME:
        return name
    digest = hashlib.sha256(f"{release}/{module}".encode()).hexdigest()[:8]
    return f"{name[: MAX_OBJECT_NAME - 9].rstrip('-')}-{digest}"


def host_name(module: str) -> str:
    """Name of a module in the gateway's DNS, which knows no case; empty where it can have no such name."""
    name = module.lower()
    return name if _SERVICE_NAME.fullmatch(name) else ""


def label(module: str) -> str:
    """A module's name as the value of a label, by which its Service finds its pod."""
    return _NOT_LABEL.sub("-", module)[:63].strip("-_.")


def entries(text: str) -> list[Any]:
    """The modules of the ConfigMap, each with a name and else not looked at yet.

    Raises ModuleSetError when it holds no such list. A module that nobody can name makes the set unreadable:
    left out, it would count as one that left, and lose its objects and its identity.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModuleSetError(f"modules.json is not JSON: {error}") from error
    if not isinstance(found, list):
        raise ModuleSetError("modules.json is not a list of modules")
    for number, entry in enumerate(found):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name.strip():
            what = "has no name" if isinstance(entry, dict) else "is no object"
            raise ModuleSetError(
                f"entry {number} of modules.json {what}, so nobody knows which module it is. Nothing of the "
                "set is changed until it is put right"
            )
    return found


def from_entry(
    entry: Any, position: int, release: str, own_secrets: frozenset[str] = frozenset(), parent: str = ""
) -> Candidate:
    """A module of the ConfigMap, which may mount none of own_secrets. parent: the gateway above, or none."""
    name, problems = _problems(entry)
    parts = Parts()
    if isinstance(entry, dict):
        parts, more = _translated(entry.get("createOptions"), release, own_secrets)
        problems += _unfit("the module", entry) + more + _reserved(parts.env)
        problems += _without_parent("image", entry.get("image"), parent)
    if problems:
        return Candidate(name or f"#{position}", None, tuple(problems))
    return Candidate(name, _module(entry, release, parts, parent))


def from_spec(
    spec: Mapping[str, Any],
    release: str,
    own_secrets: frozenset[str] = frozenset(),
    *,
    running: bool = True,
    restarts: int = 0,
    parent: str = "",
) -> Candidate:
    """A module as the management API's ModuleSpec says it. Its problems name the field of the contract."""
    name, config = spec.get("name"), spec.get("config")
    problems = _name_problems(name) + _unfit("the module", spec)
    if spec.get("type") != "docker":
        problems.append("type is not docker")
    policy = spec.get("imagePullPolicy", "On-Create")
    if not isinstance(policy, str) or policy not in CONTRACT_PULL_POLICIES:
        problems.append(f"imagePullPolicy is none of {', '.join(CONTRACT_PULL_POLICIES)}")
    if not isinstance(config, dict):
        config = {}
        problems.append("config is missing or not an object")
    settings = config.get("settings")
    if not isinstance(settings, dict):
        settings = {}
        problems.append("config.settings is missing or not an object")
    image = settings.get("image")
    if not isinstance(image, str) or not image.strip():
        problems.append("config.settings.image is missing")
    problems += _without_parent("config.settings.image", image, parent)
    env, wrong = _contract_env(config.get("env"))
    registry, more = _registry(settings.get("auth"), parent)
    parts, untranslated = _translated(settings.get("createOptions"), release, own_secrets)
    problems += wrong + more + untranslated
    if problems:
        return Candidate(name if isinstance(name, str) else "", None, tuple(problems))
    return Candidate(
        str(name),
        Module(
            name=str(name),
            image=_of_parent(str(image).strip(), parent),
            env=tuple(sorted((parts.env | env).items())),
            image_pull_policy=CONTRACT_PULL_POLICIES[policy],
            object_name=object_name(release, str(name)),
            parts=parts,
            deployed=True,
            running=running,
            restarts=restarts,
            registry=registry,
        ),
    )


def assemble(candidates: Iterable[Candidate], release: str, *, shares_volumes: bool = True) -> ModuleSet:
    """The set of all. shares_volumes: whether several pods of one machine may have a claim.

    A module that is wrong, or whose object name, port or volume another one has too, is refused by name; the
    others stand. Only modules that run have ports.
    """
    refused: dict[str, str] = {}
    read: list[Module] = []
    accounts: dict[str, set[str]] = {}
    for candidate in candidates:
        if not _name_problems(candidate.name):
            accounts.setdefault(object_name(release, candidate.name), set()).add(candidate.name)
        if candidate.module is None:
            refused[candidate.name] = "; ".join(candidate.problems)
        else:
            read.append(candidate.module)
    # Names of the chart's own objects.
    takers: dict[str, list[str]] = {
        f"{release}-daemon": ["the daemon"],
        f"{release}-gateway": ["the gateway's Service"],
    }
    reserved = frozenset(takers)
    for module in read:
        for name in module.service_names:
            takers.setdefault(name, []).append(f"module {module.name}")
    for module in read:
        for name in module.service_names:
            others = [taker for taker in takers[name] if taker != f"module {module.name}"]
            if len(takers[name]) > 1:
                twin = ", ".join(others) or "another module of that very name"
                refused[module.name] = f"its object name {name} belongs to {twin} too: rename one"
                break
    refused = _quarrels(read, shares_volumes=shares_volumes) | refused
    # A name that could be that of two modules is nobody's.
    held = {
        account: identity_name(name)
        for account, names in accounts.items()
        for name in names & refused.keys()
        if len(names) == 1 and account not in reserved
    }
    return ModuleSet(tuple(module for module in read if module.name not in refused), refused, held)


def _translated(value: Any, release: str, own_secrets: frozenset[str]) -> tuple[Parts, list[str]]:
    try:
        options = create_options.read(value)
        if unfit := _unfit("createOptions", options):
            return Parts(), unfit
        parts = create_options.translate(options, release, own_secrets)
    except ValueError as error:
        return Parts(), [str(error)]
    return parts, list(parts.problems)


def _unfit(what: str, value: Any) -> list[str]:
    """JSON can say more than an object of Kubernetes can hold."""
    if _is_deep(value, _MAX_DEPTH):
        return [f"{what} is nested more than {_MAX_DEPTH} deep"]
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return [f"{what} holds NaN, Infinity or half of a UTF-16 pair"]
    return []


def _is_deep(value: Any, left: int) -> bool:
    inside: Iterable[Any] = ()
    if isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
    return left < 0 or any(_is_deep(part, left - 1) for part in inside)


def _contract_env(listed: Any) -> tuple[dict[str, str], list[str]]:
    """Variables as the management API lists them; the last one of a name counts, as in Docker."""
    if listed is None:
        return {}, []
    if not isinstance(listed, list):
        return {}, ["config.env is not a list"]
    env: dict[str, str] = {}
    problems = []
    for number, entry in enumerate(listed):
        key, value = (entry.get("key"), entry.get("value")) if isinstance(entry, dict) else (None, None)
        if not isinstance(key, str) or not isinstance(value, str):
            problems.append(f"config.env[{number}] has no key and value that are texts")
        elif not _ENV_NAME.fullmatch(key):
            problems.append(f"config.env[{number}] has a key that is not printable ASCII without '='")
        elif "\0" in value:
            problems.append(f"config.env[{number}] has a value with a zero byte")
        else:
            env[key] = value
    return env, problems


def _without_parent(what: str, image: Any, parent: str) -> list[str]:
    if parent or not isinstance(image, str) or not image.strip().startswith(UPSTREAM):
        return []
    return [f"{what} is of {UPSTREAM}, and this gateway has no parent"]


def _of_parent(text: str, parent: str) -> str:
    """An image or a registry with the parent's name where it takes that."""
    return parent + text[len(UPSTREAM) :] if parent and text.startswith(UPSTREAM) else text


def _registry(auth: Any, parent: str) -> tuple[Registry | None, list[str]]:
    """The `auth` of a ModuleSpec's settings, as Docker's AuthConfig; an empty one is none."""
    if not auth:
        return None, []
    if not isinstance(auth, dict):
        return None, ["config.settings.auth is not an object"]
    values = [auth.get(key) for key in ("serveraddress", "username", "password")]
    if not all(isinstance(value, str) and value for value in values):
        return None, ["config.settings.auth lacks serveraddress, username or password"]
    server, username, password = map(str, values)
    return Registry(_of_parent(server, parent), username, password), []


_WAYS = {
    "label": "rename one, they are told apart by 63 characters",
    "port": "take another one",
    "volume": "use ReadWriteOnce or ReadWriteMany, or a volume for each",
}


def _quarrels(modules: list[Module], *, shares_volumes: bool) -> dict[str, str]:
    """What two modules of one gateway cannot both have: a port of the host, and a volume of one pod.

    One that is stopped holds no port, as on a stock device: two modules swap theirs while they are stopped.
    """
    holders: dict[str, list[str]] = {}
    for module in modules:
        holders.setdefault(f"label {label(module.name)}", []).append(module.name)
        for port in module.parts.bound if module.running else ():
            holders.setdefault(f"port {port.port}/{port.protocol.lower()}", []).append(module.name)
        if not shares_volumes:
            for volume in module.parts.claims:
                holders.setdefault(f"volume {volume}", []).append(module.name)
    found: dict[str, str] = {}
    for what, names in holders.items():
        for name in names if len(names) > 1 else ():
            others = ", ".join(other for other in names if other != name)
            way = _WAYS[what.partition(" ")[0]]
            found.setdefault(name, f"its {what} is that of {others} too: {way}")
    return found


def _reserved(env: Iterable[str]) -> list[str]:
    return [f"env {name} is set by the daemon: leave it out" for name in env if name.startswith(RESERVED_ENV)]


def identity_problems(name: str) -> list[str]:
    """Why a module could not have an identity of this name at the hub."""
    system = {identity_name(module) for module in SYSTEM_MODULES}
    return [] if name in system else _name_problems(name)


def _name_problems(name: Any) -> list[str]:
    if not isinstance(name, str) or not DEVICE_ID.fullmatch(name):
        return ["name is no module id (1-128 letters, digits or -:.+%_#*?!(),=@;$')"]
    if name.startswith("$"):
        return ["names with $ are those of the hub's own identities: write edgeAgent, edgeHub"]
    if not _NOT_DNS.sub("", name.lower()):
        return ["name has no letter or digit to name its objects by"]
    return []


def _problems(entry: Any) -> tuple[str, list[str]]:
    if not isinstance(entry, dict):
        return "", ["not an object"]
    name = entry.get("name")
    problems = _name_problems(name)
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


def _module(entry: dict[str, Any], release: str, parts: Parts, parent: str) -> Module:
    return Module(
        name=entry["name"],
        image=_of_parent(entry["image"].strip(), parent),
        env=tuple(sorted((parts.env | entry.get("env", {})).items())),
        image_pull_policy=entry.get("imagePullPolicy", "IfNotPresent"),
        object_name=object_name(release, entry["name"]),
        parts=parts,
    )
