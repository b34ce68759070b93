# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment wants, what of it is there, and what is to be done. Pure.

Forms are those of the $edgeAgent twin (schema 1.0 and 1.1) and of the management API's ModuleSpec.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Document = Mapping[str, Any]

AGENT = "edgeAgent"
SYSTEM = (AGENT, "edgeHub")
MANAGED_BY = "IotEdge"
# By these a stock agent knows again what it made.
OPTIONS_LABEL = "net.azure-devices.edge.create-options"
ENV_LABEL = "net.azure-devices.edge.env"
OWNER_LABEL = "net.azure-devices.edge.owner"
OWNER = "Microsoft.Azure.Devices.Edge.Agent"
_LAST = 4294967295  # startupOrder of those that have none: after all others
_DOWN = ("failed", "stopped", "unhealthy")


class DeploymentError(Exception):
    """The desired properties hold no deployment that can be carried out; `code` is what the twin reports."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Wanted:
    """A module of a deployment."""

    name: str
    image: str
    options: str = "{}"
    env: tuple[tuple[str, str], ...] = ()
    status: str = "running"
    restart_policy: str = "always"
    pull_policy: str = "on-create"
    startup_order: int = _LAST
    version: str = ""
    login: tuple[str, str, str] | None = None  # server, user name, password

    @property
    def identity(self) -> str:
        return f"${self.name}" if self.name in SYSTEM else self.name


@dataclass(frozen=True)
class Step:
    """One call of the management API."""

    action: Literal["create", "update", "remove", "start", "stop"]
    name: str


@dataclass
class Backoff:
    """When a module that went down may start again: after 10 s, then twice as long, 5 min at most."""

    restarts: int = 0
    due: float = 0.0

    def went_down(self, now: float) -> bool:
        """Whether now is the time to start it again."""
        if not self.due:
            self.due = now + min(300.0, 10.0 * 2 ** min(self.restarts, 5))
        if now < self.due:
            return False
        self.restarts, self.due = self.restarts + 1, 0.0
        return True


def read(properties: Document) -> list[Wanted]:
    """The modules of a deployment, edgeAgent first, then by their startupOrder. Raises DeploymentError."""
    if "modules" not in properties and "systemModules" not in properties:
        raise DeploymentError(417, "the twin holds no deployment yet")
    schema = str(properties.get("schemaVersion", ""))
    if not re.fullmatch(r"1\.[01](\.0)?", schema):
        raise DeploymentError(412, f"schemaVersion {schema or '(none)'} is not 1.0 or 1.1")
    try:
        logins = ((properties.get("runtime") or {}).get("settings") or {}).get("registryCredentials") or {}
        groups = {group: dict(properties.get(group) or {}) for group in ("systemModules", "modules")}
    except (AttributeError, TypeError, ValueError) as error:
        raise DeploymentError(400, f"the deployment is no object of objects: {error}") from None
    found = []
    for group, modules in groups.items():
        for name, module in modules.items():
            try:
                found.append(_wanted(name, module, logins))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise DeploymentError(400, f"{group}.{name}: {error!r}") from None
    return sorted(found, key=lambda wanted: (wanted.name != AGENT, wanted.startup_order, wanted.name))


def _wanted(name: str, module: Document, logins: Mapping[str, Document]) -> Wanted:
    settings = module["settings"]
    image = str(settings["image"])
    return Wanted(
        name=name,
        image=image,
        options=_options(settings),
        env=tuple(sorted((key, str(entry["value"])) for key, entry in (module.get("env") or {}).items())),
        status=str(module.get("status", "running")),
        restart_policy=str(module.get("restartPolicy", "always")),
        pull_policy=str(module.get("imagePullPolicy", "on-create")),
        startup_order=int(module.get("startupOrder", _LAST)),
        version=str(module.get("version", "")),
        login=_login(image, logins),
    )


def _options(settings: Document) -> str:
    """createOptions, which the hub's limit of 512 characters cuts into createOptions01 and so on."""
    value = settings.get("createOptions", "{}")
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    parts = sorted(key for key in settings if re.fullmatch(r"createOptions\d\d", key))
    text = "".join([str(value), *(str(settings[key]) for key in parts)]) or "{}"
    options = json.loads(text)
    if not isinstance(options, dict):
        raise TypeError("createOptions is no object")
    return json.dumps(options, sort_keys=True)


def _login(image: str, logins: Mapping[str, Document]) -> tuple[str, str, str] | None:
    server = image.partition("/")[0]
    for login in logins.values():
        if login["address"] == server:
            return server, str(login["username"]), str(login["password"])
    return None


