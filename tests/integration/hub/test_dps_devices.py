# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices that register themselves with Microsoft's azure-iot-device and go to the hub they got."""

import base64
import hashlib
import hmac
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.iot.device import IoTHubDeviceClient, ProvisioningDeviceClient
from azure.iot.device.exceptions import CredentialError
from azure.iot.hub.sastoken import SasToken

from tests.integration.hub.conftest import LIMIT_SECONDS, Dps, for_device, message, run_cli, wait_for
from tests.tls import Issued, issue

KEY_1 = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
KEY_2 = "YWJjZGVmZ2hpamFiY2RlZmdoaWphYmNkZWZnaGlqYWI="
KEYS = {"primaryKey": KEY_1, "secondaryKey": KEY_2}


def enroll(dps: Dps, registration_id: str, **more: Any) -> None:
    """Enroll one device, by its key unless `more` says otherwise."""
    body = {"registrationId": registration_id, "attestation": {"type": "symmetricKey", "symmetricKey": KEYS}}
    dps.client().enrollment.create_or_update(registration_id, body | more)


def change(dps: Dps, registration_id: str, **more: Any) -> None:
    body = {"registrationId": registration_id, "attestation": {"type": "symmetricKey", "symmetricKey": KEYS}}
    dps.client().enrollment.create_or_update(registration_id, body | more, if_match="*")


def register(dps: Dps, registration_id: str, key: str = KEY_1) -> Any:
    client = ProvisioningDeviceClient.create_from_symmetric_key(
        dps.hub.name, registration_id, dps.id_scope, key, server_verification_cert=dps.hub.ca
    )
    return client.register()


def register_by_certificate(dps: Dps, registration_id: str, issued: Issued, directory: Path) -> Any:
    client = ProvisioningDeviceClient.create_from_x509_certificate(
        dps.hub.name,
        registration_id,
        dps.id_scope,
        for_device(issued, directory),
        server_verification_cert=dps.hub.ca,
    )
    return client.register()


def send_by_certificate(dps: Dps, result: Any, issued: Issued, directory: Path, body: str) -> None:
    """Connect to the hub with what registration gave, and send."""
    client = IoTHubDeviceClient.create_from_x509_certificate(
        for_device(issued, directory),
        result.registration_state.assigned_hub,
        result.registration_state.device_id,
        server_verification_cert=dps.hub.ca,
        connection_retry=False,
    )
    try:
        client.send_message(message(body, "m"))
    finally:
        client.shutdown()


def derived(group_key: str, registration_id: str) -> str:
    digest = hmac.digest(base64.b64decode(group_key), registration_id.encode(), hashlib.sha256)
    return base64.b64encode(digest).decode()


def group(dps: Dps, group_id: str, attestation: dict[str, Any], **more: Any) -> None:
    body = {"enrollmentGroupId": group_id, "attestation": attestation} | more
    dps.client().enrollment_group.create_or_update(group_id, body)


@pytest.mark.parametrize("key", [KEY_1, KEY_2])
def test_edge_device_by_its_key(dps: Dps, key: str) -> None:
    name = f"edge-{key[:3]}"
    twin = {"tags": {"site": "a"}, "properties": {"desired": {"interval": 5}}}
    static = {"allocationPolicy": "static", "iotHubs": [dps.hub.host]}
    enroll(dps, f"reg-{name}", deviceId=name, capabilities={"iotEdge": True}, initialTwin=twin, **static)
    result = register(dps, f"reg-{name}", key)
    state = result.registration_state
    assert (result.status, state.device_id, state.assigned_hub) == ("assigned", name, dps.hub.name)
    assert state.sub_status == "initialAssignment"

    device = dps.hub.device(name, key)
    device.connect()
    device.send_message(message("provisioned", "m"))
    assert [entry["body"] for entry in dps.hub.log("--device", name)] == ["provisioned"]
    registered = dps.hub.registry().get_device(name)
    assert registered.capabilities.iot_edge is True
    assert registered.authentication.symmetric_key.primary_key == KEY_1
    assert registered.authentication.symmetric_key.secondary_key == KEY_2
    stored = dps.hub.registry().get_twin(name)
    assert stored.tags == {"site": "a"}
    assert stored.properties.desired["interval"] == 5

    shown = dps.client().enrollment.get(f"reg-{name}")["registrationState"]
    assert (shown["status"], shown["deviceId"], shown["assignedHub"]) == ("assigned", name, dps.hub.name)
    assert dps.client().device_registration_state.get(f"reg-{name}") == shown


