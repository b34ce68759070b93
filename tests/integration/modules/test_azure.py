# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All ways to log in, and resources in Azure, against stand-ins of Entra and Azure Resource Manager."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.ports import free_port

if TYPE_CHECKING:
    from tests.integration.modules.conftest import Hub, Run

# What 'az login --service-principal' does, without the program.
AZ_LOGIN = """
import sys
from types import SimpleNamespace
from azure.cli.core import _profile, get_default_cli
from azure.cli.core.auth.identity import ServicePrincipalAuth
from azure.cli.core.cloud import Cloud, CloudEndpoints, add_cloud, switch_active_cloud
address, tenant, subscription, client, secret = sys.argv[1:]
cli = get_default_cli()
names = ("management", "resource_manager", "active_directory", "active_directory_resource_id")
add_cloud(cli, Cloud("standin", endpoints=CloudEndpoints(**dict.fromkeys(names, address))))
switch_active_cloud(cli, "standin")
cli.config.set_value("core", "instance_discovery", "false")
cli.config.set_value("core", "encrypt_token_cache", "false")
# The package that lists subscriptions belongs to the program and not to azure-cli-core.
found = SimpleNamespace(
    id=f"/subscriptions/{subscription}", display_name="standin", state="Enabled", tenant_id=tenant
)
_profile.SubscriptionFinder.find_using_specific_tenant = lambda *_arguments: [found]
credential = ServicePrincipalAuth.build_credential(client_secret=secret)
_profile.Profile(cli_ctx=get_default_cli()).login(False, client, credential, True, tenant)
"""


@dataclass
class Azure:
    """The stand-ins. address: of both. account: see azure.json of the emulator. run: of ansible-playbook."""

    hub: Hub
    address: str
    account: dict[str, str]
    config_dir: Path
    run: Callable[..., Run]
    folder: Path

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        """Options of each way to log in."""
        common = {"ca_file": self.hub.ca_file}
        manager = {"resource_manager": self.address}
        subscription = {"subscription_id": self.account["subscriptionId"]}
        principal = {
            "tenant_id": self.account["tenantId"],
            "client_id": self.account["clientId"],
            "client_secret": self.account["clientSecret"],
            "authority": self.address,
        }
        return {
            "cli": {"auth": "cli", **common},
            "service_principal": {
                "auth": "service_principal",
                **common,
                **manager,
                **subscription,
                **principal,
            },
            "managed_identity": {"auth": "managed_identity", **common, **manager, **subscription},
        }

    def az_login(self) -> None:
        account = self.account
        subprocess.run(
            [
                *(sys.executable, "-c", AZ_LOGIN, self.address),
                *(account["tenantId"], account["subscriptionId"]),
                *(account["clientId"], account["clientSecret"]),
            ],
            env={**os.environ, **self.environment},
            check=True,
            timeout=120,
        )

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AZURE_CONFIG_DIR": str(self.config_dir),
            "AZURE_CORE_COLLECT_TELEMETRY": "no",
            "REQUESTS_CA_BUNDLE": self.hub.ca_file,
            "IDENTITY_ENDPOINT": f"{self.address}/msi/token",
            "IDENTITY_HEADER": self.account["identityHeader"],
        }

    def play(self, tasks: dict[str, dict[str, Any]], *options: str) -> Run:
        playbook = self.folder / "play.yml"
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": sys.executable},
            "tasks": [{"name": name, **task} for name, task in tasks.items()],
        }
        playbook.write_text(yaml.safe_dump([play]))
        return self.run(["-i", "localhost,", str(playbook), *options], **self.environment)

    def resources(self, **options: Any) -> dict[str, Any]:
        given = {"resource_group": "plants", **self.options["service_principal"], **options}
        return {"edgeha.iotedge.azure_iot_resources": given}


