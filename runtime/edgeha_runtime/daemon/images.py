# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of a gateway: kept on every machine that may run it, and pulled before an update stops anything.

A kubelet removes no image that a container was made from. So a DaemonSet has a container of each image, in
which a small program of ours waits, whatever the image holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import manifests
from .kube import ERRORS, Cluster, describe
from .logs import fields
from .manifests import Manifest, OwnerReference
from .moduleset import Module
from .pods import IMAGE_REASONS, MAX_TEXT, why
from .settings import Settings

# How long an image counts as there after it was seen there.
TRUSTED_SECONDS = 300.0
_TOOL = "/edgeha/workload-proxy"
_MOUNTS = [{"name": "tool", "mountPath": "/edgeha"}]
_STARTING = frozenset({"", "ContainerCreating", "PodInitializing"})

_log = logging.getLogger(__name__)


class ImageError(Exception):
    """An image cannot be had; the message says which, where and why."""


class ImageTimeoutError(ImageError):
    """An image is still on its way."""


class Images:
    """The images of one gateway. Calls raise what the cluster raises (`kube.ERRORS`), or what they say."""

    def __init__(self, settings: Settings, cluster: Cluster) -> None:
        self._settings = settings
        self._cluster = cluster
        self._kept: Manifest | None = None
        self._there: dict[str, float] = {}  # image: when it was seen on the daemon's machine
        self._asked: dict[str, float] = {}  # name of a pod that pulls: when it was last asked for

    @property
    def are_kept(self) -> bool:
        """Whether there is a set of images to be changed."""
        return self._kept is not None

    async def keep(self, modules: Iterable[Module], owner: OwnerReference, *, everything: bool) -> None:
        """Have the images of these modules on every machine. everything: apply also what is as it was."""
        if not self._settings.keep_images:
            await self._cluster.delete("DaemonSet", keeper_name(self._settings))
            return
        wanted = keeper(modules, self._settings, owner)
        if everything or wanted != self._kept:
            await self._cluster.apply(wanted)
            self._kept = wanted
            found = [one["image"] for one in wanted["spec"]["template"]["spec"]["containers"]]
            _log.info("images kept", extra=fields(images=found))

    async def remove_leftovers(self) -> None:
        """Delete pods of pulls that nobody waits for any more, also those of a daemon before this one."""
        now = time.monotonic()
        wanted = {name for name, at in self._asked.items() if now - at < TRUSTED_SECONDS}
        self._asked = {name: at for name, at in self._asked.items() if name in wanted}
        for name in sorted(await self._cluster.pod_names(puller_labels(self._settings)) - wanted):
            await self._remove(name)

    async def pull(self, module: Module, owner: OwnerReference) -> None:
        """See that a module's image is on the daemon's machine, where its pod will be.

        Raises ImageError. Where the cluster gives no answer the image is not judged: the pod will tell. A
        pull that takes too long goes on, and the next call finds it.
        """
        limit, node = self._settings.pull_seconds, self._settings.node_name
        known = self._there.get(module.image)
        if not limit or module.image_pull_policy == "Never":
            return
        if known is not None and time.monotonic() - known < TRUSTED_SECONDS:
            return
        name = puller_name(module)
        self._asked[name] = time.monotonic()
        told: asyncio.Queue[Any] = asyncio.Queue()
        watching = asyncio.create_task(self._cluster.follow_pod(name, told.put_nowait))
        found = Verdict()
        try:
            async with asyncio.timeout(limit):
                secret = manifests.pull_secret(module, self._settings, owner, name)
                if secret is not None:
                    await self._cluster.apply(secret)
                wanted = puller(name, module, self._settings, owner)
                await self._cluster.apply(wanted)
                while not found.done:
                    pod = await told.get()
                    if pod is None:
                        # The one of the call before, which was still on its way out, or one that was drained.
                        await self._cluster.apply(wanted)
                    elif pod.metadata.deletionTimestamp is None:
                        found = verdict(pod)
        except TimeoutError:
            self._asked[name] = time.monotonic()
            raise ImageTimeoutError(
                f"image {module.image} is not on node {node} after {limit} s; it is still being pulled"
            ) from None
        except ERRORS as error:
            _log.warning("image not looked for", extra=fields(image=module.image, reason=describe(error)))
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        await self._remove(name)
        if found.trouble:
            raise ImageError(f"image {module.image} cannot be pulled on node {node}: {found.trouble}")
        if found.there:
            self._there[module.image] = time.monotonic()

    async def _remove(self, name: str) -> None:
        self._asked.pop(name, None)
        with contextlib.suppress(*ERRORS):  # what stays is found by `remove_leftovers`
            # The Secret first: it is found by its pod.
            await self._cluster.delete("Secret", name)
            await self._cluster.delete("Pod", name)


