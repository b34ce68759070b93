#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iothub_devices_info
short_description: Read devices and their modules from an Azure IoT Hub
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Returns the identities of a list of devices and the connection of each of their modules. It never returns
    keys.
options:
  device_ids:
    description:
      - Ids of the devices to read, each once.
    type: list
    elements: str
    required: true
  modules:
    description:
      - List the devices' modules too, which is one call of the registry for each device; a hub allows far
        fewer of those than reads of twins.
    type: bool
    default: true
extends_documentation_fragment:
  - edgeha.iotedge.iothub
  - edgeha.iotedge.azure_login
  - edgeha.iotedge.iothub.attributes
  - edgeha.iotedge.read_only
seealso:
  - module: edgeha.iotedge.iothub_devices
"""

EXAMPLES = r"""
- name: Look at two gateways
  edgeha.iotedge.iothub_devices_info:
    hostname: contoso.azure-devices.net
    policy_name: service
    policy_key: "{{ vault_iothub_policy_key }}"
    device_ids: [plant07-gw, depot09-gw]
  register: seen
"""

RETURN = r"""
devices:
  description: The devices in the order of the list.
  returned: success
  type: list
  elements: dict
  contains:
    device_id:
      description: Id of the device.
      type: str
      returned: always
    exists:
      description: Whether the hub has the device.
      type: bool
      returned: always
    edge:
      description: Whether it is an IoT Edge device.
      type: bool
      returned: when it exists
    status:
      description: V(enabled) or V(disabled).
      type: str
      returned: when it exists
    status_reason:
      description: Why it has this status.
      type: str
      returned: when it exists
    authentication:
      description: How the device authenticates, such as V(sas).
      type: str
      returned: when it exists
    parent:
      description: Id of the edge device above it, null for none.
      type: str
      returned: when it exists
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
      returned: when it exists
    desired:
      description: Desired properties of its twin.
      type: dict
      returned: when it exists
    connected:
      description: Whether the device itself is connected; an edge device's modules connect on their own.
      type: bool
      returned: when it exists
    last_activity:
      description: When the device was last active (UTC), null for never.
      type: str
      returned: when it exists
    modules:
      description: Its modules.
      type: list
      elements: dict
      returned: when it exists, is enabled, and O(modules=true)
      contains:
        module_id:
          description: Name of the module.
          type: str
          returned: always
        connected:
          description: Whether the module is connected.
          type: bool
          returned: always
        last_activity:
          description: When it was last active (UTC), null for never.
          type: str
          returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    activity,
    iothub_client,
    iothub_device,
    iothub_module,
)


def look(client: iothub_client.HubClient, device_id: str, with_modules: bool) -> dict[str, Any]:
    """Return what the module tells about one device."""
    twin = client.get_twin(device_id)
    if twin is None:
        return {"device_id": device_id, "exists": False}
    entry = {
        **iothub_device.public_view(iothub_device.ActualDevice.from_twin(twin)),
        "exists": True,
        "connected": twin.get("connectionState") == "Connected",
        "last_activity": activity.format_time(activity.parse_time(twin.get("lastActivityTime"))),
    }
    # Under SAS a hub answers 401 for the modules of a disabled device: they cannot be listed.
    if with_modules and twin.get("status") != "disabled":
        entry["modules"] = [
            {
                "module_id": state.module_id,
                "connected": state.connected,
                "last_activity": state.as_dict()["last_activity"],
            }
            for state in activity.states(device_id, client.list_modules(device_id))
        ]
    return entry


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **iothub_module.argument_spec(),
            "device_ids": {"type": "list", "elements": "str", "required": True},
            "modules": {"type": "bool", "default": True},
        },
        **iothub_module.RULES,
    )
    ids = module.params["device_ids"]
    errors = iothub_device.list_errors([iothub_device.DesiredDevice(device_id) for device_id in ids])
    if errors:
        module.fail_json(msg="; ".join(errors), errors=errors)
    with iothub_module.failing(module):
        client = iothub_module.client(module.params)
        found = iothub_module.each(lambda name: look(client, name, module.params["modules"]), ids)
        module.exit_json(changed=False, devices=found)


if __name__ == "__main__":
    main()
