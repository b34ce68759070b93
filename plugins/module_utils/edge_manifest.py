# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deployment manifests as IoT Hub and the edge runtime 1.1 to 1.6 take them: check, write, compare. Pure.

Sources: "Properties of the IoT Edge agent and IoT Edge hub module twins", "Deploy modules and establish
routes in IoT Edge", "Understand IoT Edge automatic deployments", "Understand and use module twins" (Microsoft
Learn).
The hub takes nearly anything that is JSON; what is wrong comes to light on the device, which keeps its old
modules or none. So everything is checked here, and all errors come at once, each with its JSON path.
What a runtime of ours can do of it is the business of `deployment`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import edge_routes, twin_rules
from ansible_collections.edgeha.iotedge.plugins.module_utils.create_options import (
    MAX_PARTS,
    PART_CHARACTERS,
    is_create_options,
    join_create_options,
    split_create_options,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.manifest_json import (
    ManifestError,
    Reader,
    canonical,
    join,
    read_json,
)

AGENT = "$edgeAgent"
HUB = "$edgeHub"
DESIRED = "properties.desired"
SECRET = "(secret)"  # noqa: S105 - what stands in its place
OTHER_SECRET = "(another secret)"  # noqa: S105 - as above
MAX_MODULES = 50
_MAX_INTEGER = 2**52
_STARTUP_ORDERS = range(2**32)
# The name of a container is made of it.
_MODULE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_ENV_NAME = re.compile(r"[^\s.$#+=]+")
# Distribution's reference grammar, as far as a typing mistake can hurt: [host[:port]/]path[:tag][@digest].
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[\w][\w.-]{0,127})?(?:@[a-z0-9]+:[0-9a-f]{32,})?"
)
_AGENT_VERSIONS = ("1.0", "1.1")
_HUB_VERSIONS = ("1.0", "1.1", "1.2", "1.3")
_MODULE_KEYS = frozenset(
    {"type", "status", "restartPolicy", "settings", "env", "version", "imagePullPolicy", "startupOrder"}
)
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "type": ("docker",),
    "status": ("running", "stopped"),
    "restartPolicy": ("never", "on-failure", "on-unhealthy", "always"),
    "imagePullPolicy": ("on-create", "never"),
}


@dataclass(frozen=True)
class Content:
    """Checked content of a configuration.

    modules:  ``modulesContent`` as it is sent: createOptions is compact text in parts of at most 512.
    names:    of the modules that it runs beside edgeAgent and edgeHub, sorted.
    layered:  whether it only adds to what a base deployment sets.
    warnings: what is allowed and yet most likely a mistake, each beginning with its JSON path.
    """

    modules: Mapping[str, Mapping[str, Any]] = field(repr=False)
    names: list[str]
    layered: bool
    warnings: list[str]

    @property
    def digest(self) -> str:
        """SHA-256 in hex over what the content means; see `meaning`."""
        return content_digest(self.modules)


def is_image(value: object) -> bool:
    """Say whether value is a reference to an image, spaces around it aside."""
    return isinstance(value, str) and bool(_IMAGE.fullmatch(value.strip()))


# -- what content means --------------------------------------------------------------------------------------


def meaning(module: str, desired: Any) -> Any:
    """Return a module's desired properties (of a twin, or of content) without what a device does not see.

    The hub's own ``$metadata`` and ``$version`` go. In those of $edgeAgent createOptions become the JSON
    value they hold, and vanish when empty.
    """
    if not isinstance(desired, Mapping):
        return desired
    result: dict[str, Any] = {}
    for key, value in desired.items():
        if str(key) in ("$metadata", "$version"):
            continue
        result[key] = meaning(module, value)
        if module == AGENT and str(key).rpartition(".")[2] == "settings" and isinstance(value, Mapping):
            result[key] = _meaning_of_settings(value)
    return result


def _meaning_of_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    if not any(is_create_options(str(key)) for key in settings):
        return dict(settings)
    result = {key: value for key, value in settings.items() if not is_create_options(str(key))}
    try:
        options = join_create_options(settings, "$")
    except ManifestError:
        # Written by someone else and broken: it is what it is, and equal to nothing that we write.
        return dict(settings)
    return {**result, "createOptions": options} if options else result


