# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps identities at the hub and objects in the cluster as the module set says.

Two loops, each woken by what changed and by nothing else (besides a slow resync): `identities` talks to the
hub, `objects` to the cluster. A hub that is away so holds up new modules only, never known ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from lightkube import ApiError

from . import manifests, moduleset, pods
from .deployment import Deployment, read
from .events import WARNING, Events
from .hub import HubClient
from .hub_errors import HubError, HubUnavailableError
from .identities import Identities
from .images import Images
from .keystore import KeyStore, cannot_write
from .kube import AWAY, ERRORS, REFUSED, Cluster, ClusterError, describe
from .logs import fields
from .manifests import Addresses, Manifest, OwnerReference
from .module_pods import Basis, Listing, ModulePods, PodRefusedError
from .moduleset import EDGE_AGENT, Candidate, Module, ModuleSet, ModuleSetError
from .pods import Board, Pod, Trouble
from .settings import Settings
from .threads import to_the_end
from .volumes import Volumes

RESYNC_SECONDS = 600.0
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
# Gathers changes that come together, and keeps a quarrel with another controller from spinning.
SETTLE_SECONDS = 0.2
# A changed set of images costs a pod on each machine; what edgeAgent makes one by one is one change.
IMAGES_SETTLE_SECONDS = 3.0
UNEXPECTED = "internal error, see the daemon's log"

_log = logging.getLogger(__name__)


class NameTakenError(Exception):
    """The name of a module is that of somebody else's Service."""


