# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what: policies, devices' own tokens, clocks, names, and what is not built."""

import ssl
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from socket import create_connection

import pytest
from azure.iot.hub import IoTHubRegistryManager
from msrest.exceptions import HttpOperationError

from tests.integration.hub.conftest import API_VERSION, Hub, HubFactory
from tests.ports import free_port
from tests.tls import issue

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


@pytest.fixture(scope="module")
def device_key(hub: Hub) -> str:
    """The key of the edge device "own"."""
    return hub.create_device("own", edge=True)


@pytest.mark.parametrize(
    ("policy", "read", "write", "twin"),
    [
        ("iothubowner", 200, 200, 200),
        ("registryReadWrite", 200, 200, 401),
        ("registryRead", 200, 401, 401),
        ("service", 401, 401, 200),
        ("device", 401, 401, 401),
    ],
)
def test_policies(hub: Hub, device_key: str, policy: str, read: int, write: int, twin: int) -> None:
    token = hub.token(policy=policy)
    assert hub.request("GET", "/devices/own", token=token).status_code == read
    assert hub.request("GET", "/statistics/devices", token=token).status_code == read
    body = {"deviceId": f"by-{policy}"}
    assert hub.request("PUT", f"/devices/by-{policy}", token=token, body=body).status_code == write
    assert hub.request("GET", "/twins/own", token=token).status_code == twin
    assert hub.request("PATCH", "/twins/own", token=token, body={"tags": {"by": policy}}).status_code == twin


@pytest.mark.parametrize(
    ("flaw", "logged"),
    [
        ("key", "wrong key for policy 'iothubowner'"),
        ("policy", "unknown policy 'nobody'"),
        ("host", "not a name of this hub"),
        ("path", "token is for 'devices/other'"),
        ("expired", "token expired"),
        ("none", "no shared access signature"),
        ("garbage", "no shared access signature"),
    ],
)
def test_bad_token_is_401_and_the_log_says_why(hub: Hub, device_key: str, flaw: str, logged: str) -> None:
    owner = hub.policies["iothubowner"]
    token = {
        "key": hub.token(policy="iothubowner", key=KEY),
        "policy": hub.token(policy="nobody", key=owner),
        "host": hub.token(policy="iothubowner").replace(hub.address, "contoso.azure-devices.net"),
        "path": hub.token(policy="iothubowner", path="/devices/other"),
        "expired": hub.token(policy="iothubowner", ttl=-5),
        "none": "",
        "garbage": "Basic eDp5",
    }[flaw]
    answer = hub.request("GET", "/devices/own", token=token)
    assert answer.status_code == 401
    assert answer.headers["iothub-errorcode"] == "IotHubUnauthorizedAccess"
    assert answer.json()["Message"] == "ErrorCode:IotHubUnauthorizedAccess;Unauthorized"
    assert logged in hub.last_event("request")["reason"]
    assert owner not in (hub.state / "serve.log").read_text()


def test_wrong_key_through_the_service_client(hub: Hub) -> None:
    with pytest.raises(HttpOperationError) as error:
        hub.registry(key=KEY).get_devices()
    assert error.value.response.status_code == 401


def test_token_for_a_part_of_the_hub(hub: Hub, device_key: str) -> None:
    token = hub.token(policy="registryRead", path="/devices")
    assert hub.request("GET", "/devices/own", token=token).status_code == 200
    assert hub.request("GET", "/statistics/devices", token=token).status_code == 401


@pytest.mark.parametrize(("offset", "status"), [(600, 401), (-600, 200)])
def test_time_is_the_hubs(make_hub: HubFactory, offset: int, status: int) -> None:
    hub = make_hub(clock_offset=offset).start()
    answer = hub.request("GET", "/devices", token=hub.token(policy="iothubowner", ttl=300))
    assert answer.status_code == status
    shown = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    assert abs(shown - (time.time() + offset)) < 5
    # A client that corrects its clock by the Date header gets in.
    corrected = hub.token(policy="iothubowner", ttl=300 + int(shown - time.time()))
    assert hub.request("GET", "/devices", token=corrected).status_code == 200


def test_device_manages_its_own_modules_only(hub: Hub, device_key: str) -> None:
    hub.create_device("neighbour")
    token = hub.token(key=device_key, path="/devices/own")
    body = {
        "deviceId": "own",
        "moduleId": "sensor",
        "managedBy": "iotEdge",
        "authentication": {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}},
    }
    for version in ("2017-11-08-preview", "2018-06-30", "2019-10-01", "2020-09-30", "2024-03-31"):
        path = "/devices/own/modules/sensor"
        created = hub.request("PUT", path, token=token, body=body, api_version=version)
        assert created.status_code == 200, created.text
        assert created.json()["authentication"]["symmetricKey"]["primaryKey"] == KEY
        assert created.json()["managedBy"] == "iotEdge"
        assert hub.request("PUT", path, token=token, body=body, if_match="*").status_code == 200
        assert hub.request("GET", path, token=token).json()["moduleId"] == "sensor"
        listed = hub.request("GET", "/devices/own/modules", token=token).json()
        assert {module["moduleId"] for module in listed} == {"$edgeAgent", "$edgeHub", "sensor"}
        assert hub.request("DELETE", path, token=token, if_match="*").status_code == 204

    assert hub.request("GET", "/devices/own", token=token).status_code == 401
    assert hub.request("DELETE", "/devices/own", token=token, if_match="*").status_code == 401
    assert hub.request("GET", "/twins/own", token=token).status_code == 401
    assert hub.request("GET", "/devices/neighbour/modules", token=token).status_code == 401
    other = hub.token(key=device_key, path="/devices/neighbour")
    assert hub.request("GET", "/devices/neighbour/modules", token=other).status_code == 401
    wrong = hub.token(key=KEY, path="/devices/own")
    assert hub.request("GET", "/devices/own/modules", token=wrong).status_code == 401


