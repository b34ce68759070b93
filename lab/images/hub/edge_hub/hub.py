# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""edgeHub: lets clients in, keeps their messages, brings them on, and passes on all else."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from math import inf
from typing import Any
from urllib.parse import quote

from edge_hub import routes
from edge_hub.downstream import Session
from edge_hub.logs import say
from edge_hub.scope import REFRESH_SECONDS, Key, Scope
from edge_hub.store import UPSTREAM, Message, Store
from edge_hub.upstream import Streams, Upstream, Way

HUB_MODULE = "$edgeHub"
_TWIN_RESULT = "$iothub/twin/res/"
_TWIN_DESIRED = "$iothub/twin/PATCH/properties/desired/"
_TWIN_GET = "$iothub/twin/GET/?$rid="
_TWIN_REPORT = "$iothub/twin/PATCH/properties/reported/?$rid="
_METHOD = "$iothub/methods/POST/"
_METHOD_RESULT = "$iothub/methods/res/"
_DEFAULT_TTL = 7200.0
# How long a request may wait for the connection to the hub; then the client is told (504).
_REQUEST_SECONDS = 20.0
# How long a client may keep a message without an acknowledgement.
_TAKE_SECONDS = 20.0
# Direct methods of modules carry this, so that an answer is not taken for one to the cloud.
_LOCAL = "edge-"


class NotConnectedError(Exception):
    """The one that is called is not here, or does not take methods."""


