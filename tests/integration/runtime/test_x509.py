# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway whose device proves itself by a certificate, at the hub and at the provisioning service."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.integration.runtime.emulator import HUB_IP, Dps, Hub
from tests.integration.runtime.parts import AGENT, Daemon, ask, until
from tests.tls import Issued, issue


def given(issued: Issued, folder: Path) -> dict[str, str]:
    """What the chart tells the daemon when the Secret holds a certificate."""
    chain, key = issued.write(folder, "device")
    return {
        "EDGEHA_DEVICE_KEY_FILE": "",
        "EDGEHA_DEVICE_CERTIFICATE_FILE": str(chain),
        "EDGEHA_DEVICE_PRIVATE_KEY_FILE": str(key),
    }


async def authenticate(hub: Hub, authentication: dict[str, Any]) -> None:
    """Let the hub know the device in another way; its modules stay."""
    device = await hub.service("GET", "/devices/gw-1")
    await hub.service("PUT", "/devices/gw-1", device | {"authentication": authentication}, change=True)


def by_thumbprint(*issued: Issued) -> dict[str, Any]:
    first, second = (issued * 2)[:2]
    found = {"primaryThumbprint": first.thumbprint, "secondaryThumbprint": second.thumbprint}
    return {"type": "selfSigned", "x509Thumbprint": found}


async def test_a_self_signed_certificate_is_known_by_its_thumbprint_and_renewed_without_a_restart(
    online: Daemon, hub: Hub, tmp_path: Path
) -> None:
    first, second = issue("gw-1"), issue("gw-1")
    await authenticate(hub, by_thumbprint(first, second))
    online.api.module_set(AGENT, {"name": "sensor", "image": "r/sensor:1"})
    online.api.tokens["agent-token"] = ("system:serviceaccount:edge-gw:gw-edgeagent", ["edgeha-gw"])
    await online.start(**given(first, tmp_path))
    await until("ready", online.is_ready)
    # The module's own keys are symmetric, and the hub has them.
    module = await hub.service("GET", "/devices/gw-1/modules/sensor")
    assert module["authentication"]["type"] == "sas"
    assert len(base64.b64decode(module["authentication"]["symmetricKey"]["primaryKey"])) == 32
    assert (await ask(online, "GET", "/systeminfo"))[1]["provisioning"]["type"] == "manual.x509"
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{online.health_port}/metrics") as answer,
    ):
        until_when = int(first.certificate.not_valid_after_utc.timestamp())
        value = (
            (await answer.text())
            .partition("\nedgeha_device_certificate_not_after_timestamp_seconds ")[2]
            .split()[0]
        )
        assert float(value) == until_when

    # The Secret is renewed, then the hub forgets the first one.
    given(second, tmp_path)
    await authenticate(hub, by_thumbprint(second))
    online.api.module_set(AGENT, {"name": "sensor", "image": "r/sensor:1"}, {"name": "new", "image": "r/n:1"})
    await until("the new module", lambda: "gw-new-a" in online.api.placed(), 40)
    assert await hub.service("GET", "/devices/gw-1/modules/new")


async def test_a_certificate_that_is_put_back_counts_again(online: Daemon, hub: Hub, tmp_path: Path) -> None:
    own = issue("gw-1")
    await authenticate(hub, by_thumbprint(own))
    settings = given(own, tmp_path)
    await online.start(**settings)
    await until("ready", online.is_ready)
    Path(settings["EDGEHA_DEVICE_PRIVATE_KEY_FILE"]).write_text(issue("gw-1").key_pem)
    sensor, new = {"name": "sensor", "image": "r/sensor:1"}, {"name": "new", "image": "r/n:1"}
    online.api.module_set(sensor, new)

    async def told() -> bool:
        return "Put the device's certificate" in (await online.ready())[1]

    await until("the reason", told)
    given(own, tmp_path)
    await until("ready again", online.is_ready, 40)


