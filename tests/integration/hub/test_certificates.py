# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices that prove themselves by certificate, driven by Microsoft's azure-iot-device."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import paho.mqtt.client as paho  # type: ignore[import-untyped]  # the lock has no stubs for it
import pytest
from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient
from azure.iot.device.exceptions import CredentialError

from tests.integration.hub.conftest import API_VERSION, Hub, for_device, message, run_cli, wait_for
from tests.tls import Issued, issue

Connect = Callable[..., IoTHubDeviceClient]


@pytest.fixture
def connect(hub: Hub, tmp_path: Path) -> Iterator[Connect]:
    """Connect a device, or a module, with a certificate."""
    clients: list[IoTHubDeviceClient] = []

    def make(device_id: str, issued: Issued, module_id: str | None = None) -> IoTHubDeviceClient:
        options = {
            "x509": for_device(issued, tmp_path),
            "hostname": hub.name,
            "device_id": device_id,
            "server_verification_cert": hub.ca,
            "connection_retry": False,
            "auto_connect": False,
        }
        if module_id is None:
            client = IoTHubDeviceClient.create_from_x509_certificate(**options)
        else:
            client = IoTHubModuleClient.create_from_x509_certificate(module_id=module_id, **options)
        clients.append(client)
        client.connect()
        return client

    yield make
    for client in clients:
        client.shutdown()


def register(hub: Hub, device_id: str, kind: str, *thumbprints: str | None) -> None:
    pair = dict(zip(("primaryThumbprint", "secondaryThumbprint"), thumbprints, strict=False))
    authentication = {"type": kind} | ({"x509Thumbprint": pair} if pair else {})
    body = {"deviceId": device_id, "authentication": authentication}
    answer = hub.request("PUT", f"/devices/{device_id}", body=body)
    assert answer.status_code == 200, answer.text


def add_authority(hub: Hub, name: str, authority: Issued, directory: Path) -> None:
    (directory / "authority.pem").write_text(authority.pem)
    added = run_cli("ca", "add", str(directory / "authority.pem"), "--name", name, "--state", str(hub.state))
    assert added.returncode == 0, added.stderr


def refused(hub: Hub, connect: Connect, device_id: str, issued: Issued, module_id: str | None = None) -> str:
    """The hub's reason for refusing a client."""
    with pytest.raises(CredentialError):
        connect(device_id, issued, module_id)
    event = hub.last_event("device-refused")
    assert (event["device"], event["module"]) == (device_id, module_id)
    return str(event["reason"])


@pytest.mark.parametrize("place", ["primary", "secondary"])
@pytest.mark.parametrize("kind", ["sha256", "sha1"])
def test_thumbprint(hub: Hub, connect: Connect, kind: str, place: str) -> None:
    device_id = f"thumb-{kind}-{place}"
    own = issue(device_id)
    thumbprint = own.thumbprint if kind == "sha256" else own.sha1_thumbprint.upper()
    other = issue("other").thumbprint
    register(
        hub, device_id, "selfSigned", *((thumbprint, other) if place == "primary" else (other, thumbprint))
    )
    client = connect(device_id, own)
    client.send_message(message("by certificate", "m"))
    # Several TLS records each way.
    client.send_message(message("x" * 250_000, "large"))
    client.patch_twin_reported_properties({"large": {str(number): "y" * 4000 for number in range(7)}})
    assert len(client.get_twin()["reported"]["large"]) == 7
    log = hub.log("--device", device_id)
    assert [(entry["messageId"], len(entry["body"])) for entry in log] == [("m", 14), ("large", 250_000)]
    assert hub.registry().get_twin(device_id).connection_state == "Connected"


def test_thumbprint_that_is_not_registered(hub: Hub, connect: Connect) -> None:
    register(hub, "thumb-bad", "selfSigned", issue("thumb-bad").thumbprint)
    assert "another thumbprint" in refused(hub, connect, "thumb-bad", issue("thumb-bad"))


@pytest.mark.parametrize("days", [(-10, -1), (1, 10)])
def test_certificate_outside_its_dates(hub: Hub, connect: Connect, days: tuple[int, int]) -> None:
    device_id = f"dates{days[1]}"
    own = issue(device_id, days=days)
    register(hub, device_id, "selfSigned", own.thumbprint)
    assert "the certificate is good from" in refused(hub, connect, device_id, own)