class EdgeHub:
    """One gateway's hub. `run` never returns."""

    def __init__(self, store: Store, scope: Scope, way: Way) -> None:
        self._store = store
        self._scope = scope
        self._way = way
        self._own: Key = (way.device, HUB_MODULE)
        self._sessions: dict[Key, Session] = {}
        self._upstreams: dict[Key, Upstream] = {}
        self._subscriptions: dict[Key, dict[str, int]] = {}
        self._endpoints: dict[str, asyncio.Event] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._ttl = _DEFAULT_TTL
        self._problems: list[str] = []
        self._version = 0
        self._reported: dict[str, Any] = {}
        self._calls: dict[str, asyncio.Future[tuple[int, bytes]]] = {}
        self._next_call = 0
        self._routes, _none = routes.read(routes.DEFAULT)
        self._clients_changed = asyncio.Event()

    async def run(self, ready: Callable[[], None]) -> None:
        """Work until cancelled; `ready` is called once clients may come."""
        kept = await self._store.kept("subscriptions")
        self._subscriptions = {
            (device, module): topics for device, module, topics in json.loads(kept or "[]")
        }
        desired = await self._store.kept("desired")
        if desired:
            self._take_desired(json.loads(desired))
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            own = self._upstream(self._own)
            own.subscribe((f"{_TWIN_RESULT}#", f"{_TWIN_DESIRED}#"))
            for key in await self._store.senders(UPSTREAM):
                self._upstream(key)
            for endpoint in {route.endpoint for route in self._routes} - {UPSTREAM}:
                self._endpoint(endpoint)
            self._go(self._watch_twin(own))
            self._go(self._refresh_scope())
            self._go(self._expire())
            self._go(self._report_clients(own))
            ready()

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._tasks is not None
        self._tasks.create_task(work)

    # Clients

    async def way_for(self, key: Key) -> Streams | None:
        """A connection to the hub for a client of a gateway below this one; None for any other client."""
        if key[0] == self._way.device or not await self._scope.is_below(key[0]):
            return None
        return await self._way.connect()

    async def check(self, key: Key, password: bytes | None) -> float:
        """When the client's token ends. Raises RefusedError."""
        return await self._scope.check(key, password)

    async def subscriptions(self, key: Key) -> dict[str, int]:
        """What the client subscribed to before."""
        return self._subscriptions.get(key, {})

    async def opened(self, session: Session) -> None:
        """Take the place of the connection before."""
        before = self._sessions.get(session.key)
        self._sessions[session.key] = session
        if before is not None:
            before.close("another connection with its identity")
        self._upstream(session.key).client_is_new()
        self._clients_changed.set()

    def closed(self, session: Session) -> None:
        """Forget a connection."""
        if self._sessions.get(session.key) is session:
            del self._sessions[session.key]
            self._clients_changed.set()

    async def subscribed(self, session: Session) -> None:
        """Have the hub's topics of a client relayed, and keep what it subscribed to."""
        inputs = f"devices/{session.key[0]}/modules/{session.key[1]}/inputs/"
        relayed = [topic for topic in session.subscriptions if not topic.startswith(inputs)]
        upstream = self._upstream(session.key)
        upstream.subscribe(relayed)
        upstream.offer()
        for event in self._endpoints.values():
            event.set()
        kept = dict(session.subscriptions) if session.persistent else {}
        if kept != self._subscriptions.get(session.key, {}):
            self._subscriptions[session.key] = kept
            listed = [[*key, topics] for key, topics in self._subscriptions.items() if topics]
            await self._store.keep("subscriptions", json.dumps(listed))

    async def telemetry(self, key: Key, bag: str, payload: bytes) -> None:
        """Keep a message for each endpoint that the routes give it; returns once it is on disk."""
        found = routes.endpoints(self._routes, key[1], bag)
        if not found:
            return  # as edgeHub does: what no route takes is dropped
        now = time.time()
        await self._store.append(Message(endpoint, *key, bag, payload, now) for endpoint in found)
        for endpoint in found:
            if endpoint == UPSTREAM:
                self._upstream(key).wake()
            else:
                self._endpoint(endpoint).set()

    def request(self, session: Session, topic: str, payload: bytes) -> None:
        """Bring a request of a client to the hub: twins, and answers to direct methods."""
        if topic.startswith(_METHOD_RESULT):
            status, _slash, query = topic[len(_METHOD_RESULT) :].partition("/")
            call = self._calls.pop(query.partition("$rid=")[2], None)
            if call is not None:
                if not call.done():
                    call.set_result((int(status) if status.isdecimal() else 500, payload))
                return
        upstream = self._upstream(session.key)
        if not upstream.publish(topic, payload):
            self._go(self._bring_request(session, upstream, topic, payload))

    async def _bring_request(self, session: Session, upstream: Upstream, topic: str, payload: bytes) -> None:
        """A client asks at once, while its connection to the hub is still being made: wait for that."""
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                while not upstream.publish(topic, payload):
                    await upstream.connected.wait()
        except TimeoutError:
            kind, _question, query = topic.partition("?")
            say("request-lost", identity=session.name, topic=kind, reason="the cloud is away")
            if kind.startswith("$iothub/twin/"):
                number = query.partition("$rid=")[2].partition("&")[0]
                session.publish(f"{_TWIN_RESULT}504/?$rid={number}", b"")

    async def call(self, key: Key, name: str, payload: bytes, seconds: float) -> tuple[int, bytes]:
        """Call a direct method of a client of this gateway. Raises NotConnectedError, TimeoutError."""
        session = self._sessions.get(key)
        self._next_call += 1
        number = f"{_LOCAL}{self._next_call:x}"
        if session is None or not session.publish(f"{_METHOD}{quote(name)}/?$rid={number}", payload):
            raise NotConnectedError(f"{'/'.join(filter(None, key))} is not connected, or takes no methods")
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        try:
            async with asyncio.timeout(seconds):
                return await answer
        finally:
            self._calls.pop(number, None)

    # The hub

    def _upstream(self, key: Key) -> Upstream:
        known = self._upstreams.get(key)
        if known is None:
            known = Upstream(self._way, key, self._store, self._relay_to(key))
            self._upstreams[key] = known
            self._go(known.run())
        return known

    def _relay_to(self, key: Key) -> Callable[[str, bytes, Callable[[], None]], bool]:
        def relay(topic: str, payload: bytes, taken: Callable[[], None]) -> bool:
            if key == self._own:
                taken()
                self._own_twin(topic, payload)
                return True
            session = self._sessions.get(key)
            # What nobody takes is not acknowledged: the hub keeps messages for the client.
            return session is not None and session.publish(topic, payload, taken)

        return relay

    async def _refresh_scope(self) -> None:
        while True:
            told = await self._scope.refresh()
            await asyncio.sleep(REFRESH_SECONDS if told else 5.0)

    async def _expire(self) -> None:
        while True:
            gone = await self._store.expire(time.time() - self._ttl)
            if gone:
                say("messages-expired", count=gone, ttl=self._ttl)
            await asyncio.sleep(min(60.0, max(1.0, self._ttl / 4)))

    # Inputs of modules

    def _endpoint(self, endpoint: str) -> asyncio.Event:
        known = self._endpoints.get(endpoint)
        if known is None:
            known = self._endpoints[endpoint] = asyncio.Event()
            self._go(self._bring(endpoint, known))
        return known

    async def _bring(self, endpoint: str, more: asyncio.Event) -> None:
        """Bring what waits for a module's input, message by message."""
        _modules, module, _inputs, name = endpoint.split("/")
        key = (self._way.device, module)
        while True:
            more.clear()
            for sender in sorted(await self._store.senders(endpoint)):
                after = 0
                while batch := await self._store.waiting(endpoint, *sender, after, 1):
                    if not await self._deliver(key, name, batch[0]):
                        break
                    after = batch[0].seq
                    await self._store.delete([after])
            await more.wait()

    async def _deliver(self, key: Key, name: str, message: Message) -> bool:
        session = self._sessions.get(key)
        topic = f"devices/{key[0]}/modules/{key[1]}/inputs/{name}/{message.bag}"
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done() -> None:
            if not taken.done():
                taken.set_result(None)

        if session is None or not session.publish(topic, message.payload, done):
            return False
        await asyncio.wait((taken, session.ended), timeout=_TAKE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not taken.done():
            session.close("it did not acknowledge a message")
        return taken.done()

    # Its own twin

    async def _watch_twin(self, own: Upstream) -> None:
        seen = 0
        while True:
            await own.connected.wait()
            # Counted: a renewed connection is there in no time, and nobody tells what changed in between.
            if own.connections != seen:
                seen, self._reported = own.connections, {}
                own.publish(f"{_TWIN_GET}own", b"")
            await asyncio.sleep(1.0)

    def _own_twin(self, topic: str, payload: bytes) -> None:
        own = self._upstream(self._own)
        if topic.startswith(_TWIN_DESIRED):
            own.publish(f"{_TWIN_GET}own", b"")
        elif topic.startswith(f"{_TWIN_RESULT}200/"):
            twin = json.loads(payload)
            desired = twin.get("desired") or {}
            self._take_desired(desired)
            if not self._problems:
                self._go(self._store.keep("desired", json.dumps(desired)))
            self._clients_changed.set()

    def _take_desired(self, desired: dict[str, Any]) -> None:
        """Do as the twin says; with routes that are not known all stays as it was, as with edgeHub."""
        self._version = int(desired.get("$version", 0))
        found, self._problems = routes.read(desired.get("routes", routes.DEFAULT))
        if self._problems:
            say("routes-refused", version=self._version, problems=self._problems)
            return
        self._routes = found
        storing = desired.get("storeAndForwardConfiguration")
        keep = storing.get("timeToLiveSecs") if isinstance(storing, dict) else None
        self._ttl = float(keep) if isinstance(keep, int | float) and keep else _DEFAULT_TTL
        if self._ttl < 0:
            self._ttl = inf  # as with edgeHub: it keeps messages for ever
        if self._tasks is not None:
            for endpoint in {route.endpoint for route in found} - {UPSTREAM}:
                self._endpoint(endpoint)
        say("routes", version=self._version, routes=len(found))

    async def _report_clients(self, own: Upstream) -> None:
        """Report who is connected, and whether the routes are known."""
        number = 0
        while True:
            await self._clients_changed.wait()
            self._clients_changed.clear()
            await own.connected.wait()
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            clients = {
                session.name.replace(".", "%2E").replace("$", "%24"): {"status": "Connected"}
                for session in self._sessions.values()
            }
            before = self._reported.get("clients") or {}
            gone = {
                name: {"status": "Disconnected", "lastDisconnectedTimeUtc": now}
                for name in before
                if name not in clients
            }
            document = {
                "schemaVersion": "1.1",
                "lastDesiredVersion": self._version,
                "lastDesiredStatus": {
                    "code": 400 if self._problems else 200,
                    "description": "; ".join(self._problems)[:1024],
                },
                "clients": {**clients, **gone},
            }
            if document != self._reported:
                number += 1
                if own.publish(f"{_TWIN_REPORT}report-{number}", json.dumps(document).encode()):
                    self._reported = {**document, "clients": clients}
            await asyncio.sleep(0.5)  # gathers what comes together
