# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Entra and Azure Resource Manager, driven by azure-identity, azure-mgmt-iothub and az."""

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential, ManagedIdentityCredential
from azure.iot.deviceprovisioning import DeviceProvisioningClient
from azure.iot.hub import IoTHubRegistryManager
from azure.mgmt.iothub import IotHubClient
from azure.mgmt.iothub.models import IotHubDescription, IotHubSkuInfo, OperationInputs, TagsResource

from tests.integration.hub.conftest import Dps, Hub, HubFactory, free_address, run_cli, wait_for
from tests.ports import free_port

HUB_SCOPE = "https://iothubs.azure.net/.default"
ARM_SCOPE = "https://management.azure.com/.default"
AZ = os.environ.get("EDGEHA_AZ", "")


class Azure:
    """The stand-ins beside a hub."""

    def __init__(self, hub: Hub, port: int, dps_port: int) -> None:
        self.hub = hub
        self.url = f"https://{hub.name}:{port}"
        self.dps = Dps(hub, dps_port)
        self.ca = str(hub.state / "ca.pem")
        account: dict[str, str] = json.loads((hub.state / "azure.json").read_text())
        self.account = account
        self.subscription = account["subscriptionId"]

    def credential(self, secret: str | None = None) -> ClientSecretCredential:
        return ClientSecretCredential(
            self.account["tenantId"],
            self.account["clientId"],
            secret or self.account["clientSecret"],
            authority=self.url,
            disable_instance_discovery=True,
            connection_verify=self.ca,
        )

    def token(self, scope: str = HUB_SCOPE) -> str:
        return str(self.credential().get_token(scope).token)

    def hubs(self) -> IotHubClient:
        """Microsoft's management client."""
        return IotHubClient(
            self.credential(), self.subscription, base_url=self.url, connection_verify=self.ca
        )

    def request(
        self, method: str, path: str, body: Any = None, *, token: str | None = None
    ) -> requests.Response:
        """A bare call below the subscription."""
        return requests.request(
            method,
            f"{self.url}/subscriptions/{self.subscription}{path}",
            params={"api-version": "2023-06-30"},
            headers={"Authorization": f"Bearer {self.token(ARM_SCOPE) if token is None else token}"},
            json=body,
            verify=self.ca,
            timeout=10,
        )


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azure]:
    address = free_address()
    port, dps_port = free_port(address), free_port(address)
    options = ["--dps-port", str(dps_port), "--azure-port", str(port)]
    hub = Hub(tmp_path_factory.mktemp("hub"), address, serve_options=options).start()
    yield Azure(hub, port, dps_port)
    assert hub.stop() == 0
    assert not [event for event in hub.events() if event["level"] == "error"]


