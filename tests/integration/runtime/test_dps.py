# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway that asks the lab's provisioning service who it is."""

from __future__ import annotations

import base64
import hmac
import signal
from typing import Any

import aiohttp
from edgeha_runtime.daemon.provisioning import FILE

from tests.integration.runtime.emulator import DEVICE_KEY, HUB_IP, Dps
from tests.integration.runtime.parts import AGENT, Daemon, ask, until

GROUP_KEY = "Z3JvdXAta2V5LW9mLXRoZS10ZXN0cy0wMDAxMjM0NTY3ODk="


def keys(key: str) -> dict[str, Any]:
    return {"type": "symmetricKey", "symmetricKey": {"primaryKey": key, "secondaryKey": key}}


async def started(daemon: Daemon, dps: Dps, registration: str, **more: str) -> None:
    daemon.hub, daemon.trust = HUB_IP, dps.hub.ca
    daemon.api.module_set({"name": "sensor", "image": "r/sensor:1"})
    await daemon.start(**dps.settings(registration, **more))
    await until("ready", daemon.is_ready)


async def test_a_single_enrollment_gives_device_and_hub_and_is_asked_once(daemon: Daemon, dps: Dps) -> None:
    body = {"registrationId": "reg-1", "deviceId": "gw-from-dps", "attestation": keys(DEVICE_KEY)}
    await dps.enroll("/enrollments/reg-1", body | {"capabilities": {"iotEdge": True}})
    await started(daemon, dps, "reg-1")
    env = daemon.given("gw-sensor")
    assert (env["IOTEDGE_DEVICEID"], env["IOTEDGE_IOTHUBHOSTNAME"]) == ("gw-from-dps", HUB_IP)
    assert await dps.hub.service("GET", "/devices/gw-from-dps/modules/sensor")
    kept = daemon.state / FILE
    assert kept.stat().st_mode & 0o777 == 0o600
    # With the cloud away the same gateway starts.
    await daemon.stop(signal.SIGKILL)
    await dps.hub.stop()
    (daemon.folder / "daemon.log").write_text("")
    await daemon.start(**dps.settings("reg-1"))
    await until("ready from what is kept", daemon.is_ready)
    assert "provisioned" not in {line["msg"] for line in daemon.log}
    await daemon.stop()
    # Neither another registration nor a torn file is taken for it.
    (daemon.folder / "daemon.log").write_text("")
    await daemon.start(wait=False, **dps.settings("reg-2"))
    assert daemon.process is not None
    assert await daemon.process.wait() == 78
    assert "belongs to registration reg-1" in daemon.log[-1]["msg"]
    kept.write_bytes(kept.read_bytes().replace(b"gw-from-dps", b"gw-from-xxx"))
    (daemon.folder / "daemon.log").write_text("")
    await daemon.start(wait=False, **dps.settings("reg-1"))
    assert await daemon.process.wait() == 78
    assert "torn" in daemon.log[-1]["msg"]
    daemon.process = None


async def test_with_a_groups_key_the_devices_own_is_derived(daemon: Daemon, dps: Dps) -> None:
    body = {"enrollmentGroupId": "plants", "attestation": keys(GROUP_KEY), "capabilities": {"iotEdge": True}}
    await dps.enroll("/enrollmentGroups/plants", body)
    daemon.device_key = GROUP_KEY
    await started(daemon, dps, "plant07", EDGEHA_DPS_KEY="group")
    device = await dps.hub.service("GET", "/devices/plant07")
    own = hmac.digest(base64.b64decode(GROUP_KEY), b"plant07", "sha256")
    assert base64.b64decode(device["authentication"]["symmetricKey"]["primaryKey"]) == own


async def test_a_service_that_is_away_is_waited_for_and_one_that_refuses_is_not(
    daemon: Daemon, dps: Dps
) -> None:
    await dps.hub.stop()
    daemon.trust = dps.hub.ca
    await daemon.start(wait=False, **dps.settings("reg-1"))

    async def told() -> bool:
        try:
            return "does not answer" in (await daemon.ready())[1]
        except aiohttp.ClientError:
            return False

    await until("the reason is told", told)
    await dps.hub.start(dps_port=str(dps.port))
    assert daemon.process is not None
    # Nothing is enrolled for it: a person has to act.
    assert await daemon.process.wait() == 78
    assert "Wrong device key in the Secret, another id scope, or nothing is enrolled" in daemon.log[-1]["msg"]
    daemon.process = None


async def test_edge_agent_may_have_the_service_asked_anew(daemon: Daemon, dps: Dps) -> None:
    body = {"registrationId": "reg-1", "attestation": keys(DEVICE_KEY), "capabilities": {"iotEdge": True}}
    await dps.enroll("/enrollments/reg-1", body | {"deviceId": "gw-from-dps"})
    daemon.api.tokens["agent-token"] = ("system:serviceaccount:edge-gw:gw-edgeagent", ["edgeha-gw"])
    daemon.hub, daemon.trust = HUB_IP, dps.hub.ca
    daemon.api.module_set(AGENT, {"name": "sensor", "image": "r/sensor:1"})
    await daemon.start(**dps.settings("reg-1"))
    await until("ready", daemon.is_ready)

    def provisioned() -> int:
        return [line["msg"] for line in daemon.log].count("provisioned")

    # The same answer: all is looked at anew, also what somebody took away at the hub.
    await dps.hub.service("DELETE", "/devices/gw-from-dps/modules/sensor", change=True)
    assert (await ask(daemon, "POST", "/device/reprovision"))[0] == 200
    assert provisioned() == 2

    async def back() -> bool:
        found = await dps.hub.service("GET", "/devices/gw-from-dps/modules")
        return "sensor" in {module["moduleId"] for module in found}

    await until("the module's identity is made again", back)
    kept = (daemon.state / FILE).read_bytes()

    # Another answer: moving is a person's decision, and nothing has changed.
    await dps.forget("/enrollments/reg-1")
    await dps.enroll("/enrollments/reg-1", body | {"deviceId": "gw-other"})
    status, refused = await ask(daemon, "POST", "/device/reprovision")
    assert (status, refused["message"]) == (
        502,
        f"the provisioning service now assigns device gw-other at hub {HUB_IP}; this gateway is device "
        f"gw-from-dps at hub {HUB_IP}. Give it a claim of its own for that, or correct the enrollment",
    )
    assert (daemon.state / FILE).read_bytes() == kept

    # Nothing is enrolled any more: what to correct is told to edgeAgent too.
    await dps.forget("/enrollments/reg-1")
    status, refused = await ask(daemon, "POST", "/device/reprovision")
    assert (status, "nothing is enrolled for it" in refused["message"]) == (502, True)

    await dps.hub.stop()
    status, refused = await ask(daemon, "POST", "/device/reprovision")
    assert (status, "does not answer" in refused["message"]) == (503, True)
    status, listed = await ask(daemon, "GET", "/modules")
    assert (status, [module["name"] for module in listed["modules"]]) == (200, ["edgeAgent"])