async def test_a_certificate_of_an_authority_of_the_hub_is_known_by_its_name(
    online: Daemon, hub: Hub, tmp_path: Path
) -> None:
    root = issue("plant root", ca=True)
    between = issue("plant devices", root, ca=True)
    (tmp_path / "root.pem").write_text(root.pem)
    await hub.cli("ca", "add", str(tmp_path / "root.pem"), "--state", str(hub.state), "--name", "plant")
    await authenticate(hub, {"type": "certificateAuthority"})
    await online.start(**given(issue("gw-1", between), tmp_path))
    await until("ready", online.is_ready)
    assert await hub.service("GET", "/devices/gw-1/modules/sensor")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("another", "answered 401"),
        ("expired", "answered 401"),
        ("torn", "Put the device's certificate (with those above it) and its key into the Secret"),
        ("of another key", "Put the device's certificate (with those above it) and its key into the Secret"),
    ],
)
async def test_what_is_wrong_with_a_certificate_is_told(
    online: Daemon, hub: Hub, tmp_path: Path, wrong: str, said: str
) -> None:
    known = issue("gw-1", days=(-30, -1)) if wrong == "expired" else issue("gw-1")
    await authenticate(hub, by_thumbprint(known))
    settings = given(issue("gw-1") if wrong == "another" else known, tmp_path)
    if wrong == "torn":
        Path(settings["EDGEHA_DEVICE_CERTIFICATE_FILE"]).write_text("-----BEGIN CERTIFICATE-----\n")
    if wrong == "of another key":
        Path(settings["EDGEHA_DEVICE_PRIVATE_KEY_FILE"]).write_text(issue("gw-1").key_pem)
    await online.start(**settings)

    async def told() -> bool:
        return said in (await online.ready())[1]

    await until("the reason", told)
    reasons = (await online.ready())[1]
    if said == "answered 401":
        own = issue_of(settings)
        assert f"another certificate than the hub knows (SHA-256 {own}, good until " in reasons
    if wrong == "expired":
        assert "the device's certificate ended at " in reasons
    assert "PRIVATE" not in (online.folder / "daemon.log").read_text()


def issue_of(settings: dict[str, str]) -> str:
    """The thumbprint of the certificate in the settings."""
    data = Path(settings["EDGEHA_DEVICE_CERTIFICATE_FILE"]).read_bytes()
    return x509.load_pem_x509_certificate(data).fingerprint(hashes.SHA256()).hex().upper()


async def test_a_single_enrollment_by_certificate_gives_device_and_hub(
    daemon: Daemon, dps: Dps, tmp_path: Path
) -> None:
    own = issue("reg-1")
    attestation = {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": own.pem}}}}
    body = {"registrationId": "reg-1", "deviceId": "gw-x", "attestation": attestation}
    await dps.enroll("/enrollments/reg-1", body | {"capabilities": {"iotEdge": True}})
    await provisioned(daemon, dps, "reg-1", given(own, tmp_path))
    assert await dps.hub.service("GET", "/devices/gw-x/modules/sensor")


async def test_a_group_takes_certificates_of_its_authority(daemon: Daemon, dps: Dps, tmp_path: Path) -> None:
    root = issue("plant root", ca=True)
    attestation = {"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": root.pem}}}}
    body = {"enrollmentGroupId": "plants", "attestation": attestation, "capabilities": {"iotEdge": True}}
    await dps.enroll("/enrollmentGroups/plants", body)
    await provisioned(daemon, dps, "plant07", given(issue("plant07", root), tmp_path))
    assert await dps.hub.service("GET", "/devices/plant07/modules/sensor")


async def provisioned(daemon: Daemon, dps: Dps, registration: str, certificate: dict[str, str]) -> None:
    daemon.hub, daemon.trust = HUB_IP, dps.hub.ca
    daemon.api.module_set({"name": "sensor", "image": "r/sensor:1"})
    await daemon.start(**dps.settings(registration), **certificate)
    await until("ready", daemon.is_ready)


async def test_a_certificate_that_is_not_enrolled_is_refused(
    daemon: Daemon, dps: Dps, tmp_path: Path
) -> None:
    daemon.trust = dps.hub.ca
    await daemon.start(wait=False, **dps.settings("reg-9"), **given(issue("reg-9"), tmp_path))
    assert daemon.process is not None
    assert await daemon.process.wait() == 78
    assert "Another certificate than the hub knows (SHA-256 " in daemon.log[-1]["msg"]
    daemon.process = None
