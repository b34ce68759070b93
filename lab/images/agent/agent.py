# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-in for edgeAgent: carries out the deployment in the twin of $edgeAgent and reports how it went.

A part of the lab, not of the product. It uses azure-iot-device for the twin, and the management API of the
daemon for all else, with the variables that a stock daemon gives a stock agent; so what serves it serves
edgeAgent, and the stock image takes its place by its name alone.

Environment: the contract's (IOTEDGE_*, EdgeDeviceHostName, Mode); UpstreamProtocol (Mqtt or MqttWs; AMQP is
refused), with MqttWs https_proxy and no_proxy; storageFolder for what it keeps; LOOP_SECONDS between looks
(default 5).
Exit code 1: identity refused, the daemon does not know this agent, or no such protocol.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import FrameType
from typing import Any
from urllib.parse import quote, urlsplit

import plan
import requests
from azure.iot.device import IoTHubModuleClient, MethodRequest, MethodResponse, ProxyOptions
from azure.iot.device.common.transport_exceptions import ConnectionDroppedError, ConnectionFailedError
from azure.iot.device.exceptions import ClientError, CredentialError
from plan import DeploymentError, Memory, Step, Wanted
from storage import Storage, StorageError, Workload, folder
from upstream_protocol import ProtocolError, over_websockets

# A stock agent waits as long for the daemon.
CALL_SECONDS = 300.0
LOG_BYTES = 100_000
TRANSPORT_ERRORS = (ConnectionDroppedError, ConnectionFailedError)


def say(event: str, **fields: object) -> None:
    """One JSON line on stdout."""
    print(json.dumps({"time": round(time.time(), 3), "event": event, **fields}), flush=True)


class DaemonError(Exception):
    """The daemon refused; the message is its own."""


class Management:
    """The management API."""

    def __init__(self, uri: str, version: str) -> None:
        self._uri = uri.rstrip("/")
        self._version = version
        self._session = requests.Session()
        self._session.trust_env = False  # it is on this pod's loopback

    def call(self, method: str, path: str, body: object = None, **query: str) -> requests.Response:
        """Call it. Raises DaemonError for an answer of 400 and more, OSError when there is none."""
        answer = self._session.request(
            method,
            f"{self._uri}{path}",
            params={"api-version": self._version, **query},
            json=body,
            timeout=(5, CALL_SECONDS),
        )
        if answer.status_code >= 400:
            try:
                message = answer.json()["message"]
            except (ValueError, KeyError):
                message = answer.text[:512]
            raise DaemonError(f"{answer.status_code}: {message}")
        return answer

    def modules(self) -> dict[str, dict[str, Any]]:
        return {module["name"]: module for module in self.call("GET", "/modules").json()["modules"]}

    def identities(self) -> dict[str, str]:
        found = self.call("GET", "/identities/").json()["identities"]
        return {identity["moduleId"]: identity["generationId"] for identity in found}

    def ensure_identity(self, name: str, known: Mapping[str, str]) -> str:
        """Generation of an identity, which is made where it is missing."""
        if name in known:
            body = {"generationId": known[name], "managedBy": plan.MANAGED_BY}
            answer = self.call("PUT", f"/identities/{quote(name, safe='')}", body)
        else:
            answer = self.call("POST", "/identities/", {"moduleId": name, "managedBy": plan.MANAGED_BY})
        return str(answer.json()["generationId"])