def spec(wanted: Wanted, generation: str, own: Mapping[str, str]) -> dict[str, Any]:
    """The ModuleSpec of a module, with the variables that tell it who and where it is. `own`: the agent's."""
    options = json.loads(wanted.options)
    labels = {OWNER_LABEL: OWNER, OPTIONS_LABEL: wanted.options, ENV_LABEL: json.dumps(dict(wanted.env))}
    settings: dict[str, Any] = {
        "image": wanted.image,
        "createOptions": options | {"Labels": (options.get("Labels") or {}) | labels},
    }
    if wanted.login:
        keys = ("serveraddress", "username", "password")
        settings["auth"] = dict(zip(keys, wanted.login, strict=True))
    env = dict(wanted.env) | {
        name: own[name]
        for name in (
            "IOTEDGE_APIVERSION",
            "IOTEDGE_DEVICEID",
            "IOTEDGE_IOTHUBHOSTNAME",
            "IOTEDGE_WORKLOADURI",
        )
        if name in own
    }
    env |= {
        "IOTEDGE_AUTHSCHEME": "sasToken",
        "IOTEDGE_MODULEGENERATIONID": generation,
        "IOTEDGE_MODULEID": wanted.identity,
    }
    host = own.get("EdgeDeviceHostName", "")
    parent = own.get("IOTEDGE_GATEWAYHOSTNAME", "")
    if wanted.name in SYSTEM:
        env["EdgeDeviceHostName"] = host
        if parent:
            env["IOTEDGE_GATEWAYHOSTNAME"] = parent
    else:
        env["IOTEDGE_GATEWAYHOSTNAME"] = host
        if parent:
            env["IOTEDGE_PARENTEDGEHOSTNAME"] = parent
    if wanted.name == AGENT:
        env |= {name: own[name] for name in ("IOTEDGE_MANAGEMENTURI", "Mode") if name in own}
    return {
        "name": wanted.name,
        "type": "docker",
        "imagePullPolicy": "Never" if wanted.pull_policy == "never" else "On-Create",
        "config": {
            "settings": settings,
            "env": [{"key": key, "value": value} for key, value in sorted(env.items())],
        },
    }


def same(wanted: Wanted, module: Document) -> bool:
    """Whether a module (ModuleDetails) is as a deployment wants it."""
    settings = module["config"]["settings"]
    labels = (settings.get("createOptions") or {}).get("Labels") or {}
    if settings.get("image") != wanted.image:
        return False
    if OPTIONS_LABEL not in labels and wanted.name == AGENT:
        return True  # as the daemon started it
    return bool(
        labels.get(OPTIONS_LABEL) == wanted.options and labels.get(ENV_LABEL) == json.dumps(dict(wanted.env))
    )


def state(module: Document) -> str:
    """The runtime status of a module."""
    return str(module["status"]["runtimeStatus"]["status"])


def steps(
    wanted: Sequence[Wanted], there: Mapping[str, Document], backoffs: dict[str, Backoff], now: float
) -> list[Step]:
    """What is to be done, in order: removals first, then module by module as they start."""
    names = {module.name for module in wanted} | {AGENT}
    found = [Step("remove", name) for name in sorted(set(there) - names)]
    for module in wanted:
        known = there.get(module.name)
        if known is None:
            found.append(Step("create", module.name))
            if module.status == "running":
                found.append(Step("start", module.name))
        elif not same(module, known):
            found.append(Step("update", module.name))
        elif module.name == AGENT:
            continue
        elif module.status == "stopped" and state(known) in ("running", "unknown"):
            found.append(Step("stop", module.name))
        elif module.status == "running" and state(known) in _DOWN and _restarts(module, known):
            if backoffs.setdefault(module.name, Backoff()).went_down(now):
                found.append(Step("start", module.name))
        elif state(known) == "running":
            backoffs.setdefault(module.name, Backoff()).due = 0.0
    return found


def _restarts(wanted: Wanted, known: Document) -> bool:
    """Whether a module that is down is to be started again."""
    ended = known["status"].get("exitStatus")
    if ended is None or wanted.restart_policy == "always":
        return True  # it never ran, or was stopped by a deployment before
    if wanted.restart_policy in ("on-failure", "on-unhealthy"):
        return state(known) != "stopped"
    return False


def report(
    wanted: Sequence[Wanted], there: Mapping[str, Document], backoffs: Mapping[str, Backoff]
) -> dict[str, Any]:
    """The parts `systemModules` and `modules` of the reported properties."""
    by_name = {module.name: module for module in wanted}
    found: dict[str, dict[str, Any]] = {"systemModules": {}, "modules": {}}
    for name, module in there.items():
        status = module["status"]
        ended = status.get("exitStatus") or {}
        settings = module["config"]["settings"]
        known = by_name.get(name, Wanted(name, str(settings.get("image"))))
        entry: dict[str, Any] = {
            "type": "docker",
            "status": known.status,
            "restartPolicy": known.restart_policy,
            "imagePullPolicy": known.pull_policy,
            "runtimeStatus": state(module),
            "statusDescription": status["runtimeStatus"].get("description", ""),
            "exitCode": int(ended.get("statusCode", 0)),
            "lastStartTimeUtc": status.get("startTime"),
            "lastExitTimeUtc": ended.get("exitTime"),
            "restartCount": backoffs[name].restarts if name in backoffs else 0,
            "settings": {"image": settings.get("image"), "createOptions": known.options},
            # A twin's keys hold no dots, dollars and spaces.
            "env": {key: {"value": value} for key, value in known.env if not re.search(r"[.$\s]", key)},
        }
        if known.version:
            entry["version"] = known.version
        found["systemModules" if name in SYSTEM else "modules"][name] = entry
    return found


def patch(old: Document, new: Document) -> dict[str, Any]:
    """What turns `old` reported properties into `new`, None for what goes."""
    found: dict[str, Any] = {key: None for key in old if key not in new and old[key] is not None}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            inner = patch(before, value)
            if inner:
                found[key] = inner
        elif value != before:
            found[key] = value
    return found
