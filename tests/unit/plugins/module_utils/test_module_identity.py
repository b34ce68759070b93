# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    identity_reader,
    item_list,
    module_identity,
    rest_client,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.authentication import Authentication
from ansible_collections.edgeha.iotedge.plugins.module_utils.module_identity import DesiredModule

KEY, OTHER = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
PRINT = "AB" * 20
# As a hub answers a GET.
CAMERA: dict[str, Any] = {
    "moduleId": "camera",
    "managedBy": "line",
    "deviceId": "line1",
    "generationId": "638",
    "etag": "MTIz",
    "connectionState": "Disconnected",
    "lastActivityTime": "0001-01-01T00:00:00Z",
    "cloudToDeviceMessageCount": 0,
    "authentication": {
        "symmetricKey": {"primaryKey": KEY, "secondaryKey": OTHER},
        "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
        "type": "sas",
    },
}


def test_new_module_lets_the_hub_mint_the_keys() -> None:
    plan = module_identity.plan(None, DesiredModule("line1", "camera", managed_by="line"))
    assert (plan.action, plan.etag) == ("create", "")
    assert plan.body == {
        "deviceId": "line1",
        "moduleId": "camera",
        "managedBy": "line",
        "authentication": {"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}},
    }
    assert plan.after["authentication"] == {"type": "sas"}


def test_module_as_wanted_is_left_alone() -> None:
    for wanted in (None, Authentication(), Authentication("sas", KEY, OTHER)):
        desired = DesiredModule("line1", "camera", managed_by="line", authentication=wanted)
        plan = module_identity.plan(CAMERA, desired)
        assert not plan.changed
        assert plan.before == plan.after


def test_update_keeps_the_keys_and_what_is_left_out() -> None:
    plan = module_identity.plan(CAMERA, DesiredModule("line1", "camera", managed_by=""))
    assert (plan.action, plan.etag) == ("update", "MTIz")
    assert plan.body == {
        "deviceId": "line1",
        "moduleId": "camera",
        "authentication": CAMERA["authentication"],
        "etag": "MTIz",
    }
    prints = Authentication("certificate_authority")
    plan = module_identity.plan(
        CAMERA, DesiredModule("line1", "camera", authentication=prints, replace_authentication=True)
    )
    assert plan.body["managedBy"] == "line"
    assert plan.body["authentication"] == {"type": "certificateAuthority"}


def test_other_keys_are_a_change_that_shows_none_of_them() -> None:
    desired = DesiredModule("line1", "camera", authentication=Authentication("sas", OTHER, KEY))
    plan = module_identity.plan(CAMERA, desired)
    assert plan.body["authentication"]["symmetricKey"] == {"primaryKey": OTHER, "secondaryKey": KEY}
    assert (plan.before["keys"], plan.after["keys"]) == ("others", "as given")
    assert KEY not in repr(plan)
    assert KEY not in repr(desired)


def test_other_type_is_refused_unless_it_is_meant() -> None:
    wanted = Authentication("self_signed", primary_thumbprint=PRINT)
    with pytest.raises(item_list.Refused, match="replace_authentication"):
        module_identity.plan(CAMERA, DesiredModule("line1", "camera", authentication=wanted))


def test_absent() -> None:
    gone = DesiredModule("line1", "camera", present=False)
    assert not module_identity.plan(None, gone).changed
    plan = module_identity.plan(CAMERA, gone)
    assert (plan.action, plan.etag, plan.after) == ("delete", "MTIz", {})


def test_errors_of_a_list_name_the_item_and_come_all_at_once() -> None:
    errors = module_identity.list_errors(
        [
            DesiredModule("line1", "camera"),
            DesiredModule("line 1", "camera"),
            DesiredModule("line1", "cam/era"),
            DesiredModule("line1", "$edgeAgent", present=False),
            DesiredModule("line1", "a", authentication=Authentication("sas", "c2hvcnQ=", KEY)),
            DesiredModule("line1", "b", authentication=Authentication("self_signed", None, None, "AB" * 19)),
            DesiredModule("line2", "camera"),
            DesiredModule("line1", "camera"),
        ]
    )
    assert [error.partition(":")[0] for error in errors] == [f"modules[{n}]" for n in (1, 2, 3, 4, 5, 7)]
    assert "module id 'cam/era' holds '/'" in errors[1]
    assert "hub's own" in errors[2]
    assert "5 bytes" in errors[3]
    assert "38 characters" in errors[4]
    assert "modules[0]" in errors[5]


class Client:
    """Answers for a module as a hub does a shared access policy."""

    def __init__(self, device: dict[str, Any] | None, status: int = 401) -> None:
        self.device, self.status = device, status

    def get_module(self, _device_id: str, _module_id: str) -> None:
        raise rest_client.ServiceResponseError("IoT Hub h", self.status, "IotHubUnauthorizedAccess", "no")

    def get_device(self, _device_id: str) -> dict[str, Any] | None:
        return self.device


@pytest.mark.parametrize(
    ("device", "status", "expected", "fact"),
    [
        (None, 401, identity_reader.IdentityMissing, "'line1' is not registered"),
        (None, 404, identity_reader.IdentityMissing, "'line1' is not registered"),
        ({"status": "disabled"}, 401, item_list.Refused, "'line1' is disabled"),
        # A policy without the right is nothing else.
        ({"status": "enabled"}, 401, rest_client.ServiceResponseError, "HTTP 401"),
        ({"status": "disabled"}, 500, rest_client.ServiceResponseError, "HTTP 500"),
    ],
)
def test_401_is_told_apart_by_the_device(
    device: dict[str, Any] | None, status: int, expected: type[Exception], fact: str
) -> None:
    client: Any = Client(device, status)
    with pytest.raises(expected, match=fact):
        identity_reader.read_module(client, "line1", "camera")