def test_authorities(hub: Hub, connect: Connect, tmp_path: Path) -> None:
    root = issue("plant root", ca=True)
    plant = issue("plant line 1", root, ca=True)
    leaf = issue("by-authority", plant)
    register(hub, "by-authority", "certificateAuthority")
    assert "no known authority" in refused(hub, connect, "by-authority", leaf)

    # A server that runs sees it at once.
    add_authority(hub, "plant", root, tmp_path)
    connect("by-authority", leaf).send_message(message("chained", "m"))
    assert [entry["body"] for entry in hub.log("--device", "by-authority")] == ["chained"]

    register(hub, "by-other-name", "certificateAuthority")
    assert "the certificate is for ['by-authority']" in refused(hub, connect, "by-other-name", leaf)
    late = issue("by-authority", plant, days=(-10, -1))
    assert "expired" in refused(hub, connect, "by-authority", late)
    stranger = issue("by-authority", issue("plant line 1", issue("plant root", ca=True), ca=True))
    assert "no known authority" in refused(hub, connect, "by-authority", stranger)
    no_authority = issue("by-authority", issue("plant line 1", root))
    assert "no known authority" in refused(hub, connect, "by-authority", no_authority)
    assert "no known authority" in refused(hub, connect, "by-authority", Issued(leaf.certificate, leaf.key))

    listed = run_cli("ca", "list", "--state", str(hub.state))
    assert listed.stdout.split() == ["plant"]
    removed = run_cli("ca", "remove", "--name", "plant", "--state", str(hub.state))
    assert removed.returncode == 0
    assert "no known authority" in refused(hub, connect, "by-authority", leaf)
    # An authority below another does as well; the client need not send what is above it.
    add_authority(hub, "line-1", plant, tmp_path)
    connect("by-authority", Issued(leaf.certificate, leaf.key))


def test_authority_that_cannot_be_one(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "leaf.pem").write_text(issue("leaf").pem)
    (tmp_path / "text.pem").write_text("no certificate")
    for name, file, word in (
        ("leaf", "leaf.pem", "not the certificate of an authority"),
        ("text", "text.pem", "holds no PEM certificate"),
        ("missing", "missing.pem", "No such file"),
        ("../up", "leaf.pem", "--name"),
    ):
        answer = run_cli("ca", "add", str(tmp_path / file), "--name", name, "--state", str(hub.state))
        assert answer.returncode == 1
        assert word in answer.stderr
    gone = run_cli("ca", "remove", "--name", "nobody", "--state", str(hub.state))
    assert (gone.returncode, "no authority 'nobody'" in gone.stderr) == (1, True)


def test_certificate_and_key_are_not_mixed(hub: Hub, connect: Connect) -> None:
    hub.create_device("with-key")
    assert "sas authentication" in refused(hub, connect, "with-key", issue("with-key"))
    own = issue("with-cert")
    register(hub, "with-cert", "selfSigned", own.thumbprint)
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    assert hub.paho("with-cert", key).return_code == 5
    assert "cannot connect with a token" in hub.last_event("device-refused")["reason"]


def test_module_by_thumbprint(hub: Hub, connect: Connect) -> None:
    hub.create_device("carrier")
    own = issue("any name")
    authentication = {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": own.thumbprint}}
    body = {"deviceId": "carrier", "moduleId": "sensor", "authentication": authentication}
    assert hub.request("PUT", "/devices/carrier/modules/sensor", body=body).status_code == 200
    connect("carrier", own, "sensor").send_message(message("from a module", "m"))
    assert [entry["module"] for entry in hub.log("--device", "carrier")] == ["sensor"]
    assert "another thumbprint" in refused(hub, connect, "carrier", issue("any name"), "sensor")


def test_certificate_over_tls_1_3(hub: Hub, tmp_path: Path) -> None:
    """Microsoft's library stops at TLS 1.2; in 1.3 the certificate comes after the server's Finished."""
    own = issue("modern")
    register(hub, "modern", "selfSigned", own.thumbprint)
    chain, key = own.write(tmp_path)
    context = ssl.create_default_context(cadata=hub.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(chain, key)
    client = paho.Client(client_id="modern", protocol=paho.MQTTv311)
    client.tls_set_context(context)
    client.username_pw_set(f"{hub.name}/modern/?api-version={API_VERSION}")
    codes: list[int] = []
    client.on_connect = lambda _client, _data, _flags, code: codes.append(code)
    client.connect(hub.name, hub.mqtt_port)
    client.loop_start()
    try:
        wait_for("the answer to CONNECT", lambda: codes)
        assert codes == [0]
        published = client.publish("devices/modern/messages/events/", "1.3", qos=1)
        published.wait_for_publish(5)
        assert published.is_published()
    finally:
        client.disconnect()
        client.loop_stop()


def test_what_is_no_tls_is_refused_and_the_hub_goes_on(hub: Hub, connect: Connect) -> None:
    with closing(socket.create_connection((hub.address, hub.mqtt_port), timeout=10)) as plain:
        plain.sendall(b"\x10\x10 no TLS at all, not even a little")
        while plain.recv(4096):
            pass
    assert "reason" in hub.last_event("tls-failed")
    context = ssl.create_default_context(cadata=hub.ca)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=hub.name)
    with closing(socket.create_connection((hub.address, hub.mqtt_port), timeout=10)) as broken:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                broken.sendall(outgoing.read())
                incoming.write(broken.recv(65536))
        # A record that cannot be read, where one that can is awaited.
        broken.sendall(outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
        while broken.recv(4096):
            pass
    wait_for("its end", lambda: hub.last_event("device-refused")["reason"] == "the client broke off")
    own = issue("after-noise")
    register(hub, "after-noise", "selfSigned", own.thumbprint)
    connect("after-noise", own)
