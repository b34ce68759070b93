# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules for lists send, and what they make of answers that no quiet service gives."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    dps_enrollment,
    dps_module,
    iothub_module,
    item_list,
    rest_client,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.dps_enrollment import Attestation, Desired
from ansible_collections.edgeha.iotedge.plugins.module_utils.key_rotation import Rotation
from ansible_collections.edgeha.iotedge.plugins.module_utils.module_identity import DesiredModule
from ansible_collections.edgeha.iotedge.plugins.module_utils.twin_plan import DesiredTwin
from ansible_collections.edgeha.iotedge.plugins.modules import iothub_keys, iothub_modules, iothub_twins

KEY, OTHER = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
SAS = {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": OTHER}}


def refusal(status: int, code: str = "Code") -> rest_client.ServiceResponseError:
    return rest_client.ServiceResponseError("IoT Hub h", status, code, "text")


class Module:
    """Stands in for AnsibleModule, as far as steps need it."""

    def __init__(self, check_mode: bool = False, **params: Any) -> None:
        self.check_mode = check_mode
        self.params = {"return_keys": False, "modules": [], **params}
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Service:
    """Answers every call from a script, by name of the call; an answer that is an exception is raised."""

    def __init__(self, **script: list[Any]) -> None:
        self.script = script
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self.calls.append((name, *arguments))
            answer = self.script[name].pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer(*arguments) if callable(answer) else answer

        return call

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for called, *arguments in map(list, self.calls) if called == name]  # type: ignore[misc]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a service the one that modules speak to."""

    def start(**script: list[Any]) -> Service:
        service = Service(**script)
        monkeypatch.setattr(iothub_module, "client", lambda _params: service)
        monkeypatch.setattr(dps_module, "client_of", lambda _params: service)
        return service

    return start


def write(steps: item_list.Steps[Any, Any], item: Any) -> Any:
    """Read, plan and write one item, as item_list does."""
    state = steps.read(item)
    assert steps.write is not None
    return steps.write(item, steps.plan(item, state), state)


CAMERA = {"deviceId": "line1", "moduleId": "camera", "etag": "MQ==", "authentication": SAS}


def test_module_that_came_into_being_meanwhile_is_brought_to_what_is_wanted(serve: Any) -> None:
    module: Any = Module()
    done = {**CAMERA, "managedBy": "line", "etag": "Mg=="}
    service = serve(get_module=[None, CAMERA], put_module=[refusal(409, "ModuleAlreadyExistsOnDevice"), done])
    wanted = DesiredModule("line1", "camera", managed_by="line")
    assert write(iothub_modules.make_steps(module), wanted) == done
    created, updated = service.named("put_module")
    assert created[1] is None
    assert updated[1] == "MQ=="
    # The keys of whoever made it stay.
    assert updated[0]["authentication"] == SAS
    # As wanted already, it is left alone.
    service = serve(get_module=[None, CAMERA], put_module=[refusal(409)])
    assert write(iothub_modules.make_steps(module), DesiredModule("line1", "camera")) == CAMERA
    assert len(service.named("put_module")) == 1


def test_changes_carry_the_version_that_was_read(serve: Any) -> None:
    module: Any = Module()
    service = serve(get_module=[CAMERA], put_module=[refusal(412)], delete_module=[None])
    with pytest.raises(rest_client.ServiceResponseError, match="412"):
        write(iothub_modules.make_steps(module), DesiredModule("line1", "camera", managed_by="x"))
    assert service.named("put_module")[0][1] == "MQ=="
    service = serve(get_module=[CAMERA], delete_module=[None])
    write(iothub_modules.make_steps(module), DesiredModule("line1", "camera", present=False))
    assert service.named("delete_module") == [["line1", "camera", "MQ=="]]

    twin = {"etag": "AAE=", "tags": {}, "properties": {"desired": {"$version": 1}}}
    service = serve(get_twin=[twin], patch_twin=[refusal(412)])
    with pytest.raises(rest_client.ServiceResponseError, match="412"):
        write(iothub_twins.make_steps(module), DesiredTwin("line1", "camera", tags={"a": 1}))
    assert service.named("patch_twin") == [["line1", {"tags": {"a": 1}}, "AAE=", "camera"]]


def test_modules_of_one_device_are_read_by_one_call(serve: Any) -> None:
    items = [("line1", "camera"), ("line1", "new"), ("line2", "a"), ("gone", "a"), ("gone", "b")]
    module: Any = Module(modules=[{"device_id": device_id} for device_id, _module_id in items])
    service = serve(
        list_modules=[[CAMERA, {**CAMERA, "moduleId": "other"}], refusal(401)],
        get_module=[None],
        get_device=[None],
    )
    steps = iothub_modules.make_steps(module)
    desired = [DesiredModule(*item, present=item[0] != "gone") for item in items]
    states = iothub_module.each(steps.read, desired[:2]) + [steps.read(item) for item in desired[2:]]
    # Of the device that is not there, nothing has to be removed.
    assert states == [CAMERA, None, None, None, None]
    assert service.named("list_modules") == [["line1"], ["gone"]]
    assert service.named("get_module") == [["line2", "a"]]
    assert len(service.named("get_device")) == 1


