# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What edgeAgent asked for: its modules, which of them run, and the identities it made.

Every change is on disk before the caller is answered, so a daemon that starts anew goes on with the same
modules, with the cloud away too.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from . import moduleset
from .moduleset import EDGE_AGENT, Candidate, Module
from .threads import to_the_end

Spec = dict[str, Any]


class Shelf(Protocol):
    """The part of the key store that this needs."""

    @property
    def deployment(self) -> Mapping[str, Any] | None: ...

    def keep_deployment(self, content: dict[str, Any]) -> None: ...


class UnknownModuleError(Exception):
    """There is no such module."""


class ModuleExistsError(Exception):
    """The module is there, or belongs to somebody else; the message says which."""


class SpecError(Exception):
    """The module cannot be made as it is wanted; the message holds every reason."""


@dataclass(frozen=True)
class Deployed:
    """One module of edgeAgent: the ModuleSpec as it came, and what was asked of it since.

    `restarts` tells one run from the next: it moves when the module is stopped, made anew or restarted.
    `ended` is how the last run ended by itself (`pods.Ended` as a document); None while there was no end.
    `since` is when this run was asked for (ISO 8601).
    `order` is the order in which edgeAgent made its modules: that of their startupOrder.

    `basis` is there for edgeAgent itself, which the chart gives: the digest of the chart's values that this
    spec goes back to.
    """

    spec: Spec
    running: bool = False
    restarts: int = 0
    basis: str = ""
    ended: Mapping[str, Any] | None = None
    since: str = ""
    order: int = 0

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Deployed:
        """A module as it is on disk.

        Fields that nobody knows are left out: within one version of the file a newer daemon adds only what an
        older one may do without, and one that is rolled back is to go on with the modules.
        """
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in kept.items() if name in known})


@dataclass(frozen=True)
class _Content:
    modules: dict[str, Deployed] = field(default_factory=dict)
    identities: frozenset[str] = frozenset()
    pull_secrets: frozenset[str] = frozenset()
    runs: int = 0  # the first number that no run of a removed module had

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> _Content:
        return cls(
            {str(name): Deployed.of(module) for name, module in kept.get("modules", {}).items()},
            frozenset(kept.get("identities", ())),
            frozenset(kept.get("pullSecrets", ())),
            int(kept.get("runs", 0)),
        )

    def document(self) -> dict[str, Any]:
        return {
            "modules": {name: asdict(module) for name, module in self.modules.items()},
            "identities": sorted(self.identities),
            "pullSecrets": sorted(self.pull_secrets),
            "runs": self.runs,
        }


