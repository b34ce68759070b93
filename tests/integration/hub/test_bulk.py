# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bulk calls: POST /devices, with Microsoft's azure-iot-hub and as bare requests."""

from typing import Any

import pytest
from azure.iot.hub.models import Twin
from azure.iot.hub.protocol.models import DeviceCapabilities, ExportImportDevice, PropertyContainer

from tests.integration.hub.conftest import Hub, wait_for
from tests.integration.hub.test_registry import KEY_1, KEY_2, desired


def bulk(hub: Hub, *entries: Any) -> tuple[int, list[tuple[str, str, str, str]]]:
    """Send entries; returns the status and (device, module, code, operation) of each error."""
    answer = hub.request("POST", "/devices", body=list(entries))
    result = answer.json()
    assert result["isSuccessful"] is (answer.status_code == 200)
    assert all(error["errorStatus"] for error in result["errors"])
    return answer.status_code, [
        (error["deviceId"], error["moduleId"], error["errorCode"], error["operation"])
        for error in result["errors"]
    ]


def test_a_hundred_devices_in_one_call_of_the_client(hub: Hub) -> None:
    registry = hub.registry()
    result = registry.bulk_create_or_update_devices(
        [
            ExportImportDevice(
                id=f"many-{number}",
                import_mode="create",
                tags={"number": {"is": number}},
                properties=PropertyContainer(desired={"wanted": {"number": number}}),
                capabilities=DeviceCapabilities(iot_edge=True),
            )
            for number in range(100)
        ]
    )
    assert (result.is_successful, result.errors, result.warnings) == (True, [], [])
    twin = registry.get_twin("many-99")
    assert twin.tags == {"number": {"is": 99}}
    assert desired(twin) == {"wanted": {"number": 99}}
    assert twin.capabilities.iot_edge
    assert [module.module_id for module in registry.get_modules("many-7")] == ["$edgeAgent", "$edgeHub"]
    keys = {registry.get_device(f"many-{n}").authentication.symmetric_key.primary_key for n in range(3)}
    assert len(keys) == 3


def test_entries_stand_alone(hub: Hub) -> None:
    status, errors = bulk(
        hub,
        {"id": "alone-1", "importMode": "create"},
        {"id": "alone 2", "importMode": "create"},
        {"id": "alone-3", "importMode": "create", "tags": {"a.b": 1}},
        {"id": "alone-4", "importMode": "update"},
        {"id": "alone-5", "importMode": "explode"},
        {"id": "alone-6", "moduleId": "m"},
        7,
        {"id": "alone-8"},
    )
    assert status == 400
    assert errors == [
        ("alone 2", "", "ArgumentInvalid", "create"),
        ("alone-3", "", "ArgumentInvalid", "create"),
        ("alone-4", "", "DeviceNotFound", "update"),
        ("alone-5", "", "ArgumentInvalid", "explode"),
        ("alone-6", "m", "DeviceNotFound", ""),
        ("", "", "ArgumentInvalid", ""),
    ]
    found = [hub.request("GET", f"/devices/alone-{number}").status_code for number in (1, 3, 8)]
    assert found == [200, 404, 200]


def test_an_entry_that_fails_late_leaves_nothing(hub: Hub) -> None:
    status, errors = bulk(
        hub,
        {"id": "late-1"},
        {"id": "late-2", "capabilities": {"iotEdge": True}, "tags": {"a.b": 1}},
        {"id": "late-3"},
    )
    assert (status, errors) == (400, [("late-2", "", "ArgumentInvalid", "")])
    found = [hub.request("GET", f"/devices/late-{number}").status_code for number in (1, 2, 3)]
    assert found == [200, 404, 200]


def test_modes_and_etags(hub: Hub) -> None:
    registry = hub.registry()
    bulk(hub, *({"id": f"mode-{number}", "tags": {"old": 1}} for number in range(6)))
    etag = registry.get_device("mode-1").etag
    twin_etag = registry.get_twin("mode-4").etag
    assert bulk(
        hub,
        {"id": "mode-0", "importMode": "update", "status": "disabled", "statusReason": "why"},
        {"id": "mode-1", "importMode": "updateIfMatchETag", "eTag": etag, "status": "disabled"},
        {"id": "mode-2", "importMode": "delete"},
        {"id": "mode-3", "importMode": "updateTwin", "tags": {"old": None, "new": 2}, "properties": None},
        {"id": "mode-4", "importMode": "updateTwinIfMatchETag", "twinETag": twin_etag, "tags": {"new": 2}},
    ) == (200, [])
    assert (registry.get_device("mode-0").status_reason, registry.get_device("mode-1").status) == (
        "why",
        "disabled",
    )
    assert registry.get_twin("mode-3").tags == {"new": 2}
    assert registry.get_twin("mode-4").tags == {"old": 1, "new": 2}
    assert desired(registry.get_twin("mode-3")) == {}

    stale = {"eTag": etag, "twinETag": twin_etag}
    modes = ("updateIfMatchETag", "deleteIfMatchETag", "updateTwinIfMatchETag", "create")
    status, errors = bulk(
        hub,
        *(
            {"id": f"mode-{number}", "importMode": mode, **stale, "tags": {}}
            for number, mode in zip((0, 1, 4, 5), modes, strict=True)
        ),
        {"id": "mode-2", "importMode": "delete"},
        {"id": "mode-3", "importMode": "deleteIfMatchETag"},
    )
    assert status == 400
    assert [error[2] for error in errors] == [
        *("PreconditionFailed",) * 3,
        *("DeviceAlreadyExists", "DeviceNotFound", "ArgumentInvalid"),
    ]


