#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iothub_keys
short_description: Rotate the keys of devices and modules on an Azure IoT Hub
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Lets the hub make new keys for a list of devices and modules, or swaps their two keys.
  - Rotation is an act and no state, so a second run rotates again, unless O(identities[].expected_digest)
    names the key that is to go.
  - A device that is connected with a key that is replaced is cut off at its next sign-on. The usual order is
    to rotate the secondary key, give it to the device, swap, and rotate the secondary key again.
  - The whole list is checked before the first key is replaced. Identities with certificates are refused by
    name.
  - When some fail, the others are done all the same.
options:
  identities:
    description:
      - The devices and modules, each once.
    type: list
    elements: dict
    required: true
    suboptions:
      device_id:
        description:
          - Id of the device.
        type: str
        required: true
      module_id:
        description:
          - Name of a module of the device, for the module's keys. Without it they are the device's own.
        type: str
      rotate:
        description:
          - Which key the hub is to make anew. V(swap) makes none, it exchanges primary and secondary.
        type: str
        choices: [primary, secondary, both, swap]
        required: true
      expected_digest:
        description:
          - Rotate only while the key has this fingerprint, 16 hexadecimal digits as in
            RV(identities[].primary_digest). With O(identities[].rotate=secondary) it is that of the secondary
            key, otherwise that of the primary. Write it in quotes, it may look like a number.
          - With it a second run changes nothing, and an interrupted one can be run again. The hub itself does
            not compare, so two runs at the same moment may both rotate; only V(swap) is guarded against that.
        type: str
  return_keys:
    description:
      - Return the keys in RV(identities[].primary_key) and RV(identities[].secondary_key).
      - The task has to set C(no_log=true), or it is refused, because the keys would be printed and logged.
    type: bool
    default: false
extends_documentation_fragment:
  - edgeha.iotedge.iothub
  - edgeha.iotedge.azure_login
  - edgeha.iotedge.iothub.attributes
attributes:
  check_mode:
    description: Reads the hub and says whose keys would be replaced.
    support: full
  diff_mode:
    description: Shows the fingerprints of keys that change before and after, never a key.
    support: full
notes:
  - New keys come from a call of the api-version 2024-03-31, a hundred identities at a time.
seealso:
  - module: edgeha.iotedge.iothub_devices
  - module: edgeha.iotedge.iothub_modules
"""

EXAMPLES = r"""
- name: Look at the fingerprints without changing anything
  edgeha.iotedge.iothub_keys:
    hostname: contoso.azure-devices.net
    policy_key: "{{ vault_iothub_policy_key }}"
    identities:
      - device_id: line1
        rotate: secondary
  check_mode: true
  register: keys

- name: Replace the secondary key that was there, once
  edgeha.iotedge.iothub_keys:
    hostname: contoso.azure-devices.net
    policy_key: "{{ vault_iothub_policy_key }}"
    identities:
      - device_id: line1
        rotate: secondary
        expected_digest: "3f1c9a77b2d04e65"
    return_keys: true
  no_log: true
  register: rotated
"""

RETURN = r"""
identities:
  description: The devices and modules in the order of the list.
  returned: success
  type: list
  elements: dict
  contains:
    device_id:
      description: Id of the device.
      type: str
      returned: always
    module_id:
      description: Name of the module, null for the device itself.
      type: str
      returned: always
    action:
      description: What was done, V(none) or V(update).
      type: str
      returned: always
    primary_digest:
      description: Fingerprint of the primary key as it is now, in check mode too.
      type: str
      returned: always
    secondary_digest:
      description: Fingerprint of the secondary key as it is now, in check mode too.
      type: str
      returned: always
    primary_key:
      description: Primary key in base64.
      type: str
      returned: when O(return_keys=true)
    secondary_key:
      description: Secondary key in base64.
      type: str
      returned: when O(return_keys=true)
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    authentication,
    identity_reader,
    iothub_auth,
    iothub_client,
    iothub_module,
    item_list,
    key_rotation,
    rest_client,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.key_rotation import Rotation

# The identity with its keys.
State: TypeAlias = "dict[str, Any]"
Row: TypeAlias = "tuple[Rotation, item_list.Plan, State]"


def swap(client: iothub_client.HubClient, plan: item_list.Plan) -> State | Exception:
    """Exchange the keys of one identity; return it, or what kept it from being done."""
    try:
        if "moduleId" in plan.body:
            return client.put_module(plan.body, plan.etag)
        return client.put_device(plan.body, plan.etag)
    except (rest_client.ServiceError, iothub_auth.CredentialError) as error:
        return error


def regenerate(
    client: iothub_client.HubClient, which: str, rows: Sequence[Row]
) -> Sequence[State | Exception]:
    """Let the hub make new keys for one batch."""
    rotations = [rotation for rotation, _plan, _state in rows]
    try:
        answer = client.regenerate_keys(which, [key_rotation.entry_of(rotation) for rotation in rotations])
    except (rest_client.ServiceError, iothub_auth.CredentialError) as error:
        return [error] * len(rows)
    return key_rotation.outcomes(rotations, [state for _rotation, _plan, state in rows], answer)


def make_steps(module: AnsibleModule) -> item_list.Steps[Rotation, State]:
    client = iothub_module.client(module.params)

    def write_many(rows: Sequence[Row]) -> Sequence[State | Exception]:
        outcomes: dict[str, State | Exception] = {}
        for kind, which in key_rotation.POLICY_KEYS.items():
            asked = [row for row in rows if row[0].rotate == kind]
            found: Sequence[State | Exception]
            if which is None:
                found = iothub_module.each(lambda row: swap(client, row[1]), asked)
            else:
                found = [
                    outcome
                    for start in range(0, len(asked), iothub_client.MAX_BULK)
                    for outcome in regenerate(client, which, asked[start : start + iothub_client.MAX_BULK])
                ]
            outcomes |= {row[0].label: outcome for row, outcome in zip(asked, found, strict=True)}
        return [outcomes[rotation.label] for rotation, _plan, _state in rows]

    def entry(rotation: Rotation, _plan: item_list.Plan, state: State) -> dict[str, Any]:
        shown = {
            "device_id": rotation.device_id,
            "module_id": rotation.module_id,
            **key_rotation.digests(state),
        }
        if module.params["return_keys"]:
            shown |= authentication.Authentication.from_body(state.get("authentication")).keys()
        return shown

    return item_list.Steps(
        option=key_rotation.OPTION,
        label=lambda rotation: rotation.label,
        read=lambda rotation: identity_reader.read_identity(client, rotation.device_id, rotation.module_id),
        plan=lambda rotation, state: key_rotation.plan(state, rotation),
        entry=entry,
        write_many=write_many,
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **iothub_module.argument_spec(),
            "identities": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "device_id": {"type": "str", "required": True},
                    "module_id": {"type": "str"},
                    "rotate": {"type": "str", "choices": list(key_rotation.POLICY_KEYS), "required": True},
                    "expected_digest": {"type": "str"},
                },
            },
            # no_log=False: this is a switch and not a key.
            "return_keys": {"type": "bool", "default": False, "no_log": False},
        },
        **iothub_module.RULES,
    )
    rotations = [Rotation(**item) for item in module.params["identities"]]
    item_list.run(module, rotations, key_rotation.list_errors(rotations), lambda: make_steps(module))


if __name__ == "__main__":
    main()
