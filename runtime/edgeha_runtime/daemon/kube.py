# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few calls the daemon makes to the cluster's API, on lightkube."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

import httpx2
from lightkube import ApiError, AsyncClient
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ConfigError
from lightkube.models.authentication_v1 import TokenReviewSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import DaemonSet
from lightkube.resources.authentication_v1 import TokenReview
from lightkube.resources.core_v1 import (
    ConfigMap,
    Event,
    PersistentVolumeClaim,
    Pod,
    PodLog,
    Secret,
    Service,
    ServiceAccount,
)
from lightkube.types import CascadeType, PatchType

from .callers import Place, Review, ReviewUnavailableError, normal
from .logs import fields
from .manifests import NO_SLOT, SLOT_LABEL, Manifest, OwnerReference

FIELD_MANAGER = "edgeha-daemon"
CALL_SECONDS = 10.0
WATCH_SECONDS = 120
# Of a line of a log, at a time. A module may write without ever ending a line.
MAX_PIECE = 64 * 1024
# How long past the server's own limit a silent watch counts as cut (a dead API server sends no end).
WATCH_GRACE = 15
RETRY_SECONDS = (1, 2, 4, 8, 15)
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"

_log = logging.getLogger(__name__)

_OfModule = ServiceAccount | Service
_OF_MODULES: tuple[type[_OfModule], ...] = (Service, ServiceAccount)
_RESOURCES: Mapping[str, type[_OfModule | DaemonSet | PersistentVolumeClaim | Pod | Secret]] = {
    kind.__name__: kind for kind in (*_OF_MODULES, DaemonSet, PersistentVolumeClaim, Pod, Secret)
}

# What a call raises when the API server refuses or is away.
ERRORS = (ApiError, httpx2.HTTPError, TimeoutError)
# Of these, what says that nobody is there to answer about any object.
AWAY = (httpx2.ConnectError, httpx2.ConnectTimeout)
# What Kubernetes calls normal: a claim without a class, for which there is no volume.
UNBOUND = "FailedBinding"
# Statuses by which the API server says of one object that it will not have it.
REFUSED = frozenset({400, 403, 409, 422})


class ClusterError(Exception):
    """The cluster's API cannot be used; the message says why."""


def connect(namespace: str) -> AsyncClient:
    """Client for the cluster this pod runs in (or for KUBECONFIG)."""
    try:
        return AsyncClient(
            config=KubeConfig.from_env(),
            namespace=namespace,
            timeout=httpx2.Timeout(CALL_SECONDS),
            field_manager=FIELD_MANAGER,
            trust_env=False,  # the way to the hub may lead through a proxy, the way to the API never does
        )
    except ConfigError as error:
        raise ClusterError(f"no way to the cluster's API: {error}") from error


def describe(error: BaseException) -> str:
    """One line for an error of ERRORS, or a ClusterError."""
    if isinstance(error, ClusterError):
        return str(error)
    if isinstance(error, ApiError):
        return f"API server: {error.status.message or error.status.reason} ({error.status.code})"
    if isinstance(error, httpx2.HTTPStatusError):
        # Of something before the API server, which answers in no words of Kubernetes.
        return f"API server: answered {error.response.status_code}"
    return f"API server does not answer: {error or type(error).__name__}"