def test_modules_beside_devices(hub: Hub) -> None:
    registry = hub.registry()
    keys = {"symmetricKey": {"primaryKey": KEY_1, "secondaryKey": KEY_2}}
    assert bulk(
        hub,
        {"id": "mixed"},
        {"id": "mixed", "moduleId": "one", "authentication": keys, "tags": {"a": 1}},
        {"id": "mixed", "moduleId": "two"},
    ) == (200, [])
    assert registry.get_module("mixed", "one").authentication.symmetric_key.primary_key == KEY_1
    assert registry.get_module_twin("mixed", "one").tags == {"a": 1}
    assert bulk(hub, {"id": "mixed", "moduleId": "one"}, {"id": "mixed", "moduleId": "$x"}) == (
        400,
        [
            ("mixed", "one", "ModuleAlreadyExistsOnDevice", ""),
            ("mixed", "$x", "ArgumentInvalid", ""),
        ],
    )
    assert bulk(
        hub,
        {"id": "mixed", "moduleId": "two", "importMode": "delete"},
        {"id": "mixed", "moduleId": "one", "importMode": "update"},
    ) == (200, [])
    assert [module.module_id for module in registry.get_modules("mixed")] == ["one"]


def test_parents_as_in_single_calls(hub: Hub) -> None:
    registry = hub.registry()
    scope = registry.create_device_with_sas("bulk-top", "", "", "enabled", iot_edge=True).device_scope
    edge = {"capabilities": {"iotEdge": True}}
    assert bulk(
        hub,
        {"id": "bulk-low", "parentScopes": [scope], **edge},
        {"id": "bulk-leaf", "deviceScope": scope},
        {"id": "bulk-stray", "parentScopes": [scope]},
    ) == (200, [])
    assert registry.get_device("bulk-low").parent_scopes == [scope]
    assert registry.get_device("bulk-leaf").parent_scopes == [scope]
    assert registry.get_device("bulk-stray").parent_scopes is None
    own = registry.get_device("bulk-low").device_scope
    assert own != scope
    status, errors = bulk(
        hub,
        {"id": "bulk-low", "importMode": "update", **edge},
        {"id": "bulk-bad", "deviceScope": "ms-azure-iot-edge://nobody-1"},
    )
    assert (status, [error[2] for error in errors]) == (400, ["ArgumentInvalid"] * 2)
    echoed = {"id": "bulk-low", "importMode": "update", "deviceScope": own, **edge}
    assert bulk(hub, echoed) == (200, [])


def test_a_device_occurs_once(hub: Hub) -> None:
    status, errors = bulk(hub, {"id": "once"}, {"id": "once", "importMode": "updateTwin"}, {"id": "other"})
    assert (status, errors) == (400, [("once", "", "DeviceDefinedMultipleTimes", "updateTwin")])
    assert hub.request("GET", "/devices/other").status_code == 404, "nothing of the call is done"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([{"id": f"x{number}"} for number in range(101)], "TooManyDevices"),
        ([], "ArgumentInvalid"),
        ({"id": "x"}, "ArgumentInvalid"),
    ],
    ids=["101", "none", "object"],
)
def test_calls_that_are_refused_whole(hub: Hub, body: Any, code: str) -> None:
    answer = hub.request("POST", "/devices", body=body)
    assert (answer.status_code, answer.headers["iothub-errorcode"]) == (400, code)
    assert answer.json()["Message"].startswith(f"ErrorCode:{code};")


def test_bulk_needs_the_right_to_write(hub: Hub) -> None:
    for policy, status in (("registryRead", 401), ("service", 401), ("registryReadWrite", 200)):
        token = hub.token(policy=policy)
        answer = hub.request("POST", "/devices", token=token, body=[{"id": f"right-{policy}"}])
        assert answer.status_code == status


def test_live_devices_hear_of_bulk_writes(hub: Hub) -> None:
    device = hub.paho("bulk-live", hub.create_device("bulk-live"))
    device.client.subscribe("$iothub/twin/PATCH/properties/desired/#", 1)
    wait_for("the subscription", lambda: hub.registry().get_twin("bulk-live").connection_state == "Connected")
    hub.registry().update_twin("bulk-live", Twin(tags={}))
    wait_for(
        "a push",
        lambda: (
            bulk(
                hub,
                {
                    "id": "bulk-live",
                    "importMode": "updateTwin",
                    "properties": {"desired": {"speed": 3}},
                },
            )
            == (200, [])
            and device.received
        ),
    )
    assert b'"speed": 3' in device.received[0][1]
    assert bulk(hub, {"id": "bulk-live", "importMode": "delete"}) == (200, [])
    assert device.disconnected.wait(5)