@pytest.fixture(autouse=True)
def _trust(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", azure.ca)


def claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    content: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return content


def test_service_principal(azure: Azure) -> None:
    token = azure.credential().get_token(HUB_SCOPE)
    content = claims(token.token)
    assert content["aud"] == "https://iothubs.azure.net"
    assert (content["tid"], content["appid"]) == (azure.account["tenantId"], azure.account["clientId"])
    assert abs(content["exp"] - token.expires_on) < 60
    wrong = f"not-{azure.account['clientSecret']}"
    with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
        azure.credential(wrong).get_token(HUB_SCOPE)
    log = (azure.hub.state / "serve.log").read_text()
    assert azure.account["clientSecret"] not in log
    assert token.token not in log
    assert (azure.hub.state / "azure.json").stat().st_mode & 0o777 == 0o600


def test_managed_identity_of_a_virtual_machine(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", azure.url)
    token = ManagedIdentityCredential(connection_verify=azure.ca).get_token(HUB_SCOPE)
    assert claims(token.token)["appid"] == azure.account["identityClientId"]
    own = ManagedIdentityCredential(
        client_id=azure.account["identityClientId"], connection_verify=azure.ca
    ).get_token(HUB_SCOPE)
    assert claims(own.token)["aud"] == "https://iothubs.azure.net"


def test_managed_identity_of_an_app_service(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{azure.url}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", azure.account["identityHeader"])
    token = ManagedIdentityCredential(connection_verify=azure.ca).get_token(HUB_SCOPE)
    assert claims(token.token)["appid"] == azure.account["identityClientId"]
    monkeypatch.setenv("IDENTITY_HEADER", "other")
    with pytest.raises(ClientAuthenticationError):
        ManagedIdentityCredential(connection_verify=azure.ca).get_token(HUB_SCOPE)


def test_hub_takes_its_tokens(azure: Azure) -> None:
    manager = IoTHubRegistryManager.from_token_credential(azure.hub.host, azure.credential())
    manager.protocol.config.connection.verify = azure.ca
    created = manager.create_device_with_sas("by-entra", "", "", "enabled")
    assert manager.get_device("by-entra").etag == created.etag
    assert manager.get_twin("by-entra").device_id == "by-entra"
    assert azure.hub.last_event("request")["caller"] == f"client {azure.account['clientId']}"


@pytest.mark.parametrize(
    ("scope", "service", "status"),
    [
        (HUB_SCOPE, "hub", 200),
        (ARM_SCOPE, "hub", 401),
        ("https://azure-devices-provisioning.net/.default", "hub", 401),
        ("https://azure-devices-provisioning.net/.default", "dps", 404),
        (HUB_SCOPE, "dps", 401),
        (ARM_SCOPE, "arm", 200),
        (HUB_SCOPE, "arm", 401),
    ],
)
def test_a_token_is_good_for_its_audience(azure: Azure, scope: str, service: str, status: int) -> None:
    token = azure.token(scope)
    bearer = f"Bearer {token}"
    if service == "hub":
        answer = azure.hub.request("GET", "/devices", token=bearer)
    elif service == "dps":
        answer = azure.dps.request("GET", "/enrollments/none", headers={"Authorization": bearer})
    else:
        answer = azure.request("GET", "", token=token)
    assert answer.status_code == status


def test_tokens_that_are_not_ours(azure: Azure, make_hub: HubFactory) -> None:
    token = azure.token()
    head, body, signature = token.split(".")
    changed = json.dumps(claims(token) | {"appid": "admin"}).encode()
    forged = base64.urlsafe_b64encode(changed).decode().rstrip("=")
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    for bad in (f"{head}.{forged}.{signature}", f"{unsigned}.{body}.", "x.y.z", ""):
        answer = azure.hub.request("GET", "/devices", token=f"Bearer {bad}")
        assert answer.status_code == 401, bad
        assert azure.request("GET", "", token=bad).status_code == 401
    address = free_address()
    other = make_hub(address=address, serve_options=["--azure-port", str(free_port(address))]).start()
    assert other.request("GET", "/devices", token=f"Bearer {token}").status_code == 401


def test_token_ends_by_the_hubs_clock(make_hub: HubFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    address = free_address()
    port, dps_port = free_port(address), free_port(address)
    hub = make_hub(
        address=address, serve_options=["--azure-port", str(port), "--dps-port", str(dps_port)]
    ).start()
    azure = Azure(hub, port, dps_port)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", azure.ca)
    bearer = f"Bearer {azure.token()}"
    assert hub.request("GET", "/devices", token=bearer).status_code == 200
    assert hub.stop() == 0
    hub.clock_offset = 3700
    hub.start()
    assert hub.request("GET", "/devices", token=bearer).status_code == 401
    assert "token is good from" in hub.last_event("request")["reason"]


def test_without_stand_ins_bearer_tokens_are_unknown(make_hub: HubFactory) -> None:
    hub = make_hub().start()
    assert hub.request("GET", "/devices", token="Bearer x").status_code == 501
    assert not (hub.state / "azure.json").exists()


def test_module_calls_say_more_under_entra(azure: Azure) -> None:
    bearer = f"Bearer {azure.token()}"
    missing = azure.hub.request("GET", "/devices/nobody/modules", token=bearer)
    assert (missing.status_code, missing.headers["iothub-errorcode"]) == (404, "DeviceNotFound")
    assert azure.hub.request("GET", "/devices/nobody/modules").status_code == 401
    body = {"deviceId": "off", "status": "disabled"}
    assert azure.hub.request("PUT", "/devices/off", body=body).status_code == 200
    assert azure.hub.request("GET", "/devices/off/modules", token=bearer).json() == []
    assert azure.hub.request("GET", "/devices/off/modules").status_code == 401


def test_provisioning_service_takes_its_tokens(azure: Azure) -> None:
    client = DeviceProvisioningClient(azure.dps.host, azure.credential(), connection_verify=azure.ca)
    body = {"registrationId": "by-entra", "attestation": {"type": "symmetricKey"}}
    assert client.enrollment.create_or_update("by-entra", body)["registrationId"] == "by-entra"


def test_hub_of_this_emulator(azure: Azure) -> None:
    client = azure.hubs()
    hub = client.iot_hub_resource.get("emulator", "emulator")
    assert hub.properties.host_name == azure.hub.host
    assert (hub.sku.name, hub.sku.tier, hub.properties.state) == ("S1", "Standard", "Active")
    keys = {key.key_name: key for key in client.iot_hub_resource.list_keys("emulator", "emulator")}
    shown = {name: key.primary_key for name, key in keys.items()}
    assert shown | {"provisioningserviceowner": azure.dps.key} == azure.hub.policies
    owner = client.iot_hub_resource.get_keys_for_key_name("emulator", "emulator", "iothubowner")
    assert owner.rights == "RegistryWrite, ServiceConnect, DeviceConnect"
    manager = azure.hub.registry(key=owner.primary_key)
    assert manager.get_devices() is not None
    with pytest.raises(ResourceNotFoundError):
        client.iot_hub_resource.get_keys_for_key_name("emulator", "emulator", "nobody")
    assert "emulator" in {found.name for found in client.iot_hub_resource.list_by_subscription()}


def test_hub_lives_from_create_to_delete(azure: Azure) -> None:
    assert azure.request("PUT", "/resourcegroups/rg1", {"location": "westeurope"}).status_code == 201
    client = azure.hubs()
    check = client.iot_hub_resource.check_name_availability
    assert check(OperationInputs(name="contoso")).name_available
    wanted = IotHubDescription(
        location="westeurope", sku=IotHubSkuInfo(name="S2", capacity=3), tags={"site": "a"}
    )
    poller = client.iot_hub_resource.begin_create_or_update("rg1", "contoso", wanted)
    assert not poller.done()
    assert client.iot_hub_resource.get("rg1", "contoso").properties.provisioning_state == "Activating"
    created = poller.result()
    assert created.properties.provisioning_state == "Succeeded"
    assert (created.sku.name, created.sku.capacity, created.sku.tier) == ("S2", 3, "Standard")
    assert created.properties.host_name == "contoso.azure-devices.net"
    keys = {key.key_name: key.primary_key for key in client.iot_hub_resource.list_keys("rg1", "contoso")}
    assert not set(keys.values()) & set(azure.hub.policies.values())
    taken = check(OperationInputs(name="Contoso"))
    assert (taken.name_available, taken.reason) == (False, "AlreadyExists")
    assert check(OperationInputs(name="a_b")).reason == "Invalid"

    wanted.sku.capacity = 5
    with pytest.raises(HttpResponseError) as stale:
        client.iot_hub_resource.begin_create_or_update("rg1", "contoso", wanted, if_match="old")
    assert stale.value.status_code == 412
    updated = client.iot_hub_resource.begin_create_or_update(
        "rg1", "contoso", wanted, if_match=created.etag
    ).result()
    assert (updated.sku.capacity, updated.etag != created.etag) == (5, True)
    tagged = client.iot_hub_resource.begin_update("rg1", "contoso", TagsResource(tags={"site": "b"})).result()
    assert tagged.tags == {"site": "b"}
    assert {key.primary_key for key in client.iot_hub_resource.list_keys("rg1", "contoso")} == set(
        keys.values()
    )

    client.iot_hub_resource.begin_delete("rg1", "contoso").result()
    with pytest.raises(ResourceNotFoundError):
        client.iot_hub_resource.get("rg1", "contoso")
    client.iot_hub_resource.begin_delete("rg1", "contoso").result()


@pytest.mark.parametrize(
    ("group", "sku", "code"),
    [
        ("nowhere", {"name": "S1", "capacity": 1}, "ResourceGroupNotFound"),
        ("emulator", {"name": "S9", "capacity": 1}, "InvalidSku"),
        ("emulator", {"name": "F1", "capacity": 2}, "InvalidSkuCapacity"),
        ("emulator", {"name": "S3", "capacity": 11}, "InvalidSkuCapacity"),
    ],
)
def test_hubs_that_are_refused(azure: Azure, group: str, sku: dict[str, Any], code: str) -> None:
    path = f"/resourceGroups/{group}/providers/Microsoft.Devices/IotHubs/refused"
    answer = azure.request("PUT", path, {"location": "westeurope", "sku": sku})
    assert answer.json()["error"]["code"] == code
    assert azure.request("GET", path).status_code == 404


def test_provisioning_service_in_arm(azure: Azure) -> None:
    path = "/resourceGroups/emulator/providers/Microsoft.Devices/provisioningServices"
    own = azure.request("GET", f"{path}/emulator").json()["properties"]
    assert own["serviceOperationsHostName"] == azure.dps.host
    assert own["deviceProvisioningHostName"] == azure.hub.name
    assert own["idScope"] == azure.dps.id_scope
    assert [hub["name"] for hub in own["iotHubs"]] == [azure.hub.host]
    key = azure.request("POST", f"{path}/emulator/keys/provisioningserviceowner/listkeys").json()
    assert key["primaryKey"] == azure.dps.key
    assert azure.dps.client(key["primaryKey"]).enrollment.query({"query": "SELECT *"}) is not None

    linked = {
        "connectionString": "HostName=h;SharedAccessKeyName=o;SharedAccessKey=c2VjcmV0",
        "location": "w",
    }
    body = {
        "location": "westeurope",
        "sku": {"name": "S1", "capacity": 1},
        "properties": {"iotHubs": [linked]},
    }
    created = azure.request("PUT", f"{path}/fabrikam", body)
    assert created.status_code == 201
    assert created.headers["Azure-AsyncOperation"].startswith(azure.url)
    state = wait_for(
        "the service",
        lambda: (
            (answer := azure.request("GET", f"{path}/fabrikam").json())["properties"]["provisioningState"]
            == "Succeeded"
            and answer
        ),
    )
    assert state["properties"]["iotHubs"][0]["name"] == "h"
    assert "c2VjcmV0" not in json.dumps(state)
    listed = azure.request("POST", f"{path}/fabrikam/listkeys").json()["value"]
    assert [item["keyName"] for item in listed] == ["provisioningserviceowner"]
    assert azure.request("DELETE", f"{path}/fabrikam").status_code == 202
    assert azure.request("DELETE", f"{path}/fabrikam").status_code == 204


def test_resource_groups(azure: Azure) -> None:
    group = {"location": "westeurope", "tags": {"a": "1"}}
    assert azure.request("HEAD", "/resourceGroups/rg2").status_code == 404
    assert azure.request("PUT", "/resourceGroups/rg2", group).status_code == 201
    assert azure.request("PUT", "/resourcegroups/RG2", group).status_code == 200
    assert azure.request("HEAD", "/resourcegroups/rg2").status_code == 204
    assert azure.request("PATCH", "/resourceGroups/rg2", {"tags": {"b": "2"}}).json()["tags"] == {"b": "2"}
    assert azure.request("GET", "/resourceGroups/rg2").json()["location"] == "westeurope"
    hub = "/resourceGroups/rg2/providers/Microsoft.Devices/IotHubs/in-rg2"
    body = {"location": "westeurope", "sku": {"name": "F1", "capacity": 1}}
    assert azure.request("PUT", hub, body).status_code == 201
    names = [item["name"] for item in azure.request("GET", "/resourceGroups/rg2/resources").json()["value"]]
    assert names == ["in-rg2"]
    deleted = azure.request("DELETE", "/resourceGroups/rg2")
    assert deleted.status_code == 202
    header = {"Authorization": f"Bearer {azure.token(ARM_SCOPE)}"}

    def done() -> bool:
        location = deleted.headers["Location"]
        return requests.get(location, headers=header, verify=azure.ca, timeout=10).status_code == 200

    wait_for("the group to go", done)
    assert azure.request("GET", hub).status_code == 404
    assert azure.request("GET", "/resourceGroups/rg2").status_code == 404
    wrong = requests.get(
        f"{azure.url}/subscriptions/other/resourceGroups",
        params={"api-version": "2022-12-01"},
        headers=header,
        verify=azure.ca,
        timeout=10,
    )
    assert wrong.json()["error"]["code"] == "SubscriptionNotFound"


def test_kept_over_a_restart(make_hub: HubFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    address = free_address()
    port, dps_port = free_port(address), free_port(address)
    hub = make_hub(address=address, serve_options=["--azure-port", str(port)]).start()
    azure = Azure(hub, port, dps_port)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", azure.ca)
    assert azure.request("DELETE", "/resourceGroups/emulator").status_code == 202
    token = azure.token(ARM_SCOPE)
    assert hub.stop() == 0
    hub.start()
    assert azure.request("GET", "/resourceGroups/emulator", token=token).status_code == 404
    assert hub.stop() == 0
    (hub.state / "azure.json").write_text("{}")
    options = (
        "--state",
        str(hub.state),
        "--listen",
        address,
        "--https-port",
        "8443",
        "--azure-port",
        str(port),
    )
    torn = run_cli("serve", *options)
    assert (torn.returncode, "azure.json is torn" in torn.stderr) == (1, True)


@pytest.mark.skipif(not AZ, reason="EDGEHA_AZ IS NOT SET: az login IS NOT TESTED (give the path of an az)")
def test_az(azure: Azure, tmp_path: Path) -> None:
    """A login by service principal, and what people do with it then."""
    environment = {
        "AZURE_CONFIG_DIR": str(tmp_path),
        "AZURE_CORE_COLLECT_TELEMETRY": "false",
        "AZURE_CORE_INSTANCE_DISCOVERY": "false",
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "REQUESTS_CA_BUNDLE": azure.ca,
    }

    def az(*arguments: str) -> Any:
        result = subprocess.run(
            [AZ, *arguments, "--output", "json"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout) if result.stdout.strip() else None

    az("cloud", "register", "--name", "Emulator", "--endpoint-resource-manager", azure.url)
    az("cloud", "set", "--name", "Emulator")
    account = az(
        *("login", "--service-principal", "--username", azure.account["clientId"]),
        *("--password", azure.account["clientSecret"], "--tenant", azure.account["tenantId"]),
    )
    assert [entry["id"] for entry in account] == [azure.subscription]
    token = az("account", "get-access-token", "--resource", "https://iothubs.azure.net")
    answer = azure.hub.request("GET", "/devices", token=f"Bearer {token['accessToken']}")
    assert answer.status_code == 200
    assert az("group", "create", "--name", "by-az", "--location", "westeurope")["name"] == "by-az"
    assert "by-az" in [group["name"] for group in az("group", "list")]
    assert az("iot", "hub", "show", "--name", "emulator")["properties"]["hostName"] == azure.hub.host
    az("group", "delete", "--name", "by-az", "--yes")
