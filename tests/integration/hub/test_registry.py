# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry and twins, driven by Microsoft's azure-iot-hub."""

from typing import Any

import pytest
from azure.iot.hub.models import Twin, TwinProperties
from msrest.exceptions import HttpOperationError

from tests.integration.hub.conftest import Hub

KEY_1 = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
KEY_2 = "YWJjZGVmZ2hpamFiY2RlZmdoaWphYmNkZWZnaGlqYWI="


def refused(error: "pytest.ExceptionInfo[HttpOperationError]") -> tuple[int, str]:
    """Status and code of a refusal, whose body has the hub's form."""
    response = error.value.response
    code = response.headers["iothub-errorcode"]
    body = response.json()
    assert body["Message"].startswith(f"ErrorCode:{code};")
    assert body["ExceptionMessage"].startswith("Tracking ID:")
    return response.status_code, code


def test_device_lives_from_create_to_delete(hub: Hub) -> None:
    registry = hub.registry()
    created = registry.create_device_with_sas("life", KEY_1, KEY_2, "enabled", status_reason="new")
    assert created.authentication.symmetric_key.primary_key == KEY_1
    assert created.authentication.symmetric_key.secondary_key == KEY_2
    assert created.connection_state == "Disconnected"
    assert registry.get_device("life").as_dict() == created.as_dict()

    updated = registry.update_device_with_sas("life", created.etag, KEY_2, KEY_1, "disabled")
    assert updated.status == "disabled"
    assert updated.status_reason is None, "a PUT replaces everything"
    assert updated.etag != created.etag
    assert updated.generation_id == created.generation_id
    assert updated.status_updated_time > created.status_updated_time

    registry.delete_device("life", updated.etag)
    with pytest.raises(HttpOperationError) as error:
        registry.get_device("life")
    assert refused(error) == (404, "DeviceNotFound")
    again = registry.create_device_with_sas("life", KEY_1, KEY_2, "enabled")
    assert again.generation_id != created.generation_id


def test_hub_makes_keys_when_none_are_given(hub: Hub) -> None:
    registry = hub.registry()
    empty = registry.create_device_with_sas("minted-empty", "", "", "enabled").authentication.symmetric_key
    left_out = hub.request("PUT", "/devices/minted-out", body={"deviceId": "minted-out"}).json()
    keys = left_out["authentication"]["symmetricKey"]
    assert len({empty.primary_key, empty.secondary_key, keys["primaryKey"], keys["secondaryKey"]}) == 4

    # A full replace without authentication makes new keys, the trap of the real hub.
    body = {"deviceId": "minted-out"}
    replaced = hub.request("PUT", "/devices/minted-out", body=body, if_match="*").json()
    assert replaced["authentication"]["symmetricKey"] != keys


def test_put_without_if_match_creates_only(hub: Hub) -> None:
    registry = hub.registry()
    device = registry.create_device_with_sas("twice", "", "", "enabled")
    with pytest.raises(HttpOperationError) as error:
        registry.create_device_with_sas("twice", "", "", "enabled")
    assert refused(error) == (409, "DeviceAlreadyExists")
    body = {"deviceId": "twice", "etag": device.etag}
    assert hub.request("PUT", "/devices/twice", body=body).status_code == 409


def test_put_with_if_match_updates_only(hub: Hub) -> None:
    registry = hub.registry()
    with pytest.raises(HttpOperationError) as error:
        registry.update_device_with_sas("never", None, "", "", "enabled")
    assert refused(error) == (404, "DeviceNotFound")
    device = registry.create_device_with_sas("stale", "", "", "enabled")
    registry.update_device_with_sas("stale", device.etag, "", "", "enabled")
    with pytest.raises(HttpOperationError) as error:
        registry.update_device_with_sas("stale", device.etag, "", "", "enabled")
    assert refused(error) == (412, "PreconditionFailed")


@pytest.mark.parametrize(
    ("device_id", "form"),
    [("form-1", "*"), ("form-2", '"*"'), ("form-3", "{etag}"), ("form-4", '"{etag}"')],
)
def test_if_match_is_read_in_every_form(hub: Hub, device_id: str, form: str) -> None:
    created = hub.request("PUT", f"/devices/{device_id}", body={"deviceId": device_id})
    etag = created.json()["etag"]
    assert created.headers["ETag"] == f'"{etag}"'
    wanted = form.format(etag=etag)
    body = {"deviceId": device_id}
    assert hub.request("PUT", f"/devices/{device_id}", body=body, if_match=wanted).status_code == 200


