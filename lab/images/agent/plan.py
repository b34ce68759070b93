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
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
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
POLICIES = ("never", "on-failure", "on-unhealthy", "always")
# All else is `unknown` to a stock agent, and that is an error of the daemon.
_STATUSES = ("backoff", "running", "unhealthy", "stopped", "failed")
YEAR_ONE = "0001-01-01T00:00:00Z"  # a time that there is none of
MAX_RESTARTS = 20
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=10), timedelta(seconds=300)
_INTENSIVE_CARE = timedelta(minutes=10)


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

    @property
    def terms(self) -> str:
        """What no label of its container tells; a stock agent makes a module anew when it changes, too."""
        return json.dumps([self.restart_policy, self.pull_policy, self.startup_order, self.version])


@dataclass(frozen=True)
class Step:
    """Something to do with the management API; `restart` is a stop and a start."""

    action: Literal["create", "update", "remove", "start", "stop", "restart"]
    name: str


@dataclass(frozen=True)
class Memory:
    """What is remembered of a module: how its deployment was last carried out, and its restarts since.

    status, terms: of the deployment. restarted: when it was last restarted, in UTC; empty for never.
    """

    status: str
    terms: str
    restarts: int = 0
    restarted: str = ""

    def document(self) -> dict[str, Any]:
        """As it is kept on disk."""
        return asdict(self)

    @classmethod
    def of(cls, document: Document) -> Memory:
        """What `document` made. Raises KeyError, TypeError, ValueError."""
        return cls(
            str(document["status"]),
            str(document["terms"]),
            int(document["restarts"]),
            str(document["restarted"]),
        )


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
    policy = str(module.get("restartPolicy", "always"))
    if policy not in POLICIES:
        raise ValueError(f"restartPolicy {policy} is none of {', '.join(POLICIES)}")
    return Wanted(
        name=name,
        image=image,
        options=_options(settings),
        env=tuple(sorted((key, str(entry["value"])) for key, entry in (module.get("env") or {}).items())),
        status=str(module.get("status", "running")),
        restart_policy=policy,
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
    """The status of a module as the daemon tells it, `unknown` for one that there is not."""
    told = str(module["status"]["runtimeStatus"]["status"]).lower()
    return told if told in _STATUSES else "unknown"


def computed(wanted: Wanted, module: Document, restarts: int) -> str:
    """The status of a module that is reported: that of the daemon, or what its restart policy makes of it."""
    told = state(module)
    if wanted.status != "running" or told in ("running", "unknown") or wanted.restart_policy == "never":
        return told
    if wanted.restart_policy == "always" or told in ("failed", "unhealthy"):
        return "backoff" if restarts < MAX_RESTARTS else "failed"
    return told


def steps(
    wanted: Sequence[Wanted], there: Mapping[str, Document], memories: Mapping[str, Memory], now: datetime
) -> list[Step]:
    """What is to be done, in order: removals first, then module by module as they start.

    Raises DeploymentError for a module that is to run and that the daemon knows no status of.
    """
    names = {module.name for module in wanted} | {AGENT}
    shall = {module.name: module.status for module in wanted}
    # A stock agent sees the daemon with the eyes of the deployment before.
    shall |= {name: memory.status for name, memory in memories.items()}
    for name, known in sorted(there.items()):
        if shall.get(name) == "running" and state(known) == "unknown":
            told = known["status"]["runtimeStatus"]["status"]
            raise DeploymentError(
                500,
                f"module {name}: the daemon's runtimeStatus is {told!r}; nothing is done until it is known",
            )
    found = [Step("remove", name) for name in sorted(set(there) - names)]
    for module in wanted:
        known, memory = there.get(module.name), memories.get(module.name)
        if known is None:
            found.append(Step("create", module.name))
            if module.status == "running":
                found.append(Step("start", module.name))
        elif module.name == AGENT:
            if not same(module, known):
                found.append(Step("update", module.name))
        elif not same(module, known) or (memory is not None and memory.terms != module.terms):
            found.append(Step("update", module.name))
        elif action := _action(module, known, memory, now):
            found.append(Step(action, module.name))
    return found


def _action(
    wanted: Wanted, known: Document, memory: Memory | None, now: datetime
) -> Literal["start", "stop", "restart"] | None:
    """What a module needs whose deployment is, but for its status, as it was."""
    told = state(known)
    if wanted.status != "running":
        return "stop" if wanted.status == "stopped" and told != "stopped" else None
    if memory is not None and memory.status != wanted.status:
        # Asked for by the deployment itself: no matter of the restart policy.
        return "start" if told != "running" else None
    restarts = memory.restarts if memory else 0
    status = computed(wanted, known, restarts)
    if status == "backoff":
        return "restart" if _due(known, restarts, now) else None
    if status == "stopped" and (wanted.restart_policy != "never" or not _started(known)):
        return "start"
    return None


def _due(known: Document, restarts: int, now: datetime) -> bool:
    """Whether the pause after its end is over; an end in the future tells of a wrong clock."""
    ended = _moment(known["name"], (known["status"].get("exitStatus") or {}).get("exitTime"))
    elapsed = now - (ended or datetime.min.replace(tzinfo=UTC))
    return elapsed <= timedelta(0) or elapsed > min(_FIRST_PAUSE * 2**restarts, _LONGEST_PAUSE)


def _started(known: Document) -> datetime | None:
    return _moment(known["name"], known["status"].get("startTime"))


def _moment(name: str, text: str | None) -> datetime | None:
    """A time of the daemon's; None for none and for year 1."""
    try:
        found = datetime.fromisoformat(text or YEAR_ONE)
    except ValueError:
        raise DeploymentError(500, f"module {name}: {text!r} of the daemon is no time") from None
    if found.year == 1:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def remember(
    wanted: Sequence[Wanted],
    there: Mapping[str, Document],
    memories: Mapping[str, Memory],
    done: Sequence[Step],
    undone: Sequence[Step],
    now: datetime,
) -> dict[str, Memory]:
    """What to remember after `done` of the steps for `there`; of a module with one undone, what was known."""
    found = {}
    open_yet = {step.name for step in undone}
    for module in wanted:
        old = memories.get(module.name)
        if module.name in open_yet:
            if old:
                found[module.name] = old
            continue
        actions = {step.action for step in done if step.name == module.name}
        new = Memory(module.status, module.terms)
        if (
            old is None
            or actions & {"create", "update"}
            or (old.status, old.terms) != (new.status, new.terms)
            or _well(module, there.get(module.name), now)
        ):
            old = new
        if "restart" in actions:
            old = Memory(old.status, old.terms, old.restarts + 1, now.strftime("%Y-%m-%dT%H:%M:%SZ"))
        found[module.name] = old
    return found


def _well(wanted: Wanted, known: Document | None, now: datetime) -> bool:
    """Whether it has run for so long that what was before counts no more."""
    if known is None or wanted.status != "running" or state(known) != "running":
        return False
    started = _started(known)
    return started is not None and now - started > _INTENSIVE_CARE


def report(
    wanted: Sequence[Wanted], there: Mapping[str, Document], memories: Mapping[str, Memory]
) -> dict[str, Any]:
    """The parts `systemModules` and `modules` of the reported properties."""
    by_name = {module.name: module for module in wanted}
    found: dict[str, dict[str, Any]] = {"systemModules": {}, "modules": {}}
    for name, module in there.items():
        status = module["status"]
        ended = status.get("exitStatus") or {}
        settings = module["config"]["settings"]
        known = by_name.get(name, Wanted(name, str(settings.get("image"))))
        memory = memories.get(name, Memory(known.status, known.terms))
        exit_time = ended.get("exitTime") or YEAR_ONE
        entry: dict[str, Any] = {
            "type": "docker",
            "status": known.status,
            "restartPolicy": known.restart_policy,
            "imagePullPolicy": known.pull_policy,
            "runtimeStatus": computed(known, module, memory.restarts) if name in by_name else state(module),
            "statusDescription": status["runtimeStatus"].get("description", ""),
            "exitCode": int(ended.get("statusCode", 0)),
            "lastStartTimeUtc": status.get("startTime") or YEAR_ONE,
            "lastExitTimeUtc": exit_time,
            "restartCount": memory.restarts,
            # Of one that it never restarted a stock agent tells the last end here.
            "lastRestartTimeUtc": memory.restarted or exit_time,
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
