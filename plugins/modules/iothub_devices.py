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
  - Creates, changes and deletes the identities of a list of devices, with their place in a hierarchy of edge
    devices and what a hub keeps in their twins.
  - The whole list is checked before the first device is changed. An error names the item of the list, and all
    errors are told at once.
  - Keys are made by the hub unless the list gives them. An update keeps the keys that are there.
  - Each change carries the version that was read, so that one made by somebody else meanwhile is an error
    and never overwritten.
  - When some devices fail, the others are done all the same. An interrupted run is finished by the next.
  - Devices are written a hundred in a call. What differs is found by reading twins, which a hub allows far
    more often than calls of its registry.
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
      parent:
        description:
          - Id of the edge device that this one connects through. It is in the list, or at the hub already.
          - An empty text removes the parent. Left out, the parent stays as it is.
          - At most five edge devices can be above each other.
        type: str
      authentication:
        description:
          - How it proves who it is. Left out, a new one gets V(sas) keys and one that is there keeps what
            it has.
        type: dict
        suboptions:
          type:
            description:
              - V(sas) is a pair of keys, V(self_signed) a certificate that is known by its thumbprint, and
                V(certificate_authority) one that is signed by an authority which the hub knows.
            type: str
            choices: [sas, self_signed, certificate_authority]
            default: sas
          primary_key:
            description:
              - Key in base64, 16 to 64 bytes, for V(sas). Give both keys or none.
              - Without keys the hub makes them, and those that are there are kept. Prefer that, such keys
                never leave the hub.
              - A key that is given here is hidden in every result of the task, with O(return_keys=true)
                too.
            type: str
          secondary_key:
            description:
              - The second key, as the first.
            type: str
          primary_thumbprint:
            description:
              - SHA-1 or SHA-256 thumbprint of the certificate for V(self_signed), 40 or 64 hexadecimal
                digits without separators.
            type: str
          secondary_thumbprint:
            description:
              - Thumbprint of the certificate that precedes or follows the first. Left out, there is none.
            type: str
      replace_authentication:
        description:
          - Change the type of authentication of a device that is there. That cuts it off until it has the new
            credentials, so it is an error without this.
        type: bool
        default: false
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
          - Tags of the device twin.
        type: dict
      desired:
        description:
          - Desired properties of the device twin.
        type: dict
      twin_mode:
        description:
          - With V(merge), O(devices[].tags) and O(devices[].desired) are merged into what is there, and a key
            with the value null is removed.
          - With V(exact), those that are given replace what is there.
        type: str
        choices: [merge, exact]
        default: merge
  query_above:
    description:
      - With more devices than this, queries tell which of them are as wanted, a thousand in a call; the
        others are read one by one.
      - A query is late by some seconds, and may find a device for half an hour after it was deleted. Devices
        are never created or deleted by what a query says, but one that was deleted by hand a moment ago may
        be taken for present until the next run. Raise the number where that matters more than time.
    type: int
    default: 1000
  return_keys:
    description:
      - Return the devices' keys in RV(devices[].primary_key) and RV(devices[].secondary_key), which is one
        call of the registry for each device.
      - The task has to set C(no_log=true), or it is refused, because the keys would be printed and logged.
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
    description: Shows each device that changes before and after, without keys.
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

- name: Two layers of gateways, and a device with a certificate below them
  edgeha.iotedge.iothub_devices:
    hostname: contoso.azure-devices.net
    auth: cli
    devices:
      - device_id: plant07-top
        edge: true
      - device_id: plant07-line2
        edge: true
        parent: plant07-top
      - device_id: press-3
        parent: plant07-line2
        authentication:
          type: self_signed
          primary_thumbprint: 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12
        tags:
          line: 2
        twin_mode: exact

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
    parent:
      description: Id of the edge device above it, null for none.
      type: str
      returned: when it is present
    authentication:
      description: How the device authenticates, such as V(sas).
      type: str
      returned: when it is present
    primary_thumbprint:
      description: Thumbprint of its certificate.
      type: str
      returned: when it authenticates by V(self_signed)
    secondary_thumbprint:
      description: Thumbprint of its second certificate.
      type: str
      returned: when it authenticates by V(self_signed)
    tags:
      description: Tags of its twin.
      type: dict
      returned: when the list gives tags
    desired:
      description: Desired properties of its twin.
      type: dict
      returned: when the list gives desired properties
    primary_key:
      description: Primary key in base64.
      type: str
      returned: when O(return_keys=true) and the device exists
    secondary_key:
      description: Secondary key in base64.
      type: str
      returned: when O(return_keys=true) and the device exists
    identity_etag:
      description: Version of the identity that the keys are of. It changes with them.
      type: str
      returned: when O(return_keys=true) and the device exists