def test_registering_again_keeps_device_and_twin(dps: Dps) -> None:
    enroll(dps, "again", initialTwin={"tags": {"site": "a"}, "properties": {"desired": {}}})
    register(dps, "again")
    hub = dps.hub
    assert hub.request("PATCH", "/twins/again", body={"tags": {"site": "b"}}).status_code == 200
    before = hub.registry().get_device("again")
    result = register(dps, "again")
    assert result.registration_state.sub_status == "reprovisionedToInitialAssignment"
    assert hub.registry().get_device("again").as_dict() == before.as_dict()
    assert hub.registry().get_twin("again").tags == {"site": "b"}

    # Another device id counts once the registration is gone.
    change(dps, "again", deviceId="elsewhere")
    assert register(dps, "again").registration_state.device_id == "again"
    dps.client().device_registration_state.delete("again")
    assert dps.request("GET", "/registrations/again").json()["errorCode"] == 404202
    result = register(dps, "again")
    assert result.registration_state.device_id == "elsewhere"
    assert result.registration_state.sub_status == "initialAssignment"
    # The device of before stays in the hub, and after the enrollment too.
    dps.client().enrollment.delete("again")
    assert hub.registry().get_device("again").etag == before.etag
    assert hub.registry().get_device("elsewhere").device_id == "elsewhere"


@pytest.mark.parametrize(("policy", "status"), [(True, 200), (False, 404)])
def test_reprovision_policy(dps: Dps, policy: bool, status: int) -> None:
    """A device that was deleted in the hub comes back unless its assignment must not be touched."""
    name = f"policy-{policy}"
    enroll(dps, name, reprovisionPolicy={"updateHubAssignment": policy, "migrateDeviceData": True})
    register(dps, name)
    assert dps.hub.request("DELETE", f"/devices/{name}", if_match="*").status_code == 204
    assert register(dps, name).status == "assigned"
    assert dps.hub.request("GET", f"/devices/{name}").status_code == status


def test_device_that_was_there_before(dps: Dps) -> None:
    """It keeps twin, parent and status, and proves itself as it is enrolled."""
    hub = dps.hub
    hub.create_device("parent", edge=True)
    scope = hub.request("GET", "/devices/parent").json()["deviceScope"]
    body = {"deviceId": "there", "deviceScope": scope, "statusReason": "kept"}
    assert hub.request("PUT", "/devices/there", body=body).status_code == 200
    enroll(dps, "there")
    register(dps, "there")
    device = hub.request("GET", "/devices/there").json()
    assert (device["deviceScope"], device["statusReason"]) == (scope, "kept")
    assert device["authentication"]["symmetricKey"] == KEYS


def test_group_by_derived_key(dps: Dps) -> None:
    attestation = {"type": "symmetricKey", "symmetricKey": KEYS}
    group(dps, "by-key", attestation, capabilities={"iotEdge": True})
    for name, key in (("member-1", KEY_1), ("member-2", KEY_2)):
        result = register(dps, name, derived(key, name))
        assert result.registration_state.device_id == name
        device = dps.hub.device(name, derived(key, name))
        device.connect()
        assert dps.hub.registry().get_twin(name).connection_state == "Connected"
    listed = dps.client().device_registration_state.query("by-key")
    assert {state["registrationId"] for state in listed} == {"member-1", "member-2"}
    with pytest.raises(CredentialError):
        register(dps, "member-3", KEY_1)
    assert "by-key: wrong key" in dps.hub.last_event("device-refused")["reason"]

    # An enrollment of its own, even a disabled one, wins over the group.
    enroll(dps, "member-1", provisioningStatus="disabled")
    with pytest.raises(CredentialError):
        register(dps, "member-1", derived(KEY_1, "member-1"))
    dps.client().enrollment_group.delete("by-key")
    with pytest.raises(CredentialError):
        register(dps, "member-2", derived(KEY_2, "member-2"))