class Agent:
    """Keeps the gateway's modules as the deployment wants them."""

    def __init__(self, management: Management, own: Mapping[str, str], storage: Storage) -> None:
        self._management = management
        self._own = own
        self._storage = storage
        self._reported: dict[str, Any] = {}
        self._memories: dict[str, Memory] = {}
        try:
            self._memories = storage.memories()
        except StorageError as error:
            say("not-remembered", reason=str(error))

    def keep(self, desired: dict[str, Any]) -> None:
        """Keep a deployment that can be read, for a start with the cloud away."""
        try:
            plan.read(desired)
            self._storage.keep(desired)
        except DeploymentError:
            return
        except StorageError as error:
            say("not-kept", reason=str(error))

    def kept(self) -> dict[str, Any] | None:
        """The deployment that was kept; None for none."""
        try:
            found = self._storage.deployment()
        except StorageError as error:
            say("no-backup", reason=str(error))
            return None
        if found is not None:
            say("deployment", version=found.get("$version"), source="backup")
        return found

    def carry_out(self, desired: Mapping[str, Any]) -> dict[str, Any]:
        """Do what the deployment wants and answer the reported properties."""
        wanted: list[Wanted] = []
        code, problems, followed = 200, [], True
        try:
            wanted = plan.read(desired)
        except DeploymentError as error:
            code, problems = error.code, [str(error)]
        else:
            try:
                problems = self._work(wanted)
                code = 500 if problems else 200
            except DeploymentError as error:
                code, problems, followed = error.code, [str(error)], False
        version = desired.get("$version", 0)
        system = self._management.call("GET", "/systeminfo").json()
        return {
            "schemaVersion": "1.1",
            "version": {"version": os.environ.get("AGENT_VERSION", "lab"), "build": "", "commit": ""},
            "lastDesiredVersion": version,
            "lastDesiredStatus": {"code": code, "description": "; ".join(problems)[:2048]},
            "runtime": {
                "type": "docker",
                "platform": {
                    "os": system["osType"].lower(),
                    "architecture": system["architecture"],
                    "version": system.get("version", ""),
                },
            },
            # Of a daemon that it cannot follow, a stock agent reports no modules.
            **plan.report(wanted, self._management.modules() if followed else {}, self._memories),
        }

    def _work(self, wanted: Sequence[Wanted]) -> list[str]:
        there = self._management.modules()
        by_name = {module.name: module for module in wanted}
        now = datetime.now(UTC)
        todo = plan.steps(wanted, there, self._memories, now)
        known = self._management.identities() if todo else {}
        problems: list[str] = []
        done: list[Step] = []
        failed: set[str] = set()
        try:
            for step in todo:
                if step.name in failed:
                    continue
                try:
                    self._do(step, by_name.get(step.name), known)
                    done.append(step)
                    say("done", action=step.action, module=step.name)
                except DaemonError as error:
                    failed.add(step.name)
                    problems.append(f"{step.action} {step.name}: {error}")
                    say("failed", action=step.action, module=step.name, reason=str(error))
        finally:
            undone = [step for step in todo if step not in done]
            self._remember(plan.remember(wanted, there, self._memories, done, undone, now))
        return problems

    def _remember(self, memories: dict[str, Memory]) -> None:
        if memories == self._memories:
            return
        self._memories = memories
        try:
            self._storage.remember(memories)
        except StorageError as error:
            say("not-kept", reason=str(error))

    def _do(self, step: Step, wanted: Wanted | None, known: Mapping[str, str]) -> None:
        path = f"/modules/{quote(step.name, safe='')}"
        if step.action == "remove":
            # The identity first, as a stock agent does: a hub holds a limited number of them.
            if step.name in known:
                self._management.call("DELETE", f"/identities/{quote(step.name, safe='')}")
            self._management.call("DELETE", path)
        elif step.action == "restart":
            self._management.call("POST", f"{path}/stop")
            self._management.call("POST", f"{path}/start")
        elif step.action in ("start", "stop"):
            self._management.call("POST", f"{path}/{step.action}")
        else:
            assert wanted is not None
            generation = self._management.ensure_identity(wanted.identity, known)
            spec = plan.spec(wanted, generation, self._own)
            self._management.call("POST", f"{path}/prepareupdate", spec)
            if step.action == "create":
                self._management.call("POST", "/modules", spec)
            else:
                start = "true" if wanted.status == "running" else "false"
                self._management.call("PUT", path, spec, start=start)

    def changes(self, reported: Mapping[str, Any]) -> dict[str, Any]:
        """What of the reported properties the hub does not know yet."""
        return plan.patch(self._reported, reported)

    def is_known(self, reported: dict[str, Any]) -> None:
        """Remember what the hub knows."""
        self._reported = reported

    def method(self, request: MethodRequest) -> MethodResponse:
        """Answer a direct method as edgeAgent does."""
        status, payload = 200, None
        asked = request.payload if isinstance(request.payload, dict) else {}
        name = str(asked.get("id", ""))
        try:
            if request.name.lower() == "restartmodule":
                self._management.call("POST", f"/modules/{quote(name, safe='')}/restart")
            elif request.name.lower() == "getmodulelogs":
                payload = self._logs(asked)
            elif request.name.lower() != "ping":
                status, payload = 404, {"message": f"no method {request.name}"}
        except DaemonError as error:
            status, payload = 400, {"message": str(error)}
        except OSError as error:
            status, payload = 503, {"message": f"the daemon is away: {type(error).__name__}"}
        # The SDK has no types here.
        return MethodResponse.create_from_method_request(request, status, payload)  # type: ignore[no-untyped-call]

    def _logs(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        items = asked.get("items") or []
        found = []
        for item in items if isinstance(items, list) else [items]:
            chosen = item.get("filter") or {}
            query = {key: str(chosen[key]) for key in ("tail", "since", "until") if chosen.get(key)}
            name = str(item.get("id", ""))
            raw = self._management.call("GET", f"/modules/{quote(name, safe='')}/logs", **query).content
            found.append({"id": name, "payload": unframed(raw)[-LOG_BYTES:]})
        return found


def unframed(raw: bytes) -> str:
    """The text of a log in Docker's frames."""
    parts, position = [], 0
    while position + 8 <= len(raw):
        length = int.from_bytes(raw[position + 4 : position + 8], "big")
        parts.append(raw[position + 8 : position + 8 + length])
        position += 8 + length
    return b"".join(parts).decode(errors="replace")


def proxy(host: str) -> ProxyOptions | None:
    """The proxy for the way to `host`, by https_proxy and no_proxy of the environment."""
    found = urllib.request.getproxies_environment().get("https")
    if not found or urllib.request.proxy_bypass_environment(host):
        return None
    parts = urlsplit(found)
    # The SDK has no types here.
    return ProxyOptions("HTTP", parts.hostname, parts.port or 80)  # type: ignore[no-untyped-call]


def client_of(own: Mapping[str, str]) -> IoTHubModuleClient:
    """A client of the hub, not connected yet. Raises OSError, ValueError, ProtocolError."""
    # edgeAgent goes to the hub itself where it has no parent; the SDK asks for the variable all the same.
    os.environ.setdefault("IOTEDGE_GATEWAYHOSTNAME", own["IOTEDGE_IOTHUBHOSTNAME"])
    websockets = over_websockets(own.get("UpstreamProtocol", ""))
    way = (
        {"websockets": True, "proxy_options": proxy(os.environ["IOTEDGE_GATEWAYHOSTNAME"])}
        if websockets
        else {}
    )
    return IoTHubModuleClient.create_from_edge_environment(keep_alive=20, connection_retry_interval=2, **way)


def connect(client: IoTHubModuleClient, changed: threading.Event, agent: Agent) -> None:
    """Connect it, to set `changed` when there is another deployment. Raises ClientError."""
    client.connect()

    def desired(_patch: object) -> None:
        changed.set()

    def method(request: MethodRequest) -> None:
        client.send_method_response(agent.method(request))

    try:
        client.on_twin_desired_properties_patch_received = desired
        client.on_method_request_received = method
    except TRANSPORT_ERRORS as error:
        # Of these the SDK makes errors of its own everywhere but here.
        raise ClientError(f"{type(error).__name__} when it subscribed") from error


def run() -> int:
    """Work until SIGTERM. Answers the exit code."""
    own = dict(os.environ)
    pause = float(os.environ.get("LOOP_SECONDS", "5"))
    stop, changed = threading.Event(), threading.Event()

    def stopped(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        changed.set()

    signal.signal(signal.SIGTERM, stopped)
    signal.signal(signal.SIGINT, stopped)
    management = Management(own["IOTEDGE_MANAGEMENTURI"], own["IOTEDGE_APIVERSION"])
    agent = Agent(management, own, Storage(folder(own), Workload(own)))
    try:
        client = client_of(own)
    except ProtocolError as error:
        say("refused", reason=str(error))
        return 1
    except (OSError, ValueError) as error:
        say("no-identity", reason=f"{error}: {error.__cause__}")
        return 1
    say("started", module=own["IOTEDGE_MODULEID"], device=own["IOTEDGE_DEVICEID"])
    desired: dict[str, Any] | None = None
    stale = True  # what is known of the twin may not be what the hub holds
    connected = False  # once it is, the SDK sees to it
    while not stop.is_set():
        try:
            if not connected:
                connect(client, changed, agent)
                connected = True
            if stale or changed.is_set():
                changed.clear()
                twin = client.get_twin()
                desired, stale = twin["desired"], False
                agent.is_known({key: value for key, value in twin["reported"].items() if key[0] != "$"})
                say("deployment", version=desired.get("$version"), source="twin")
                agent.keep(desired)
        except CredentialError as error:
            say("refused", reason=str(error))
            return 1
        except ClientError as error:
            # With the cloud away the deployment that is known is looked after all the same.
            stale = True
            say("twin-away", reason=f"{type(error).__name__}: {error}")
            if desired is None:
                desired = agent.kept()
        try:
            if desired is not None:
                reported = agent.carry_out(desired)
                changes = agent.changes(reported)
                if changes and not stale:
                    client.patch_twin_reported_properties(changes)
                    agent.is_known(reported)
        except ClientError as error:
            stale = True
            say("not-reported", reason=f"{type(error).__name__}: {error}")
        except (DaemonError, OSError) as error:
            say("daemon-away", reason=f"{type(error).__name__}: {error}")
        changed.wait(pause)
    client.shutdown()
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    sys.exit(run())