class TokenReviewer:
    """Asks the API server whose a token is. Needs the right to create TokenReviews."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def __call__(self, token: str, audience: str) -> Review:
        question = TokenReview(spec=TokenReviewSpec(audiences=[audience], token=token))
        try:
            answer = await self._client.create(question)
        except ERRORS as error:
            raise ReviewUnavailableError(describe(error)) from error
        status = answer.status
        if status is None or not status.authenticated or status.user is None:
            return Review(authenticated=False)
        extra: Mapping[str, Any] = status.user.extra or {}
        return Review(
            authenticated=True,
            username=status.user.username or "",
            audiences=tuple(status.audiences or ()),
            pod=next(iter(extra.get(_POD_NAME) or ()), ""),
            uid=next(iter(extra.get(_POD_UID) or ()), ""),
        )


async def pieces(parts: AsyncIterator[bytes]) -> AsyncGenerator[str]:
    """The lines of a text that comes in parts, each with its newline; long ones MAX_PIECE bytes at a time."""
    rest = bytearray()
    async for part in parts:
        *whole, begun = part.split(b"\n")
        for end in whole:
            rest += end
            rest += b"\n"
            for start in range(0, len(rest), MAX_PIECE):
                yield _text(rest[start : start + MAX_PIECE])
            rest.clear()
        rest += begun
        # Something stays to be ended: nobody knows yet whether a newline is next.
        while len(rest) > MAX_PIECE:
            yield _text(rest[:MAX_PIECE])
            del rest[:MAX_PIECE]
    if rest:
        yield _text(rest) + "\n"


def _text(raw: bytes | bytearray) -> str:
    return raw.decode(errors="surrogateescape")


def _uid(pod: Pod) -> str:
    return (pod.metadata.uid if pod.metadata else None) or ""


def _addresses(pod: Pod) -> frozenset[str]:
    listed = (pod.status.podIPs if pod.status else None) or ()
    return frozenset(normal(one.ip) for one in listed if one.ip)


class Applied(NamedTuple):
    """What became of an object."""

    name: str
    uid: str


def _moment(event: Event) -> datetime:
    made = event.metadata.creationTimestamp if event.metadata else None
    return event.lastTimestamp or event.eventTime or made or datetime.fromtimestamp(0, UTC)


class Cluster:
    """Objects of one gateway in its namespace."""

    def __init__(self, client: AsyncClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def owner(self, account: str) -> OwnerReference:
        """Reference to the daemon's own ServiceAccount."""
        found = await self._client.get(ServiceAccount, account, namespace=self._namespace)
        if found.metadata is None or not found.metadata.uid:
            raise ClusterError(f"ServiceAccount {account} has no uid")
        return OwnerReference(account, found.metadata.uid)

    async def address(self, service: str) -> str:
        """Address of a Service in the cluster."""
        found = await self._client.get(Service, service, namespace=self._namespace)
        address = found.spec.clusterIP if found.spec else None
        if not address or address == "None":
            raise ClusterError(f"Service {service} has no address")
        return address

    async def labels_of_service(self, name: str) -> Mapping[str, str] | None:
        """Labels of a Service; None where there is none."""
        try:
            found = await self._client.get(Service, name, namespace=self._namespace)
        except ApiError as error:
            if error.status.code != 404:
                raise
            return None
        return (found.metadata.labels if found.metadata else None) or {}

    async def place(self, pod: str) -> Place | None:
        """Where a pod is in the network, None where there is no such pod. Raises ReviewUnavailableError."""
        try:
            # Listed by its name: the daemon has no right to get a pod.
            listed = self._client.list(Pod, namespace=self._namespace, fields={"metadata.name": pod})
            found = await anext(aiter(listed), None)
            if found is None:
                return None
            if not (found.spec and found.spec.hostNetwork):
                return Place(_uid(found), _addresses(found))
            # What a pod sends by the node's network may have any address of the node's, such as a bridge's;
            # known is that it has none of another pod.
            others: set[str] = set()
            async for other in self._client.list(Pod, namespace=self._namespace):
                ended = other.status and other.status.phase in ("Succeeded", "Failed")
                if not ended and not (other.spec and other.spec.hostNetwork):
                    others |= _addresses(other)
        except ERRORS as error:
            raise ReviewUnavailableError(describe(error)) from error
        hosts = (found.status.hostIPs if found.status else None) or ()
        own = _addresses(found) | {normal(one.ip) for one in hosts if one.ip}
        return Place(_uid(found), own, on_node=True, others=frozenset(others))

    async def create_event(self, manifest: Manifest) -> None:
        """Write an event."""
        # lightkube's types leave out kinds that can be listed in all namespaces.
        await self._client.create(Event.from_dict(manifest), namespace=self._namespace)  # type: ignore[call-overload]

    async def apply(self, manifest: Manifest, *, force: bool = True, dry_run: bool = False) -> Applied:
        """Server-side apply; changes nothing when nothing differs, nor with `dry_run`.

        Without `force` an object whose content is somebody else's stays as it is: the API server answers 409.
        """
        applied = await self._client.patch(
            _RESOURCES[manifest["kind"]],
            manifest["metadata"]["name"],
            manifest,
            namespace=self._namespace,
            patch_type=PatchType.APPLY,
            force=force,
            dry_run=dry_run,
        )
        metadata = applied.metadata or ObjectMeta()
        return Applied(metadata.name or "", metadata.uid or "")

    async def pods(self, labels: Mapping[str, str]) -> list[Pod]:
        """All pods with these labels, as the API server knows them now."""
        return [
            found async for found in self._client.list(Pod, namespace=self._namespace, labels=dict(labels))
        ]

    async def ensure_claim(self, manifest: Manifest) -> None:
        """Make a claim that is not there. One that is stays as it is: most of it cannot be changed."""
        try:
            await self._client.get(
                PersistentVolumeClaim, manifest["metadata"]["name"], namespace=self._namespace
            )
        except ApiError as error:
            if error.status.code != 404:
                raise
            await self.apply(manifest)

    async def claim_phase(self, name: str) -> str:
        """Phase of a claim: Pending, Bound or Lost; empty where there is no such claim."""
        try:
            found = await self._client.get(PersistentVolumeClaim, name, namespace=self._namespace)
        except ApiError as error:
            if error.status.code != 404:
                raise
            return ""
        return (found.status.phase if found.status else None) or "Pending"

    async def warnings(self, kind: str, name: str) -> list[tuple[str, str]]:
        """Reason and message of each warning about an object, the newest last."""
        about: dict[str, Any] = {"involvedObject.kind": kind, "involvedObject.name": name}
        # lightkube's types leave out kinds that can be listed in all namespaces.
        listed = self._client.list(Event, namespace=self._namespace, fields=about)
        found = [event async for event in listed if event.type == "Warning" or event.reason == UNBOUND]
        found.sort(key=_moment)
        return [(event.reason or "", event.message or "") for event in found]

    async def object_names(self, labels: Mapping[str, str]) -> dict[str, set[str]]:
        """Names of all objects of modules with these labels besides their pods, by kind."""
        return {kind.__name__: await self._names(kind, labels) for kind in _OF_MODULES}

    async def _names(self, kind: type[_OfModule | Pod], labels: Mapping[str, str]) -> set[str]:
        listed = self._client.list(kind, namespace=self._namespace, labels=dict(labels))
        return {found.metadata.name async for found in listed if found.metadata and found.metadata.name}

    async def going(self, labels: Mapping[str, str]) -> list[str]:
        """Names of the pods with these labels that somebody deleted and that are still there."""
        found = await self.pods(labels)
        return [
            pod.metadata.name
            for pod in found
            if pod.metadata and pod.metadata.name and pod.metadata.deletionTimestamp
        ]

    async def pod_names(self, labels: Mapping[str, str]) -> set[str]:
        """Names of all pods with these labels."""
        return await self._names(Pod, labels)

    async def delete(self, kind: str, name: str) -> None:
        """Delete an object of a module; gone already is fine."""
        try:
            await self._client.delete(
                _RESOURCES[kind], name, namespace=self._namespace, cascade=CascadeType.BACKGROUND
            )
        except ApiError as error:
            if error.status.code != 404:
                raise

    async def give_up(self, pod: str) -> None:
        """Take a pod out of its slot, so that no Service leads to it any more; gone already is fine.

        A Service with addresses that are not ready leads to one that goes until its kubelet says that it
        ended, and a machine without power says nothing for days.
        """
        change = {"metadata": {"labels": {SLOT_LABEL: NO_SLOT}}}
        try:
            await self._client.patch(Pod, pod, change, namespace=self._namespace, patch_type=PatchType.MERGE)
        except ApiError as error:
            if error.status.code != 404:
                raise

    async def follow_config_map(self, name: str, changed: Callable[[dict[str, str] | None], None]) -> None:
        """Call `changed` with the data now and at each change, None where there is none. Never returns."""
        where: dict[str, Any] = {"metadata.name": name}

        async def before() -> None:
            listed = self._client.list(ConfigMap, namespace=self._namespace, fields=where)
            if not [found async for found in listed]:
                changed(None)

        def event(kind: str, found: ConfigMap) -> None:
            changed(None if kind == "DELETED" else dict(found.data or {}))

        await self._follow(ConfigMap, event, before, fields=where)

    async def follow_pods(
        self,
        labels: Mapping[str, str],
        changed: Callable[[str, Any], None],
        there: Callable[[set[str]], None],
    ) -> None:
        """Call `changed` with kind of event and Pod (of lightkube). Never returns.

        `there` gets the names of all pods before each watch: the one before may have missed the end of some.
        """

        async def before() -> None:
            there(await self._names(Pod, labels))

        await self._follow(Pod, changed, before, labels=dict(labels))

    async def follow_pod(self, name: str, changed: Callable[[Any], None]) -> None:
        """Call `changed` with the Pod (of lightkube) now and at each change, None when it is deleted.

        Never returns.
        """

        def event(kind: str, found: Pod) -> None:
            changed(None if kind == "DELETED" else found)

        await self._follow(Pod, event, fields={"metadata.name": name})

    async def log(
        self, pod: str, container: str, *, follow: bool, since: int | None, tail: int | None
    ) -> AsyncGenerator[str]:
        """The lines of a container's log with their time stamps; since: seconds before now.

        No more is read than is taken. A line of more than MAX_PIECE bytes comes in pieces, of which only the
        last one ends in a newline. Any step may raise one of ERRORS.
        """
        # lightkube's own `log` reads one that is not followed into memory, all of it.
        client: Any = self._client._client
        asked: dict[str, Any] = {
            "container": container,
            "follow": follow,
            "sinceSeconds": since,
            "tailLines": tail,
            "timestamps": True,
        }
        # What is packed could be a thousand times as much.
        plain = {"Accept-Encoding": "identity"}
        request = client.prepare_request(
            "get", PodLog, name=pod, namespace=self._namespace, params=asked, headers=plain
        )
        if follow:
            request.timeout = httpx2.Timeout(CALL_SECONDS, read=None)
        response = await client.send(client.build_adapter_request(request), stream=True)
        try:
            if response.is_error:
                await response.aread()
                client.raise_for_status(response)
            async with contextlib.aclosing(response.aiter_bytes()) as parts:
                async for piece in pieces(parts):
                    yield piece
        finally:
            await response.aclose()

    async def _follow(
        self,
        resource: Any,
        event: Callable[[str, Any], None],
        before: Callable[[], Awaitable[None]] | None = None,
        **query: Any,
    ) -> None:
        failures = 0
        while True:
            # lightkube calls it an iterable; it is a generator, and must be closed to end its connection.
            stream = cast(
                AsyncGenerator[tuple[str, Any], None],
                self._client.watch(
                    resource, namespace=self._namespace, server_timeout=WATCH_SECONDS, **query
                ),
            )
            try:
                if before is not None:
                    await before()
                looked = before is None
                while True:
                    async with asyncio.timeout(WATCH_SECONDS + WATCH_GRACE):
                        kind, found = await anext(stream)
                    failures = 0
                    if not looked and before is not None:
                        # Once more: what went between that look and the watch's begin is told by nobody.
                        await before()
                        looked = True
                    event(kind, found)
            except TimeoutError:
                continue
            except (ApiError, httpx2.HTTPError, StopAsyncIteration) as error:
                # 410: the version we stood at is gone; starting anew lists everything again.
                pause = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
                failures += 1
                _log.info(
                    "watch ended", extra=fields(kind=resource.__name__, reason=describe(error), retry_s=pause)
                )
                await asyncio.sleep(pause)
            except Exception:
                # One answer that nobody understands ends this watch, and not the daemon with its keys.
                _log.exception("watch failed", extra=fields(kind=resource.__name__))
                await asyncio.sleep(RETRY_SECONDS[-1])
            finally:
                await stream.aclose()
