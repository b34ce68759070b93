#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iothub_edge_modules
short_description: Set the modules of single IoT Edge devices
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Gives each device of a list the modules, routes and module twins of a deployment manifest, like
    C(az iot edge set-modules).
  - The manifests are checked before the first device is changed. Each error names the item and the JSON path.
  - A device is written only when its twins differ in meaning from the manifest. How createOptions is written
    (as an object or as text, in parts or whole) makes no difference.
  - Properties of modules that the manifest does not name are left as they are.
  - The identities of the modules are made by the edge agent when it first runs them. Until then their
    properties cannot be compared, and are no reason for a change.
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
          - Id of an IoT Edge device that is registered. In check mode it may still be missing, which gives a
            warning.
        type: str
        required: true
      content:
        description:
          - The deployment manifest, as an object or as the text of a JSON file. It holds C(modulesContent)
            with the whole desired properties of C($edgeAgent) and C($edgeHub), for the edge runtime 1.1 to
            1.6, and those of other modules.
          - A createOptions may be an object. It is written as compact text, cut into parts of 512 characters.
        type: raw
        required: true
extends_documentation_fragment:
  - edgeha.iotedge.iothub
  - edgeha.iotedge.azure_login
  - edgeha.iotedge.iothub.attributes
attributes:
  check_mode:
    description: Reads the hub and says what would change.
    support: full
  diff_mode:
    description: Shows the modules of each device that changes before and after, without the passwords of
      registries.
    support: full
notes:
  - A deployment at scale that targets the device overwrites what is set here as soon as the hub evaluates it
    again. Such a device is changed all the same, with a warning, and is named in RV(devices[].deployments).
  - Passwords of registries are hidden in results. Other secrets in a manifest, such as in C(env), are not
    known as such. A task with those should set C(no_log=true).
seealso:
  - module: edgeha.iotedge.iothub_deployments
  - module: edgeha.iotedge.iothub_devices
"""

EXAMPLES = r"""
- name: Run the modules of a file on two gateways
  edgeha.iotedge.iothub_edge_modules:
    hostname: contoso.azure-devices.net
    policy_key: "{{ vault_iothub_policy_key }}"
    devices:
      - device_id: plant07-gw
        content: "{{ lookup('ansible.builtin.file', 'files/plant.json') }}"
      - device_id: depot09-gw
        content: "{{ lookup('ansible.builtin.file', 'files/depot.json') }}"
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
    action:
      description: What was done, V(none) or V(update).
      type: str
      returned: always
    changed_modules:
      description: Names of the modules whose desired properties were (in check mode, would be) changed.
      type: list
      elements: str
      returned: always
    waiting_modules:
      description:
        - Names of modules whose properties cannot be compared, because the edge agent has not made their
          identities yet. The hub keeps the properties for them.
      type: list
      elements: str
      returned: always
    deployments:
      description: Ids of the deployments at scale that target the device and will overwrite its modules.
      type: list
      elements: str
      returned: always
    warnings:
      description: What in the manifest is allowed and yet most likely a mistake, each with its JSON path.
      type: list
      elements: str
      returned: always
"""

import threading
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    configuration_calls,
    edge_manifest,
    edge_modules,
    iothub_module,
    item_list,
    rest_client,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.edge_modules import ActualModules, DesiredModules


def make_steps(module: AnsibleModule) -> item_list.Steps[DesiredModules, ActualModules]:
    client = iothub_module.client(module.params)
    lock = threading.Lock()
    configurations: list[list[dict[str, Any]]] = []

    def all_configurations() -> list[dict[str, Any]]:
        # Few calls of this kind are allowed, and most devices need none.
        with lock:
            if not configurations:
                configurations.append(configuration_calls.read_all(client))
            return configurations[0]

    def read(desired: DesiredModules) -> ActualModules:
        for text in desired.content.warnings if desired.content else ():
            module.warn(f"device {desired.device_id}: {text}")
        twin = client.get_twin(desired.device_id)
        if twin is None and module.check_mode:
            # It may be one that a task before this one would have made.
            module.warn(f"device {desired.device_id}: is not registered yet")
            return ActualModules()
        edge_modules.check_device(desired.device_id, twin)
        try:
            found = {name: client.get_twin(desired.device_id, name) for name in desired.twins}
        except rest_client.ServiceResponseError as error:
            if error.status == 401 and (twin or {}).get("status") == "disabled":
                raise item_list.Refused(
                    "the device is disabled, and a hub gives no shared access policy the modules of a "
                    "disabled device: enable it first, or use another auth than sas"
                ) from error
            raise
        actual = ActualModules(
            twin or {}, {name: module_twin for name, module_twin in found.items() if module_twin is not None}
        )
        if actual.configurations:
            targeting = edge_modules.deployments_of(actual, all_configurations())
            actual = ActualModules(actual.device, actual.modules, targeting)
        missing = edge_modules.waiting(desired, actual)
        if missing and not edge_modules.differing(desired, actual):
            module.warn(
                f"device {desired.device_id}: {', '.join(missing)} has no identity yet, so its properties "
                "cannot be compared: run again when the device has started it"
            )
        if actual.deployments:
            module.warn(
                f"device {desired.device_id}: the deployments {', '.join(actual.deployments)} target it and "
                "will overwrite what is set here: use iothub_deployments, or take it out of their condition"
            )
        return actual

    def write(desired: DesiredModules, plan: item_list.Plan, state: ActualModules) -> ActualModules:
        configuration_calls.apply_content(client, desired.device_id, plan.body)
        return state

    def entry(desired: DesiredModules, _plan: item_list.Plan, state: ActualModules) -> dict[str, Any]:
        return {
            "device_id": desired.device_id,
            "changed_modules": edge_modules.differing(desired, state),
            "waiting_modules": edge_modules.waiting(desired, state),
            "deployments": list(state.deployments),
            "warnings": list(desired.content.warnings) if desired.content else [],
        }

    return item_list.Steps(
        option=edge_modules.OPTION,
        label=lambda desired: desired.device_id,
        read=read,
        plan=edge_modules.plan,
        write=write,
        entry=entry,
    )


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
                    "content": {"type": "raw", "required": True},
                },
            },
        },
        **iothub_module.RULES,
    )
    devices = [DesiredModules.of(item["device_id"], item["content"]) for item in module.params["devices"]]
    for item in module.params["devices"]:
        module.no_log_values.update(edge_manifest.secrets(item["content"]))
    item_list.run(module, devices, edge_modules.list_errors(devices), lambda: make_steps(module))


if __name__ == "__main__":
    main()
