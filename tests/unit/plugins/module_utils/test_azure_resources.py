# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import azure_resources
from ansible_collections.edgeha.iotedge.plugins.module_utils.azure_resources import Wanted
from ansible_collections.edgeha.iotedge.plugins.module_utils.item_list import Refused

OWNER = {
    "keyName": "iothubowner",
    "primaryKey": "secret-1",
    "secondaryKey": "secret-2",
    "rights": "RegistryWrite, ServiceConnect, DeviceConnect",
}
HUB: dict[str, Any] = {
    "id": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Devices/IotHubs/h",
    "location": "westeurope",
    "tags": {"a": "1"},
    "etag": "E1",
    "sku": {"name": "S1", "tier": "Standard", "capacity": 1},
    "properties": {
        "hostName": "h.azure-devices.net",
        "state": "Active",
        "provisioningState": "Succeeded",
        "routing": {"routes": [{"name": "mine"}]},
    },
}


def wanted(**options: Any) -> Wanted:
    return Wanted(**{"group": "g", "hub": "hub", "location": "West Europe", **options})


def test_a_new_hub_leaves_its_policies_and_keys_to_azure() -> None:
    plan = azure_resources.plan_hub(wanted(tags={"t": "1"}, policies={"p": ["ServiceConnect"]}), None)
    assert plan.action == "create"
    assert plan.etag == ""
    assert plan.body == {
        "location": "westeurope",
        "tags": {"t": "1"},
        "sku": {"name": "S1", "capacity": 1},
        "properties": {},
    }
    assert plan.after["policies"] == {"p": ["ServiceConnect"]}
    with pytest.raises(Refused, match="needs location"):
        azure_resources.plan_hub(wanted(location=""), None)


def test_a_hub_as_wanted_is_left_alone() -> None:
    same = wanted(sku="S1", units=1, tags={"a": "1"}, policies={"iothubowner": [*azure_resources.RIGHTS]})
    for options in (wanted(), wanted(location=""), same):
        plan = azure_resources.plan_hub(options, HUB, [OWNER])
        assert (plan.action, plan.before) == ("none", plan.after)


def test_an_update_sends_back_what_was_read_with_its_version_and_keys() -> None:
    plan = azure_resources.plan_hub(
        wanted(units=2, tags={"b": "2"}, policies={"p": ["ServiceConnect", "RegistryRead"]}), HUB, [OWNER]
    )
    assert (plan.action, plan.etag) == ("update", "E1")
    assert plan.body["sku"] == {"name": "S1", "capacity": 2}
    assert plan.body["tags"] == {"a": "1", "b": "2"}
    properties = plan.body["properties"]
    assert properties["routing"] == HUB["properties"]["routing"]
    assert not {"hostName", "state", "provisioningState"} & set(properties)
    assert properties["authorizationPolicies"] == [
        OWNER,
        {"keyName": "p", "rights": "RegistryRead, ServiceConnect"},
    ]
    assert "secret" not in repr(plan)


def test_changed_rights_keep_the_keys() -> None:
    plan = azure_resources.plan_hub(wanted(policies={"iothubowner": ["ServiceConnect"]}), HUB, [OWNER])
    assert plan.body["properties"]["authorizationPolicies"] == [{**OWNER, "rights": "ServiceConnect"}]
    assert plan.before["policies"] != plan.after["policies"]


def test_what_azure_never_changes_is_refused() -> None:
    with pytest.raises(Refused, match="free hub"):
        azure_resources.plan_hub(wanted(sku="F1"), HUB, [OWNER])
    group = {"location": "westeurope", "tags": None}
    with pytest.raises(Refused, match="cannot move"):
        azure_resources.plan_group(wanted(location="northeurope"), group)
    assert azure_resources.plan_group(wanted(), group).action == "none"
    assert azure_resources.plan_group(wanted(tags={"x": "y"}), group).action == "update"


def test_the_provisioning_service_is_linked_once() -> None:
    text = azure_resources.hub_connection_string("h.azure-devices.net", "iothubowner", [OWNER])
    assert text == "HostName=h.azure-devices.net;SharedAccessKeyName=iothubowner;SharedAccessKey=secret-1"
    plan = azure_resources.plan_dps(wanted(dps="dps"), None, "h.azure-devices.net", text)
    assert plan.action == "create"
    assert plan.body["properties"]["iotHubs"] == [{"connectionString": text, "location": "westeurope"}]
    assert "secret" not in repr(plan)
    other = {"name": "o.azure-devices.net", "connectionString": "HostName=o;SharedAccessKey=****"}
    there = {
        "location": "westeurope",
        "tags": {},
        "sku": {"name": "S1", "capacity": 1},
        "etag": "D1",
        "properties": {"iotHubs": [other], "idScope": "0ne1", "allocationPolicy": "Hashed"},
    }
    plan = azure_resources.plan_dps(wanted(dps="dps"), there, "h.azure-devices.net", text)
    assert (plan.action, plan.etag) == ("update", "D1")
    assert [link["connectionString"] for link in plan.body["properties"]["iotHubs"]] == [
        other["connectionString"],
        text,
    ]
    assert "idScope" not in plan.body["properties"]
    assert azure_resources.plan_dps(wanted(dps="dps"), there, "O.azure-devices.net", text).action == "none"
    with pytest.raises(Refused, match="no policy 'gone'; it has iothubowner"):
        azure_resources.hub_connection_string("h", "gone", [OWNER])


def test_states_on_the_way() -> None:
    def state(text: str) -> dict[str, Any]:
        return {"properties": {"provisioningState": text}}

    assert azure_resources.pending("hub", "h", state("Succeeded")) == ""
    assert azure_resources.pending("hub", "h", state("Activating")) == "hub h: Activating"
    assert azure_resources.pending("hub", "h", None) == "hub h: not there yet"
    with pytest.raises(Refused, match="Failed"):
        azure_resources.pending("hub", "h", state("Failed"))


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"group": "g."}, "resource_group"),
        ({"hub": "-h"}, "hub '-h'"),
        ({"hub": "h" * 51}, "3 to 50"),
        ({"hub": "", "dps": "dps"}, "dps needs hub"),
        ({"dps": "d_s"}, "dps 'd_s'"),
        ({"sku": "F1", "units": 2}, "F1 takes 1 to 1"),
        ({"units": 0}, "a hub takes 1 to 200"),
        ({"policies": {"p": ["Fly"]}}, "unknown rights Fly"),
        ({"policies": {"p": []}}, "no rights"),
    ],
)
def test_wrong_options(options: dict[str, Any], fact: str) -> None:
    [error] = azure_resources.errors(wanted(**options))
    assert fact in error
    assert azure_resources.errors(wanted()) == []


def test_nothing_is_deleted_without_its_name() -> None:
    refusal = azure_resources.confirm_error
    assert refusal("resources", "g", "h", "h") is None
    assert refusal("resource_group", "g", "h", "g") is None
    for scope, confirm in (("resources", ""), ("resources", "g"), ("resource_group", "h")):
        assert "confirm it with the name" in str(refusal(scope, "g", "h", confirm))
    assert refusal("resources", "g", "", "") is not None