def test_delete_needs_if_match(hub: Hub) -> None:
    hub.create_device("kept")
    assert hub.request("DELETE", "/devices/kept").status_code == 412
    assert hub.request("DELETE", "/devices/kept", if_match='"b2xk"').status_code == 412
    assert hub.request("DELETE", "/devices/kept", if_match="*").status_code == 204
    assert hub.request("DELETE", "/devices/kept", if_match="*").status_code == 404


@pytest.mark.parametrize(
    ("device_id", "body"),
    [
        ("bad%20id", {}),
        ("a" * 129, {}),
        ("body", {"deviceId": "other"}),
        ("half-keys", {"authentication": {"type": "sas", "symmetricKey": {"primaryKey": KEY_1}}}),
        (
            "short-keys",
            {
                "authentication": {
                    "type": "sas",
                    "symmetricKey": {"primaryKey": "YQ==", "secondaryKey": "YQ=="},
                }
            },
        ),
        ("none", {"authentication": {"type": "none"}}),
        (
            "thumb",
            {"authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "AB:CD"}}},
        ),
        ("status", {"status": "sleeping"}),
        ("reason", {"status": "disabled", "statusReason": "x" * 129}),
        ("orphan", {"deviceScope": "ms-azure-iot-edge://nobody-1"}),
        ("list", []),
    ],
)
def test_bad_identity_is_refused(hub: Hub, device_id: str, body: object) -> None:
    answer = hub.request("PUT", f"/devices/{device_id}", body=body)
    assert (answer.status_code, answer.headers["iothub-errorcode"]) == (400, "ArgumentInvalid")
    assert KEY_1 not in answer.text


def test_odd_but_valid_device_id(hub: Hub) -> None:
    registry = hub.registry()
    device_id = "a-:.+%_#*?!(),=@;$'z"
    registry.create_device_with_sas(device_id, "", "", "enabled")
    assert registry.get_device(device_id).device_id == device_id
    assert registry.get_twin(device_id).device_id == device_id


def test_thumbprints_and_certificate_authority(hub: Hub) -> None:
    registry = hub.registry()
    device = registry.create_device_with_x509("x509", "aB" * 20, "CD" * 32, "enabled")
    assert device.authentication.type == "selfSigned"
    assert device.authentication.x509_thumbprint.primary_thumbprint == "aB" * 20, "case is kept"
    twin = hub.request("GET", "/twins/x509").json()
    assert twin["x509Thumbprint"]["SecondaryThumbprint"] == "CD" * 32, "capitalised in twins"
    signed = registry.create_device_with_certificate_authority("x509-ca", "enabled")
    assert signed.authentication.type == "certificateAuthority"


def test_list_and_statistics(hub: Hub) -> None:
    registry = hub.registry()
    before = registry.get_device_registry_statistics()
    hub.create_device("list-1")
    registry.create_device_with_sas("list-2", "", "", "disabled")
    after = registry.get_device_registry_statistics()
    assert after.total_device_count == before.total_device_count + 2
    assert after.enabled_device_count == before.enabled_device_count + 1
    assert after.disabled_device_count == before.disabled_device_count + 1
    assert {"list-1", "list-2"} <= {device.device_id for device in registry.get_devices()}
    assert len(registry.get_devices(2)) == 2


def test_edge_device_has_a_scope_and_its_modules(hub: Hub) -> None:
    registry = hub.registry()
    edge = registry.create_device_with_sas("edge", "", "", "enabled", iot_edge=True)
    scope = edge.device_scope
    assert scope == f"ms-azure-iot-edge://edge-{edge.generation_id}"
    modules = {module.module_id: module for module in registry.get_modules("edge")}
    assert modules.keys() == {"$edgeAgent", "$edgeHub"}
    assert {(m.authentication.type, m.managed_by) for m in modules.values()} == {("none", "iotEdge")}
    assert registry.get_twin("edge").capabilities.iot_edge

    with pytest.raises(HttpOperationError) as error:
        registry.update_device_with_sas("edge", None, "", "", "enabled", iot_edge=True)
    assert refused(error) == (400, "ArgumentInvalid")
    assert "Device scope is immutable" in error.value.response.text
    same = registry.update_device_with_sas("edge", None, "", "", "enabled", iot_edge=True, device_scope=scope)
    assert same.device_scope == scope
    leaf = registry.update_device_with_sas(
        "edge", None, "", "", "enabled", iot_edge=False, device_scope=scope
    )
    assert leaf.device_scope is None
    assert registry.get_modules("edge") == []


def test_parents(hub: Hub) -> None:
    registry = hub.registry()
    top = registry.create_device_with_sas("top", "", "", "enabled", iot_edge=True)
    low = registry.create_device_with_sas(
        "low", "", "", "enabled", iot_edge=True, parent_scopes=[top.device_scope]
    )
    assert low.parent_scopes == [top.device_scope]
    leaf = registry.create_device_with_sas("leaf", "", "", "enabled", device_scope=low.device_scope)
    assert (leaf.device_scope, leaf.parent_scopes) == (low.device_scope, [low.device_scope])
    stray = registry.create_device_with_sas("stray", "", "", "enabled", parent_scopes=[low.device_scope])
    assert stray.parent_scopes is None, "a parentScopes alone says nothing for a leaf"

    with pytest.raises(HttpOperationError) as error:
        registry.update_device_with_sas(
            "top",
            None,
            "",
            "",
            "enabled",
            iot_edge=True,
            device_scope=top.device_scope,
            parent_scopes=[low.device_scope],
        )
    assert refused(error) == (400, "ArgumentInvalid")
    assert "below itself" in error.value.response.text
    detached = registry.update_device_with_sas(
        "low", None, "", "", "enabled", iot_edge=True, device_scope=low.device_scope
    )
    assert detached.parent_scopes is None


def test_edge_devices_nest_five_deep(hub: Hub) -> None:
    registry = hub.registry()
    parents: list[str] | None = None
    for level in range(1, 6):
        device = registry.create_device_with_sas(
            f"level-{level}", "", "", "enabled", iot_edge=True, parent_scopes=parents
        )
        parents = [device.device_scope]
    with pytest.raises(HttpOperationError) as error:
        registry.create_device_with_sas("level-6", "", "", "enabled", iot_edge=True, parent_scopes=parents)
    assert refused(error) == (400, "ArgumentInvalid")
    assert "5 deep" in error.value.response.text


def test_module_lives_from_create_to_delete(hub: Hub) -> None:
    registry = hub.registry()
    hub.create_device("host", edge=True)
    created = registry.create_module_with_sas("host", "sensor", "iotEdge", KEY_1, KEY_2)
    assert created.managed_by == "iotEdge"
    assert registry.get_module("host", "sensor").as_dict() == created.as_dict()
    with pytest.raises(HttpOperationError) as error:
        registry.create_module_with_sas("host", "sensor", "iotEdge", KEY_1, KEY_2)
    assert refused(error) == (409, "ModuleAlreadyExistsOnDevice")
    with pytest.raises(HttpOperationError) as error:
        registry.create_module_with_sas("host", "$mine", "iotEdge", KEY_1, KEY_2)
    assert refused(error) == (400, "ArgumentInvalid")
    updated = registry.update_module_with_sas("host", "sensor", "me", created.etag, KEY_2, KEY_1)
    assert (updated.managed_by, updated.generation_id) == ("me", created.generation_id)
    with pytest.raises(HttpOperationError) as error:
        registry.delete_module("host", "sensor", created.etag)
    assert refused(error) == (412, "PreconditionFailed")
    registry.delete_module("host", "sensor", updated.etag)
    with pytest.raises(HttpOperationError) as error:
        registry.get_module("host", "sensor")
    assert refused(error) == (404, "ModuleNotFound")


def test_the_agents_own_identity_can_be_given_keys(hub: Hub) -> None:
    registry = hub.registry()
    hub.create_device("agent", edge=True)
    agent = registry.update_module_with_sas("agent", "$edgeAgent", "iotEdge", None, KEY_1, KEY_2)
    assert agent.authentication.type == "sas"


def test_module_calls_on_missing_or_disabled_device_are_unauthorized(hub: Hub) -> None:
    registry = hub.registry()
    registry.create_device_with_sas("off", "", "", "disabled")
    for device_id in ("off", "nowhere"):
        with pytest.raises(HttpOperationError) as error:
            registry.get_modules(device_id)
        assert refused(error) == (401, "IotHubUnauthorizedAccess")


def test_deleting_a_device_takes_modules_and_twins(hub: Hub) -> None:
    registry = hub.registry()
    hub.create_device("whole")
    registry.create_module_with_sas("whole", "part", "", "", "")
    registry.update_module_twin("whole", "part", Twin(tags={"old": True}))
    registry.delete_device("whole")
    hub.create_device("whole")
    assert registry.get_modules("whole") == []
    registry.create_module_with_sas("whole", "part", "", "", "")
    assert registry.get_module_twin("whole", "part").tags == {}


def desired(twin: Any) -> dict[str, Any]:
    return {key: value for key, value in twin.properties.desired.items() if not key.startswith("$")}


def test_twin_patch_merges_and_null_removes(hub: Hub) -> None:
    registry = hub.registry()
    hub.create_device("patch")
    first = registry.get_twin("patch")
    assert (first.etag, first.properties.desired["$version"]) == ("AAAAAAAAAAE=", 1)
    assert first.device_etag == registry.get_device("patch").etag

    patch = Twin(tags={"site": "a"}, properties=TwinProperties(desired={"keep": 1, "deep": {"x": 1, "y": 2}}))
    registry.update_twin("patch", patch, first.etag)
    patch = Twin(tags={"site": None}, properties=TwinProperties(desired={"deep": {"x": None, "z": [1, "2"]}}))
    second = registry.update_twin("patch", patch)
    assert second.tags == {}
    assert desired(second) == {"keep": 1, "deep": {"y": 2, "z": [1, "2"]}}
    assert second.properties.desired["$version"] == 3
    metadata = second.properties.desired["$metadata"]
    assert metadata["keep"]["$lastUpdatedVersion"] == 2
    assert metadata["deep"]["z"]["$lastUpdatedVersion"] == 3
    assert "x" not in metadata["deep"]

    with pytest.raises(HttpOperationError) as error:
        registry.update_twin("patch", patch, first.etag)
    assert refused(error) == (412, "PreconditionFailed")


def test_twin_as_read_can_be_written_back(hub: Hub) -> None:
    registry = hub.registry()
    hub.create_device("back")
    registry.update_twin("back", Twin(properties=TwinProperties(desired={"a": {"b": 1}})))
    twin = registry.get_twin("back")
    assert desired(registry.update_twin("back", twin, twin.etag)) == {"a": {"b": 1}}


def test_twin_put_replaces(hub: Hub) -> None:
    registry = hub.registry()
    hub.create_device("replace")
    registry.update_twin("replace", Twin(tags={"t": 1}, properties=TwinProperties(desired={"a": 1, "b": 2})))
    replaced = registry.replace_twin("replace", Twin(properties=TwinProperties(desired={"b": 3})))
    assert (replaced.tags, desired(replaced)) == ({}, {"b": 3})


def test_tags_alone_do_not_move_the_desired_version(hub: Hub) -> None:
    registry = hub.registry()
    hub.create_device("tags")
    twin = registry.update_twin("tags", Twin(tags={"a": 1}))
    assert twin.properties.desired["$version"] == 1
    assert twin.etag != "AAAAAAAAAAE="


@pytest.mark.parametrize(
    "document",
    [
        {"tags": {"a.b": 1}},
        {"tags": {"a b": 1}},
        {"properties": {"desired": {"$x": 1}}},
        {"properties": {"desired": {"big": "x" * 4097}}},
        {"properties": {"desired": {"huge": 2**52}}},
        {
            "properties": {
                "desired": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}}}}}}}
            }
        },
        {"tags": {f"k{number}": "x" * 4000 for number in range(3)}},
        {"tags": []},
        {"properties": 1},
    ],
    ids=["dot", "space", "dollar", "long", "range", "deep", "8-KiB", "list", "number"],
)
def test_bad_twin_is_refused_whole(hub: Hub, document: dict[str, Any]) -> None:
    if hub.request("GET", "/devices/limits").status_code == 404:
        hub.create_device("limits")
    before = hub.request("GET", "/twins/limits").json()
    answer = hub.request("PATCH", "/twins/limits", body=document)
    assert (answer.status_code, answer.headers["iothub-errorcode"]) == (400, "ArgumentInvalid")
    assert hub.request("GET", "/twins/limits").json() == before


def test_twins_of_missing_identities(hub: Hub) -> None:
    registry = hub.registry()
    hub.create_device("twinless")
    with pytest.raises(HttpOperationError) as error:
        registry.get_twin("nobody")
    assert refused(error) == (404, "DeviceNotFound")
    with pytest.raises(HttpOperationError) as error:
        registry.get_module_twin("twinless", "nobody")
    assert refused(error) == (404, "ModuleNotFound")
