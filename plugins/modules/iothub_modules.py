#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iothub_modules
short_description: Register modules of devices on an Azure IoT Hub
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Creates, changes and deletes the identities of a list of modules.
  - The whole list is checked before the first module is changed. An invalid or repeated module is an error
    that names the item.
  - An update keeps the keys that are there. Each change carries the version that was read, so that one made
    by somebody else meanwhile is an error and never overwritten.
  - When some modules fail, the others are done all the same. An interrupted run is finished by the next.
  - The modules of an edge deployment need no identity from here; the edge agent makes those.
options:
  modules:
    description:
      - The modules, each once.
    type: list
    elements: dict
    required: true
    suboptions:
      device_id:
        description:
          - Id of the device that the module belongs to. It must be registered; in check mode it may still be
            missing, which gives a warning.
        type: str
        required: true
      module_id:
        description:
          - Name of the module, case-sensitive, 1 to 128 ASCII letters, digits and C(-:.+%_#*?!(\),=@;$').
          - Names that begin with C($) are the hub's own and are refused.
        type: str
        required: true
      state:
        description:
          - Whether the module is to exist. V(absent) deletes its twin too.
        type: str
        choices: [present, absent]
        default: present
      managed_by:
        description:
          - Who manages the module, such as V(IotEdge). An empty text removes it, left out it stays as it is.
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
              - A key that is given here is hidden in every result of the task, with O(return_keys=true) too.
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
          - Change the type of O(modules[].authentication) of a module that is there. It cannot connect until
            it has its new credentials, so without this option such a change is refused.
        type: bool
        default: false
  return_keys:
    description:
      - Return the modules' keys in RV(modules[].primary_key) and RV(modules[].secondary_key).
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
    description: Shows each module that changes before and after, without keys.
    support: full
seealso:
  - module: edgeha.iotedge.iothub_devices
  - module: edgeha.iotedge.iothub_twins
  - module: edgeha.iotedge.iothub_keys
"""

EXAMPLES = r"""
- name: Register two modules of a device that is no edge device
  edgeha.iotedge.iothub_modules:
    hostname: contoso.azure-devices.net
    policy_key: "{{ vault_iothub_policy_key }}"
    modules:
      - device_id: line1
        module_id: camera
      - device_id: line1
        module_id: scale
        authentication:
          type: self_signed
          primary_thumbprint: 5B9C2BA1F4A0D4C8E1B9A8C7D6E5F4A3B2C1D0E9

- name: Remove a module
  edgeha.iotedge.iothub_modules:
    hostname: contoso.azure-devices.net
    policy_key: "{{ vault_iothub_policy_key }}"
    modules:
      - device_id: line1
        module_id: camera
        state: absent
"""

RETURN = r"""
modules:
  description: The modules in the order of the list, as they are now (in check mode, as they would be).
  returned: success
  type: list
  elements: dict
  contains:
    device_id:
      description: Id of the device.
      type: str
      returned: always
    module_id:
      description: Name of the module.
      type: str
      returned: always
    state:
      description: V(present) or V(absent).
      type: str
      returned: always
    action:
      description: What was done, one of V(none), V(create), V(update) and V(delete).
      type: str
      returned: always
    managed_by:
      description: Who manages it, null for nobody.
      type: str
      returned: when it is present
    authentication:
      description: How it authenticates, C(type) and thumbprints.
      type: dict
      returned: when it is present
    primary_key:
      description: Primary key in base64.
      type: str
      returned: when O(return_keys=true) and the module exists
    secondary_key:
      description: Secondary key in base64.
      type: str
      returned: when O(return_keys=true) and the module exists
"""

from typing import Any, TypeAlias

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    authentication,
    identity_reader,
    iothub_module,
    item_list,
    module_identity,
    rest_client,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.module_identity import DesiredModule

# The identity with its keys, None when there is none.
State: TypeAlias = "dict[str, Any] | None"


def desired_modules(items: list[dict[str, Any]]) -> list[DesiredModule]:
    return [
        DesiredModule(
            device_id=item["device_id"],
            module_id=item["module_id"],
            present=item["state"] == "present",
            managed_by=item["managed_by"],
            authentication=authentication.parse(item["authentication"]),
            replace_authentication=item["replace_authentication"],
        )
        for item in items
    ]


def make_steps(module: AnsibleModule) -> item_list.Steps[DesiredModule, State]:
    client = iothub_module.client(module.params)
    reader = identity_reader.ModuleReader(client, (item["device_id"] for item in module.params["modules"]))

    def read(desired: DesiredModule) -> State:
        try:
            return reader.read(desired.device_id, desired.module_id)
        except identity_reader.IdentityMissing as error:
            if not desired.present:
                return None
            if not module.check_mode:
                raise
            # The device may be one that a task before this one would have made.
            module.warn(f"{desired.label}: {error}")
            return None

    def write(desired: DesiredModule, plan: item_list.Plan, _state: State) -> State:
        if plan.action == "delete":
            client.delete_module(desired.device_id, desired.module_id, plan.etag)
            return None
        try:
            return client.put_module(plan.body, plan.etag or None)
        except rest_client.ServiceResponseError as error:
            if error.status != 409:
                raise
            # It came into being since it was read, perhaps by our own call whose answer was lost.
            state = identity_reader.read_module(client, desired.device_id, desired.module_id)
            again = module_identity.plan(state, desired)
            return write(desired, again, state) if again.action == "update" else state

    def entry(desired: DesiredModule, plan: item_list.Plan, state: State) -> dict[str, Any]:
        shown = {
            **plan.after,
            "device_id": desired.device_id,
            "module_id": desired.module_id,
            "state": "present" if desired.present else "absent",
        }
        shown.pop("keys", None)
        if module.params["return_keys"] and state and desired.present:
            shown |= authentication.Authentication.from_body(state.get("authentication")).keys()
        return shown

    return item_list.Steps(
        option=module_identity.OPTION,
        label=lambda desired: desired.label,
        read=read,
        plan=lambda desired, state: module_identity.plan(state, desired),
        write=write,
        entry=entry,
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **iothub_module.argument_spec(),
            "modules": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "device_id": {"type": "str", "required": True},
                    "module_id": {"type": "str", "required": True},
                    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                    "managed_by": {"type": "str"},
                    "authentication": authentication.argument_spec(),
                    "replace_authentication": {"type": "bool", "default": False},
                },
            },
            # no_log=False: this is a switch and not a key.
            "return_keys": {"type": "bool", "default": False, "no_log": False},
        },
        **iothub_module.RULES,
    )
    modules = desired_modules(module.params["modules"])
    item_list.run(module, modules, module_identity.list_errors(modules), lambda: make_steps(module))


if __name__ == "__main__":
    main()