def test_a_certificate_opens_what_is_its_devices_own_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    known, other = issue("certified"), issue("certified")
    thumbprints = {"primaryThumbprint": known.thumbprint, "secondaryThumbprint": known.thumbprint}
    document = {
        "deviceId": "certified",
        "status": "enabled",
        "capabilities": {"iotEdge": True},
        "authentication": {"type": "selfSigned", "x509Thumbprint": thumbprints},
    }
    assert hub.request("PUT", "/devices/certified", body=document).status_code == 200
    hub.create_device("stranger")
    own, wrong = known.write(tmp_path, "known"), other.write(tmp_path, "other")
    body = {"deviceId": "certified", "moduleId": "m", "managedBy": "iotEdge"}
    path = "/devices/certified/modules/m"
    assert hub.request("PUT", path, certificate=own, body=body).status_code == 200
    assert hub.request("GET", path, certificate=own).json()["moduleId"] == "m"
    assert hub.request("GET", path, certificate=wrong).status_code == 401
    # No policy, no other device, and no token where there is a certificate that proves nothing.
    assert hub.request("GET", "/devices/certified", certificate=own).status_code == 401
    assert hub.request("GET", "/devices/stranger/modules", certificate=own).status_code == 401
    assert hub.request("GET", "/twins/certified", certificate=own).status_code == 401
    owner = {"Authorization": hub.token(policy="iothubowner")}
    assert hub.request("GET", path, certificate=wrong, headers=owner).status_code == 200


@pytest.mark.parametrize("version", [None, "2016-11-14", "latest"])
def test_api_version_is_required(hub: Hub, version: str | None) -> None:
    answer = hub.request("GET", "/devices", api_version=version)
    assert (answer.status_code, answer.headers["iothub-errorcode"]) == (400, "InvalidProtocolVersion")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs"),
        ("POST", "/jobs/create"),
        ("POST", "/messages/devicebound"),
        ("GET", "/digitaltwins/own"),
        ("PUT", "/enrollments/one"),
    ],
)
def test_what_is_not_built_says_so(hub: Hub, method: str, path: str) -> None:
    answer = hub.request(method, path, body={})
    assert (answer.status_code, answer.headers["iothub-errorcode"]) == (501, "NotImplemented")
    assert f"does not have {method} {path}" in answer.json()["Message"]


def test_what_no_hub_has_is_404_or_405(hub: Hub) -> None:
    assert hub.request("GET", "/nothing").status_code == 404
    assert hub.request("POST", "/devices/own", body={}).status_code == 405
    assert hub.request("PUT", "/devices/broken", body=None).status_code == 400


def test_named_localhost_with_a_port(make_hub: HubFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make_hub(address="127.0.0.1", name="localhost")
    hub.https_port, hub.mqtt_port = free_port("127.0.0.1"), free_port("127.0.0.1")
    hub.start()
    assert "sr=localhost%3A" in hub.token(policy="iothubowner")
    key = hub.create_device("local")
    assert hub.paho("local", key).return_code == 0
    # The service client as its users run it: trust by environment, nothing set in the client.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(hub.state / "ca.pem"))
    manager = IoTHubRegistryManager.from_connection_string(
        f"HostName={hub.host};SharedAccessKeyName=iothubowner;SharedAccessKey={hub.policies['iothubowner']}"
    )
    assert manager.get_device("local").connection_state == "Connected"


def test_answer_leaves_in_one_write(hub: Hub) -> None:
    """Status line and body in two writes cost 40 ms with Nagle's algorithm and delayed ACKs."""
    context = ssl.create_default_context(cadata=hub.ca)
    # Before TLS 1.3 every record of type 23 on the wire is data of the application.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=hub.address)
    with create_connection((hub.address, hub.https_port), timeout=10) as connection:
        wire = b""

        def pump() -> None:
            nonlocal wire
            connection.sendall(outgoing.read())
            data = connection.recv(65536)
            assert data, "the hub closed the connection"
            wire += data
            incoming.write(data)

        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                pump()
        connection.sendall(outgoing.read())
        wire = b""
        request = f"GET /devices?api-version={API_VERSION} HTTP/1.1\r\nHost: {hub.host}\r\nAuthorization: "
        tls.write((request + hub.token(policy="iothubowner") + "\r\n\r\n").encode())
        answer = b""
        while not answer.endswith(b"]"):
            try:
                answer += tls.read(65536)
            except ssl.SSLWantReadError:
                pump()
    records = 0
    while wire:
        assert wire[0] == 23
        records += 1
        wire = wire[5 + int.from_bytes(wire[3:5], "big") :]
    assert answer.startswith(b"HTTP/1.1 200")
    assert records == 1


def test_service_client_by_token_of_another_hub(make_hub: HubFactory, hub: Hub) -> None:
    other = make_hub().start()
    manager = IoTHubRegistryManager.from_connection_string(
        f"HostName={other.host};SharedAccessKeyName=iothubowner;SharedAccessKey={hub.policies['iothubowner']}"
    )
    manager.protocol.config.connection.verify = str(other.state / "ca.pem")
    with pytest.raises(HttpOperationError) as error:
        manager.get_devices()
    assert error.value.response.status_code == 401
