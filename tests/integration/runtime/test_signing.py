# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real SDK signs through the real proxy and the real daemon, with the hub away."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import signal
import subprocess
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from azure.iot.device import IoTHubModuleClient
from edgeha_runtime.daemon.keystore import KEY_FILE, KeyStore, Owner
from yarl import URL

from tests.integration.runtime.parts import OTHER, SENSOR, Daemon, sensor_signs, start_proxy, until
from tests.ports import free_port

VERSION = {"api-version": "2020-07-07"}


@pytest.fixture
async def sidecar(served: Daemon, proxy_binary: Path, tmp_path: Path) -> AsyncIterator[str]:
    """The proxy as the sensor's pod runs it, at a port of this machine. Answers its URL."""
    token = tmp_path / "token"
    token.write_text("sensor-token")
    given = served.given("gw-sensor", "workload-proxy")
    assert given["EDGEHA_WORKLOAD_URL"] == f"https://gw-daemon.edge-gw.svc:{served.workload_port}"
    listen = f"127.0.0.1:{free_port()}"
    given |= {"EDGEHA_WORKLOAD_URL": served.url, "EDGEHA_WORKLOAD_TOKEN_FILE": str(token)}
    process = await start_proxy(proxy_binary, given | {"EDGEHA_WORKLOAD_LISTEN": listen})
    try:
        yield f"http://{listen}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def test_the_sdk_signs_unmodified_with_the_environment_of_its_pod(
    served: Daemon, sidecar: str, monkeypatch: pytest.MonkeyPatch, certificates: Path
) -> None:
    given = served.given("gw-sensor")
    assert given["IOTEDGE_WORKLOADURI"] == "http://127.0.0.1:35001"
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("IOTEDGE_WORKLOADURI", sidecar)
    client = await asyncio.to_thread(IoTHubModuleClient.create_from_edge_environment)
    try:
        configuration = client._mqtt_pipeline.pipeline_configuration
        # The bundle that was given, and the gateway's own CA: by it the module knows the gateway's hub.
        given_ca, *own = configuration.server_verification_cert.partition("-----END CERTIFICATE-----\n")
        assert "".join((given_ca, own[0])).strip() == (certificates / "ca.crt").read_text().strip()
        assert own[1].count("BEGIN CERTIFICATE") == 1
        token = dict(part.split("=", 1) for part in str(configuration.sastoken).split(" ")[1].split("&"))
        resource = urllib.parse.quote(f"{served.hub}/devices/gw-1/modules/Sensor", safe="")
        assert token["sr"] == resource
        key = hmac.new(served.master_key, b"Sensor:637:primary", hashlib.sha256).digest()
        expected = hmac.new(key, f"{resource}\n{token['se']}".encode(), hashlib.sha256).digest()
        assert base64.b64decode(urllib.parse.unquote(token["sig"])) == expected
    finally:
        await asyncio.to_thread(client.shutdown)


def body(**changes: object) -> str:
    return json.dumps({"keyId": "primary", "algo": "HMACSHA256", "data": "AA=="} | changes)


# Who asks for what, and the answer. In one test each: a daemon's start costs more than all the requests.
REQUESTS = [
    ("sensor-token", "/modules/Sensor/genid/637/sign", 200),
    (None, "/modules/Sensor/genid/637/sign", 401),
    ("forged", "/modules/Sensor/genid/637/sign", 401),
    ("api-token", "/modules/Sensor/genid/637/sign", 401),
    ("nobody", "/modules/Sensor/genid/637/sign", 403),
    ("other-token", "/modules/Sensor/genid/637/sign", 403),
    ("sensor-token", "/modules/other/genid/638/sign", 403),
    ("sensor-token", "/modules/Sensor/genid/638/sign", 403),
    ("sensor-token", "/modules/sensor/genid/637/sign", 403),
    ("sensor-token", "/modules/none/genid/1/sign", 403),
    ("sensor-token", "/modules/other%2F..%2FSensor/genid/637/sign", 403),
    ("sensor-token", "/modules/Sensor/genid/638/certificate/server", 403),
    ("sensor-token", "/modules/other/genid/638/certificate/server", 403),
    ("sensor-token", "/modules/other/genid/638/encrypt", 403),
    ("sensor-token", "/modules/other/genid/638/decrypt", 403),
    ("sensor-token", "/modules/other/certificate/identity", 403),
    ("sensor-token", "/modules/Sensor/genid/637/nonsense", 404),
    ("sensor-token", "/trust-bundle", 405),
    (None, "/nonsense", 401),
]


async def test_a_module_reaches_its_own_name_and_generation_only(served: Daemon) -> None:
    async with served.session() as session:
        for token, path, status in REQUESTS:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            url = URL(f"{path}?api-version=2020-07-07", encoded=True)
            async with session.post(url, data=body(), headers=headers) as answer:
                text = await answer.text()
            assert (answer.status, set(json.loads(text))) == (
                status,
                {"digest"} if status == 200 else {"message"},
            ), f"{token} {path}: {text}"
            if status in (401, 403):
                refusal = [line for line in served.log if line["msg"] == "refused"][-1]
                assert (refusal["status"], refusal["path"].split("?")[0]) == (status, path)
                assert refusal["module"] == {"sensor-token": "Sensor", "other-token": "other"}.get(
                    token or ""
                )
    assert not any(name in (served.folder / "daemon.log").read_text() for name in served.api.tokens)


