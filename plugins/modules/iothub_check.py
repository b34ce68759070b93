#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iothub_check
short_description: Look for problems with an Azure IoT Hub and at devices on it
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Checks that the hub is reached, that its certificate is trusted, that the clocks agree, that the key is
    accepted, and that the policy has the rights that are asked for.
  - Problems are returned and are not a failure, so that a play can collect those of all hosts.
  - Nothing is changed. The right to write is tried by an update of a device that does not exist, conditional
    on a version that does not exist; a hub answers that it is not there, or that the right is missing.
options:
  rights:
    description:
      - The rights that the policy must have.
    type: list
    elements: str
    choices: [registry_read, registry_write, service_connect]
    default: [registry_read, registry_write, service_connect]
  clock_limit:
    description:
      - Seconds that this machine's clock and the hub's may differ.
    type: int
    default: 60
  devices:
    description:
      - Tell of these devices whether they are as wanted, so that nothing needs to be run for those that are.
      - They are not read when there is a problem.
    type: list
    elements: dict
    default: []
    suboptions:
      device_id:
        description:
          - Id of the device.
        type: str
        required: true
      edge:
        description:
          - As in M(edgeha.iotedge.iothub_devices).
        type: bool
      tags:
        description:
          - As in M(edgeha.iotedge.iothub_devices).
        type: dict
      parent:
        description:
          - As in M(edgeha.iotedge.iothub_devices).
        type: str
      authentication:
        description:
          - As in M(edgeha.iotedge.iothub_devices), without keys.
        type: dict
        suboptions:
          type:
            description:
              - As in M(edgeha.iotedge.iothub_devices).
            type: str
            choices: [sas, self_signed, certificate_authority]
            default: sas
          primary_thumbprint:
            description:
              - As in M(edgeha.iotedge.iothub_devices).
            type: str
          secondary_thumbprint:
            description:
              - As in M(edgeha.iotedge.iothub_devices).
            type: str
      modules:
        description:
          - Modules of the device to tell of.
        type: list
        elements: str
        default: []
  active_within:
    description:
      - A module is ready when it is connected and was active in the last so many seconds.
    type: int
    default: 300
extends_documentation_fragment:
  - edgeha.iotedge.iothub
  - edgeha.iotedge.azure_login
  - edgeha.iotedge.iothub.attributes
  - edgeha.iotedge.read_only
"""

EXAMPLES = r"""
- name: Look at the hub
  edgeha.iotedge.iothub_check:
    hostname: contoso.azure-devices.net
    policy_key: "{{ vault_iothub_policy_key }}"
  register: hub
"""

RETURN = r"""
problems:
  description: What is wrong; empty when all is well.
  returned: always
  type: list
  elements: dict
  contains:
    subject:
      description: The hub.
      type: str
      returned: always
    fact:
      description: What is the case.
      type: str
      returned: always
    fix:
      description: What to do about it.
      type: str
      returned: always
devices:
  description: The devices in the order of the list.
  returned: always
  type: list
  elements: dict
  contains:
    device_id:
      description: Id of the device.
      type: str
      returned: always
    as_wanted:
      description: Whether M(edgeha.iotedge.iothub_devices) would change nothing.
      type: bool
      returned: always
    identity_etag:
      description: Version of its identity, which changes with its keys; null when it does not exist.
      type: str
      returned: always
    modules:
      description: The modules as M(edgeha.iotedge.iothub_wait) returns them.
      type: list
      elements: dict
      returned: always
clock_offset:
  description: Seconds the hub's clock is ahead of this machine's, null when the hub was not reached.
  returned: always
  type: float