def test_missing_device_is_a_warning_in_check_mode_only(serve: Any) -> None:
    checking: Any = Module(check_mode=True)
    serve(get_module=[refusal(401)], get_device=[None], get_twin=[None])
    modules = iothub_modules.make_steps(checking)
    assert modules.read(DesiredModule("line1", "camera")) is None
    assert iothub_twins.make_steps(checking).read(DesiredTwin("line1")) is None
    assert len(checking.warnings) == 2
    serve(get_module=[refusal(401)] * 2, get_device=[None] * 2)
    module: Any = Module()
    with pytest.raises(item_list.Refused, match="not registered"):
        iothub_modules.make_steps(module).read(DesiredModule("line1", "camera"))
    # What is to be absent needs no device.
    absent = DesiredModule("line1", "camera", present=False)
    assert iothub_modules.make_steps(module).read(absent) is None


def test_new_keys_come_in_batches_of_a_hundred_and_failures_stay_with_their_item(serve: Any) -> None:
    def regenerate(which: str, entries: list[dict[str, str]]) -> dict[str, Any]:
        return {
            "rotatedKeys": [{**entry, "primaryKey": f"{which}-{entry['id']}"} for entry in entries[1:]],
            "errors": [{**entries[0], "errorCode": "ThrottlingException"}],
        }

    service = serve(
        regenerate_keys=[regenerate, refusal(403, "IotHubQuotaExceeded"), regenerate, regenerate],
        put_device=[{"swapped": True}],
    )
    module: Any = Module()
    steps = iothub_keys.make_steps(module)
    rotations = [Rotation(f"d{number}", rotate="primary") for number in range(250)]
    rotations += [Rotation("swapped", rotate="swap"), Rotation("both", rotate="both")]
    states = [
        {"deviceId": rotation.device_id, "etag": "MQ==", "authentication": SAS} for rotation in rotations
    ]
    rows = [
        (rotation, steps.plan(rotation, state), state)
        for rotation, state in zip(rotations, states, strict=True)
    ]
    assert steps.write_many is not None
    outcomes = steps.write_many(rows)
    assert [(which, len(entries)) for which, entries in service.named("regenerate_keys")] == [
        ("primaryKey", 100),
        ("primaryKey", 100),
        ("primaryKey", 50),
        ("both", 1),
    ]
    assert "ThrottlingException" in str(outcomes[0])
    assert all("IotHubQuotaExceeded" in str(outcome) for outcome in outcomes[100:200])
    assert outcomes[249]["authentication"]["symmetricKey"] == {
        "primaryKey": "primaryKey-d249",
        "secondaryKey": OTHER,
    }
    assert outcomes[250] == {"swapped": True}
    [(body, etag)] = service.named("put_device")
    assert (body["authentication"]["symmetricKey"]["primaryKey"], etag) == (OTHER, "MQ==")
    assert sum(isinstance(outcome, Exception) for outcome in outcomes) == 1 + 100 + 1 + 1


HIDDEN = {"type": "symmetricKey", "symmetricKey": {"primaryKey": None, "secondaryKey": None}}
KNOWN = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": OTHER}}
RECORD = {
    "registrationId": "gw",
    "attestation": HIDDEN,
    "capabilities": {"iotEdge": False},
    "provisioningStatus": "enabled",
    "etag": '"1"',
}


def test_keys_of_an_enrollment_are_sent_back_and_read_only_where_they_matter(serve: Any) -> None:
    module: Any = Module()
    service = serve(get_enrollment=[RECORD] * 2, attestation=[KNOWN], put_enrollment=[RECORD])
    steps = dps_module.make_steps(module, dps_enrollment.ENROLLMENTS)
    same = Desired("gw", attestation=Attestation("symmetric_key"))
    assert not steps.plan(same, steps.read(same)).changed
    assert service.named("attestation") == []
    write(steps, Desired("gw", status="disabled"))
    [(kind, name, body, etag)] = service.named("put_enrollment")
    assert (kind, name, etag) == ("enrollments", "gw", '"1"')
    assert body["attestation"] == KNOWN


def test_enrollment_that_came_into_being_meanwhile_and_one_that_was_changed(serve: Any) -> None:
    module: Any = Module()
    service = serve(get_enrollment=[None, RECORD, RECORD], put_enrollment=[refusal(409, "409201")])
    steps = dps_module.make_steps(module, dps_enrollment.ENROLLMENTS)
    assert write(steps, Desired("gw", attestation=Attestation("symmetric_key"))) == RECORD
    assert service.named("put_enrollment")[0][3] is None
    serve(get_enrollment=[RECORD], attestation=[KNOWN], put_enrollment=[refusal(412, "412001")])
    with pytest.raises(rest_client.ServiceResponseError, match="412001"):
        write(dps_module.make_steps(module, dps_enrollment.ENROLLMENTS), Desired("gw", edge=True))
    service = serve(get_enrollment=[RECORD], delete_enrollment=[None])
    steps = dps_module.make_steps(module, dps_enrollment.ENROLLMENTS)
    write(steps, Desired("gw", present=False))
    assert service.named("delete_enrollment") == [["enrollments", "gw", '"1"']]
