# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The management API against its published contract: made-up calls of every operation, answers checked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from aiohttp import web
from edgeha_runtime.daemon.callers import Callers, Review
from edgeha_runtime.daemon.hub import Identity
from edgeha_runtime.daemon.keystore import KeyStore, Owner
from edgeha_runtime.daemon.management import ManagementApi
from edgeha_runtime.daemon.manifests import OwnerReference
from edgeha_runtime.daemon.modules import Modules
from edgeha_runtime.daemon.settings import from_environment
from lightkube.resources.core_v1 import Pod

from tests.contracts import Contract, Seed, Server
from tests.integration.runtime.parts import API_VERSIONS, in_a_thread, refused_version

CONTRACT = Contract("edgelet-management-2022-08-03.yaml", "EDGEHA_MANAGEMENT_CONTRACT")
if CONTRACT.operations:
    # The contract writes `type` where it means a reference, which no reader of schemas takes.
    _info = CONTRACT.document["definitions"]["SystemInfo"]["properties"]
    assert _info["provisioning"] == {"type": "#/definitions/Provisioning"}
    _info["provisioning"] = {"$ref": "#/definitions/Provisioning"}
AGENT = {"name": "edgeAgent", "image": "r/agent:1"}
SPEC = {"name": "m", "type": "docker", "config": {"settings": {"image": "r/m:1"}}}
POD = {
    "metadata": {
        "name": "gw-m-1",
        "labels": {"iotedge.edgeha.io/slot": "a"},
        "annotations": {"net.azure-devices.edge.module-id": "m"},
        "creationTimestamp": "2026-01-01T00:00:00Z",
    },
    "status": {
        "containerStatuses": [
            {
                "name": "module",
                "image": "r/m:1",
                "imageID": "i",
                "ready": True,
                "restartCount": 1,
                "state": {"running": {"startedAt": "2026-01-01T00:00:05Z"}},
                "lastState": {
                    "terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:04Z", "reason": "Error"}
                },
            }
        ]
    },
}
RUNNING = ("POST", "/modules/m/start", None)
# For each operation calls that succeed, and those of its refusals that made-up calls do not meet.
SEEDS = {
    ("GET", "/modules"): [Seed(200)],
    ("POST", "/modules"): [Seed(409, SPEC), Seed(201, SPEC, first=[("DELETE", "/modules/m", None)])],
    ("GET", "/modules/{name}"): [Seed(200)],
    ("PUT", "/modules/{name}"): [Seed(200, SPEC), Seed(200, SPEC, {"start": "true"})],
    ("DELETE", "/modules/{name}"): [Seed(204)],
    ("POST", "/modules/{name}/prepareupdate"): [Seed(204, SPEC)],
    ("POST", "/modules/{name}/start"): [Seed(204), Seed(304)],
    ("POST", "/modules/{name}/stop"): [Seed(204, first=[RUNNING]), Seed(304)],
    ("POST", "/modules/{name}/restart"): [Seed(204), Seed(204, first=[RUNNING])],
    ("GET", "/modules/{name}/logs"): [
        Seed(200, holds=b"line 1\n"),
        Seed(200, query={"follow": "true", "tail": "1", "timestamps": "true"}, holds=b"Z line 1\n"),
    ],
    ("GET", "/identities/"): [Seed(200)],
    ("POST", "/identities/"): [Seed(200, {"moduleId": "new", "managedBy": "IotEdge"})],
    ("PUT", "/identities/{name}"): [Seed(200, {"generationId": "1", "managedBy": "IotEdge"})],
    ("DELETE", "/identities/{name}"): [Seed(204)],
    ("GET", "/systeminfo"): [Seed(200)],
    ("GET", "/systeminfo/resources"): [Seed(200)],
    ("GET", "/systeminfo/supportbundle"): [Seed(200), Seed(200, query={"edge_runtime_only": "true"})],
    ("POST", "/device/reprovision"): [Seed(200)],
}
NEVER = {
    ("POST", "/modules/{name}/prepareupdate"): {
        404: "edgeAgent prepares modules that do not exist yet, too",
    },
    ("POST", "/modules/{name}/restart"): {304: "a restart always changes something"},
    ("GET", "/modules/{name}/logs"): {
        101: "a log that is followed is a body without an end, as of stock daemons"
    },
}