"""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    activity,
    authentication,
    iothub_auth,
    iothub_client,
    iothub_device,
    iothub_module,
    rest_client,
)

RIGHT_NAMES = {
    "registry_read": "RegistryRead",
    "registry_write": "RegistryWrite",
    "service_connect": "ServiceConnect",
}


def probe(client: iothub_client.HubClient, right: str) -> bool:
    """Return whether the policy has a right. Raises ServiceError for anything that is no answer to that."""
    name = f"edgeha-preflight-{uuid.uuid4()}"
    try:
        if right == "registry_read":
            client.get_device(name)
        elif right == "service_connect":
            client.get_twin(name)
        else:
            # If-Match turns the PUT into an update, so a device that does not exist is never created.
            client.put_device({"deviceId": name, "status": "disabled"}, etag=str(uuid.uuid4()))
    except rest_client.ServiceResponseError as error:
        if error.status in (401, 403) and error.code != "IotHubQuotaExceeded":
            return False
        if error.status in (404, 412):
            return True
        raise
    return True


def look(client: iothub_client.HubClient, wanted: dict[str, Any], after: datetime) -> dict[str, Any]:
    """Return what the module tells of one device. after: modules must have been active since.

    Only twins are read: a hub allows few calls of its registry, which alone tells keys.
    """
    desired = iothub_device.DesiredDevice(
        wanted["device_id"],
        edge=wanted["edge"],
        tags=wanted["tags"],
        parent=wanted["parent"],
        authentication=authentication.parse(wanted["authentication"]),
    )
    twin = client.get_twin(desired.device_id)
    actual = iothub_device.ActualDevice.from_twin(twin) if twin else None
    try:
        as_wanted = not iothub_device.plan(actual, desired).changed
    except iothub_device.UnsupportedChange:
        as_wanted = False
    found = client.module_twins(desired.device_id, wanted["modules"]) if actual else []
    states = activity.states(desired.device_id, found, wanted["modules"])
    return {
        "device_id": desired.device_id,
        "as_wanted": as_wanted,
        "identity_etag": actual.etag if actual else None,
        "modules": [{**state.as_dict(), "ready": state.ready(after)} for state in states],
    }


def look_at_devices(params: dict[str, Any]) -> list[dict[str, Any]]:
    client = iothub_module.client(params)
    after = datetime.now(UTC) - timedelta(seconds=params["active_within"])
    return iothub_module.each(lambda wanted: look(client, wanted, after), params["devices"])


def find_problems(params: dict[str, Any]) -> tuple[list[tuple[str, str]], float | None]:
    """Return (fact, fix) for each problem, and the clock difference when the hub answered."""
    try:
        client = iothub_module.client(params)
        granted = {right: probe(client, right) for right in params["rights"]}
    except iothub_auth.CredentialError as error:
        fix = "copy the policy's primary key from the hub" if params["auth"] == "sas" else "see the message"
        return [(str(error), fix)], None
    except rest_client.ServiceUntrusted as error:
        return [(error.fact, "name the authority that signed it in edge_ca_bundle (ca_file)")], None
    except rest_client.ServiceUnreachable as error:
        fix = "check iothub_hostname, DNS, the firewall (443 outwards) and https_proxy"
        return [(f"cannot be reached: {error.fact}", fix)], None
    except rest_client.ServiceResponseError as error:
        return [
            (error.fact, "see the hub's message; check iothub_hostname and the hub's tier")
        ], error.clock_offset

    offset = client.clock_offset
    found = []
    clock_is_off = offset is not None and abs(offset) > params["clock_limit"]
    if clock_is_off and offset is not None:
        found.append(
            (
                f"{iothub_module.clock_fact(offset)} (limit {params['clock_limit']} s)",
                "set the clock (NTP) first: signatures and certificates depend on it",
            )
        )
    missing = [RIGHT_NAMES[right] for right, granted_ in granted.items() if not granted_]
    # A hub that refuses everything says the same for a wrong key, a wrong policy and no rights at all;
    # with the clock off it says so too, and then the key may well be right.
    if missing and not (clock_is_off and len(missing) == len(granted)):
        found.append(explain_missing(params, missing, len(missing) == len(granted)))
    return found, offset


def explain_missing(params: dict[str, Any], missing: list[str], everything: bool) -> tuple[str, str]:
    """Return (fact, fix) for rights that are missing. everything: whether none was granted."""
    policy, rights = params["policy_name"], " and ".join(missing)
    if params["auth"] != "sas" and not params["fetch_key"]:
        return (
            f"the login ({params['auth']}) lacks the right {rights}",
            "give it the role IoT Hub Data Contributor, or set iothub_fetch_key: true where it may "
            "read the hub's keys",
        )
    if everything:
        return (
            f"refuses the key of the policy {policy}",
            "check iothub_policy_key and iothub_policy_name: the key must be one of that policy's",
        )
    return (
        f"the policy {policy} lacks the right {rights}",
        f"use a policy that has it, such as iothubowner, or add it to {policy}",
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **iothub_module.argument_spec(),
            "rights": {
                "type": "list",
                "elements": "str",
                "choices": list(RIGHT_NAMES),
                "default": list(RIGHT_NAMES),
            },
            "clock_limit": {"type": "int", "default": 60},
            "devices": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "device_id": {"type": "str", "required": True},
                    "edge": {"type": "bool"},
                    "tags": {"type": "dict"},
                    "parent": {"type": "str"},
                    "authentication": authentication.argument_spec(keys=False),
                    "modules": {"type": "list", "elements": "str", "default": []},
                },
            },
            "active_within": {"type": "int", "default": 300},
        },
        **iothub_module.RULES,
    )
    found, offset = find_problems(module.params)
    devices: list[dict[str, Any]] = []
    if not found:
        try:
            devices = look_at_devices(module.params)
        except rest_client.ServiceError as error:
            found.append((error.fact, iothub_module.explain(error)))
    subject = f"iothub {module.params['hostname'] or 'of the connection string'}"
    module.exit_json(
        changed=False,
        problems=[{"subject": subject, "fact": fact, "fix": fix} for fact, fix in found],
        devices=devices,
        clock_offset=None if offset is None else round(offset, 1),
    )


if __name__ == "__main__":
    main()