def content_meaning(modules: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ``modulesContent`` with the `meaning` of each module."""
    return {str(name): meaning(str(name), holder) for name, holder in modules.items()}


def content_digest(modules: Mapping[str, Any]) -> str:
    """Return SHA-256 in hex over what a ``modulesContent`` means: equal for equal effect on a device."""
    return hashlib.sha256(canonical(content_meaning(modules)).encode()).hexdigest()


def same(module: str, left: Any, right: Any) -> bool:
    """Say whether two versions of a module's desired properties mean the same."""
    return canonical(meaning(module, left)) == canonical(meaning(module, right))


def secrets(modules: Any) -> set[str]:
    """Return the registries' passwords in content, also as text or with errors, or in desired properties."""
    if isinstance(modules, str):
        try:
            modules = json.loads(modules)
        except ValueError:
            return set()
    return {value for path, value in _passwords(modules) if value}


def hide_secrets(before: Any, after: Any) -> tuple[Any, Any]:
    """Return copies of two versions to be shown, without the registries' passwords.

    A password that differs still shows as a difference.
    """
    known = dict(_passwords(before))

    def mask(value: Any, path: tuple[str, ...], compare: bool) -> Any:
        if not isinstance(value, Mapping):
            return value
        result = {}
        for key, inner in value.items():
            here = (*path, str(key))
            if _is_password(here):
                result[key] = OTHER_SECRET if compare and known.get(here, inner) != inner else SECRET
            else:
                result[key] = mask(inner, here, compare)
        return result

    return mask(before, (), False), mask(after, (), True)


def _is_password(path: tuple[str, ...]) -> bool:
    return path[-1] == "password" and any("registryCredentials" in part for part in path[:-1])


def _passwords(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, inner in value.items() if isinstance(value, Mapping) else ():
        here = (*path, str(key))
        if _is_password(here):
            yield here, str(inner)
        else:
            yield from _passwords(inner, here)


# -- checking ------------------------------------------------------------------------------------------------


def parse(content: Any) -> Content:
    """Check content given as an object or as the text of a manifest file.

    It is ``{"modulesContent": {...}}``, the same below ``content``, or what stands in modulesContent.
    Raises ManifestError with every error that was found.
    """
    if isinstance(content, str):
        content = read_json(content)
    if not isinstance(content, Mapping):
        raise ManifestError(["$: must be an object with the key modulesContent"])
    check = _Check()
    modules, path = check.modules_content(content)
    if modules is None:
        raise ManifestError(check.errors)
    layered = check.all(modules, path)
    if check.errors:
        raise ManifestError(check.errors)
    written = {str(name): _write(str(name), module) for name, module in modules.items()}
    return Content(written, sorted(check.names), layered, check.warnings)


@dataclass
class _Check(Reader):
    warnings: list[str] = field(default_factory=list)
    # routes with their paths, judged once all modules are known
    routes: list[tuple[str, str]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    bad_names: set[str] = field(default_factory=set)

    def warn(self, path: str, text: str) -> None:
        self.warnings.append(f"{path}: {text}")

    def unknown(self, parent: Mapping[str, Any], known: Iterable[str], path: str, what: str) -> None:
        for key in parent:
            if key not in known:
                self.refuse(join(path, str(key)), f"unknown key of {what}")

    def choice(
        self, parent: Mapping[str, Any], key: str, path: str, choices: tuple[str, ...], required: bool = True
    ) -> None:
        where = join(path, key)
        if parent.get(key) is None:
            if required:
                self.refuse(where, f"missing; possible: {', '.join(map(repr, choices))}")
        elif parent[key] not in choices:
            self.refuse(where, f"is {parent[key]!r}; possible: {', '.join(map(repr, choices))}")

    def whole(self, value: Any, path: str, least: int, most: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.refuse(path, f"is {value!r}; it must be a whole number from {least} to {most}")

    def modules_content(self, document: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str]:
        path = "$"
        if "content" in document and "modulesContent" not in document:
            self.unknown(document, ("content",), path, "a manifest")
            inner = self.mapping(document, "content", path)
            if inner is None:
                return None, path
            document, path = inner, "$.content"
        for key, fact in (
            ("moduleContent", "was the name in 2018; now it is modulesContent"),
            ("deviceContent", "belongs to configurations of devices without the edge runtime"),
            ("$schema-template", "this is a template: let its tool make the manifest of it"),
        ):
            if key in document:
                self.refuse(join(path, key), fact)
                return None, path
        if "modulesContent" not in document and (AGENT in document or HUB in document):
            return document, path
        self.unknown(document, ("modulesContent",), path, "a manifest; only modulesContent is used")
        return self.mapping(document, "modulesContent", path), join(path, "modulesContent")

    def all(self, modules: Mapping[str, Any], path: str) -> bool:
        """Check everything; return whether the content is layered."""
        keys = [
            str(key)
            for name in (AGENT, HUB)
            for key in (modules.get(name) if isinstance(modules.get(name), Mapping) else None) or {}
        ]
        layered = bool(keys) and DESIRED not in keys and any(key.startswith(f"{DESIRED}.") for key in keys)
        if AGENT not in modules:
            self.refuse(join(path, AGENT), "missing; the hub wants it in every content")
        elif layered:
            self.layered_agent(self.optional(modules, AGENT, path), join(path, AGENT))
        else:
            self.agent(modules, path)
        if layered:
            self.layered_hub(self.optional(modules, HUB, path), join(path, HUB))
        else:
            self.hub(modules, path)
        for name, module in modules.items():
            self.twin_of_module(str(name), module, join(path, str(name)), layered)
        if len(self.names) > MAX_MODULES:
            self.refuse(join(path, AGENT), f"{len(self.names)} modules; a device takes at most {MAX_MODULES}")
        self.modules_of_routes(layered)
        return layered

    # -- $edgeAgent

    def agent(self, modules: Mapping[str, Any], path: str) -> None:
        holder = self.mapping(modules, AGENT, path)
        if holder is None:
            return
        path = join(path, AGENT)
        self.only_desired(holder, path)
        desired = self.mapping(holder, DESIRED, path)
        if desired is None:
            return
        path = join(path, DESIRED)
        self.choice(desired, "schemaVersion", path, _AGENT_VERSIONS)
        self.unknown(
            desired, ("schemaVersion", "runtime", "systemModules", "modules", "integrity"), path, "edgeAgent"
        )
        old = desired.get("schemaVersion") == "1.0"
        runtime = self.mapping(desired, "runtime", path)
        if runtime is not None:
            self.runtime(runtime, join(path, "runtime"))
        system = self.mapping(desired, "systemModules", path)
        if system is not None:
            spath = join(path, "systemModules")
            self.unknown(system, ("edgeAgent", "edgeHub"), spath, "systemModules")
            for name in ("edgeAgent", "edgeHub"):
                if name not in system:
                    self.refuse(join(spath, name), "missing; a base deployment sets both")
                else:
                    self.module(system[name], join(spath, name), old, restarts=name == "edgeHub")
        for name, module in self.optional(desired, "modules", path).items():
            self.named_module(str(name), module, join(join(path, "modules"), str(name)), old)

    def only_desired(self, holder: Mapping[str, Any], path: str) -> None:
        for key in holder:
            if key != DESIRED:
                text = f"stands beside {DESIRED}" if str(key).startswith(DESIRED) else "unknown key"
                self.refuse(join(path, str(key)), f"{text}; use either {DESIRED} or keys of a layer")

    def runtime(self, runtime: Mapping[str, Any], path: str) -> None:
        self.unknown(runtime, ("type", "settings"), path, "runtime")
        self.choice(runtime, "type", path, _CHOICES["type"])
        settings = self.mapping(runtime, "settings", path) or {}
        path = join(path, "settings")
        self.unknown(settings, ("minDockerVersion", "loggingOptions", "registryCredentials"), path, "runtime")
        for key in ("minDockerVersion", "loggingOptions"):
            if settings.get(key) is not None and not isinstance(settings[key], str):
                self.refuse(join(path, key), "must be a text")
        options = settings.get("loggingOptions")
        if isinstance(options, str) and options.strip():
            try:
                read_json(options, join(path, "loggingOptions"))
            except ManifestError as error:
                self.errors.extend(error.errors)
        credentials = self.optional(settings, "registryCredentials", path)
        for name, entry in credentials.items():
            self.registry(entry, join(join(path, "registryCredentials"), str(name)))

    def registry(self, entry: Any, path: str) -> None:
        if not isinstance(entry, Mapping):
            self.refuse(path, "must be an object with address, username and password")
            return
        keys = ("address", "username", "password")
        self.unknown(entry, keys, path, "registryCredentials")
        for key in keys:
            # The value of a password stands in no error.
            if not isinstance(entry.get(key), str) or not entry[key]:
                self.refuse(join(path, key), "missing" if key not in entry else "must be a text")
        if isinstance(entry.get("address"), str) and re.search(r"\s|://", entry["address"]):
            self.refuse(join(path, "address"), f"{entry['address']!r} is no host name: no scheme, no spaces")

    def named_module(self, name: str, module: Any, path: str, old: bool = False) -> None:
        if not _MODULE_NAME.fullmatch(name):
            self.bad_names.add(name)
            self.refuse(
                path, "a module's name is 1 to 128 letters, digits, - and _, and begins with none of the two"
            )
        elif name in ("edgeAgent", "edgeHub"):
            self.refuse(path, "is the name of a system module")
        self.names.add(name)
        self.module(module, path, old)

    def module(self, module: Any, path: str, old: bool = False, *, restarts: bool = True) -> None:
        """old: schema 1.0. restarts: False for edgeAgent, which is never stopped."""
        if not isinstance(module, Mapping):
            self.refuse(path, "must be an object")
            return
        self.unknown(module, _MODULE_KEYS, path, "a module")
        self.choice(module, "type", path, _CHOICES["type"])
        for key in ("status", "restartPolicy"):
            self.choice(module, key, path, _CHOICES[key], required=restarts)
        # An empty text stands for the default in manifests of the portal.
        if module.get("imagePullPolicy") != "":
            self.choice(module, "imagePullPolicy", path, _CHOICES["imagePullPolicy"], required=False)
        if module.get("version") is not None and not isinstance(module["version"], str):
            self.refuse(join(path, "version"), "must be a text")
        if module.get("startupOrder") is not None:
            where = join(path, "startupOrder")
            self.whole(module["startupOrder"], where, 0, _STARTUP_ORDERS[-1])
            if old:
                self.warn(where, "came with schemaVersion 1.1 of $edgeAgent, and this is 1.0")
        self.env(module.get("env"), join(path, "env"))
        settings = self.mapping(module, "settings", path)
        if settings is not None:
            self.settings(settings, join(path, "settings"))

    def settings(self, settings: Mapping[str, Any], path: str) -> None:
        image = settings.get("image")
        if not is_image(image):
            fact = f"{image!r} is not an image reference" if "image" in settings else "missing"
            self.refuse(join(path, "image"), fact)
        known = {"image", "digest", *(key for key in settings if is_create_options(str(key)))}
        self.unknown(settings, known, path, "settings")
        try:
            parts = len(split_create_options(join_create_options(settings, path)))
        except ManifestError as error:
            self.errors.extend(error.errors)
            return
        except (TypeError, ValueError) as error:
            self.refuse(join(path, "createOptions"), f"cannot be written as JSON: {error}")
            return
        if parts > MAX_PARTS:
            self.refuse(
                join(path, "createOptions"),
                f"needs {parts} parts of {PART_CHARACTERS} characters; at most {MAX_PARTS} are allowed",
            )

    def env(self, env: Any, path: str) -> None:
        if env is None:
            return
        if not isinstance(env, Mapping):
            self.refuse(path, "must be an object")
            return
        for name, holder in env.items():
            self.variable(str(name), holder, join(path, str(name)))

    def variable(self, name: str, holder: Any, path: str) -> None:
        if not _ENV_NAME.fullmatch(name):
            self.bad_names.add(name)
            self.refuse(path, "is not the name of an environment variable")
        elif not isinstance(holder, Mapping) or set(holder) != {"value"}:
            self.refuse(path, 'must be {"value": ...}')
        elif not isinstance(holder["value"], str | int | float | bool):
            self.refuse(join(path, "value"), "must be a text, a number or a boolean")

    def layered_agent(self, holder: Mapping[str, Any], path: str) -> None:
        for key, value in holder.items():
            where = join(path, str(key))
            parts = str(key).removeprefix(f"{DESIRED}.").split(".")
            if not str(key).startswith(f"{DESIRED}."):
                self.refuse(where, "is no key of a layer; write properties.desired.modules.NAME")
            elif parts[0] == "modules" and len(parts) == 2:
                self.named_module(parts[1], value, where)
            elif parts[0] == "modules" and len(parts) == 4 and parts[2] == "env":
                self.names_in_path(parts, where)
                self.variable(parts[3], value, where)
            elif parts[0] == "systemModules" and len(parts) == 2 and parts[1] in ("edgeAgent", "edgeHub"):
                self.module(value, where, restarts=parts[1] == "edgeHub")
            elif parts[:3] == ["runtime", "settings", "registryCredentials"] and len(parts) == 4:
                self.registry(value, where)
            elif parts[0] in ("modules", "systemModules") and len(parts) > 2:
                self.names_in_path(parts, where)
            else:
                self.refuse(where, "is nothing that a layer may set")

    def names_in_path(self, parts: list[str], path: str) -> None:
        if not all(parts) or (parts[0] == "modules" and not _MODULE_NAME.fullmatch(parts[1])):
            self.refuse(path, "names no property of a module")
        elif len(parts) > 2 and parts[2] not in _MODULE_KEYS:
            self.refuse(path, f"{parts[2]} is an unknown key of a module")

    # -- $edgeHub

    def hub(self, modules: Mapping[str, Any], path: str) -> None:
        holder = self.mapping(modules, HUB, path)
        if holder is None:
            return
        path = join(path, HUB)
        self.only_desired(holder, path)
        desired = self.mapping(holder, DESIRED, path)
        if desired is None:
            return
        path = join(path, DESIRED)
        self.choice(desired, "schemaVersion", path, _HUB_VERSIONS)
        version = str(desired.get("schemaVersion"))
        known = ["schemaVersion", "routes", "storeAndForwardConfiguration"]
        if "mqttBroker" in desired:
            known.append("mqttBroker")
            if version in ("1.2", "1.3"):
                self.warn(join(path, "mqttBroker"), "no released runtime has the MQTT broker any more")
            else:
                self.refuse(join(path, "mqttBroker"), f"is not known in schemaVersion {version}")
        if version == "1.3":
            known.append("integrity")
        self.unknown(desired, known, path, f"edgeHub in schemaVersion {version}")
        for name, route in (self.mapping(desired, "routes", path) or {}).items():
            self.route(route, join(join(path, "routes"), str(name)), objects=version != "1.0")
        store = self.mapping(desired, "storeAndForwardConfiguration", path)
        if store is not None:
            self.store(store, join(path, "storeAndForwardConfiguration"))

    def store(self, store: Mapping[str, Any], path: str) -> None:
        self.unknown(store, ("timeToLiveSecs", "storeLimits"), path, "storeAndForwardConfiguration")
        if "timeToLiveSecs" not in store:
            self.refuse(join(path, "timeToLiveSecs"), "missing")
        else:
            # Negative means for ever.
            self.whole(store["timeToLiveSecs"], join(path, "timeToLiveSecs"), -1, 2**31 - 1)
        limits = self.optional(store, "storeLimits", path)
        self.unknown(limits, ("maxSizeBytes",), join(path, "storeLimits"), "storeLimits")
        if "maxSizeBytes" in limits:
            where = join(join(path, "storeLimits"), "maxSizeBytes")
            self.whole(limits["maxSizeBytes"], where, 1, _MAX_INTEGER)

    def layered_hub(self, holder: Mapping[str, Any], path: str) -> None:
        for key, value in holder.items():
            where = join(path, str(key))
            parts = str(key).removeprefix(f"{DESIRED}.").split(".")
            if not str(key).startswith(f"{DESIRED}."):
                self.refuse(where, "is no key of a layer; write properties.desired.routes.NAME")
            elif parts[0] == "routes" and len(parts) == 2 and parts[1]:
                self.route(value, where, objects=True)
            elif parts == ["storeAndForwardConfiguration"] and isinstance(value, Mapping):
                self.store(value, where)
            elif parts == ["storeAndForwardConfiguration", "timeToLiveSecs"]:
                self.whole(value, where, -1, 2**31 - 1)
            else:
                self.refuse(where, "is nothing that a layer may set")

    def route(self, route: Any, path: str, *, objects: bool) -> None:
        """objects: whether the schema allows a route with priority and time to live."""
        text = route
        if isinstance(route, Mapping):
            if not objects:
                self.refuse(path, "must be a text in schemaVersion 1.0; priorities came with 1.1")
            self.unknown(route, ("route", "priority", "timeToLiveSecs"), path, "a route")
            if "priority" in route:
                self.whole(route["priority"], join(path, "priority"), 0, 9)
            if "timeToLiveSecs" in route:
                self.whole(route["timeToLiveSecs"], join(path, "timeToLiveSecs"), 0, 2**32 - 1)
            text, path = route.get("route"), join(path, "route")
        if not isinstance(text, str):
            self.refuse(path, "missing" if text is None else "must be a text: FROM ... INTO ...")
            return
        error = edge_routes.error_of(text)
        if error:
            self.refuse(path, error)
        else:
            self.routes.append((path, text))

    def modules_of_routes(self, layered: bool) -> None:
        for path, text in self.routes:
            source, names = edge_routes.parts_of(text)
            if not edge_routes.SOURCES.fullmatch(source):
                self.warn(path, f"{source} is no source that edgeHub is documented to have")
            for name in sorted(names - self.names):
                fact = f"names the module {name}, which is not in modules"
                if layered:
                    self.warn(path, f"{fact} of this layer: another deployment must bring it")
                else:
                    self.refuse(path, fact)

    # -- limits of twins

    def twin_of_module(self, name: str, module: Any, path: str, layered: bool) -> None:
        if not isinstance(module, Mapping):
            if name not in (AGENT, HUB):
                self.refuse(path, f"must be an object with {DESIRED}")
            return
        if name not in (AGENT, HUB):
            if not _MODULE_NAME.fullmatch(name):
                self.refuse(path, "is not the name of a module")
            for key in module:
                if key != DESIRED and not (layered and str(key).startswith(f"{DESIRED}.")):
                    self.refuse(join(path, str(key)), f"unknown key; only {DESIRED} is used")
            if not layered and name not in self.names:
                self.warn(path, f"sets properties of {name}, which is not in modules")
        whole: dict[str, Any] = {}
        for key, value in module.items():
            if str(key).startswith(f"{DESIRED}."):
                inner = whole
                *parents, last = str(key).removeprefix(f"{DESIRED}.").split(".")
                for part in parents:
                    inner = inner.setdefault(part, {})
                    if not isinstance(inner, dict):
                        self.refuse(join(path, str(key)), "is set by another key of the layer too")
                        return
                inner[last] = _write(name, value)
            elif isinstance(value, Mapping):
                whole |= _write(name, value)
            else:
                self.refuse(join(path, str(key)), "must be an object")
        for error in twin_rules.errors(whole, "desired", nulls=False):
            # A name that was refused before was so in words that fit the place better.
            if not any(f"the key {bad!r} " in error for bad in self.bad_names):
                self.errors.append(f"{join(path, DESIRED)}{error.removeprefix('desired')}")


def _write(module: str, value: Any) -> Any:
    """Return content of a module with every createOptions as compact text in parts.

    What cannot be read stays as it is: it has an error of its own.
    """
    if isinstance(value, list | tuple):
        return [_write(module, inner) for inner in value]
    if not isinstance(value, Mapping):
        return value
    result: dict[str, Any] = {str(key): _write(module, inner) for key, inner in value.items()}
    if module == AGENT and "image" in result and any(is_create_options(key) for key in result):
        try:
            parts = split_create_options(join_create_options(value, "$"))
        except (ManifestError, TypeError, ValueError):
            return result
        return {**{key: inner for key, inner in result.items() if not is_create_options(key)}, **parts}
    return result
