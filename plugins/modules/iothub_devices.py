#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iothub_devices
short_description: Register devices on an Azure IoT Hub
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Creates, changes and deletes the identities of a list of devices.
  - The whole list is checked before the first device is changed. An invalid or repeated device id is an error
    that names the item.
  - Keys are made by the hub and never by this module. An update keeps the keys that are there.
  - Each change carries the version that was read, so that one made by somebody else meanwhile is an error
    and never overwritten.
  - When some devices fail, the others are done all the same. An interrupted run is finished by the next.
options:
  devices:
    description:
      - The devices, each once.
    type: list
    elements: dict
    required: true
    suboptions:
      device_id:
        description:
          - Id of the device, case-sensitive, 1 to 128 ASCII letters, digits and C(-:.+%_#*?!(\),=@;$').
        type: str
        required: true
      state:
        description:
          - Whether the device is to exist. V(absent) deletes its modules and its twin too.
        type: str
        choices: [present, absent]
        default: present
      edge:
        description:
          - Whether the device is an IoT Edge device. A new device is none by default.
          - An edge device cannot be made a leaf device again.
        type: bool
      status:
        description:
          - Whether the device may connect. A new device is V(enabled) by default.
        type: str
        choices: [enabled, disabled]
      status_reason:
        description:
          - Why it has this status, at most 128 characters. An empty text removes the reason.
        type: str
      tags:
        description:
          - Tags of the device twin. They are merged into those that are there.
          - A key with the value null is removed.
        type: dict
  return_keys:
    description:
      - Return the devices' keys in RV(devices[].primary_key) and RV(devices[].secondary_key).
      - A task that sets this must set C(no_log=true), or the keys are printed and logged.
    type: bool
    default: false
extends_documentation_fragment:
  - edgeha.iotedge.iothub
  - edgeha.iotedge.azure_login
  - edgeha.iotedge.iothub.attributes
attributes:
  check_mode:
    description: Reads the hub and says what would change.
    support: full
  diff_mode:
    description: Shows each device before and after, without keys.
    support: full
seealso:
  - module: edgeha.iotedge.iothub_devices_info
"""

EXAMPLES = r"""
- name: Register two gateways
  edgeha.iotedge.iothub_devices:
    hostname: contoso.azure-devices.net
    policy_key: "{{ vault_iothub_policy_key }}"
    devices:
      - device_id: plant07-gw
        edge: true
        tags:
          site: plant07
      - device_id: depot09-gw
        edge: true

- name: Register a gateway and keep its key for the next task
  edgeha.iotedge.iothub_devices:
    hostname: contoso.azure-devices.net
    policy_key: "{{ vault_iothub_policy_key }}"
    devices:
      - device_id: plant07-gw
        edge: true
    return_keys: true
  no_log: true
  register: registered
"""

RETURN = r"""
devices:
  description: The devices in the order of the list, as they are now (in check mode, as they would be).
  returned: success
  type: list
  elements: dict
  contains:
    device_id:
      description: Id of the device.
      type: str
      returned: always
    state:
      description: V(present) or V(absent).
      type: str
      returned: always
    action:
      description:
        - What was done, one of V(none), V(create), V(update) and V(delete). V(update) covers tags too.
      type: str
      returned: always
    edge:
      description: Whether it is an IoT Edge device.
      type: bool
      returned: when it is present
    status:
      description: V(enabled) or V(disabled).
      type: str
      returned: when it is present
    status_reason:
      description: Why it has this status.
      type: str
      returned: when it is present
    authentication:
      description: How the device authenticates, such as V(sas).
      type: str
      returned: when it is present
    primary_key:
      description: Primary key in base64.
      type: str
      returned: when O(return_keys=true) and the device exists
    secondary_key:
      description: Secondary key in base64.
      type: str
      returned: when O(return_keys=true) and the device exists
hub_time:
  description: The hub's clock at the first answer, UTC.
  returned: success
  type: str
  sample: "2026-02-01T10:00:00Z"
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    iothub_auth,
    iothub_client,
    iothub_device,
    iothub_module,
    rest_client,
)

# More threads do not help: the hub's throttle and not the latency bounds a fleet.
MAX_THREADS = 8

# A device as the hub has it: identity (None when there is none) and twin (empty when not needed).
State: TypeAlias = "tuple[dict[str, Any] | None, dict[str, Any]]"


def read(client: iothub_client.HubClient, desired: iothub_device.DesiredDevice) -> State:
    """Return (identity or None, twin); the twin is read only where tags are asked for."""
    actual = client.get_device(desired.device_id)
    twin: dict[str, Any] = {}
    if actual and desired.present and desired.tags is not None:
        twin = client.get_twin(desired.device_id) or {}
    return actual, twin


def apply(
    client: iothub_client.HubClient,
    desired: iothub_device.DesiredDevice,
    plan: iothub_device.Plan,
    actual: dict[str, Any] | None,
    twin: dict[str, Any],
) -> dict[str, Any] | None:
    """Carry out a plan; return the identity as it is then."""
    if plan.action == "delete":
        client.delete_device(desired.device_id, plan.etag or "*")
        return None
    if plan.action == "create":
        try:
            actual = client.put_device(plan.body, None)
        except rest_client.ServiceResponseError as error:
            if error.status != 409:
                raise
            # It came into being since it was read, perhaps by our own call whose answer was lost.
            actual, twin = read(client, desired)
            return apply(client, desired, iothub_device.plan(actual, desired, twin.get("tags")), actual, twin)
        twin = {}
    elif plan.action == "update":
        actual = client.put_device(plan.body, plan.etag)
    if plan.tag_patch:
        # The twin of a new device has a version that nobody has read yet.
        client.patch_twin(desired.device_id, {"tags": dict(plan.tag_patch)}, str(twin.get("etag") or "*"))
    return actual