class Deployment:
    """The modules of edgeAgent, on disk.

    `check` answers why a set of candidates (the chart's and these) cannot be, by module. `changed` is called
    after each change. Errors of the disk come as OSError and leave everything as it was.
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        read: Callable[[Deployed], Candidate],
        check: Callable[[list[Candidate]], Mapping[str, str]],
        changed: Callable[[], None],
    ) -> None:
        self._shelf = shelf
        self._read = read
        self._check = check
        self._changed = changed
        self._content = _Content.of(shelf.deployment or {})
        self._adopted = False  # what was taken for edgeAgent's, and is not on disk yet
        self._candidates: dict[str, Candidate] = {}
        self._agent: Spec | None = None
        self._basis = ""
        self._lock = asyncio.Lock()

    def set_agent(self, entry: Mapping[str, Any] | None) -> None:
        """Tell what the chart says of edgeAgent: its entry of the ConfigMap, None where there is none."""
        text = json.dumps(entry, sort_keys=True)
        self._basis = hashlib.sha256(text.encode()).hexdigest() if entry else ""
        self._agent = _spec_of(entry) if entry else None

    @property
    def modules(self) -> dict[str, Deployed]:
        """All modules that the management API shows, edgeAgent as the chart gives it among them."""
        found = self._counting
        if self._agent is not None and EDGE_AGENT not in found:
            found[EDGE_AGENT] = Deployed(self._agent, running=True)
        return found

    @property
    def candidates(self) -> list[Candidate]:
        """The modules to run besides those of the chart; edgeAgent where it updated itself."""
        found = sorted(self._counting.items(), key=lambda item: (item[1].order, item[0]))
        return [self._candidate(name, module) for name, module in found]

    @property
    def identities(self) -> frozenset[str]:
        """Identities that edgeAgent made."""
        return self._content.identities if self._agent is not None else frozenset()

    @property
    def pull_secrets(self) -> frozenset[str]:
        """Names of the Secrets that were made to pull images."""
        return self._content.pull_secrets

    @property
    def _counting(self) -> dict[str, Deployed]:
        # Without edgeAgent its modules go too. Changed values of the chart win over what it made of them.
        if self._agent is None:
            return {}
        return {name: module for name, module in self._content.modules.items() if self._counts(module)}

    def _counts(self, module: Deployed) -> bool:
        return module.basis in ("", self._basis)

    def _find(self, name: str) -> Deployed | None:
        """One of `_counting`, without looking at the others."""
        module = self._content.modules.get(name)
        return module if module and self._agent is not None and self._counts(module) else None

    def _candidate(self, name: str, module: Deployed) -> Candidate:
        known = self._candidates.get(name)
        if known is None:
            known = self._candidates[name] = self._read(module)
        return known

    async def create(self, spec: Spec) -> None:
        """Add a module, which does not run yet."""
        async with self._lock:
            name = str(spec.get("name"))
            if name in self.modules:
                raise ModuleExistsError(f"module {name} exists; update or delete it")
            last = max((module.order for module in self._content.modules.values()), default=0)
            # Its pod is not to be taken for one of a module of that name that was removed just now.
            await self._put(name, Deployed(spec, restarts=self._content.runs, order=last + 1))

    async def update(self, name: str, spec: Spec, *, start: bool) -> None:
        """Replace a module, which then runs as `start` says."""
        async with self._lock:
            before = self._known(name)
            _is_named(spec, name)
            is_agent = name == EDGE_AGENT
            basis = self._basis if is_agent else ""
            running, number = start or is_agent, before.restarts + 1
            again = Deployed(spec, running, number, basis, since=_now(), order=before.order)
            await self._put(name, again)

    def prepare(self, name: str, spec: Spec) -> Module:
        """Judge a module that is to be created or updated, without doing it. Answers what it would be.

        Its ports are not judged: who holds them may be stopped before it is this module's turn.
        """
        _is_named(spec, name)
        return self._judge(name, Deployed(spec))[1]

    async def remove(self, name: str) -> None:
        """Take a module away."""
        async with self._lock:
            runs = max(self._content.runs, self._known(name).restarts + 1)
            self._not_agent(name, "removed")
            rest = {other: module for other, module in self._content.modules.items() if other != name}
            await self._save(replace(self._content, modules=rest, runs=runs), name)

    async def run(self, name: str, running: bool) -> bool:
        """Start or stop a module. Answers whether that changed anything.

        Raises SpecError where another one that runs has what it needs.
        """
        async with self._lock:
            module = self._known(name)
            if not running:
                self._not_agent(name, "stopped")
            if module.running == running and not (running and module.ended):
                return False
            if running:
                # One that ended by itself runs once more.
                wanted = _started(module, module.restarts + 1 if module.running else module.restarts)
                # Its ports may be those of another module by now.
                self._judge(name, wanted)
            else:
                wanted = replace(module, running=False, restarts=module.restarts + 1)
            await self._save(self._with(name, wanted), name)
            return True

    async def restart(self, name: str) -> None:
        """Restart a module; one that was stopped is started."""
        async with self._lock:
            module = self._known(name)
            again = _started(module, module.restarts + 1)
            if not module.running:
                self._judge(name, again)
            if name == EDGE_AGENT:
                again = replace(again, basis=self._basis)
            await self._save(self._with(name, again), name)

    def run_of(self, name: str) -> int:
        """The number of a module's run; 0 of one that is not edgeAgent's."""
        module = self._find(name)
        return module.restarts if module else 0

    def since(self, name: str) -> datetime | None:
        """When the run of a module was asked for; None where nobody asked."""
        module = self._find(name)
        return datetime.fromisoformat(module.since) if module and module.since else None

    def ended(self, name: str) -> Mapping[str, Any] | None:
        """How the last run of a module ended by itself; None where it did not."""
        module = self._find(name)
        return module.ended if module else None

    async def note_end(self, name: str, restarts: int, ended: Mapping[str, Any]) -> bool:
        """Note that a run ended by itself, so that nothing but a start gives the module another one.

        Answers whether it is noted; it is not where another run was asked for meanwhile.
        """
        async with self._lock:
            module = self._find(name)
            if module is None or not module.running or module.restarts != restarts:
                return False
            if module.ended != ended:
                await self._save(self._with(name, replace(module, ended=ended)), name)
            return True

    def adopt(self, identities: frozenset[str]) -> bool:
        """Take identities that are not the chart's for edgeAgent's, where the file that says so is lost.

        They would pass for some that left the set, and what their modules encrypted is lost with them; those
        that it wants no more edgeAgent removes itself. Answers whether that was done. On disk with the next
        change, or by `keep_adopted`.
        """
        if self._shelf.deployment is not None or self._agent is None or not identities:
            return False
        self._content = replace(self._content, identities=self._content.identities | identities)
        self._adopted = True
        return True

    async def keep_adopted(self) -> None:
        """See that what was adopted is on disk."""
        async with self._lock:
            if self._adopted:
                await self._save(self._content)

    async def keep_identity(self, name: str) -> None:
        """Note that an identity is edgeAgent's."""
        async with self._lock:
            if name not in self._content.identities:
                await self._save(replace(self._content, identities=self._content.identities | {name}))

    async def drop_identity(self, name: str) -> None:
        """Forget an identity."""
        async with self._lock:
            if name in self._content.identities:
                await self._save(replace(self._content, identities=self._content.identities - {name}))

    async def keep_pull_secrets(self, names: frozenset[str]) -> None:
        """Note which Secrets there are to pull images, before the first of them is made."""
        async with self._lock:
            if names != self._content.pull_secrets:
                await self._save(replace(self._content, pull_secrets=names))

    def _known(self, name: str) -> Deployed:
        module = self.modules.get(name)
        if module is None:
            raise UnknownModuleError(f"no module {name}")
        return module

    @staticmethod
    def _not_agent(name: str, what: str) -> None:
        if name == EDGE_AGENT:
            raise ModuleExistsError(f"{EDGE_AGENT} cannot be {what}: the daemon keeps it running")

    async def _put(self, name: str, module: Deployed) -> None:
        candidate, _module = self._judge(name, module)
        await self._save(self._with(name, module), name)
        self._candidates[name] = candidate

    def _judge(self, name: str, module: Deployed) -> tuple[Candidate, Module]:
        candidate = self._read(module)
        if candidate.module is None:
            raise SpecError("; ".join(candidate.problems))
        others = [other for other in self.candidates if other.name != name]
        refused = self._check([*others, candidate])
        if name in refused:
            raise SpecError(refused[name])
        return candidate, candidate.module

    def _with(self, name: str, module: Deployed) -> _Content:
        return replace(self._content, modules=self._content.modules | {name: module})

    async def _save(self, content: _Content, *touched: str) -> None:
        def keep() -> None:
            self._shelf.keep_deployment(content.document())
            # In the thread, so that what is on disk counts also where nobody waits for it any more.
            self._content = content
            self._adopted = False

        await to_the_end(keep)
        for name in touched:
            self._candidates.pop(name, None)
        self._changed()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _started(module: Deployed, run: int) -> Deployed:
    """The module as it runs from now on."""
    return replace(module, running=True, restarts=run, ended=None, since=_now())


def _is_named(spec: Spec, name: str) -> None:
    if spec.get("name") != name:
        raise SpecError(f"name is not {name}, which the path says")


def read(deployed: Deployed, release: str, own_secrets: frozenset[str], parent: str = "") -> Candidate:
    """The candidate for a module of edgeAgent."""
    return moduleset.from_spec(
        deployed.spec,
        release,
        own_secrets,
        running=deployed.running,
        restarts=deployed.restarts,
        parent=parent,
    )


def _spec_of(entry: Mapping[str, Any]) -> Spec:
    """An entry of the chart as the contract's ModuleSpec."""
    settings = {key: entry[key] for key in ("image", "createOptions") if key in entry}
    policies = {kubernetes: name for name, kubernetes in moduleset.CONTRACT_PULL_POLICIES.items()}
    env = entry.get("env")
    listed = env.items() if isinstance(env, dict) else ()
    return {
        "name": entry.get("name"),
        "type": "docker",
        "imagePullPolicy": policies.get(str(entry.get("imagePullPolicy")), "On-Create"),
        "config": {
            "settings": settings,
            "env": [{"key": key, "value": value} for key, value in listed],
        },
    }