hub_time:
  description: The hub's clock at the first answer, UTC.
  returned: success
  type: str
  sample: "2026-02-01T10:00:00Z"
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    authentication,
    iothub_client,
    iothub_device,
    iothub_fleet,
    iothub_module,
    rest_client,
)


def desired_devices(items: list[dict[str, Any]]) -> list[iothub_device.DesiredDevice]:
    return [
        iothub_device.DesiredDevice(
            device_id=item["device_id"],
            present=item["state"] == "present",
            edge=item["edge"],
            status=item["status"],
            status_reason=item["status_reason"],
            tags=item["tags"],
            desired=item["desired"],
            exact_twin=item["twin_mode"] == "exact",
            parent=item["parent"],
            authentication=authentication.parse(item["authentication"]),
            replace_authentication=item["replace_authentication"],
        )
        for item in items
    ]


def result(
    desired: iothub_device.DesiredDevice, plan: iothub_device.Plan, keys: dict[str, Any]
) -> dict[str, Any]:
    """Return what the module tells about one device."""
    return {
        **plan.after,
        "device_id": desired.device_id,
        "state": "present" if desired.present else "absent",
        "action": "update" if plan.changed and plan.action == "none" else plan.action,
        **keys,
    }


def read_keys(
    client: iothub_client.HubClient, devices: list[iothub_device.DesiredDevice]
) -> list[dict[str, Any]]:
    """Return the keys of the devices that exist and have any, and the version of the identity they are of."""

    def one(device: iothub_device.DesiredDevice) -> dict[str, Any]:
        identity = client.get_device(device.device_id) if device.present else None
        proof = authentication.Authentication.from_body((identity or {}).get("authentication"))
        if not identity or proof.type != "sas":
            return {}
        return {**proof.keys(), "identity_etag": identity.get("etag")}

    return iothub_module.each(one, devices)


def run(module: AnsibleModule) -> None:
    devices = desired_devices(module.params["devices"])
    errors = iothub_device.list_errors(devices)
    if errors:
        module.fail_json(msg=f"Nothing was changed. {'; '.join(errors)}", errors=errors)

    client = iothub_module.client(module.params)
    fleet = iothub_fleet.Fleet(client, devices)
    fleet.look(module.params["query_above"])
    plans, errors = fleet.plans()
    if errors:
        module.fail_json(msg=f"Nothing was changed. {'; '.join(errors)}", errors=errors)

    if not module.check_mode:
        write(module, fleet, plans)
    keys: list[dict[str, Any]] = [{} for device in devices]
    if module.params["return_keys"]:
        keys = read_keys(client, devices)
    ordered = [plans[device.device_id] for device in devices]
    # A diff tells what differs: the rest would only be in its way, and takes long with ten thousand devices.
    differing = {name: plan for name, plan in plans.items() if plan.changed}
    module.exit_json(
        changed=any(plan.changed for plan in ordered),
        devices=[result(*row) for row in zip(devices, ordered, keys, strict=True)],
        hub_time=hub_time(client.clock_offset),
        diff={
            "before": {name: dict(plan.before) for name, plan in differing.items()},
            "after": {name: dict(plan.after) for name, plan in differing.items()},
        },
    )


def write(module: AnsibleModule, fleet: iothub_fleet.Fleet, plans: dict[str, iothub_device.Plan]) -> None:
    """Carry out the plans; fail, saying what was done all the same, when some devices failed."""
    try:
        failed = fleet.write(plans)
    except rest_client.ServiceError as error:
        module.fail_json(
            msg=f"{iothub_module.explain(error)}. Some devices may be changed already: run again to finish.",
            changed=True,
        )
    if failed:
        errors = [f"device {name!r}: {text}" for name, text in failed.items()]
        done = sum(plan.changed and name not in failed for name, plan in plans.items())
        module.fail_json(
            msg=f"{'; '.join(errors)}. Changed all the same: {done} devices; run again to finish.",
            errors=errors,
            changed=done > 0,
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
                    "parent": {"type": "str"},
                    "authentication": authentication.argument_spec(),
                    "replace_authentication": {"type": "bool", "default": False},
                    "status": {"type": "str", "choices": ["enabled", "disabled"]},
                    "status_reason": {"type": "str"},
                    "tags": {"type": "dict"},
                    "desired": {"type": "dict"},
                    "twin_mode": {"type": "str", "choices": ["merge", "exact"], "default": "merge"},
                },
            },
            "query_above": {"type": "int", "default": 1000},
            # no_log=False: this is a switch and not a key.
            "return_keys": {"type": "bool", "default": False, "no_log": False},
        },
        **iothub_module.RULES,
    )
    with iothub_module.failing(module):
        run(module)


if __name__ == "__main__":
    main()