def test_certificate(dps: Dps, tmp_path: Path) -> None:
    own = issue("by-cert")
    certificates = {"primary": {"certificate": own.pem}}
    x509 = {"type": "x509", "x509": {"clientCertificates": certificates}}
    enroll(dps, "by-cert", attestation=x509, capabilities={"iotEdge": True})
    result = register_by_certificate(dps, "by-cert", own, tmp_path)
    send_by_certificate(dps, result, own, tmp_path, "by certificate")
    assert [entry["body"] for entry in dps.hub.log("--device", "by-cert")] == ["by certificate"]
    device = dps.hub.registry().get_device("by-cert")
    assert device.authentication.type == "selfSigned"
    assert device.authentication.x509_thumbprint.primary_thumbprint == own.thumbprint.upper()

    for other in (issue("by-cert"), issue("by-cert", days=(-10, -1))):
        with pytest.raises(CredentialError):
            register_by_certificate(dps, "by-cert", other, tmp_path)
    with pytest.raises(CredentialError):
        register(dps, "by-cert")

    # A new certificate in the enrollment reaches the hub with the next registration.
    renewed = issue("by-cert")
    x509["x509"] = {"clientCertificates": {"primary": {"certificate": renewed.pem}}}
    change(dps, "by-cert", attestation=x509)
    result = register_by_certificate(dps, "by-cert", renewed, tmp_path)
    send_by_certificate(dps, result, renewed, tmp_path, "renewed")


def test_group_by_authority(dps: Dps, tmp_path: Path) -> None:
    root = issue("fleet root", ca=True)
    line = issue("fleet line", root, ca=True)
    signing = {"signingCertificates": {"primary": {"certificate": line.pem}}}
    group(dps, "by-signing", {"type": "x509", "x509": signing})
    leaf = issue("fleet-1", line)
    result = register_by_certificate(dps, "fleet-1", leaf, tmp_path)
    send_by_certificate(dps, result, leaf, tmp_path, "fleet")
    assert [entry["body"] for entry in dps.hub.log("--device", "fleet-1")] == ["fleet"]
    # What is above its own certificate, a device need not send; and updates need not repeat it.
    register_by_certificate(dps, "fleet-1", Issued(leaf.certificate, leaf.key), tmp_path)
    shown = dps.client().enrollment_group.get("by-signing")
    assert "BEGIN CERTIFICATE" not in str(shown)
    dps.client().enrollment_group.create_or_update("by-signing", shown, if_match=shown["etag"])
    register_by_certificate(dps, "fleet-1", Issued(leaf.certificate, leaf.key), tmp_path)
    stranger = issue("fleet-2", issue("fleet line", ca=True))
    for name, issued in (("fleet-2", stranger), ("fleet-3", leaf)):
        with pytest.raises(CredentialError):
            register_by_certificate(dps, name, issued, tmp_path)
    dps.client().enrollment_group.delete("by-signing")

    group(dps, "by-reference", {"type": "x509", "x509": {"caReferences": {"primary": "fleet-ca"}}})
    with pytest.raises(CredentialError):
        register_by_certificate(dps, "fleet-1", leaf, tmp_path)
    (tmp_path / "root.pem").write_text(root.pem)
    state = ("--state", str(dps.hub.state))
    assert run_cli("ca", "add", str(tmp_path / "root.pem"), "--name", "fleet-ca", *state).returncode == 0
    register_by_certificate(dps, "fleet-1", leaf, tmp_path)
    assert dps.client().device_registration_state.get("fleet-1")["status"] == "assigned"


def test_wrong_key_unknown_id_and_tpm_are_refused(dps: Dps) -> None:
    enroll(dps, "careful")
    enroll(dps, "with-tpm", attestation={"type": "tpm", "tpm": {"endorsementKey": KEY_1}})
    for name, key, reason in (
        ("careful", derived(KEY_1, "x"), "wrong key"),
        ("nobody", KEY_1, "no enrollment has the id 'nobody'"),
        ("with-tpm", KEY_1, "attestation by TPM"),
    ):
        with pytest.raises(CredentialError):
            register(dps, name, key)
        refused = dps.hub.last_event("device-refused")
        assert (refused["registrationId"], reason in refused["reason"]) == (name, True)
    assert KEY_1 not in (dps.hub.state / "serve.log").read_text()