async def test_a_token_that_was_taken_from_its_pod_opens_nothing(served: Daemon) -> None:
    url = "/modules/Sensor/genid/637/sign"

    async def sign(address: str) -> int:
        async with (
            served.session("sensor-token", address=address) as session,
            session.post(url, params=VERSION, data=body()) as answer,
        ):
            return answer.status

    assert [await sign(address) for address in ("127.0.0.1", "127.0.0.2", "127.0.0.1")] == [200, 403, 200]
    (refusal,) = [line for line in served.log if line["msg"] == "refused"]
    assert (refusal["status"], refusal["peer"]) == (403, "127.0.0.2")
    assert (refusal["module"], refusal["pod"]) == ("Sensor", "gw-sensor-caller")
    assert "sensor-token" not in json.dumps(refusal)
    # Where the cluster rewrites addresses.
    await served.stop(signal.SIGKILL)
    (served.folder / "daemon.log").write_text("")
    await served.start(EDGEHA_CHECK_CALLER_ADDRESS="false")
    await until("ready", served.is_ready)
    assert await sign("127.0.0.2") == 200


async def test_on_the_nodes_network_the_way_leads_through_a_socket(
    served: Daemon, proxy_binary: Path, tmp_path: Path
) -> None:
    host = {"HostConfig": {"NetworkMode": "host"}}
    served.api.module_set(SENSOR | {"createOptions": host}, OTHER)

    def uri() -> str:
        # The new pod comes when the one before is gone.
        there = "gw-sensor-a" in served.api.placed()
        return served.given("gw-sensor")["IOTEDGE_WORKLOADURI"] if there else ""

    await until("the socket", lambda: uri() == "unix:///var/run/edgeha/workload.sock")
    given = served.given("gw-sensor", "workload-proxy")
    assert given["EDGEHA_WORKLOAD_LISTEN"] == uri()
    (tmp_path / "token").write_text("sensor-token")
    path = tmp_path / "workload.sock"
    environment = given | {
        "EDGEHA_WORKLOAD_URL": served.url,
        "EDGEHA_WORKLOAD_TOKEN_FILE": str(tmp_path / "token"),
        "EDGEHA_WORKLOAD_LISTEN": f"unix://{path}",
    }
    process = await start_proxy(proxy_binary, environment)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
            session.post("http://x/modules/Sensor/genid/637/sign", params=VERSION, data=body()) as answer,
        ):
            assert answer.status == 200
    finally:
        process.kill()
        await process.wait()


BODIES = [
    ("", 400, "not JSON"),
    ("[1]", 400, "not a JSON object"),
    ("[" * 30_000, 400, "not JSON"),
    (body(algo="HMACSHA512"), 400, "HMACSHA256"),
    (body(data="?"), 400, "base64"),
    (body(data=None), 400, "data is missing"),
    (body(keyId=7), 400, "keyId"),
    (body(data="A" * 1_100_000), 413, "larger than"),
    (body(data=""), 200, None),
]


async def test_bad_bodies_have_a_defined_answer(served: Daemon) -> None:
    async with served.session("sensor-token") as session:
        for data, status, reason in BODIES:
            path = "/modules/Sensor/genid/637/sign"
            async with session.post(path, params=VERSION, data=data) as answer:
                found = await answer.json()
            assert answer.status == status, f"{data[:60]}: {found}"
            assert reason is None or reason in found["message"]


async def test_the_api_version_is_checked(served: Daemon) -> None:
    async with served.session("sensor-token") as session:
        for version, status in (({}, 400), ({"api-version": "2042-01-01"}, 400), (VERSION, 200)):
            async with session.get("/trust-bundle", params=version) as answer:
                assert answer.status == status


async def test_killed_and_started_again_it_signs_alike_and_changes_nothing(served: Daemon) -> None:
    async def digest() -> str:
        async with (
            served.session("sensor-token") as session,
            session.post("/modules/Sensor/genid/637/sign", params=VERSION, data=body()) as answer,
        ):
            return str((await answer.json())["digest"])

    await until("the images are kept", lambda: {"r/sensor:1", "r/other:1"} <= set(served.kept_images()))
    before, writes = await digest(), len(served.api.writes)
    await served.stop(signal.SIGKILL)
    (served.folder / "daemon.log").write_text("")
    await served.start()
    await until("ready again", served.is_ready)
    assert await digest() == before
    assert served.api.writes[writes:] == []


