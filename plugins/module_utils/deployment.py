# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""IoT Edge deployment manifests: read, check, and make values of the chart of them. Pure.

Source of the format: "Learn how to deploy modules and establish routes in IoT Edge" (Microsoft Learn).

A manifest with ``systemModules`` is a whole one: the hub gets it as it is, and edgeAgent carries it out on
the gateway. One without them is small: the daemon runs its modules itself. What the daemon alone cannot do is
then refused by name with its JSON path; nothing is ignored in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import edge_manifest
from ansible_collections.edgeha.iotedge.plugins.module_utils.create_options import (
    is_create_options,
    join_create_options,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.edge_manifest import (
    AGENT,
    HUB,
    MAX_MODULES,
    is_image,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.manifest_json import (
    ManifestError,
    Reader,
    join,
    read_json,
)

# Kubernetes wants a DNS label of at most 63 characters; release name and module name are joined by a dash.
_MODULE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_PULL_POLICY = {"on-create": "Always", "never": "Never", "": "IfNotPresent"}
_MODULE_KEYS = frozenset(
    {"type", "status", "restartPolicy", "settings", "env", "version", "imagePullPolicy", "startupOrder"}
)


@dataclass(frozen=True)
class Manifest:
    """A checked manifest.

    modules:    what the chart's value of that name holds, sorted by name; each entry is ``{"name": str,
                "image": str, "env": {str: str}, "imagePullPolicy": "IfNotPresent" | "Always" | "Never"}``.
    notes:      what is valid but has no effect in this version, each beginning with its JSON path.
    edge_agent: what the chart's value edgeAgent holds, ``{"image", "env", "createOptions",
                "imagePullPolicy"}``; None for a small manifest.
    names:      of the modules that are to run beside edgeAgent and edgeHub, sorted.
    content:    ``modulesContent`` as the hub gets it; None for a small manifest. It may hold passwords.
    """

    modules: list[dict[str, Any]]
    notes: list[str]
    edge_agent: dict[str, Any] | None = None
    names: list[str] = field(default_factory=list)
    content: dict[str, Any] | None = field(default=None, repr=False)


@dataclass
class _Reader(Reader):
    notes: list[str] = field(default_factory=list)


def parse(text: str) -> Manifest:
    """Read a deployment manifest; raises ManifestError with every error that was found."""
    return check(read_json(text))


def check(document: Any) -> Manifest:
    """Like `parse`, for a manifest that is already read."""
    reader = _Reader()
    if not isinstance(document, Mapping):
        raise ManifestError(["$: must be an object with the key modulesContent"])
    content = reader.mapping(document, "modulesContent", "$")
    if content is not None and _system_modules(content):
        return _whole(document)
    for key in document:
        # moduleContent of a template, or a whole configuration: both belong to other tools.
        if key != "modulesContent":
            reader.refuse(join("$", str(key)), "unknown; only modulesContent is used")
    result: list[dict[str, Any]] = []
    if content is not None:
        result = _agent(reader, content, "$.modulesContent")
        for key in content:
            where = join("$.modulesContent", str(key))
            if key == HUB:
                reader.notes.append(
                    f"{where}: has no effect without systemModules, modules speak to the hub directly"
                )
            elif key != AGENT:
                reader.refuse(where, "desired properties of modules are not supported in this version")
    if reader.errors:
        raise ManifestError(reader.errors)
    modules = sorted(result, key=lambda module: str(module["name"]))
    return Manifest(modules, reader.notes, names=[str(module["name"]) for module in modules])


def _system_modules(content: Mapping[str, Any]) -> bool:
    """Whether it says which edgeAgent and edgeHub are to run."""
    agent = content.get(AGENT)
    desired = agent.get("properties.desired") if isinstance(agent, Mapping) else None
    return isinstance(desired, Mapping) and bool(desired.get("systemModules"))


def _whole(document: Mapping[str, Any]) -> Manifest:
    """A manifest that edgeAgent carries out."""
    content = edge_manifest.parse(document)
    desired = content.modules[AGENT]["properties.desired"]
    agent = desired["systemModules"]["edgeAgent"]
    env = {
        name: _text(holder["value"])
        for name, holder in (agent.get("env") or {}).items()
        if isinstance(holder.get("value"), str | int | float | bool)
    }
    running = [
        name
        for name, module in (desired.get("modules") or {}).items()
        if module.get("status", "running") == "running"
    ]
    return Manifest(
        [],
        list(content.warnings),
        {
            "image": agent["settings"]["image"].strip(),
            "imagePullPolicy": "Never" if agent.get("imagePullPolicy") == "never" else "IfNotPresent",
            "env": env,
            "createOptions": join_create_options(agent["settings"], "$"),
        },
        sorted(running),
        {"modulesContent": dict(content.modules)},
    )


def _agent(reader: _Reader, content: Mapping[str, Any], path: str) -> list[dict[str, Any]]:
    agent = reader.mapping(content, AGENT, path)
    if agent is None:
        return []
    path = join(path, AGENT)
    layered = [str(key) for key in agent if str(key).startswith("properties.desired.")]
    for key in layered:
        reader.refuse(join(path, key), "layered deployments are not supported in this version")
    if layered:
        return []
    desired = reader.mapping(agent, "properties.desired", path)
    if desired is None:
        return []
    path = join(path, "properties.desired")
    version = desired.get("schemaVersion")
    if not isinstance(version, str) or not re.fullmatch(r"1\.[01]", version):
        reader.refuse(join(path, "schemaVersion"), f"is {version!r}; 1.0 and 1.1 are known")
    for key in desired:
        if key not in ("schemaVersion", "runtime", "modules", "systemModules"):
            reader.refuse(join(path, str(key)), "unknown key of the desired properties")
    _runtime(reader, reader.optional(desired, "runtime", path), join(path, "runtime"))
    found = []
    modules = reader.optional(desired, "modules", path)
    if len(modules) > MAX_MODULES:
        reader.refuse(
            join(path, "modules"), f"has {len(modules)}; a device has at most {MAX_MODULES} modules"
        )
    for name, module in modules.items():
        entry = _module(reader, str(name), module, join(join(path, "modules"), str(name)))
        if entry:
            found.append(entry)
    return found


def _runtime(reader: _Reader, runtime: Mapping[str, Any], path: str) -> None:
    if runtime.get("type", "docker") != "docker":
        reader.refuse(join(path, "type"), f"is {runtime['type']!r}; only docker is known")
    settings = reader.optional(runtime, "settings", path)
    spath = join(path, "settings")
    for key, value in settings.items():
        if key == "registryCredentials" and value:
            reader.refuse(join(spath, key), "not supported in this version: use an image pull secret")
        elif key not in ("minDockerVersion", "loggingOptions", "registryCredentials"):
            reader.refuse(join(spath, str(key)), "unknown key of the runtime's settings")
        elif key == "loggingOptions" and value:
            reader.notes.append(f"{join(spath, key)}: has no effect, the cluster keeps the logs")


def _module(reader: _Reader, name: str, module: Any, path: str) -> dict[str, Any] | None:
    before = len(reader.errors)
    if not _MODULE_NAME.fullmatch(name):
        reader.refuse(path, "the name of a module must be a DNS label: lower-case letters, digits and dashes")
    if not isinstance(module, Mapping):
        reader.refuse(path, "must be an object")
        return None
    for key in module:
        if key not in _MODULE_KEYS:
            reader.refuse(join(path, str(key)), "unknown key of a module")
    if module.get("type", "docker") != "docker":
        reader.refuse(join(path, "type"), f"is {module['type']!r}; only docker is known")
    if module.get("status", "running") != "running":
        reader.refuse(
            join(path, "status"), f"is {module['status']!r}; only running is supported in this version"
        )
    if module.get("restartPolicy", "always") != "always":
        reader.refuse(
            join(path, "restartPolicy"),
            f"is {module['restartPolicy']!r}; only always is supported in this version",
        )
    if module.get("startupOrder") is not None:
        reader.refuse(join(path, "startupOrder"), "not supported in this version")
    pull = module.get("imagePullPolicy") or ""
    if pull not in _PULL_POLICY:
        reader.refuse(join(path, "imagePullPolicy"), f"is {pull!r}; on-create and never are known")
    settings = reader.mapping(module, "settings", path)
    spath = join(path, "settings")
    if settings is None:
        return None
    image = settings.get("image")
    if not is_image(image):
        fact = f"{image!r} is not an image reference" if "image" in settings else "missing"
        reader.refuse(join(spath, "image"), fact)
    for key in settings:
        if key != "image" and not is_create_options(str(key)):
            reader.refuse(join(spath, str(key)), "unknown key of settings")
    env = _create_options(reader, settings, spath)
    # Variables of the module's own env win over those of createOptions, as in edgeAgent.
    env.update(_env(reader, module.get("env"), join(path, "env")))
    if len(reader.errors) > before:
        return None
    return {"name": name, "image": str(image).strip(), "env": env, "imagePullPolicy": _PULL_POLICY[pull]}


def _create_options(reader: _Reader, settings: Mapping[str, Any], path: str) -> dict[str, str]:
    """Return the variables of createOptions.Env; refuse every other option by its name."""
    options_path = join(path, "createOptions")
    try:
        options = join_create_options(settings, path)
    except ManifestError as error:
        reader.errors.extend(error.errors)
        return {}
    for key in options:
        if key != "Env":
            reader.refuse(join(options_path, str(key)), "not supported in this version; only Env is")
    env: dict[str, str] = {}
    entries = options.get("Env") or []
    if not isinstance(entries, list):
        reader.refuse(join(options_path, "Env"), "must be a list of NAME=value")
        return {}
    for index, entry in enumerate(entries):
        name, separator, value = entry.partition("=") if isinstance(entry, str) else ("", "", "")
        if not separator or not _ENV_NAME.fullmatch(name):
            reader.refuse(f"{join(options_path, 'Env')}[{index}]", "must be NAME=value")
        else:
            env[name] = value
    return env


def _env(reader: _Reader, env: Any, path: str) -> dict[str, str]:
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        reader.refuse(path, "must be an object")
        return {}
    found: dict[str, str] = {}
    for name, holder in env.items():
        where = join(path, str(name))
        if not _ENV_NAME.fullmatch(str(name)):
            reader.refuse(where, "is not the name of an environment variable")
        elif not isinstance(holder, Mapping) or set(holder) != {"value"}:
            reader.refuse(where, 'must be {"value": ...}')
        elif isinstance(holder["value"], str | int | float | bool):
            found[str(name)] = _text(holder["value"])
        else:
            reader.refuse(join(where, "value"), "must be a text, a number or a boolean")
    return found


def _text(value: str | float | bool) -> str:
    # As edgeAgent does: JSON's spelling, so that true stays "true".
    return value if isinstance(value, str) else json.dumps(value)
