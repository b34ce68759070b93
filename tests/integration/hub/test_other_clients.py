# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What clients of others make, our modules find as they would have made it; and the other way round."""

import fcntl
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.hub.conftest import Hub, free_address
from tests.integration.modules.conftest import Run, run_play, write_play

CLIENTS = Path(__file__).parents[2] / "clients"
LAB = str(Path(__file__).parents[3] / "lab")
if LAB not in sys.path:
    sys.path.insert(0, LAB)
cache = importlib.import_module("edgeha_lab.cache")
paths = importlib.import_module("edgeha_lab.paths")
# The first run fetches and builds.
BUILD_SECONDS = 600

MODULE = {"type": "docker", "status": "running", "restartPolicy": "always"}
CONTENT: dict[str, Any] = {
    "modulesContent": {
        "$edgeAgent": {
            "properties.desired.modules.extra": {
                **MODULE,
                "settings": {"image": "example/extra:1", "createOptions": '{"Env":["A=ä"]}'},
            }
        }
    }
}


def program(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is not on PATH: the clients of others need it to run"
    return found


def build_node(folder: Path) -> None:
    for file in (CLIENTS / "node").iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    command = [program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=folder, check=True, timeout=BUILD_SECONDS)


def build_go(folder: Path) -> None:
    command = [program("go"), "build", "-trimpath", "-o", str(folder / "otherclient"), "."]
    subprocess.run(command, cwd=CLIENTS / "go", check=True, timeout=BUILD_SECONDS)


BUILDERS = {"node": build_node, "go": build_go}


def installed(name: str) -> Path:
    """The folder with a client that can run; other test processes wait while it is made."""
    paths.cache().mkdir(parents=True, exist_ok=True)
    with (paths.cache() / f"client-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder, _new = cache.cached(f"client-{name}", made_of(name), BUILDERS[name])
    return Path(folder)


def made_of(name: str) -> str:
    files = sorted(file for file in (CLIENTS / name).iterdir() if file.is_file())
    version: str = subprocess.run(
        [program("node"), "--version"] if name == "node" else [program("go"), "version"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return str(cache.fingerprint(version, *files))


@dataclass
class Other:
    """A client of others. configurations and enrollments: whether it knows them."""

    name: str
    command: list[str]
    hub: Hub
    environment: dict[str, str]
    play: Callable[..., Run] = field(repr=False)
    has_dps: bool

    def __call__(self, act: str, document: dict[str, Any]) -> dict[str, Any]:
        done = subprocess.run(
            [*self.command, act],
            input=json.dumps(document),
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module")
def hubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Hub]]:
    """A hub, and a provisioning service of another, on port 443: the clients for Node.js know no other."""
    first = Hub(tmp_path_factory.mktemp("hub"), free_address())
    first.https_port = 443
    second = Hub(tmp_path_factory.mktemp("hub"), free_address(), serve_options=["--dps-port", "443"])
    yield first.start(), second.start()
    for hub in (first, second):
        assert hub.stop() == 0
        assert not [event for event in hub.events() if event["level"] == "error"]


@pytest.fixture(params=["node", "go"])
def other(request: pytest.FixtureRequest, hubs: tuple[Hub, Hub], tmp_path: Path) -> Other:
    name: str = request.param
    folder = installed(name)
    command = (
        [program("node"), str(folder / "client.js")] if name == "node" else [str(folder / "otherclient")]
    )
    hub, dps = hubs
    key, dps_key = hub.policies["iothubowner"], dps.policies["provisioningserviceowner"]
    # The client for Node.js takes no port.
    host = hub.name if name == "node" else hub.host
    authorities = tmp_path / "ca.pem"
    authorities.write_text(hub.ca + dps.ca)
    environment = {
        "HUB_CONNECTION_STRING": f"HostName={host};SharedAccessKeyName=iothubowner;SharedAccessKey={key}",
        "DPS_CONNECTION_STRING": f"HostName={dps.name};SharedAccessKeyName=provisioningserviceowner;"
        f"SharedAccessKey={dps_key}",
        "NODE_EXTRA_CA_CERTS": str(authorities),
        "CA_FILE": str(authorities),
    }
    groups = {
        "iothub": {"hostname": hub.host, "policy_key": key, "ca_file": str(authorities)},
        "dps": {"hostname": f"{dps.name}:443", "policy_key": dps_key, "ca_file": str(authorities)},
    }

    def play(tasks: dict[str, dict[str, Any]]) -> Run:
        return run_play(write_play(tmp_path, tasks, groups))

    return Other(name, command, hub, environment, play, has_dps=name == "node")


def devices(*items: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"edgeha.iotedge.iothub_devices": {"devices": list(items), **options}}


def deployments(*items: dict[str, Any]) -> dict[str, Any]:
    return {"edgeha.iotedge.iothub_deployments": {"deployments": list(items)}}


def enrollments(*items: dict[str, Any]) -> dict[str, Any]:
    return {"edgeha.iotedge.dps_enrollments": {"enrollments": list(items)}}


def test_our_modules_find_what_others_made(other: Other) -> None:
    name = f"{other.name}-made"
    tags = {"site": "ä", "nested": {"n": 1}}
    other(
        "create",
        {
            "devices": [
                {"id": name, "edge": True, "tags": tags},
                {"id": f"{name}-leaf", "edge": False, "tags": {}},
            ],
            "configurations": [
                {
                    "id": name,
                    "content": CONTENT,
                    "priority": 3,
                    "targetCondition": "*",
                    "labels": {"by": "them"},
                }
            ],
            "enrollments": [{"registrationId": name, "attestation": {"type": "symmetricKey"}}]
            if other.has_dps
            else [],
        },
    )
    wanted = [{"device_id": name, "edge": True, "tags": tags}, {"device_id": f"{name}-leaf"}]
    item = {"id": name, "content": json.dumps(CONTENT, indent=1), "priority": 3, "target_condition": "*"}
    tasks = {
        "devices": devices(*wanted),
        "adopt": deployments({**item, "adopt": True}),
        "again": deployments(item),
    }
    if other.has_dps:
        entry = {"registration_id": name, "attestation": {"type": "symmetric_key"}}
        tasks["enrollment"] = enrollments(entry)
    run = other.play(tasks)
    assert run.failures == []
    assert [device["action"] for device in run.results["devices"]["devices"]] == ["none", "none"]
    # The same content, so only our label is new.
    [adopted] = run.results["adopt"]["deployments"]
    assert (adopted["action"], adopted["configuration_id"]) == ("update", name)
    assert adopted["labels"] == {"by": "them"}
    assert run.results["again"]["changed"] is False
    if other.has_dps:
        assert run.results["enrollment"]["changed"] is False


def test_others_read_what_our_modules_made(other: Other) -> None:
    name = f"for-{other.name}"
    tags = {"site": "ä", "nested": {"n": 1}}
    tasks = {
        "devices": devices({"device_id": name, "edge": True, "tags": tags}, return_keys=True),
        "deploy": deployments(
            {"id": name, "content": CONTENT, "priority": 4, "target_condition": "tags.site='x'"}
        ),
    }
    if other.has_dps:
        entry = {"registration_id": name, "device_id": "dev", "attestation": {"type": "symmetric_key"}}
        tasks["enrollment"] = enrollments(entry)
    run = other.play(tasks)
    assert run.failures == []
    configuration_id = run.results["deploy"]["deployments"][0]["configuration_id"]
    found = other(
        "read",
        {
            "devices": [name],
            "configurations": [configuration_id],
            "enrollments": [name] if other.has_dps else [],
        },
    )
    key = run.results["devices"]["devices"][0]["primary_key"]
    assert found["devices"] == [{"id": name, "edge": True, "status": "enabled", "key": key, "tags": tags}]
    [configuration] = found["configurations"]
    assert configuration == {
        "id": configuration_id,
        "content": CONTENT,
        "priority": 4,
        "targetCondition": "tags.site='x'",
        "labels": {"edgeha_deployment": name},
    }
    if other.has_dps:
        assert found["enrollments"] == [
            {
                "registrationId": name,
                "deviceId": "dev",
                "provisioningStatus": "enabled",
                "type": "symmetricKey",
            }
        ]
