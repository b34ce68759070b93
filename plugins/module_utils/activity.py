# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Is a module of a device connected, has it spoken since a given moment, was a deployment carried out? Pure.

The service API of a hub cannot read telemetry (that is a built-in endpoint with a protocol of its own). What
it tells of each module is its connection and ``lastActivityTime``, which moves when a message arrives: the
hub's own word that it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class ModuleState:
    """A module as the hub sees it. exists: it has an identity. last_activity: None when it never spoke.

    speaks: whether it is expected to; of another it is enough that it is connected. ended: it did what it had
    to, and nobody starts it again.
    """

    device_id: str
    module_id: str
    exists: bool = False
    connected: bool = False
    last_activity: datetime | None = None
    speaks: bool = True
    ended: bool = False

    def ready(self, after: datetime) -> bool:
        """Whether it ended well, or is connected and was active at or after a moment (the hub's clock)."""
        if self.ended:
            return True
        if not self.speaks:
            return self.connected
        return self.connected and self.last_activity is not None and self.last_activity >= after

    def as_dict(self) -> dict[str, Any]:
        return {
            "device_id": self.device_id,
            "module_id": self.module_id,
            "exists": self.exists,
            "connected": self.connected,
            "last_activity": format_time(self.last_activity),
        }


@dataclass(frozen=True)
class AgentState:
    """How far edgeAgent has come with the deployment in its twin, by what it reports there.

    desired and reported: versions of the deployment. waiting: by module that is to run, does not and did not
    end well under a policy that lets it, its state and why. ended: those that did.
    """

    device_id: str
    exists: bool = False
    desired: int = 0
    reported: int | None = None
    code: int | None = None
    description: str = ""
    waiting: Mapping[str, str] = field(default_factory=dict)
    ended: frozenset[str] = frozenset()

    @property
    def ready(self) -> bool:
        """Whether it carried out the newest deployment and all of its modules run, or ended well."""
        return self.exists and self.reported == self.desired and self.code == 200 and not self.waiting

    def as_dict(self) -> dict[str, Any]:
        return {
            "device_id": self.device_id,
            "desired_version": self.desired,
            "reported_version": self.reported,
            "code": self.code,
            "description": self.description,
            "waiting_modules": dict(self.waiting),
            "ready": self.ready,
        }


def agent_state(device_id: str, twin: Mapping[str, Any] | None) -> AgentState:
    """Return how far edgeAgent has come. twin: that of the module $edgeAgent; None when there is none."""
    if twin is None:
        return AgentState(device_id)
    properties = twin.get("properties") or {}
    desired, reported = properties.get("desired") or {}, properties.get("reported") or {}
    status = reported.get("lastDesiredStatus") or {}
    waiting: dict[str, str] = {}
    ended: set[str] = set()
    for group in ("systemModules", "modules"):
        told = reported.get(group) or {}
        for name, module in (desired.get(group) or {}).items():
            state = told.get(name) or {}
            if module.get("status", "running") != "running" or _runs(state):
                continue
            if _ended_well(module, state):
                ended.add(str(name))
            else:
                runs = str(state.get("runtimeStatus", "not reported"))
                runs = "starting" if runs == "running" else runs
                why = str(state.get("statusDescription") or "").strip()
                waiting[str(name)] = f"{runs} ({why})" if why else runs
    return AgentState(
        device_id,
        exists=True,
        desired=int(desired.get("$version") or 0),
        reported=reported.get("lastDesiredVersion"),
        code=status.get("code"),
        description=str(status.get("description") or ""),
        waiting=waiting,
        ended=frozenset(ended),
    )


def _runs(state: Mapping[str, Any]) -> bool:
    """Whether a module runs, by what is reported of it."""
    # A daemon that places a module tells that it runs before it has a time of its start.
    began = "lastStartTimeUtc" not in state or parse_time(state["lastStartTimeUtc"]) is not None
    return state.get("runtimeStatus") == "running" and began


def _ended_well(module: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    """Whether a module (of the desired properties) did what it had to, and may stay ended."""
    # edgeAgent starts one of on-failure again all the same, to end well again.
    return (
        module.get("restartPolicy") in ("never", "on-failure")
        and (state.get("runtimeStatus"), state.get("exitCode")) == ("stopped", 0)
        and parse_time(state.get("lastStartTimeUtc")) is not None
    )


def explain_agent(state: AgentState) -> list[str]:
    """Say what keeps a deployment from being carried out, a line for each reason."""
    name = f"device {state.device_id}"
    if not state.exists:
        return [f"{name}: has no module $edgeAgent; register it as an edge device"]
    if state.reported != state.desired:
        seen = "nothing yet" if state.reported is None else f"version {state.reported}"
        return [
            f"{name}: edgeAgent has not taken version {state.desired} of the deployment (reported: {seen}); "
            "look at the log of its pod"
        ]
    lines = [f"{name}, module {module}: {why}" for module, why in sorted(state.waiting.items())]
    if state.code != 200:
        lines.insert(0, f"{name}: edgeAgent reports {state.code}: {state.description or 'no reason'}")
    return lines


def parse_time(text: object) -> datetime | None:
    """Return a time of the hub (ISO 8601, UTC); None for none, which the hub writes as year 1."""
    if not isinstance(text, str) or not text:
        return None
    try:
        # The hub writes up to seven digits of a second; Python takes six.
        head, point, rest = text.strip().removesuffix("Z").partition(".")
        digits = rest.split("+")[0][:6]
        moment = datetime.fromisoformat(f"{head}{point}{digits}" if digits else head)
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment if moment.year > 1 else None


def format_time(moment: datetime | None) -> str | None:
    """Return ``YYYY-MM-DDTHH:MM:SSZ``, None for None."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def states(
    device_id: str,
    modules: Iterable[Mapping[str, Any]],
    wanted: Sequence[str] | None = None,
    speak: bool = True,
    ended: frozenset[str] = frozenset(),
) -> list[ModuleState]:
    """Return the state of a device's wanted modules (of all that exist when None).

    ended: those that did what they had to.
    modules: their identities or their twins, which tell the same here; a hub allows far more reads of twins.
    """
    found = {
        str(module.get("moduleId")): ModuleState(
            device_id,
            str(module.get("moduleId")),
            exists=True,
            connected=module.get("connectionState") == "Connected",
            last_activity=parse_time(module.get("lastActivityTime")),
            speaks=speak,
            ended=str(module.get("moduleId")) in ended,
        )
        for module in modules
    }
    names = sorted(found) if wanted is None else list(wanted)
    return [found.get(name, ModuleState(device_id, name, speaks=speak)) for name in names]


def explain(state: ModuleState, after: datetime) -> str:
    """Say what a module that is not ready lacks, and what to look at next."""
    name = f"device {state.device_id}, module {state.module_id}"
    if not state.exists:
        return f"{name}: has no identity at the hub yet; look at the log of the daemon, which creates it"
    last = format_time(state.last_activity)
    if not state.connected:
        seen = f"last active {last}" if last else "never active"
        return f"{name}: is not connected ({seen}); look at the state and the log of the module's pod"
    return (
        f"{name}: is connected but sent nothing since {format_time(after)} (last active {last or 'never'}); "
        "look at the log of the module's pod, or wait longer if it sends seldom"
    )