class Modules:
    """The modules of one gateway.

    `run` never returns. `accounts` and `not_ready` may be read at any time.
    """

    def __init__(self, settings: Settings, store: KeyStore, hub: HubClient, cluster: Cluster) -> None:
        self._settings = settings
        self._store = store
        self._cluster = cluster
        self._desired: ModuleSet | None = None
        self._set_problem = f"ConfigMap {settings.modules_config_map} was not seen yet"
        self._set_text = ""  # the last one that could be read
        self._accepted: dict[str, Module] = {}  # by name, as they were last accepted
        self._owner: OwnerReference | None = None
        self._addresses = Addresses()
        self._base: list[Candidate] = []
        # By object name: what the objects besides pods were last made of, as far as all was done.
        self._applied: dict[str, Basis] = {}
        self._named: set[str] = set()  # Services of modules' names that are known to be this gateway's
        self._apply_all = False
        self._making: Counter[str] = Counter()
        self._problems: dict[str, dict[str, str]] = {"hub": {}, "cluster": {}, "images": {}}
        self._wake_hub = asyncio.Event()
        self._wake_cluster = asyncio.Event()
        self._wake_images = asyncio.Event()
        self._keep_all = True
        self.images = Images(settings, cluster)
        self.events = Events(settings, cluster)
        self.identities = Identities(store, hub, self._wake_cluster.set)
        self.pods = Board(settings.slot)
        self._volumes = Volumes(cluster, self.pods, self._volume_is_late)
        self.deployment = Deployment(
            store,
            read=lambda deployed: read(
                deployed, settings.release, frozenset(settings.own_secrets), settings.parent_host
            ),
            check=lambda candidates: self._together(candidates).refused,
            changed=self._deployment_changed,
        )
        _key, certificate = store.transport()
        self._module_pods = ModulePods(
            settings,
            cluster,
            self.deployment,
            self.events,
            self.pods,
            certificate=certificate,
            look=self._wake_cluster.set,
        )

    @property
    def accounts(self) -> Mapping[str, str] | None:
        """ServiceAccount name to the name of the module's identity, for the modules that are desired now.

        None while nobody knows which those are.
        """
        return self._desired.accounts if self._desired else None

    @property
    def agent(self) -> str:
        """Identity of edgeAgent, empty where there is none."""
        return self._desired.agent if self._desired else ""

    @property
    def own_identities(self) -> frozenset[str]:
        """Identities of the chart's modules, which the daemon makes and removes; that of edgeAgent too."""
        found = self._desired.modules if self._desired else ()
        return frozenset(module.identity for module in found if not module.deployed or module.is_agent)

    @contextlib.contextmanager
    def making(self, identity: str) -> Iterator[None]:
        """While edgeAgent's identity is made it is not one that left the set, although nothing tells yet."""
        self._making[identity] += 1
        try:
            yield
        finally:
            self._making[identity] -= 1
            self._making += Counter()  # drops what is not above zero

    def not_ready(self) -> list[str]:
        """What still keeps the gateway from running its module set; empty when it does."""
        if self._desired is None:
            return [self._set_problem]
        reasons = [f"module {name}: {reason}" for name, reason in self._desired.refused.items()]
        if self._set_problem:
            reasons.append(self._set_problem)
        for module in self._desired.modules:
            if module.identity not in self.identities.known:
                reason = self._problems["hub"].get(module.identity, "waiting for its identity at the hub")
                reasons.append(f"module {module.name}: {reason}")
            elif not self._is_applied(module):
                problems = self._problems["cluster"]
                waits = "the pod before it still ends" if module.object_name in self._applied else ""
                reason = problems.get(module.name) or problems.get("", waits or "waiting for its objects")
                reasons.append(f"module {module.name}: {reason}")
            elif module.running and (reason := self._late(module)):
                reasons.append(f"module {module.name}: {reason}")
        return reasons

    def states(self) -> dict[str, str]:
        """State of each desired module, in the contract's words."""
        found = self._desired.modules if self._desired else ()
        return {module.name: self.status(module.name, running=module.running).status for module in found}

    def status(self, name: str, *, running: bool) -> pods.Status:
        """How a module is, with what keeps it from running. `running`: whether it shall run."""
        return pods.status(
            self._module_pods.of_run(name),
            running=running,
            trouble=self._trouble(name),
            ended=self._module_pods.ended(name),
            since=self.deployment.since(name),
        )

    def has_ended(self, name: str) -> bool:
        """Whether a module ended by itself, as far as is known now."""
        return self._module_pods.has_ended(name)

    def elsewhere(self) -> dict[str, str]:
        """For each module that shall run: why it is not on the daemon's machine, empty where nothing says so.

        One that its own rules keep from every machine is told too.
        """
        found = self._desired.modules if self._desired else ()
        return {module.name: self._elsewhere(module) for module in found if module.running}

    def _elsewhere(self, module: Module) -> str:
        here = self._settings.node_name
        there = [pod for pod in self.pods.of(module.name) if not pod.going]
        pod = pods.newest(there) if there else None
        if pod and pod.node and pod.node != here:
            return (
                f"its pod is on node {pod.node}, and the daemon of its slot on node {here}: delete the pod, "
                "and a new one comes to the daemon"
            )
        if pod and pod.homeless and {"nodeSelector", "affinity"} & module.parts.pod.keys():
            return (
                f"its pod belongs on node {here}, to the daemon of its slot: make its own nodeSelector and "
                "affinity fit that node, or take them out"
            )
        return ""

    def _trouble(self, name: str) -> Trouble | None:
        """What is wrong with a module that its pods do not tell."""
        desired = self._desired
        if desired is None:
            return None
        if name in desired.refused:
            return Trouble(f"refused: {desired.refused[name]}", True)
        module = next((one for one in desired.modules if one.name == name), None)
        if module is None:
            return None
        if module.identity not in self.identities.known:
            reason = self._problems["hub"].get(module.identity)
            return Trouble(reason, False) if reason else None
        refused = self._module_pods.refused(module)
        if reason := refused.get(self._settings.slot):
            return Trouble(f"its pod is not made: {reason}", True)
        # That of a standby is nothing to the slot that works.
        if (reason := self._problems["cluster"].get(name)) and not refused:
            return Trouble(reason, True)
        if reason := self._elsewhere(module):
            return Trouble(reason, False)
        found = self.pods.of(name)
        pod = pods.newest(found) if found else None
        return self._volumes.of(pod) if pod and pod.waits else None

    def _late(self, module: Module) -> str:
        """What keeps an applied module from running that only a person can put right; empty where nothing."""
        if reason := self._elsewhere(module):
            return reason
        trouble = self._trouble(module.name)
        return trouble.text if trouble and trouble.lasting else ""

    async def run(self) -> None:
        """Follow the module set and the objects until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._cluster.follow_config_map(self._settings.modules_config_map, self.take))
            group.create_task(
                self._cluster.follow_pods(
                    manifests.selector(self._settings.release), self._pod_changed, self._pods_there
                )
            )
            group.create_task(self._loop("hub", self._wake_hub, self._identities))
            group.create_task(self._loop("cluster", self._wake_cluster, self._objects))
            group.create_task(self.events.run())
            group.create_task(self._volumes.run())
            group.create_task(
                self._loop("images", self._wake_images, self._images, self._images_settle_seconds)
            )

    def take(self, data: dict[str, str] | None) -> None:
        """Take the data of the ConfigMap with the module set; None when there is none.

        One that is gone or cannot be read changes nothing: somebody's slip must not take a gateway's modules
        away. A daemon that starts then goes on with the last one that could be read.
        """
        name = f"ConfigMap {self._settings.modules_config_map}"
        if data is None:
            self._set_is_wrong(f"{name} was deleted; its last content stands")
            return
        text = data.get("modules.json", "")
        try:
            entries = moduleset.entries(text)
        except ModuleSetError as error:
            self._set_is_wrong(f"{name}: {error}")
            return
        self._set_problem = ""
        self._set_text = text
        # The next pass keeps it.
        self._wake_cluster.set()
        self._take(entries)

    def _set_is_wrong(self, problem: str) -> None:
        if problem != self._set_problem:
            _log.error(problem)
        self._set_problem = problem
        if self._desired is not None or not self._store.module_set:
            return
        try:
            entries = moduleset.entries(self._store.module_set)
        except ModuleSetError as error:
            _log.error("the kept module set cannot be read either", extra=fields(reason=str(error)))
            return
        _log.warning("module set of before")
        self._take(entries)

    async def _keep_set(self) -> None:
        text = self._set_text
        if not text or text == self._store.module_set:
            return
        try:
            await to_the_end(self._store.keep_module_set, text)
        except OSError as error:
            _log.warning("module set not kept", extra=fields(reason=cannot_write(error)))

    def _take(self, entries: list[Any]) -> None:
        own_secrets = frozenset(self._settings.own_secrets)
        self._base = [
            moduleset.from_entry(
                entry, number, self._settings.release, own_secrets, self._settings.parent_host
            )
            for number, entry in enumerate(entries)
        ]
        agents = (entry for entry in entries if isinstance(entry, dict) and entry.get("name") == EDGE_AGENT)
        self.deployment.set_agent(next(agents, None))
        if self._desired is None:
            self._adopt()
        self._desire(self._together(self.deployment.candidates))

    def _adopt(self) -> None:
        """Where nothing says which identities are edgeAgent's, those are that the chart never had."""
        chart = {candidate.name for candidate in self._base}
        with contextlib.suppress(ModuleSetError):
            # One that left the chart while no daemon was there is to go at the hub.
            chart |= {str(entry["name"]) for entry in moduleset.entries(self._store.module_set)}
        names = self.identities.known.keys() - {moduleset.identity_name(name) for name in chart}
        if self.deployment.adopt(frozenset(names)):
            _log.warning(
                "what edgeAgent asked for is lost; the identities stay",
                extra=fields(identities=sorted(names)),
            )

    def tell(self, kind: str, name: str, reason: str, message: str) -> None:
        """Tell a Kubernetes event about a module."""
        self.events.tell(kind, self._object_name(name), reason, message)

    def reprovision(self) -> None:
        """Look at everything anew, at the hub and in the cluster."""
        self.identities.forget_checks()
        self._apply_all = True
        self._wake_hub.set()
        self._wake_cluster.set()

    def _together(self, deployed: list[Candidate]) -> ModuleSet:
        """The set of the chart's modules and those of edgeAgent; it may have replaced itself."""
        replaced = {candidate.name for candidate in deployed} & {EDGE_AGENT}
        base = [candidate for candidate in self._base if candidate.name not in replaced]
        # All pods of a slot are on one machine, so a volume of one machine will do too.
        shares = self._settings.storage_access_mode != "ReadWriteOncePod"
        return moduleset.assemble([*base, *deployed], self._settings.release, shares_volumes=shares)

    def _deployment_changed(self) -> None:
        if self._desired is not None:
            self._desire(self._together(self.deployment.candidates))

    def _desire(self, desired: ModuleSet) -> None:
        if desired == self._desired:
            return
        self._desired = desired
        self._accepted = {name: one for name, one in self._accepted.items() if name in desired.refused}
        self._accepted |= {module.name: module for module in desired.modules}
        _log.info("module set", extra=fields(modules=sorted(desired.names)))
        self._wake_hub.set()
        self._wake_cluster.set()
        self._wake_images.set()
        for name, reason in desired.refused.items():
            _log.error("module refused", extra=fields(module=name, reason=reason))
            self.tell(WARNING, name, "Refused", f"module {name} is refused: {reason}")

    def _pod_changed(self, kind: str, found: Any) -> None:
        pod = self.pods.put(kind, found)
        self._volumes.look()
        if pod is None or self._desired is None:
            return
        if self._module_pods.saw(pod, gone=kind == "DELETED") or self._is_over(pod, self._desired):
            self._wake_cluster.set()

    def _is_over(self, pod: Pod, desired: ModuleSet) -> bool:
        """Whether a pod is that of a module, or of a slot, that is no more."""
        known = pod.module in desired.names and pod.slot in self._settings.slots
        return not (known or pod.going)

    def _pods_there(self, names: set[str]) -> None:
        for pod in self.pods.keep(names):
            self._module_pods.unsettle(pod.module)
            self._wake_cluster.set()

    def _object_name(self, module: str) -> str:
        return moduleset.object_name(self._settings.release, module)

    def _volume_is_late(self, module: str, text: str) -> None:
        _log.error("module waits", extra=fields(module=module, reason=text))
        self.tell(WARNING, module, "VolumeNotThere", f"module {module}: {text}")

    async def _loop(
        self,
        side: str,
        wake: asyncio.Event,
        work: Callable[[], Awaitable[dict[str, str]]],
        settle: Callable[[], float] = lambda: SETTLE_SECONDS,
    ) -> None:
        failures = 0
        clock = asyncio.get_running_loop().time
        resync = clock() + RESYNC_SECONDS
        while True:
            try:
                problems = await work()
            except Exception:
                # What nobody thought of ends this pass, and not the daemon that signs for running modules.
                _log.exception("%s: the pass failed", side)
                problems = {"": UNEXPECTED}
            if problems != self._problems[side]:
                for name, reason in problems.items():
                    _log.error("%s: %s", side, reason, extra=fields(**({"module": name} if name else {})))
                    if name and side == "cluster":
                        self.tell(WARNING, name, "ObjectsNotMade", f"module {name}: {reason}")
                    elif name and name not in self.identities.known:
                        # A module that has its identity goes on with the hub away, and needs no word of it.
                        self.tell(WARNING, name, "IdentityNotMade", f"module {name}: {reason}")
                if not problems:
                    _log.info("%s: all well", side)
                self._problems[side] = problems
            failures = failures + 1 if problems else 0
            pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1] if problems else RESYNC_SECONDS
            try:
                async with asyncio.timeout(max(0.0, min(pause, resync - clock()))):
                    await wake.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(settle())
            wake.clear()
            if clock() >= resync:
                # Whatever else goes on: one module's trouble is no reason to look at no other one.
                resync = clock() + RESYNC_SECONDS
                self._forget_checks(side)

    def _forget_checks(self, side: str) -> None:
        """At a resync everything is looked at again: a watch or the hub may have moved unseen."""
        if side == "hub":
            self.identities.forget_checks()
        elif side == "images":
            self._keep_all = True
        else:
            self._apply_all = True

    def _images_settle_seconds(self) -> float:
        return IMAGES_SETTLE_SECONDS if self.images.are_kept else SETTLE_SECONDS

    async def _images(self) -> dict[str, str]:
        """One pass over the images. Its problem stands under ''; the gateway works without it."""
        desired = self._desired
        if desired is None:
            return {}
        everything, self._keep_all = self._keep_all, False
        try:
            if everything:
                await self.images.remove_leftovers()
            await self.images.keep(desired.modules, await self._known_owner(), everything=everything)
        except (*ERRORS, ClusterError) as error:
            self._keep_all |= everything
            return {"": describe(error)}
        return {}

    async def _known_owner(self) -> OwnerReference:
        if self._owner is None:
            self._owner = await self._cluster.owner(self._settings.daemon_name)
        return self._owner

    async def pull(self, module: Module) -> None:
        """See that the image of a module is there before it is made or updated. Raises ImageError."""
        if self.pods.runs(module.image, self._settings.node_name):
            return
        try:
            owner = await self._known_owner()
        except (*ERRORS, ClusterError) as error:
            _log.warning("image not looked for", extra=fields(image=module.image, reason=describe(error)))
            return
        await self.images.pull(module, owner)

    async def _identities(self) -> dict[str, str]:
        """One pass at the hub. Answers the problems by module id."""
        if self._desired is None:
            return {}
        problems: dict[str, str] = {}
        # edgeAgent makes and removes its own; those are only looked after here.
        own = self.own_identities
        wanted = sorted(own | self.deployment.identities)
        try:
            for name in wanted:
                if self.identities.is_checked(name):
                    continue
                try:
                    await self._look_after(name, create=name in own)
                except HubUnavailableError:
                    raise
                except HubError as error:
                    problems[name] = str(error)
            await self.deployment.keep_adopted()
            # Only identities this daemon made, and only names that left the set and have not come back since.
            for name in sorted(self.identities.known):
                if name not in self._desired.identities | self.deployment.identities | self._making.keys():
                    await self.identities.remove(name)
        except HubError as error:
            # Away, or refusing the device itself: asking for the others would tell nothing new.
            waiting = [name for name in wanted if not self.identities.is_checked(name)] or [""]
            problems.update(dict.fromkeys(waiting, str(error)))
        except OSError as error:
            problems[""] = cannot_write(error)
        return problems

    async def _look_after(self, name: str, *, create: bool) -> None:
        if await self.identities.ensure(name, create=create) is not None:
            return
        if name in self.identities.known:
            _log.warning("edgeAgent's identity is gone at the hub", extra=fields(module=name))
        elif name not in self._making:
            # Its removal was cut short. Somebody else's identity of that name is not to get our keys later.
            await self.deployment.drop_identity(name)

    async def _objects(self) -> dict[str, str]:
        """One pass over the cluster's objects. Answers the problems, by module id or under ''."""
        desired = self._desired
        if desired is None:
            return {}
        problems: dict[str, str] = {}
        await self._keep_set()
        # Taken before the first call: who asks for it meanwhile asks for the next pass.
        everything, self._apply_all = self._apply_all, False
        finished = False
        try:
            await self._known_owner()
            if everything:
                self._named.clear()
            await self._look_for_addresses(with_gateway=bool(desired.agent), everything=everything)
            # One question for all of them, where all of them are looked at.
            there = await self._module_pods.listing(None) if everything else None
            for module in desired.modules:
                with self._alone(module.name, problems):
                    await self._apply(module, there)
                if module.name in problems:
                    self._applied.pop(module.object_name, None)
            for name in sorted(desired.refused.keys() & self._accepted.keys()):
                with self._alone(name, problems):
                    await self._stand_by(self._accepted[name], there)
            finished = True
            await self._remove_pull_secrets(desired, problems)
            await self._remove_what_is_over(desired, problems)
        except (*ERRORS, ClusterError) as error:
            return problems | {"": describe(error)}
        except OSError as error:
            return problems | {"": cannot_write(error)}
        finally:
            self._apply_all |= everything and not finished
        return problems

    @staticmethod
    @contextlib.contextmanager
    def _alone(name: str, problems: dict[str, str]) -> Iterator[None]:
        """What goes wrong inside is told under a module's name (or ''), and is no trouble of the others.

        Only an API server that is away is everybody's.
        """
        try:
            yield
        except AWAY:
            raise
        except (NameTakenError, PodRefusedError) as error:
            problems[name] = str(error)
        except ERRORS as error:
            problems[name] = describe(error)
        except OSError as error:
            problems[name] = cannot_write(error)
        except Exception:
            _log.exception("cluster: unexpected", extra=fields(module=name))
            problems[name] = UNEXPECTED

    async def _look_for_addresses(self, *, with_gateway: bool, everything: bool) -> None:
        daemon, gateway = self._addresses.daemon, self._addresses.gateway
        if everything or not daemon:
            daemon = await self._cluster.address(self._settings.daemon_name)
        if self._settings.gateway_service and with_gateway:
            gateway = await self._cluster.address(self._settings.gateway_service)
        self._addresses = Addresses(daemon, gateway)

    async def _remove_what_is_over(self, desired: ModuleSet, problems: dict[str, str]) -> None:
        """Delete objects of modules that are gone, and of slots and ports that modules have no more.

        Something else of such a name, without the labels of a module, is somebody else's.
        """
        for pod in self.pods.all():
            if self._is_over(pod, desired):
                with self._alone("", problems):
                    await self._remove("Pod", pod.name)
        kept = {self._object_name(name) for name in desired.names}
        # Those of refused modules too, whose objects stay.
        host_names = {moduleset.host_name(name) for name in desired.names} - {""}
        without_ports = {module.object_name for module in desired.modules if not module.parts.ports}
        wanted = {"Service": (kept - without_ports) | host_names, "ServiceAccount": kept}
        there = await self._cluster.object_names(manifests.selector(self._settings.release))
        for kind, names in there.items():
            for name in sorted(names - wanted[kind]):
                with self._alone("", problems):
                    await self._remove(kind, name)
                    if kind == "Service":
                        self._named.discard(name)
        for name in self._applied.keys() - kept:
            del self._applied[name]
            self._module_pods.forget(name)
            self.events.forget(name)
        self._module_pods.tidy()

    async def _remove(self, kind: str, name: str) -> None:
        await self._cluster.delete(kind, name)
        _log.info("object removed", extra=fields(kind=kind, object=name))

    async def _apply(self, module: Module, there: Listing | None) -> None:
        """Make what a module is made of. `there`: the pods of all modules, None where only news count."""
        basis, name = self._basis(module), module.object_name
        if basis is None or (there is None and self._is_applied(module)):
            return
        known = there is None and self._applied.get(name) == basis
        if not known:
            self._applied.pop(name, None)
            await self._apply_what_pods_need(module, basis.owner)
        await self._module_pods.place(basis, there)
        if known:
            return
        # Last: where the name is somebody else's in this namespace, the module runs all the same.
        name_service = manifests.name_service(module, self._settings, basis.owner)
        if name_service is not None:
            await self._apply_name(name_service)
        self._applied[name] = basis
        _log.info("module objects applied", extra=fields(module=module.name, object=name))

    async def _apply_what_pods_need(self, module: Module, owner: OwnerReference) -> None:
        account = await self._cluster.apply(manifests.service_account(module, self._settings, owner))
        if not self._module_pods.has_any(module):
            self.events.know(module.object_name, "ServiceAccount", account.name, account.uid)
        for claim in manifests.claims(module, self._settings):
            await self._cluster.ensure_claim(claim)
        secret = manifests.pull_secret(module, self._settings, owner)
        if secret is not None:
            await self._apply_pull_secret(manifests.pull_secret_name(module), secret)
        service = manifests.service(module, self._settings, owner)
        if service is not None:
            await self._cluster.apply(service)

    async def _stand_by(self, module: Module, there: Listing | None) -> None:
        """A module that is refused now stays as it was when it was accepted, also when its pod is taken."""
        basis = self._basis(module)
        if basis is not None and not (there is None and self._module_pods.is_settled(basis)):
            await self._module_pods.place(basis, there)

    async def _apply_name(self, wanted: Manifest) -> None:
        """Raises NameTakenError where the Service is not this gateway's; force would take it from them."""
        name = wanted["metadata"]["name"]
        found = None if name in self._named else await self._cluster.labels_of_service(name)
        if found is not None and not manifests.selector(self._settings.release).items() <= found.items():
            raise NameTakenError(
                f"other modules do not find it by its id: Service {name} is somebody else's, rename one"
            )
        await self._cluster.apply(wanted)
        self._named.add(name)

    async def _apply_pull_secret(self, name: str, secret: Manifest) -> None:
        """Noted before it is made, so that it is removed one day; one of somebody else is left alone."""
        before = self.deployment.pull_secrets
        await self.deployment.keep_pull_secrets(before | {name})
        try:
            await self._cluster.apply(secret, force=False)
        except ApiError as error:
            if error.status.code in REFUSED:
                await self.deployment.keep_pull_secrets(before)
            raise

    async def _remove_pull_secrets(self, desired: ModuleSet, problems: dict[str, str]) -> None:
        """Delete the Secrets of modules that are gone, or whose images need no login any more."""
        wanted = {manifests.pull_secret_name(module) for module in desired.modules if module.registry}
        # Objects of a refused module stay as they are.
        wanted |= {f"{self._object_name(name)}-registry" for name in desired.refused}
        gone = set()
        for name in sorted(self.deployment.pull_secrets - wanted):
            with self._alone("", problems):
                await self._cluster.delete("Secret", name)
                gone.add(name)
        if gone:
            with self._alone("", problems):
                await self.deployment.keep_pull_secrets(self.deployment.pull_secrets - gone)

    def _basis(self, module: Module) -> Basis | None:
        """What a module's objects are to be made of now; None as long as not all of it is known."""
        generation = self.identities.known.get(module.identity)
        if generation is None or self._owner is None:
            return None
        return Basis(module, generation, self._owner, self._addresses)

    def _is_applied(self, module: Module) -> bool:
        basis = self._basis(module)
        if basis is None or self._applied.get(module.object_name) != basis:
            return False
        return self._module_pods.is_settled(basis)
