#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iothub_twins
short_description: Set tags and desired properties of twins on an Azure IoT Hub
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Sets tags and desired properties in the twins of a list of devices and modules.
  - The whole list is checked before the first twin is changed. Keys, values and sizes that a hub would refuse
    are errors that name the item and the path.
  - Only what differs is sent, so that a device is told of real changes only. Each change carries the version
    that was read, so that one made by somebody else meanwhile is an error and never overwritten.
  - When some twins fail, the others are done all the same. An interrupted run is finished by the next.
options:
  twins:
    description:
      - The twins, each once.
    type: list
    elements: dict
    required: true
    suboptions:
      device_id:
        description:
          - Id of the device. It must be registered; in check mode it may still be missing, which gives a
            warning.
        type: str
        required: true
      module_id:
        description:
          - Name of a module of the device, for the module's twin. Without it the twin is the device's own.
        type: str
      tags:
        description:
          - Tags, at most 8 KiB as JSON. The device does not see them.
          - Keys hold no control characters, spaces, C(.), C($) or C(#). A text has at most 4096 bytes, an
            integer is within -2^52 and 2^52-1, and objects are nested at most 10 levels deep.
          - Left out, the tags stay as they are.
        type: dict
      desired:
        description:
          - Desired properties, at most 32 KiB as JSON, with the rules of O(twins[].tags).
          - Left out, they stay as they are.
        type: dict
      mode:
        description:
          - V(merge) keeps what is not named, and removes a key with the value null.
          - V(exact) replaces the tags, the desired properties, or both, whichever is given.
        type: str
        choices: [merge, exact]
        default: merge
extends_documentation_fragment:
  - edgeha.iotedge.iothub
  - edgeha.iotedge.azure_login
  - edgeha.iotedge.iothub.attributes
attributes:
  check_mode:
    description: Reads the hub and says what would change.
    support: full
  diff_mode:
    description: >-
      Shows of each twin that changes what the task manages, before and after: the named keys with
      O(twins[].mode=merge),
      the whole section with O(twins[].mode=exact).
    support: full
notes:
  - Twins are shown in results and diffs. Where they hold secrets, the task needs C(no_log=true).
seealso:
  - module: edgeha.iotedge.iothub_devices
  - module: edgeha.iotedge.iothub_modules
"""

EXAMPLES = r"""
- name: Tag a device, and let a module send more often
  edgeha.iotedge.iothub_twins:
    hostname: contoso.azure-devices.net
    policy_name: service
    policy_key: "{{ vault_service_key }}"
    twins:
      - device_id: plant07-gw
        tags:
          site: plant07
          retired: null
      - device_id: plant07-gw
        module_id: sensor
        desired:
          interval: 5

- name: Let a device have these desired properties and no others
  edgeha.iotedge.iothub_twins:
    hostname: contoso.azure-devices.net
    policy_name: service
    policy_key: "{{ vault_service_key }}"
    twins:
      - device_id: line1
        mode: exact
        desired:
          interval: 5
          limits:
            high: 80
            low: 10
"""

RETURN = r"""
twins:
  description: The twins in the order of the list, as they are now (in check mode, as they would be).
  returned: success
  type: list
  elements: dict
  contains:
    device_id:
      description: Id of the device.
      type: str
      returned: always
    module_id:
      description: Name of the module, null for the device's own twin.
      type: str
      returned: always
    action:
      description: What was done, V(none) or V(update).
      type: str
      returned: always
    tags:
      description: All tags.
      type: dict
      returned: always
    desired:
      description: All desired properties.
      type: dict
      returned: always
"""

from typing import Any, TypeAlias

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    identity_reader,
    iothub_module,
    item_list,
    twin_plan,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.twin_plan import DesiredTwin

# The twin as the hub has it, None for one that is not there yet (in check mode only).
State: TypeAlias = "dict[str, Any] | None"


def desired_twins(items: list[dict[str, Any]]) -> list[DesiredTwin]:
    return [
        DesiredTwin(
            device_id=item["device_id"],
            module_id=item["module_id"],
            tags=item["tags"],
            desired=item["desired"],
            exact=item["mode"] == "exact",
        )
        for item in items
    ]


def make_steps(module: AnsibleModule) -> item_list.Steps[DesiredTwin, State]:
    client = iothub_module.client(module.params)

    def read(twin: DesiredTwin) -> State:
        try:
            return identity_reader.read_twin(client, twin.device_id, twin.module_id)
        except identity_reader.IdentityMissing as error:
            if not module.check_mode:
                raise
            # It may be one that a task before this one would have made.
            module.warn(f"{twin.label}: {error}")
            return None

    def write(twin: DesiredTwin, plan: item_list.Plan, _state: State) -> State:
        return client.patch_twin(twin.device_id, plan.body, plan.etag, twin.module_id or "")

    def entry(twin: DesiredTwin, _plan: item_list.Plan, state: State) -> dict[str, Any]:
        return {
            "device_id": twin.device_id,
            "module_id": twin.module_id,
            **twin_plan.goal(state, twin),
        }

    return item_list.Steps(
        option=twin_plan.OPTION,
        label=lambda twin: twin.label,
        read=read,
        plan=lambda twin, state: twin_plan.plan(state, twin),
        write=write,
        entry=entry,
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **iothub_module.argument_spec(),
            "twins": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "device_id": {"type": "str", "required": True},
                    "module_id": {"type": "str"},
                    "tags": {"type": "dict"},
                    "desired": {"type": "dict"},
                    "mode": {"type": "str", "choices": ["merge", "exact"], "default": "merge"},
                },
            },
        },
        **iothub_module.RULES,
    )
    twins = desired_twins(module.params["twins"])
    item_list.run(module, twins, twin_plan.list_errors(twins), lambda: make_steps(module))


if __name__ == "__main__":
    main()