def test_the_contract_is_there() -> None:
    CONTRACT.require(18)


class _Hub:
    """A hub that has every identity it is asked for."""

    async def get_module(self, module: str) -> Identity:
        return Identity(module, "1", "", "")

    async def set_keys(self, module: str, _primary: bytes, _secondary: bytes) -> Identity:
        return Identity(module, "1", "", "")

    async def delete_module(self, module: str) -> None:
        """It is gone."""


class _Cluster:
    """A cluster with a log of two lines for every pod."""

    async def log(self, _pod: str, _container: str, **options: Any) -> AsyncIterator[str]:
        lines = [f"2026-01-01T00:00:0{number}.5Z line {number}\n" for number in range(2)]
        for line in lines if options["tail"] is None else lines[2 - min(2, options["tail"]) :]:
            yield line

    async def owner(self, name: str) -> OwnerReference:
        return OwnerReference(name, "1")


async def _review(token: str, audience: str) -> Review:
    """Every token is edgeAgent's."""
    return Review(bool(token), "system:serviceaccount:ns:gw-edgeagent", (audience,))


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The API on a port, in a thread of its own: schemathesis calls it as any client does.

    A parameter is the pod of module m, {} for none.
    """
    environment = {
        "EDGEHA_RELEASE": "gw",
        "EDGEHA_NAMESPACE": "ns",
        "EDGEHA_POD_NAME": "p",
        "EDGEHA_NODE_NAME": "n",
        "EDGEHA_DEVICE_ID": "d",
        "EDGEHA_IOTHUB_HOSTNAME": "h.example",
        "EDGEHA_DEVICE_KEY_FILE": "/none",
        "EDGEHA_STATE_DIR": str(tmp_path),
        "EDGEHA_TRUST_BUNDLE_FILE": "/none",
        "EDGEHA_WORKLOAD_PROXY_IMAGE": "i",
        "EDGEHA_PULL_SECONDS": "0",
    }

    def application() -> web.Application:
        store = KeyStore.open(tmp_path, Owner("d", "h.example"))
        store.remember("m", "1")
        store.keep_deployment({"modules": {"m": {"spec": SPEC}}, "identities": ["m"]})
        hub: Any = _Hub()
        cluster: Any = _Cluster()
        modules = Modules(from_environment(environment), store, hub, cluster)
        modules.take({"modules.json": json.dumps([AGENT])})
        found = getattr(request, "param", POD)
        if found:
            modules.pods.put("ADDED", Pod.from_dict(found))
        callers = Callers(
            _review, place=None, namespace="ns", audience="edgeha-gw", modules=lambda: modules.accounts
        )
        api = ManagementApi(callers, modules, cluster, state=tmp_path, provisioning="manual.sas")
        return api.application()

    with in_a_thread(application) as found:
        yield found


@pytest.mark.parametrize(("method", "path"), CONTRACT.operations)
def test_operation(url: str, method: str, path: str) -> None:
    server = Server(
        url,
        query={"api-version": "2022-08-03"},
        headers={"Authorization": "Bearer t"},
        known={"name": "m"},
        refusals=frozenset({400, 404, 409, 413}),
        examples=25,
    )
    CONTRACT.hold(server, method, path, SEEDS[method, path], NEVER.get((method, path)))


@pytest.mark.parametrize("version", API_VERSIONS)
def test_each_version_that_stock_clients_send_is_taken(url: str, version: str) -> None:
    headers = {"Authorization": "Bearer t"}
    answer = requests.get(f"{url}/modules/m", params={"api-version": version}, headers=headers, timeout=30)
    assert (answer.status_code, "name" in answer.json()) == (200, True)


def test_another_version_is_refused_with_the_one_to_use(url: str) -> None:
    said = refused_version(url, "/modules/m", {"api-version": "2017-01-01"})
    assert said == "api-version '2017-01-01' is not known; use 2022-08-03"
    assert refused_version(url, "/modules/m", {}) == "api-version missing; use 2022-08-03"


def _pod(state: dict[str, Any], *, going: bool = False, **status: Any) -> dict[str, Any]:
    """The pod of module m in this state."""
    (known,) = POD["status"]["containerStatuses"]
    own = {name: value for name, value in known.items() if name != "lastState"} | {"state": state}
    metadata = POD["metadata"] | ({"deletionTimestamp": "2026-01-01T00:02:00Z"} if going else {})
    return {
        "metadata": metadata,
        "spec": {"restartPolicy": "Never", "containers": [{"name": "module"}]},
        "status": {**status, "containerStatuses": [own]},
    }


_END = {"exitCode": 137, "finishedAt": "2026-01-01T00:01:00Z"}
UNKNOWN = {
    "no pod": {},
    "no word of it": {"metadata": POD["metadata"]},
    "it starts": _pod({"waiting": {"reason": "ContainerCreating"}}, phase="Pending"),
    "it goes": _pod({"running": {"startedAt": "2026-01-01T00:00:05Z"}}, going=True, phase="Running"),
    "it is lost": _pod({"terminated": {**_END, "reason": "ContainerStatusUnknown"}}, phase="Failed"),
    "it is evicted": _pod(
        {"terminated": _END}, phase="Failed", conditions=[{"type": "DisruptionTarget", "status": "True"}]
    ),
}


@pytest.mark.parametrize("url", UNKNOWN.values(), ids=UNKNOWN.keys(), indirect=True)
def test_what_is_on_its_way_is_told_as_running_since_no_time(url: str) -> None:
    # A stock edgeAgent fails as a whole at `unknown`.
    query, headers = {"api-version": "2022-08-03"}, {"Authorization": "Bearer t"}
    started = requests.post(f"{url}/modules/m/start", params=query, headers=headers, timeout=30)
    assert started.status_code == 204
    one, every = (
        requests.get(f"{url}{path}", params=query, headers=headers, timeout=30).json()
        for path in ("/modules/m", "/modules")
    )
    states = {module["name"]: module["status"] for module in every["modules"]}
    assert states["m"] == one["status"]
    for name, status in states.items():
        assert status["runtimeStatus"]["status"] == "running", name
        assert status["runtimeStatus"]["description"], "it says what it waits for"
        assert "startTime" not in status
    CONTRACT.require(18)
    server = Server(url, query, headers, {"name": "m"}, frozenset({400, 404}), examples=10)
    for path in ("/modules", "/modules/{name}"):
        CONTRACT.hold(server, "GET", path, [Seed(200)])


@pytest.mark.parametrize(
    "url", [_pod({"waiting": {"reason": "ErrImagePull"}}, phase="Pending")], indirect=True
)
def test_what_cannot_start_is_told_with_the_exit_of_a_start_that_failed(url: str) -> None:
    query, headers = {"api-version": "2022-08-03"}, {"Authorization": "Bearer t"}
    started = requests.post(f"{url}/modules/m/start", params=query, headers=headers, timeout=30)
    assert started.status_code == 204
    found = requests.get(f"{url}/modules/m", params=query, headers=headers, timeout=30).json()
    # From when the start was asked for, and not from when its pod was made.
    asked = found["status"]["exitStatus"].pop("exitTime")
    assert abs(datetime.fromisoformat(asked) - datetime.now(UTC)) < timedelta(minutes=10)
    assert found["status"] == {
        "runtimeStatus": {"status": "failed", "description": "ErrImagePull"},
        "exitStatus": {"statusCode": "125"},
    }