@pytest.fixture
def azure(
    start_hub: Callable[..., Hub],
    run_playbook: Callable[..., Run],
    tmp_path: Path,
) -> Azure:
    port = free_port()
    hub = start_hub("--azure-port", str(port))
    account = json.loads((Path(hub.ca_file).parent / "azure.json").read_text())
    config_dir = tmp_path / "azure"
    config_dir.mkdir()
    return Azure(hub, f"https://127.0.0.1:{port}", account, config_dir, run_playbook, tmp_path)


def test_every_login_reaches_hub_and_resource_manager(azure: Azure) -> None:
    azure.az_login()
    tasks: dict[str, dict[str, Any]] = {}
    for name, login in azure.options.items():
        devices = [{"device_id": f"device-{name}"}]
        hub = {"hostname": azure.hub.hostname, **login}
        tasks[f"{name} token"] = {"edgeha.iotedge.iothub_devices": {**hub, "devices": devices}}
        # Without a role at the hub: its policy's key comes from Resource Manager.
        tasks[f"{name} key"] = {
            "edgeha.iotedge.iothub_devices": {**hub, "devices": devices, "fetch_key": True}
        }
    run = azure.play(tasks)
    assert run.failures == []
    assert len(run.results) == 6
    for name in azure.options:
        assert run.results[f"{name} token"]["devices"][0]["action"] == "create"
        assert run.results[f"{name} key"]["changed"] is False
    assert azure.account["clientSecret"] not in run.text
    assert azure.hub.device_ids() == ["device-cli", "device-managed_identity", "device-service_principal"]


def test_logins_that_cannot_be_are_explained(azure: Azure) -> None:
    given = azure.options
    devices = {"hostname": azure.hub.hostname, "devices": [{"device_id": "d"}]}
    wrong = {**given["service_principal"], "client_secret": "wrong"}
    other = {**given["service_principal"], "subscription_id": "00000000-0000-0000-0000-000000000000"}
    for login, facts in (
        (given["cli"], ["az login"]),
        (wrong, ["service_principal", "AADSTS7000215"]),
        ({**given["managed_identity"], "client_id": azure.account["clientId"]}, ["managed_identity"]),
        ({**other, "fetch_key": True}, ["SubscriptionNotFound"]),
    ):
        [message] = azure.play({"devices": {"edgeha.iotedge.iothub_devices": {**devices, **login}}}).failures
        assert all(fact in message for fact in facts), message
    assert azure.hub.device_ids() == []


def test_resources_are_made_changed_and_deleted(azure: Azure) -> None:
    made = {"location": "westeurope", "hub": "plants-hub", "dps": "plants-dps", "tags": {"team": "a"}}
    checked = azure.play({"make": azure.resources(**made)}, "--check", "--diff")
    assert checked.failures == []
    assert checked.results["make"]["actions"] == {
        "resource_group": "create",
        "hub": "create",
        "dps": "create",
    }
    run = azure.play(
        {
            "make": azure.resources(**made),
            "again": azure.resources(**made),
            "grow": azure.resources(**{**made, "location": None, "units": 3, "sku": "S2"}),
            "unconfirmed": azure.resources(hub="plants-hub", state="absent", confirm="plants")
            | {"ignore_errors": True},
            "would": azure.resources(hub="plants-hub", state="absent", confirm="plants-hub")
            | {"check_mode": True},
            "still": azure.resources(**made),
            "remove": azure.resources(
                hub="plants-hub", dps="plants-dps", state="absent", confirm="plants-hub"
            ),
            "gone": azure.resources(hub="plants-hub", dps="plants-dps", state="absent", confirm="plants-hub"),
            "group": azure.resources(state="absent", scope="resource_group", confirm="plants"),
        },
        "--diff",
    )
    results = run.results
    assert len(run.failures) == 1
    assert "confirm it with the name 'plants-hub'" in run.failures[0]
    assert results["make"]["actions"] == {"resource_group": "create", "hub": "create", "dps": "create"}
    # What check mode promised is what came.
    assert results["make"]["diff"] == checked.results["make"]["diff"]
    assert results["make"]["hub_hostname"] == "plants-hub.azure-devices.net"
    assert results["make"]["id_scope"].startswith("0ne")
    assert results["again"]["changed"] is False
    assert results["again"]["diff"]["before"] == results["again"]["diff"]["after"]
    assert results["grow"]["actions"] == {"resource_group": "none", "hub": "update", "dps": "none"}
    assert results["grow"]["diff"]["after"]["hub"]["units"] == 3
    assert results["would"]["changed"] is True
    assert results["still"]["changed"] is False
    assert results["remove"]["actions"] == {"dps": "delete", "hub": "delete"}
    assert results["gone"]["changed"] is False
    assert results["group"]["actions"] == {"resource_group": "delete"}
    assert "SharedAccessKey=" not in run.text


