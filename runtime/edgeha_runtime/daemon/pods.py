# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pods of modules do, and how IoT Edge calls that.

States are those of the contract: running, stopped (ended by itself or by wish), failed (ended with an error,
or cannot start), unknown (on its way).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .manifests import DIGEST_ANNOTATION, MODULE_ANNOTATION, RESTARTS_ANNOTATION, SLOT_LABEL

CONTAINER = "module"
GATE = "gate"
# Reasons for which a container waits that say its image cannot be had.
IMAGE_REASONS = frozenset(
    {
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RegistryUnavailable",
        # CRI-O says so of an image that is there, and that it lets nobody use.
        "SignatureValidationFailed",
    }
)
# And all reasons that do not go away by waiting a little.
_BROKEN = IMAGE_REASONS | {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
# Reasons by which a container ended with its machine, or with the runtime below it, and not by itself.
_LOST = frozenset({"ContainerStatusUnknown", "Unknown"})
MAX_TEXT = 512
# What is told of a module that could not be started; `docker run` exits with it then.
NOT_STARTED = 125


@dataclass(frozen=True)
class Ended:
    """How a container ended."""

    code: int
    at: datetime
    reason: str = ""
    started: datetime | None = None

    def document(self) -> dict[str, Any]:
        """The same for a file."""
        started = {"started": self.started.isoformat()} if self.started else {}
        return {"code": self.code, "at": self.at.isoformat(), "reason": self.reason, **started}

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Ended:
        """What `document` gave."""
        started = kept.get("started")
        return cls(
            int(kept["code"]),
            datetime.fromisoformat(kept["at"]),
            str(kept.get("reason", "")),
            datetime.fromisoformat(started) if started else None,
        )


@dataclass(frozen=True)
class Pod:
    """One pod of a module. `started` is there while its module runs.

    `run`: which run of the module it is (`deployment.Deployed.restarts`). `finished`: nothing runs in it any
    more, nor ever will. `lost`: so, and its module did not end by itself.
    """

    name: str
    uid: str
    module: str
    slot: str
    digest: str
    run: int
    image: str
    node: str
    created: datetime
    going: bool = False  # somebody deleted it
    grace: float = 0.0  # seconds that its containers get to end; of one that goes, as who deleted it said
    finished: bool = False
    lost: bool = False
    started: datetime | None = None
    ended: Ended | None = None
    waiting: str = ""
    broken: bool = False
    homeless: bool = False  # no machine fits
    claims: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether it is on its way, and its module has not run in it yet."""
        return not (self.going or self.started or self.ended or self.finished)


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a module that its pods do not tell. `lasting`: waiting alone will not change it."""

    text: str
    lasting: bool


@dataclass(frozen=True)
class Status:
    """State of a module in the contract's words."""

    status: str
    description: str = ""
    started: datetime | None = None
    ended: Ended | None = None
    since: datetime | None = None  # when it was to start

    def document(self) -> dict[str, Any]:
        """The contract's Status, as a stock edgeAgent can live with it.

        It fails as a whole at a module that shall run and is unknown, and starts one that is stopped or
        failed again. So what is on its way is told as running, without a time at which it started; what
        cannot start gets an exit, from which edgeAgent counts its pauses.
        """
        runtime = {"status": "running" if self.status == "unknown" else self.status}
        if self.description:
            runtime["description"] = self.description
        found: dict[str, Any] = {"runtimeStatus": runtime}
        started, ended = self.started, self.ended
        if ended is not None:
            started = started or ended.started
        elif self.status == "failed" and self.since:
            ended = Ended(NOT_STARTED, self.since)
        if started and self.status != "unknown":
            found["startTime"] = _text(started)
        if ended:
            found["exitStatus"] = {"exitTime": _text(ended.at), "statusCode": str(ended.code)}
        return found


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def view(found: Any) -> Pod | None:
    """The part of a Pod (of lightkube) that matters here; None for a pod of no module."""
    metadata, status, spec = found.metadata, found.status, found.spec
    module = (metadata.annotations or {}).get(MODULE_ANNOTATION)
    if module is None or metadata.creationTimestamp is None:
        return None
    own = _container(status.containerStatuses if status else None)
    state = own.state if own else None
    last = own.lastState.terminated if own and own.lastState else None
    ended = state.terminated if state and state.terminated else last
    waiting, broken = _waiting(status, state)
    volumes = (spec.volumes if spec else None) or ()
    finished = bool(status and status.phase in ("Succeeded", "Failed"))
    stays = spec is not None and spec.restartPolicy == "Never"
    return Pod(
        name=metadata.name,
        uid=metadata.uid or "",
        module=module,
        slot=(metadata.labels or {}).get(SLOT_LABEL, ""),
        digest=(metadata.annotations or {}).get(DIGEST_ANNOTATION, ""),
        run=_number((metadata.annotations or {}).get(RESTARTS_ANNOTATION)),
        image=next(
            (one.image or "" for one in (spec.containers if spec else ()) if one.name == CONTAINER), ""
        ),
        node=(spec.nodeName if spec else None) or "",
        created=metadata.creationTimestamp,
        going=metadata.deletionTimestamp is not None,
        grace=_grace(metadata, spec),
        finished=finished,
        lost=finished and not (stays and _ended_by_itself(status, ended)),
        started=state.running.startedAt if state and state.running else None,
        ended=_ended(ended),
        waiting=waiting[:MAX_TEXT],
        broken=broken,
        homeless=_unscheduled(status) is not None,
        claims=tuple(one.persistentVolumeClaim.claimName for one in volumes if one.persistentVolumeClaim),
    )


def _grace(metadata: Any, spec: Any) -> float:
    """Seconds that a pod's containers get to end: a drain, say, may give another time than the pod's own."""
    if metadata.deletionGracePeriodSeconds is not None:
        return float(metadata.deletionGracePeriodSeconds)
    return float((spec.terminationGracePeriodSeconds if spec else None) or 0)


def _container(statuses: Any) -> Any:
    return next((one for one in statuses or () if one.name == CONTAINER), None)


def _ended(found: Any) -> Ended | None:
    if found is None:
        return None
    at = found.finishedAt or datetime.fromtimestamp(0, UTC)
    said = (found.message or found.reason or "").strip()[:MAX_TEXT]
    return Ended(found.exitCode, at, said, found.startedAt)


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else 0


def _ended_by_itself(status: Any, ended: Any) -> bool:
    """Whether a finished pod's module ended, and was not taken from it: evicted, or lost with its machine."""
    disrupted = any(
        one.type == "DisruptionTarget" and one.status == "True" for one in status.conditions or ()
    )
    return ended is not None and not disrupted and ended.reason not in _LOST


def _waiting(status: Any, state: Any) -> tuple[str, bool]:
    """Why the module does not run yet, and whether waiting alone will not change that."""
    if state is not None and state.running:
        return "", False
    if condition := _unscheduled(status):
        return f"no node for it: {condition.message or condition.reason}", True
    for one in (status.initContainerStatuses if status else None) or ():
        waits = one.state.waiting if one.state else None
        if waits and waits.reason not in (None, "PodInitializing"):
            return f"{one.name}: {why(waits)}", waits.reason in _BROKEN
        if one.state and one.state.running and not one.started:
            what = (
                "the gate of its slot is closed" if one.name == GATE else f"{one.name} waits for the daemon"
            )
            return what, False
    if state is not None and state.waiting:
        return why(state.waiting), state.waiting.reason in _BROKEN
    return "", False


def _unscheduled(status: Any) -> Any:
    """The condition that says that no node fits."""
    conditions = (status.conditions if status else None) or ()
    return next((one for one in conditions if one.type == "PodScheduled" and one.status == "False"), None)


def why(waiting: Any) -> str:
    """Why a container waits, in one line."""
    return ": ".join(part for part in (waiting.reason, waiting.message) if part)


def status(
    pods: list[Pod],
    *,
    running: bool,
    trouble: Trouble | None = None,
    ended: Ended | None = None,
    since: datetime | None = None,
) -> Status:
    """How a module is.

    `running`: whether it shall run, and `since` when. `ended`: how it ended, where its pod may be gone.
    """
    told = trouble.text[:MAX_TEXT] if trouble and running else ""
    waits = "failed" if trouble and trouble.lasting else "unknown"
    pod = newest(pods) if pods else None
    if running and ended and not (pod and pod.waits):
        # Noted of this run, so it may be newer than what is known of its pod.
        return Status("failed" if ended.code else "stopped", (told or ended.reason)[:MAX_TEXT], ended=ended)
    if pod and pod.started and not (running and pod.going):
        return Status("running", told, started=pod.started, ended=pod.ended)
    if not running:
        return Status("stopped", ended=ended or (pod.ended if pod else None))
    if pod is None:
        return Status(waits, told or "its pod is not there yet", since=since)
    since = since or pod.created
    if pod.going or pod.lost:
        return Status(waits, told or "its pod is being replaced", ended=pod.ended, since=since)
    if pod.broken:
        said = "; ".join(part for part in (pod.waiting, told) if part)
        # A good end of a run before is none of a start that failed.
        failed = pod.ended if pod.ended and pod.ended.code else None
        return Status("failed", said[:MAX_TEXT], ended=failed, since=since)
    if pod.ended:
        said = ": ".join(part for part in (pod.waiting, pod.ended.reason) if part)
        return Status("failed" if pod.ended.code else "stopped", said[:MAX_TEXT], ended=pod.ended)
    return Status(waits, told or pod.waiting or "its pod starts", since=since)


def newest(pods: list[Pod]) -> Pod:
    """The pod that counts: of those that stay the one that runs, else the last one made."""
    return max(pods, key=lambda pod: (not pod.going, pod.started is not None, pod.created))


class Board:
    """The pods of all modules as the watch last told. What it says of a module is of the slot that works."""

    def __init__(self, slot: str) -> None:
        self._slot = slot
        self._pods: dict[str, Pod] = {}

    def put(self, kind: str, found: Any) -> Pod | None:
        """Take an event of the watch: ADDED, MODIFIED or DELETED with its Pod. Answers what it is about."""
        pod = view(found)
        if pod is None:
            return None
        if kind == "DELETED":
            self._pods.pop(pod.name, None)
        else:
            self._pods[pod.name] = pod
        return pod

    def keep(self, names: set[str]) -> list[Pod]:
        """Forget pods that are gone, after a watch that may have missed their end. Answers those."""
        gone = [pod for name, pod in self._pods.items() if name not in names]
        for pod in gone:
            del self._pods[pod.name]
        return gone

    def all(self) -> list[Pod]:
        """The pods of all slots."""
        return list(self._pods.values())

    def runs(self, image: str, node: str) -> bool:
        """Whether a module of this image runs on a node."""
        return any(pod.started and (pod.image, pod.node) == (image, node) for pod in self._working())

    def waiting(self) -> list[Pod]:
        """The pods whose modules have not run yet."""
        return [pod for pod in self._working() if pod.waits]

    def of(self, module: str) -> list[Pod]:
        """The pods of one module."""
        return [pod for pod in self._working() if pod.module == module]

    def _working(self) -> list[Pod]:
        return [pod for pod in self._pods.values() if pod.slot == self._slot]