@dataclass(frozen=True)
class Verdict:
    """What a pod of `puller` tells of an image; without `there` and `trouble` that is nothing."""

    done: bool = False
    there: bool = False
    trouble: str = ""


def verdict(pod: Any) -> Verdict:
    """The verdict of a Pod (of lightkube)."""
    status = pod.status
    statuses = (status.containerStatuses if status else None) or ()
    state = next((one.state for one in statuses if one.name == "image"), None)
    if state is not None and (state.running or state.terminated):
        return Verdict(done=True, there=True)
    if state is not None and state.waiting:
        reason = state.waiting.reason or ""
        if reason in IMAGE_REASONS:
            return Verdict(done=True, trouble=why(state.waiting)[:MAX_TEXT])
        # Any other reason is about the container, which is made when its image is there.
        if reason not in _STARTING:
            return Verdict(done=True, there=True)
    # Such as a machine that takes no more pods.
    return Verdict(done=status is not None and status.phase in ("Failed", "Succeeded"))


def puller_name(module: Module) -> str:
    """Name of the pod that pulls a module's image, and of its Secret."""
    return f"{module.object_name}-pull-{hashlib.sha256(module.image.encode()).hexdigest()[:8]}"


def puller_labels(settings: Settings) -> dict[str, str]:
    """Labels of the pods that pull an image before an update."""
    return manifests.labels(settings.release, "pull")


def keeper_name(settings: Settings) -> str:
    """Name of the DaemonSet that keeps the images."""
    return f"{settings.release}-images"


def puller(name: str, module: Module, settings: Settings, owner: OwnerReference) -> Manifest:
    """A pod on the daemon's machine whose one container runs when the module's image is there."""
    pod = _pod([module.image], ["image"], settings)
    pod["nodeName"] = settings.node_name
    pod["restartPolicy"] = "Never"
    if module.registry is not None:
        pod["imagePullSecrets"] = [*pod.get("imagePullSecrets", []), {"name": name}]
    metadata = _metadata(name, puller_labels(settings), settings, owner)
    # As controller, so that a drain takes the pod for one that somebody looks after.
    metadata["ownerReferences"][0]["controller"] = True
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}


def keeper(modules: Iterable[Module], settings: Settings, owner: OwnerReference) -> Manifest:
    """The DaemonSet with a container of each image: of the daemon and of the modules that may be pulled."""
    pulled = [module for module in modules if module.image_pull_policy != "Never"]
    images = sorted({settings.daemon_image, *(module.image for module in pulled)} - {""})
    # A container's name is of its image, so that one that comes or goes moves no other one.
    names = [f"image-{hashlib.sha256(image.encode()).hexdigest()[:12]}" for image in images]
    pod = _pod(images, names, settings)
    if settings.node_selector:
        pod["nodeSelector"] = dict(settings.node_selector)
    logins = sorted({manifests.pull_secret_name(module) for module in pulled if module.registry})
    if logins:
        pod["imagePullSecrets"] = [*pod.get("imagePullSecrets", []), *({"name": name} for name in logins)]
    labels = manifests.labels(settings.release, "images")
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": _metadata(keeper_name(settings), labels, settings, owner),
        "spec": {
            "selector": {"matchLabels": labels},
            "revisionHistoryLimit": 1,
            # Nothing depends on these pods for the seconds that a change takes.
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _metadata(name: str, labels: dict[str, str], settings: Settings, owner: OwnerReference) -> Manifest:
    return {
        "name": name,
        "namespace": settings.namespace,
        "labels": labels | {"app.kubernetes.io/managed-by": "edgeha-daemon"},
        "ownerReferences": [owner.manifest()],
    }


def _pod(images: list[str], names: list[str], settings: Settings) -> Manifest:
    small = {
        "securityContext": {**manifests.RESTRICTED, "readOnlyRootFilesystem": True},
        "volumeMounts": _MOUNTS,
    }
    return {
        **manifests.pod_base(settings),
        "terminationGracePeriodSeconds": 1,
        "initContainers": [
            {
                "name": "tool",
                "image": settings.proxy_image,
                "imagePullPolicy": settings.image_pull_policy,
                "args": ["install", _TOOL],
                "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"memory": "24Mi"}},
                **small,
            }
        ],
        "containers": [
            {
                "name": name,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": [_TOOL, "hold"],
                "resources": {"requests": {"cpu": "1m", "memory": "4Mi"}, "limits": {"memory": "16Mi"}},
                **small,
            }
            for name, image in zip(names, images, strict=True)
        ],
        "volumes": [{"name": "tool", "emptyDir": {}}],
    }
