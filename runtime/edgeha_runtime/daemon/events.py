# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubernetes events about modules, for whoever describes an object or lists the events of a gateway.

They stand at the pod of the module, at its ServiceAccount where it has none, or at the daemon's pod where
there is neither. They are told beside the log and never instead of it: one that cannot be written is dropped,
and nothing waits for one.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from .kube import ERRORS, describe
from .logs import fields
from .manifests import Manifest
from .settings import Settings

NORMAL, WARNING = "Normal", "Warning"
# The same is told again after this time only; the API server keeps events for an hour.
QUIET_SECONDS = 600.0
_MAX_WAITING = 200
_MAX_MESSAGE = 1024  # of the API

_log = logging.getLogger(__name__)


class Writer(Protocol):
    """Who writes an event to the cluster; raises `kube.ERRORS`."""

    async def create_event(self, manifest: Manifest) -> None: ...


@dataclass(frozen=True)
class Subject:
    """The object that an event is about."""

    api_version: str
    kind: str
    name: str
    uid: str


class Events:
    """Tells events in the order in which they came. `run` never returns."""

    def __init__(self, settings: Settings, writer: Writer) -> None:
        self._settings = settings
        self._writer = writer
        self._waiting: asyncio.Queue[Manifest] = asyncio.Queue(_MAX_WAITING)
        self._told: dict[tuple[str, str, str], float] = {}
        self._subjects: dict[str, Subject] = {}

    def know(self, object_name: str, kind: str, name: str, uid: str) -> None:
        """Remember what a module's events are about: a Pod or a ServiceAccount."""
        self._subjects[object_name] = Subject("v1", kind, name, uid)

    def forget(self, object_name: str) -> None:
        """The module is gone."""
        self._subjects.pop(object_name, None)

    def tell(self, kind: str, object_name: str, reason: str, message: str) -> None:
        """Tell an event. `kind`: NORMAL or WARNING. `reason`: one word. `object_name`: of the module."""
        daemon = Subject("v1", "Pod", self._settings.pod_name, self._settings.pod_uid)
        subject = self._subjects.get(object_name, daemon)
        now = time.monotonic()
        key = (subject.name, reason, message)
        if kind == WARNING and now - self._told.get(key, -QUIET_SECONDS) < QUIET_SECONDS:
            return
        self._told = {old: at for old, at in self._told.items() if now - at < QUIET_SECONDS} | {key: now}
        try:
            self._waiting.put_nowait(self._manifest(subject, kind, reason, message))
        except asyncio.QueueFull:
            _log.warning("event dropped", extra=fields(reason=reason))

    async def run(self) -> None:
        """Write what was told."""
        while True:
            event = await self._waiting.get()
            try:
                await self._writer.create_event(event)
            except ERRORS as error:
                _log.warning("event not told", extra=fields(event=event["reason"], reason=describe(error)))
            except Exception:
                # Nothing that cannot be told is worth the daemon that signs for running modules.
                _log.exception("event not told")

    def _manifest(self, subject: Subject, kind: str, reason: str, message: str) -> Manifest:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{subject.name}.{secrets.token_hex(8)}",
                "namespace": self._settings.namespace,
            },
            "involvedObject": {
                "apiVersion": subject.api_version,
                "kind": subject.kind,
                "name": subject.name,
                "namespace": self._settings.namespace,
                "uid": subject.uid,
            },
            "type": kind,
            "reason": reason,
            "message": message[:_MAX_MESSAGE],
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": "edgeha-daemon"},
            "reportingComponent": "edgeha.io/daemon",
            "reportingInstance": self._settings.pod_name,
        }