async def test_a_change_to_one_module_leaves_the_others_untouched(served: Daemon) -> None:
    before = served.api.pod_of("gw-other-a")
    served.api.module_set(SENSOR | {"image": "r/sensor:2"}, OTHER)

    def image() -> str:
        # The new pod comes when the one before is gone.
        found = served.api.pod_of("gw-sensor-a")
        return str(found["spec"]["containers"][0]["image"]) if found else ""

    await until("the new image", lambda: image() == "r/sensor:2")
    await until("ready", served.is_ready)
    assert before is not None
    assert served.api.pod_of("gw-other-a") == before
    assert served.process is not None
    assert served.process.returncode is None


async def test_what_leaves_the_set_is_removed_and_what_was_deleted_comes_back(served: Daemon) -> None:
    before = served.api.pod_of("gw-sensor-a")
    assert before is not None
    served.api.remove("pods", before["metadata"]["name"])
    await until("the pod is back", lambda: "gw-sensor-a" in served.api.placed())
    served.api.module_set(SENSOR)
    await until("other is gone", lambda: "gw-other" not in served.api.names("serviceaccounts"))
    assert served.api.placed() == {"gw-sensor-a"}
    after = served.api.pod_of("gw-sensor-a")
    assert after is not None
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"] == before["spec"]
    assert [entry["name"] for entry in after["metadata"]["ownerReferences"]] == ["gw-daemon"]


@pytest.mark.parametrize(
    "broken",
    [
        "no JSON",
        "",
        json.dumps({"a": 1}),
        json.dumps(None),
        json.dumps([SENSOR, {"image": "r/other:1"}]),
        json.dumps([None]),
    ],
)
async def test_a_broken_or_deleted_set_removes_nothing_and_shows_in_readyz(
    served: Daemon, broken: str
) -> None:
    async def says(text: str) -> bool:
        return text in (await served.ready())[1]

    served.api.put("configmaps", "gw-modules", {"data": {"modules.json": broken}})
    await until("readyz tells", lambda: says("ConfigMap gw-modules: "))
    assert any("modules.json" in line["msg"] for line in served.log)
    served.api.remove("configmaps", "gw-modules")
    await until("readyz tells", lambda: says("was deleted; its last content stands"))
    assert served.api.placed() == {"gw-sensor-a", "gw-other-a"}
    assert {"Sensor", "other"} <= KeyStore.open(served.state, Owner("gw-1", served.hub)).identities.keys()
    served.api.module_set(SENSOR, OTHER)
    await until("ready", served.is_ready)


async def test_a_new_module_waits_for_the_hub_and_readyz_says_so(served: Daemon) -> None:
    served.api.module_set(SENSOR, OTHER, {"name": "late", "image": "r/late:1"})

    async def told() -> bool:
        status, text = await served.ready()
        return status == 503 and "module late: hub" in text and "does not answer" in text

    await until("readyz names module and hub", told)
    assert "gw-late-a" not in served.api.placed()


@pytest.fixture
def small_disk(daemon: Daemon) -> Iterator[Path]:
    """The daemon's state on a file system of its own, which has room for little."""
    daemon.state.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", daemon.state],
        capture_output=True,
        check=False,
        timeout=10,
    )
    if mounted.returncode:
        pytest.skip("mounting takes root; test_keystore.py has the lock alone")
    yield daemon.state
    subprocess.run(["umount", "--lazy", daemon.state], check=True, timeout=10)


async def test_a_daemon_starts_on_a_full_disk_and_modules_sign(daemon: Daemon, small_disk: Path) -> None:
    KeyStore.open(small_disk, Owner("gw-1", daemon.hub)).remember("Sensor", "637")
    daemon.api.module_set(SENSOR)
    daemon.api.tokens["sensor-token"] = ("system:serviceaccount:edge-gw:gw-sensor", ["edgeha-gw"])
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(b"x" * 4096):
            pass
    assert os.statvfs(small_disk).f_bavail == 0
    await daemon.start()
    await until("ready", daemon.is_ready)
    assert await sensor_signs(daemon) == 200
    assert any("the store's lock has no name" in line["msg"] for line in daemon.log)


async def test_a_second_daemon_waits_and_names_the_first(served: Daemon, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    second = Daemon(served.api, folder, served.hub, served.device_key, served.trust)
    await second.start(
        wait=False, EDGEHA_STATE_DIR=str(served.state), EDGEHA_LOCK_TIMEOUT="1", EDGEHA_POD_NAME="gw-daemon-1"
    )
    assert second.process is not None
    code = await asyncio.wait_for(second.process.wait(), 30)
    second.process = None
    assert code == 75
    assert "in use by pod gw-daemon-0 on node node-a" in second.log[-1]["msg"]


async def test_a_torn_store_stops_the_daemon_with_the_way_out(daemon: Daemon) -> None:
    daemon.state.mkdir()
    KeyStore.open(daemon.state, Owner("gw-1", daemon.hub))
    path = daemon.state / KEY_FILE
    path.write_bytes(path.read_bytes()[:40])
    await daemon.start(wait=False)
    assert daemon.process is not None
    assert await asyncio.wait_for(daemon.process.wait(), 30) == 78
    daemon.process = None
    assert "is torn" in daemon.log[-1]["msg"]
    assert "Restore it from a backup" in daemon.log[-1]["msg"]
    assert len(path.read_bytes()) == 40