def result(
    desired: iothub_device.DesiredDevice,
    plan: iothub_device.Plan,
    identity: dict[str, Any] | None,
    return_keys: bool,
) -> dict[str, Any]:
    """Return what the module tells about one device."""
    entry: dict[str, Any] = {
        **plan.after,
        "device_id": desired.device_id,
        "state": "present" if desired.present else "absent",
        "action": "update" if plan.changed and plan.action == "none" else plan.action,
    }
    if return_keys and identity and desired.present:
        keys = (identity.get("authentication") or {}).get("symmetricKey") or {}
        entry["primary_key"] = keys.get("primaryKey")
        entry["secondary_key"] = keys.get("secondaryKey")
    return entry


def desired_devices(items: list[dict[str, Any]]) -> list[iothub_device.DesiredDevice]:
    return [
        iothub_device.DesiredDevice(
            device_id=item["device_id"],
            present=item["state"] == "present",
            edge=item["edge"],
            status=item["status"],
            status_reason=item["status_reason"],
            tags=item["tags"],
        )
        for item in items
    ]


def make_plans(
    devices: list[iothub_device.DesiredDevice], states: list[State]
) -> tuple[list[iothub_device.Plan], list[str]]:
    """Return the plans of all devices and the errors of those that cannot be changed as asked."""
    plans, errors = [], []
    for index, (device, (identity, twin)) in enumerate(zip(devices, states, strict=True)):
        try:
            plans.append(iothub_device.plan(identity, device, twin.get("tags")))
        except iothub_device.UnsupportedChange as error:
            errors.append(f"devices[{index}]: {error}")
    return plans, errors


def write(
    client: iothub_client.HubClient,
    devices: list[iothub_device.DesiredDevice],
    plans: list[iothub_device.Plan],
    states: list[State],
) -> tuple[list[dict[str, Any] | None], list[str], int]:
    """Carry out all plans; return the identities, the errors, and how many devices were changed."""

    def one(
        device: iothub_device.DesiredDevice, plan: iothub_device.Plan, state: State
    ) -> tuple[dict[str, Any] | None, str]:
        try:
            return apply(client, device, plan, *state), ""
        except (rest_client.ServiceError, iothub_device.UnsupportedChange) as error:
            # One device that fails does not keep the others from what they need.
            return None, f"device {device.device_id!r}: {iothub_module.explain(error)}"

    with ThreadPoolExecutor(max_workers=MAX_THREADS) as pool:
        outcomes = list(pool.map(one, devices, plans, states))
    done = sum(plan.changed and not error for plan, (identity, error) in zip(plans, outcomes, strict=True))
    return [identity for identity, error in outcomes], [error for identity, error in outcomes if error], done


def run(module: AnsibleModule) -> None:
    devices = desired_devices(module.params["devices"])
    errors = iothub_device.list_errors(devices)
    if errors:
        module.fail_json(msg=f"Nothing was changed. {'; '.join(errors)}", errors=errors)

    client = iothub_module.client(module.params)
    with ThreadPoolExecutor(max_workers=MAX_THREADS) as pool:
        states = list(pool.map(lambda device: read(client, device), devices))
    plans, errors = make_plans(devices, states)
    if errors:
        module.fail_json(msg=f"Nothing was changed. {'; '.join(errors)}", errors=errors)

    identities = [identity for identity, twin in states]
    if not module.check_mode:
        identities, errors, done = write(client, devices, plans, states)
        if errors:
            module.fail_json(
                msg=f"{'; '.join(errors)}. Changed all the same: {done} devices; run again to finish.",
                errors=errors,
                changed=done > 0,
            )
    module.exit_json(
        changed=any(plan.changed for plan in plans),
        devices=[
            result(device, plan, identity, module.params["return_keys"])
            for device, plan, identity in zip(devices, plans, identities, strict=True)
        ],
        hub_time=hub_time(client.clock_offset),
        diff={
            "before": {
                device.device_id: dict(plan.before) for device, plan in zip(devices, plans, strict=True)
            },
            "after": {
                device.device_id: dict(plan.after) for device, plan in zip(devices, plans, strict=True)
            },
        },
    )


def hub_time(offset: float | None) -> str:
    """Return the hub's clock as ``YYYY-MM-DDTHH:MM:SSZ``; ours when the hub does not tell its own."""
    now = datetime.now(UTC) + timedelta(seconds=offset or 0.0)
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **iothub_module.argument_spec(),
            "devices": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "device_id": {"type": "str", "required": True},
                    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                    "edge": {"type": "bool"},
                    "status": {"type": "str", "choices": ["enabled", "disabled"]},
                    "status_reason": {"type": "str"},
                    "tags": {"type": "dict"},
                },
            },
            # no_log=False: this is a switch and not a key.
            "return_keys": {"type": "bool", "default": False, "no_log": False},
        },
        **iothub_module.RULES,
    )
    try:
        run(module)
    except (rest_client.ServiceError, iothub_auth.CredentialError) as error:
        module.fail_json(msg=iothub_module.explain(error))


if __name__ == "__main__":
    main()