def test_policies_are_added_and_changed_and_the_others_keep_their_keys(azure: Azure) -> None:
    options = {"location": "westeurope", "hub": "plants-hub"}
    mine = {"name": "mine", "rights": ["RegistryRead", "ServiceConnect"]}
    more = {"name": "mine", "rights": ["RegistryWrite", "RegistryRead"]}
    run = azure.play(
        {
            "make": azure.resources(**options, policies=[mine]),
            "again": azure.resources(**options, policies=[mine]),
            "without": azure.resources(**options),
            "change": azure.resources(**options, policies=[more]),
            "changed": azure.resources(**options, policies=[{**more, "rights": ["RegistryWrite"]}]),
            "grow": azure.resources(**options, units=2),
            "last": azure.resources(**options, policies=[more], units=2),
        },
        "--diff",
    )
    assert run.failures == []
    changed = {name: result["changed"] for name, result in run.results.items()}
    assert [name for name, is_changed in changed.items() if is_changed] == ["make", "change", "grow"]
    policies = run.results["change"]["diff"]["after"]["hub"]["policies"]
    assert policies["mine"] == ["RegistryWrite"]
    # A hub that is given policies has those alone; the ones that it made itself are still there.
    assert set(policies) == {"mine", "iothubowner", "service", "device", "registryRead", "registryReadWrite"}


def test_the_time_to_wait_has_an_end_that_says_what_is_missing(azure: Azure) -> None:
    options = {"location": "westeurope", "hub": "plants-hub", "wait_timeout": 0}
    run = azure.play(
        {
            "fail": azure.resources(**options) | {"ignore_errors": True},
            "report": azure.resources(**{**options, "hub": "other-hub"}, on_timeout="report"),
            "finish": azure.resources(location="westeurope", hub="other-hub"),
        }
    )
    [message] = run.failures
    assert "hub plants-hub: Activating. Not ready after 0 s" in message
    assert run.results["report"]["pending"] == ["hub other-hub: Activating"]
    assert run.results["report"]["actions"]["hub"] == "create"
    assert run.results["finish"]["pending"] == []
    assert run.results["finish"]["actions"]["hub"] == "none"


def test_the_playbook_makes_and_deletes(azure: Azure) -> None:
    azure.az_login()
    variables = {
        "edge_ca_bundle": azure.hub.ca_file,
        "iothub_resource_group": "plants",
        "iothub_location": "westeurope",
        "iothub_name": "plants-hub",
        "iothub_units": 2,
        "iothub_dps_name": "plants-dps",
    }
    inventory = azure.folder / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"all": {"vars": variables}}))
    arguments = ["-i", str(inventory), "edgeha.iotedge.azure_resources"]
    first = azure.run(arguments, **azure.environment)
    assert first.failures == []
    assert first.results["Make the resource group and the hub"]["actions"]["hub"] == "create"
    assert first.results["Make the provisioning service"]["actions"]["dps"] == "create"
    second = azure.run(arguments, **azure.environment)
    assert (second.code, second.changed) == (0, 0)
    remove = [*arguments, "-e", "iothub_resources_state=absent"]
    refused = azure.run(remove, **azure.environment)
    assert "confirm it with the name 'plants-hub'" in refused.failures[0]
    removed = azure.run([*remove, "-e", "edge_confirm=plants-hub"], **azure.environment)
    assert removed.results["Delete what is confirmed"]["actions"] == {"dps": "delete", "hub": "delete"}
