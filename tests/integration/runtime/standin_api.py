# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the part of the Kubernetes API that the daemon uses.

It keeps objects, moves generation and resourceVersion as the real one does, streams watches, and reviews
tokens from a table. It does not judge rights; the scenario on a real cluster does.
"""

from __future__ import annotations

import asyncio
import copy
import json
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Self

from aiohttp import web

Object = dict[str, Any]
KINDS = {
    "configmaps": "ConfigMap",
    "daemonsets": "DaemonSet",
    "events": "Event",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "pods": "Pod",
    "secrets": "Secret",
    "serviceaccounts": "ServiceAccount",
    "services": "Service",
}


def in_slot(pod: str) -> str:
    """A module in a slot (`gw-sensor-a`): a pod's name without what tells it from the one before."""
    return pod.rpartition("-")[0]


def plain(calls: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Calls (method, object), those for pods without what tells a pod from the one before."""
    return [(method, in_slot(name) if name.startswith("pods/") else name) for method, name in calls]


class ApiServer:
    """Serves on a free port of loopback. `tokens` maps a token to (user name, audiences).

    Each token is of a pod, `<ServiceAccount>-caller`, which is there when it is asked for by this name, with
    the addresses in `addresses`; without an entry it is where the tests call from.
    """

    def __init__(self) -> None:
        self.tokens: dict[str, tuple[str, list[str]]] = {}
        self.addresses: dict[str, list[str]] = {}
        self.objects: dict[tuple[str, str], Object] = {}
        self.logs: dict[str, list[str]] = {}  # pod: lines with their time stamps
        self.log_end = asyncio.Event()  # until then a log that is followed does not end
        self.log_halts = False  # after the first line, until log_end
        self.log_cut = False  # the connection breaks after the lines that there are
        self.log_refused = False  # as for a container that waits for its image
        self.log_queries: list[dict[str, str]] = []
        self.followers = 0
        self.reviews = 0
        self.requests: list[tuple[str, str]] = []  # method and object or kind, without those that time makes
        self.write_seconds = 0.0  # how long the server takes for one, so that those of a burst meet
        self.writing = 0
        self.most_writing = 0  # at once
        self.events: list[Object] = []
        self.refused: dict[str, str] = {}  # module in a slot (`gw-sensor-a`): why nobody may make its pod
        self.writes: list[tuple[str, str]] = []  # method and object, of what changed something
        self._version = 0
        self._watchers: list[tuple[str, asyncio.Queue[tuple[str, Object]]]] = []
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._counted])
        app.router.add_post("/apis/authentication.k8s.io/v1/tokenreviews", self._review)
        for prefix in ("/api/v1", "/apis/apps/v1"):
            base = prefix + "/namespaces/edge-gw/{plural}"
            app.router.add_get(base, self._list)
            app.router.add_get(base + "/{name}", self._get)
            app.router.add_get(base + "/{name}/log", self._log)
            app.router.add_post(base, self._create)
            app.router.add_patch(base + "/{name}", self._apply)
            app.router.add_delete(base + "/{name}", self._delete)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.put("serviceaccounts", "gw-daemon", {})
        self.put("services", "gw-daemon", {"spec": {"clusterIP": "10.96.7.1"}})
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @web.middleware
    async def _counted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if not self._is_of_time(request):
            self.requests.append((request.method, request.path.partition("/namespaces/edge-gw/")[2]))
        if request.method == "GET" or request.path.endswith("/tokenreviews"):
            return await self._answered(request, handler)
        self.writing += 1
        self.most_writing = max(self.most_writing, self.writing)
        try:
            await asyncio.sleep(self.write_seconds)
            return await self._answered(request, handler)
        finally:
            self.writing -= 1

    @staticmethod
    def _is_of_time(request: web.Request) -> bool:
        """Looks for events, watches, and what a caller's token costs once it is not remembered any more."""
        events = request.method == "GET" and request.path.endswith("/events")
        caller = request.query.get("fieldSelector", "").endswith("-caller")
        watch = request.query.get("watch") == "true"
        return events or caller or watch or request.path.endswith("/tokenreviews")

    @staticmethod
    async def _answered(request: web.Request, handler: Any) -> web.StreamResponse:
        found: web.StreamResponse = await handler(request)
        return found

    def kubeconfig(self) -> str:
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "t",
                "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t", "namespace": "edge-gw"}}],
                "clusters": [{"name": "t", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
                "users": [{"name": "t", "user": {"token": "daemon"}}],
            }
        )

    def module_set(self, *modules: Object) -> None:
        """Write the ConfigMap with the module set."""
        self.put("configmaps", "gw-modules", {"data": {"modules.json": json.dumps(modules)}})

    def names(self, plural: str) -> set[str]:
        return {name for kind, name in self.objects if kind == plural}

    def pod_of(self, name: str) -> Object | None:
        """The pod of a module in a slot (`gw-sensor-a`), the newest one; None where there is none."""
        found = [
            item for (kind, full), item in self.objects.items() if kind == "pods" and in_slot(full) == name
        ]
        return found[-1] if found else None

    def placed(self) -> set[str]:
        """Modules in slots (`gw-sensor-a`) that have a pod."""
        return {in_slot(full) for kind, full in self.objects if kind == "pods"}

    def put(self, plural: str, name: str, content: Object) -> Object:
        """Write an object as the API server would, and tell the watchers."""
        old = self.objects.get((plural, name))
        metadata = {**content.get("metadata", {}), "name": name, "namespace": "edge-gw"}
        known = (old or {}).get("metadata", {})
        metadata["uid"] = known.get("uid") or str(uuid.uuid4())
        if plural == "pods":
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            metadata["creationTimestamp"] = known.get(
                "creationTimestamp", metadata.get("creationTimestamp", now)
            )
        metadata["generation"] = known.get("generation", 1)
        metadata["resourceVersion"] = known.get("resourceVersion")
        new = {**content, "kind": KINDS[plural], "metadata": metadata}
        if new == old:
            return new
        if old and old.get("spec") != new.get("spec"):
            metadata["generation"] += 1
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        self.objects[(plural, name)] = new
        self.writes.append(("PUT", f"{plural}/{name}"))
        self._tell(plural, "MODIFIED" if old else "ADDED", new)
        return new

    def remove(self, plural: str, name: str) -> None:
        found = self.objects.pop((plural, name))
        self.writes.append(("DELETE", f"{plural}/{name}"))
        self._tell(plural, "DELETED", found)

    def _tell(self, plural: str, kind: str, found: Object) -> None:
        for watched, queue in self._watchers:
            if watched == plural:
                queue.put_nowait((kind, found))

    async def _review(self, request: web.Request) -> web.Response:
        self.reviews += 1
        question = await request.json()
        known = self.tokens.get(question["spec"]["token"])
        status: Object = {"authenticated": False}
        if known and set(known[1]) & set(question["spec"]["audiences"]):
            pod = f"{known[0].rpartition(':')[2]}-caller"
            bound = {"pod-name": [pod], "pod-uid": [f"uid of {pod}"]}
            extra = {f"authentication.kubernetes.io/{key}": value for key, value in bound.items()}
            user = {"username": known[0], "extra": extra}
            status = {"authenticated": True, "user": user, "audiences": known[1]}
        return web.json_response({"spec": question["spec"], "status": status}, status=201)

    def _selected(self, request: web.Request, found: Object) -> bool:
        labels = request.query.get("labelSelector", "")
        wanted = dict(pair.split("=") for pair in labels.split(",") if pair)
        has = found["metadata"].get("labels", {})
        selected = request.query.get("fieldSelector", "")
        asked = dict(pair.split("=") for pair in selected.split(",") if pair)
        return all(has.get(key) == value for key, value in wanted.items()) and all(
            self._field(found, path) == value for path, value in asked.items()
        )

    @staticmethod
    def _field(found: Object, path: str) -> Any:
        value: Any = found
        for name in path.split("."):
            value = value.get(name, {})
        return value

    async def _list(self, request: web.Request) -> web.StreamResponse:
        plural = request.match_info["plural"]
        items = [found for (kind, _), found in self.objects.items() if kind == plural]
        items = [found for found in items if self._selected(request, found)]
        if request.query.get("watch") != "true":
            items += self._caller(plural, request.query.get("fieldSelector", ""))
            version = {"resourceVersion": str(self._version)}
            return web.json_response({"kind": f"{KINDS[plural]}List", "metadata": version, "items": items})
        stream = web.StreamResponse()
        stream.content_type = "application/json"
        queue: asyncio.Queue[tuple[str, Object]] = asyncio.Queue()
        entry = (plural, queue)
        self._watchers.append(entry)
        try:
            await stream.prepare(request)
            for found in items:
                queue.put_nowait(("ADDED", found))
            while True:
                kind, found = await queue.get()
                if self._selected(request, found):
                    await stream.write(json.dumps({"type": kind, "object": found}).encode() + b"\n")
        except ConnectionResetError:
            return stream  # the daemon hung up
        finally:
            self._watchers.remove(entry)

    def _caller(self, plural: str, field: str) -> list[Object]:
        """The pod of a token, when it is asked for."""
        name = field.removeprefix("metadata.name=")
        if plural != "pods" or not name.endswith("-caller"):
            return []
        addresses = [{"ip": address} for address in self.addresses.get(name, ["127.0.0.1"])]
        metadata = {"name": name, "uid": f"uid of {name}"}
        return [{"metadata": metadata, "spec": {"containers": []}, "status": {"podIPs": addresses}}]

    def _missing(self, request: web.Request) -> web.Response | None:
        key = (request.match_info["plural"], request.match_info["name"])
        if key in self.objects:
            return None
        return self._status(404, f"{'/'.join(key)} not found")

    @staticmethod
    def _status(code: int, message: str) -> web.Response:
        status = {"kind": "Status", "status": "Failure", "code": code, "message": message}
        # The API server names no charset, and clients look for its errors by the whole type.
        return web.Response(
            body=json.dumps(status).encode(), status=code, headers={"Content-Type": "application/json"}
        )

    async def _get(self, request: web.Request) -> web.Response:
        found = (request.match_info["plural"], request.match_info["name"])
        return self._missing(request) or web.json_response(self.objects[found])

    async def _log(self, request: web.Request) -> web.StreamResponse:
        missing = self._missing(request)
        if missing:
            return missing
        self.log_queries.append(dict(request.query))
        if self.log_refused:
            return self._status(400, "container is waiting to start")
        lines = self.logs.get(request.match_info["name"], [])
        if "tailLines" in request.query:
            lines = lines[-int(request.query["tailLines"]) :]
        stream = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await stream.prepare(request)
        if self.log_halts:
            await stream.write(f"{lines[0]}\n".encode())
            await self.log_end.wait()
            lines = lines[1:]
        await stream.write("".join(f"{line}\n" for line in lines).encode())
        transport = request.transport
        assert transport is not None
        if self.log_cut:
            await asyncio.sleep(0.1)
            transport.abort()
        elif request.query.get("follow") == "true":
            self.followers += 1
            while not self.log_end.is_set() and not transport.is_closing():
                await asyncio.sleep(0.05)
            self.followers -= 1
            if self.log_end.is_set():
                await stream.write(b"2026-01-01T00:00:09.000000001Z last\n")
        return stream

    async def _apply(self, request: web.Request) -> web.Response:
        if request.content_type == "application/merge-patch+json":
            return await self._label(request)
        assert request.content_type == "application/apply-patch+yaml"
        assert request.query["fieldManager"] == "edgeha-daemon"
        plural, name = request.match_info["plural"], request.match_info["name"]
        if plural == "pods" and (reason := self.refused.get(in_slot(name))):
            return self._status(403, reason)
        labels = self.objects.get((plural, name), {}).get("metadata", {}).get("labels", {})
        ours = (plural, name) not in self.objects or "app.kubernetes.io/managed-by" in labels
        if request.query.get("force") != "true" and not ours:
            return self._status(409, f"conflict: {plural}/{name} is somebody else's")
        if request.query.get("dryRun") == "All":
            return web.json_response(await request.json())
        # The kubelet's word stays: it is no part of what is applied.
        old = self.objects.get((plural, name), {})
        kept = {"status": old["status"]} if "status" in old else {}
        return web.json_response(self.put(plural, name, kept | await request.json()))

    async def _label(self, request: web.Request) -> web.Response:
        """Labels of a pod are all that is changed so."""
        missing = self._missing(request)
        if missing:
            return missing
        change = await request.json()
        assert list(change) == ["metadata"]
        assert list(change["metadata"]) == ["labels"]
        plural, name = request.match_info["plural"], request.match_info["name"]
        found = copy.deepcopy(self.objects[(plural, name)])
        found["metadata"]["labels"] |= change["metadata"]["labels"]
        return web.json_response(self.put(plural, name, found))

    async def _create(self, request: web.Request) -> web.Response:
        """Events alone are made so. They are no writes of the daemon's objects."""
        assert request.match_info["plural"] == "events"
        event = await request.json()
        self.events.append(event)
        return web.json_response(event, status=201)

    async def _delete(self, request: web.Request) -> web.Response:
        missing = self._missing(request)
        if missing:
            return missing
        self.remove(request.match_info["plural"], request.match_info["name"])
        return web.json_response({"kind": "Status", "status": "Success"})