class Http:
    """Registration over HTTPS, as small devices and the edge runtime do it."""

    def __init__(self, dps: Dps, registration_id: str, **options: Any) -> None:
        self.base = f"https://{dps.host}/{dps.id_scope}/registrations/{registration_id}"
        self.options = {"verify": str(dps.hub.state / "ca.pem")} | options
        self.body = {"registrationId": registration_id}

    @classmethod
    def by_key(cls, dps: Dps, registration_id: str, key: str = KEY_1, ttl: int = 300) -> "Http":
        resource = f"{dps.id_scope}/registrations/{registration_id}"
        token = str(SasToken(resource, key, "registration", ttl=ttl))
        return cls(dps, registration_id, headers={"Authorization": token})

    def call(self, method: str, path: str = "") -> requests.Response:
        version = {"api-version": "2021-06-01"}
        return requests.request(
            method, self.base + path, params=version, json=self.body, timeout=10, **self.options
        )

    def register(self) -> Any:
        accepted = self.call("PUT", "/register")
        assert accepted.status_code == 202, accepted.text
        assert accepted.json()["status"] == "assigning"
        assert int(accepted.headers["Retry-After"]) >= 1
        done = self.call("GET", f"/operations/{accepted.json()['operationId']}")
        assert done.status_code == 200
        return done.json()


def test_https_by_key(dps: Dps) -> None:
    enroll(dps, "http-key")
    device = Http.by_key(dps, "http-key")
    assert device.call("POST").status_code == 404
    result = device.register()
    assert result["status"] == "assigned"
    assert result["registrationState"]["assignedHub"] == dps.hub.name
    assert result["registrationState"]["symmetricKey"] == {}
    assert device.call("POST").json() == result["registrationState"]
    assert device.call("GET", "/operations/other").status_code == 404
    for flawed in (
        Http.by_key(dps, "http-key", KEY_2[:-4] + "AAA="),
        Http.by_key(dps, "http-key", ttl=-5),
        Http(dps, "http-key"),
    ):
        refused = flawed.call("PUT", "/register")
        assert (refused.status_code, refused.json()["errorCode"]) == (401, 401002)
    other_scope = Http.by_key(dps, "http-key")
    other_scope.base = other_scope.base.replace(dps.id_scope, "0neOTHER")
    assert other_scope.call("PUT", "/register").status_code == 401


def test_https_by_certificate(dps: Dps, tmp_path: Path) -> None:
    own = issue("http-cert")
    certificates = {"primary": {"certificate": own.pem}}
    enroll(dps, "http-cert", attestation={"type": "x509", "x509": {"clientCertificates": certificates}})
    chain, key = own.write(tmp_path)
    result = Http(dps, "http-cert", cert=(str(chain), str(key))).register()
    assert result["registrationState"]["x509"]["certificateInfo"]["subjectName"] == "CN=http-cert"
    assert Http(dps, "http-cert").call("PUT", "/register").status_code == 401


def test_disabled_failed_and_not_built(dps: Dps) -> None:
    enroll(dps, "off", provisioningStatus="disabled")
    answer = Http.by_key(dps, "off").call("PUT", "/register")
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["operationId"]) == ("disabled", "")
    assert answer.json()["registrationState"]["status"] == "disabled"
    assert dps.hub.request("GET", "/devices/off").status_code == 404

    webhook = {"webhookUrl": "https://localhost/", "apiVersion": "2021-10-01"}
    enroll(dps, "custom", allocationPolicy="custom", customAllocationDefinition=webhook)
    failed = Http.by_key(dps, "custom").register()
    assert failed["status"] == "failed"
    assert "allocation policy custom" in failed["registrationState"]["errorMessage"]
    assert dps.client().device_registration_state.get("custom")["errorCode"] == 501001

    enroll(dps, "tpm-http", attestation={"type": "tpm", "tpm": {"endorsementKey": KEY_1}})
    refused = Http(dps, "tpm-http").call("PUT", "/register")
    assert (refused.status_code, "TPM" in refused.json()["message"]) == (501, True)


def test_registration_ends_with_its_token(dps: Dps) -> None:
    enroll(dps, "short")
    resource = f"{dps.id_scope}/registrations/short"
    token = str(SasToken(resource, KEY_1, "registration", ttl=1))
    client = dps.hub.paho_as(f"{resource}/api-version=2019-03-31", "short", token)
    assert client.return_code == 0
    # Its keep-alive would end it later, and for another reason.
    assert client.disconnected.wait(LIMIT_SECONDS)
    ends = wait_for(
        "the end in the log",
        lambda: [
            entry["reason"]
            for entry in dps.hub.events()
            if (entry["event"], entry.get("registrationId")) == ("registration-disconnected", "short")
        ],
    )
    assert ends == ["the token expired"]
