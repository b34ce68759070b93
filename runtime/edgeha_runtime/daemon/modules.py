# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps identities at the hub and objects in the cluster as the module set says.

Two loops, each woken by what changed and by nothing else (besides a slow resync): `identities` talks to the
hub, `objects` to the cluster. A hub that is away so holds up new modules only, never known ones.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping

from lightkube import ApiError

from . import manifests, moduleset
from .hub import HubClient, HubError, HubUnavailableError
from .keystore import KeyStore
from .kube import ERRORS, REFUSED, Cluster, describe
from .logs import fields
from .manifests import OwnerReference
from .moduleset import Module, ModuleSet, ModuleSetError
from .settings import Settings

RESYNC_SECONDS = 600.0
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
# Gathers changes that come together, and keeps a quarrel with another controller from spinning.
SETTLE_SECONDS = 0.2

_log = logging.getLogger(__name__)


class Modules:
    """The modules of one gateway.

    `run` never returns. `accounts` and `not_ready` may be read at any time.
    """

    def __init__(self, settings: Settings, store: KeyStore, hub: HubClient, cluster: Cluster) -> None:
        self._settings = settings
        self._store = store
        self._hub = hub
        self._cluster = cluster
        _key, self._certificate = store.transport()
        self._desired: ModuleSet | None = None
        self._set_problem = f"ConfigMap {settings.modules_config_map} was not seen yet"
        self._owner: OwnerReference | None = None
        self._applied: dict[str, tuple[str, int]] = {}  # object name: digest of the manifest, generation
        self._apply_all = False
        self._checked: set[str] = set()
        self._problems: dict[str, dict[str, str]] = {"hub": {}, "cluster": {}}
        self._wake_hub = asyncio.Event()
        self._wake_cluster = asyncio.Event()

    @property
    def accounts(self) -> Mapping[str, str]:
        """ServiceAccount name to module id, for the modules that are desired now."""
        return self._desired.accounts if self._desired else {}

    def not_ready(self) -> list[str]:
        """What still keeps the gateway from running its module set; empty when it does."""
        if self._desired is None:
            return [self._set_problem]
        reasons = [f"module {name}: {reason}" for name, reason in self._desired.refused.items()]
        if self._set_problem:
            reasons.append(self._set_problem)
        for module in self._desired.modules:
            if module.name not in self._store.identities:
                reason = self._problems["hub"].get(module.name, "waiting for its identity at the hub")
                reasons.append(f"module {module.name}: {reason}")
            elif self._applied.get(module.object_name, ("", 0))[0] != self._digest(module):
                problems = self._problems["cluster"]
                reason = problems.get(module.name) or problems.get("", "waiting for its objects")
                reasons.append(f"module {module.name}: {reason}")
        return reasons

    async def run(self) -> None:
        """Follow the module set and the objects until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(
                self._cluster.follow_config_map(self._settings.modules_config_map, self._set_changed)
            )
            group.create_task(
                self._cluster.follow_deployments(
                    manifests.selector(self._settings.release), self._deployment_changed
                )
            )
            group.create_task(self._loop("hub", self._wake_hub, self._identities))
            group.create_task(self._loop("cluster", self._wake_cluster, self._objects))

    def _set_changed(self, data: dict[str, str] | None) -> None:
        if data is None:
            # Somebody's slip must not take a gateway's modules away.
            self._set_problem = (
                f"ConfigMap {self._settings.modules_config_map} was deleted; its last content stands"
            )
            _log.error(self._set_problem)
            return
        try:
            desired = moduleset.parse(
                data.get("modules.json", ""),
                self._settings.release,
                shares_volumes=self._settings.storage_access_mode == "ReadWriteMany",
                own_secrets=frozenset(self._settings.own_secrets),
            )
        except ModuleSetError as error:
            self._set_problem = f"ConfigMap {self._settings.modules_config_map}: {error}"
            _log.error(self._set_problem)
            return
        self._set_problem = ""
        if desired == self._desired:
            return
        self._desired = desired
        _log.info("module set", extra=fields(modules=sorted(desired.names)))
        for name, reason in desired.refused.items():
            _log.error("module refused", extra=fields(module=name, reason=reason))
        self._wake_hub.set()
        self._wake_cluster.set()

    def _deployment_changed(self, name: str, generation: int | None) -> None:
        known = self._applied.get(name)
        if known and known[1] != generation:
            self._applied.pop(name)
            self._wake_cluster.set()

    async def _loop(
        self, side: str, wake: asyncio.Event, work: Callable[[], Awaitable[dict[str, str]]]
    ) -> None:
        failures = 0
        while True:
            problems = await work()
            if problems != self._problems[side]:
                for name, reason in problems.items():
                    _log.error("%s: %s", side, reason, extra=fields(**({"module": name} if name else {})))
                if not problems:
                    _log.info("%s: all well", side)
                self._problems[side] = problems
            failures = failures + 1 if problems else 0
            pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1] if problems else RESYNC_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await wake.wait()
            except TimeoutError:
                if not problems:
                    self._forget_checks(side)
            else:
                await asyncio.sleep(SETTLE_SECONDS)
            wake.clear()

    def _forget_checks(self, side: str) -> None:
        """At a resync everything is looked at again: a watch or the hub may have moved unseen."""
        if side == "hub":
            self._checked.clear()
        else:
            self._apply_all = True

    async def _identities(self) -> dict[str, str]:
        """One pass at the hub. Answers the problems by module id."""
        if self._desired is None:
            return {}
        problems: dict[str, str] = {}
        try:
            for module in self._desired.modules:
                if module.name in self._checked:
                    continue
                try:
                    await self._ensure_identity(module.name)
                except HubUnavailableError:
                    raise
                except HubError as error:
                    problems[module.name] = str(error)
            # Only identities this daemon made, and only names that left the set.
            for name in sorted(set(self._store.identities) - self._desired.names):
                await self._hub.delete_module(name)
                await asyncio.to_thread(self._store.forget, name)
                self._checked.discard(name)
                _log.info("module identity removed", extra=fields(module=name))
        except HubError as error:
            # Away, or refusing the device itself: asking for the others would tell nothing new.
            waiting = [m.name for m in self._desired.modules if m.name not in self._checked] or [""]
            problems.update(dict.fromkeys(waiting, str(error)))
        except OSError as error:
            problems[""] = (
                f"the store cannot be written: {error.strerror}. Free the volume or make it writable"
            )
        return problems

    async def _ensure_identity(self, name: str) -> None:
        identity = await self._hub.get_module(name)
        made = identity is None
        if identity is None:
            identity = await self._hub.create_module(name)
        primary = self._store.module_key(name, identity.generation_id, "primary")
        secondary = self._store.module_key(name, identity.generation_id, "secondary")
        if (identity.primary_key, identity.secondary_key) != (_base64(primary), _base64(secondary)):
            identity = await self._hub.set_keys(name, primary, secondary)
        known = self._store.identities.get(name)
        await asyncio.to_thread(self._store.remember, name, identity.generation_id)
        self._checked.add(name)
        if known != identity.generation_id:
            _log.info(
                "module identity", extra=fields(module=name, generation=identity.generation_id, created=made)
            )
            self._wake_cluster.set()

    async def _objects(self) -> dict[str, str]:
        """One pass over the cluster's objects. Answers the problems, by module id or under ''."""
        desired = self._desired
        if desired is None:
            return {}
        problems: dict[str, str] = {}
        try:
            if self._owner is None:
                self._owner = await self._cluster.owner(self._settings.daemon_name)
            for module in desired.modules:
                try:
                    await self._apply(module, self._owner)
                except ApiError as error:
                    # What the API server does not take of one module is no trouble of the others.
                    if error.status.code not in REFUSED:
                        raise
                    problems[module.name] = describe(error)
            self._apply_all = False
            labels = manifests.selector(self._settings.release)
            kept = {moduleset.object_name(self._settings.release, name) for name in desired.names}
            without = {module.object_name for module in desired.modules if not module.parts.ports}
            there = await self._cluster.object_names(labels)
            for name in sorted(there["Service"] & without):
                await self._cluster.delete_service(name)
            for name in sorted(set().union(*there.values()) - kept):
                self._applied.pop(name, None)
                await self._cluster.delete(name)
                _log.info("module objects removed", extra=fields(object=name))
        except ERRORS as error:
            return problems | {"": describe(error)}
        return problems

    async def _apply(self, module: Module, owner: OwnerReference) -> None:
        generation = self._store.identities.get(module.name)
        if generation is None:
            return
        digest = self._digest(module)
        if not self._apply_all and self._applied.get(module.object_name, ("", 0))[0] == digest:
            return
        await self._cluster.apply(manifests.service_account(module, self._settings, owner))
        for claim in manifests.claims(module, self._settings):
            await self._cluster.ensure_claim(claim)
        service = manifests.service(module, self._settings, owner)
        if service is not None:
            await self._cluster.apply(service)
        number = await self._cluster.apply(
            manifests.deployment(module, generation, self._settings, owner, self._certificate)
        )
        self._applied[module.object_name] = (digest, number)
        _log.info("module objects applied", extra=fields(module=module.name, object=module.object_name))

    def _digest(self, module: Module) -> str:
        """Tells one wanted state of a module's objects from another."""
        owner = self._owner or OwnerReference("", "")
        generation = self._store.identities.get(module.name, "")
        wanted = [
            manifests.deployment(module, generation, self._settings, owner, self._certificate),
            manifests.service(module, self._settings, owner),
            manifests.claims(module, self._settings),
        ]
        return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


def _base64(key: bytes) -> str:
    return base64.b64encode(key).decode()
