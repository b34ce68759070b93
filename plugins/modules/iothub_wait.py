#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iothub_wait
short_description: Wait until modules of devices are connected and have sent something
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Waits until each given module of each given device is connected to the hub and has been active after a
    moment in time, with a limit.
  - The service API of a hub cannot read telemetry. It tells of each module when it was last active, and that
    time moves when a message arrives; together with the connection it is the hub's own word that the message
    is there. That is what this module waits for.
options:
  devices:
    description:
      - What to wait for.
    type: list
    elements: dict
    required: true
    suboptions:
      device_id:
        description:
          - Id of the device.
        type: str
        required: true
      modules:
        description:
          - Names of its modules.
        type: list
        elements: str
        required: true
      connected:
        description:
          - Names of modules that need only be connected, such as C($edgeHub).
        type: list
        elements: str
        default: []
      edge_agent:
        description:
          - Wait, too, until edgeAgent reports that it carried out the newest deployment of the device, and
            that all modules of it run.
        type: bool
        default: false
  active_after:
    description:
      - Each module must have been active at or after this moment, in UTC, such as V(2026-02-01T10:00:00Z).
      - It is compared with the hub's clock, so take it from
        RV(edgeha.iotedge.iothub_devices#module:hub_time).
    type: str
  active_within:
    description:
      - Without O(active_after), each module must have been active in so many seconds before the wait began,
        or since.
    type: int
    default: 300
  wait_timeout:
    description:
      - Seconds after which the wait fails.
    type: int
    default: 300
  poll_interval:
    description:
      - Seconds between two looks. Each takes a read of the device's twin and of each module's; a hub of tier
        S1 allows 100 a second.
    type: float
    default: 5
extends_documentation_fragment:
  - edgeha.iotedge.iothub
  - edgeha.iotedge.azure_login
  - edgeha.iotedge.iothub.attributes
attributes:
  check_mode:
    description: Looks once, and does not fail when a module is not ready or a device disabled.
    support: full
  diff_mode:
    description: Only reads.
    support: N/A
seealso:
  - module: edgeha.iotedge.iothub_devices_info
"""

EXAMPLES = r"""
- name: Wait for the gateway's sensor
  edgeha.iotedge.iothub_wait:
    hostname: contoso.azure-devices.net
    policy_key: "{{ vault_iothub_policy_key }}"
    devices:
      - device_id: plant07-gw
        modules: [sensor]
    wait_timeout: 180
"""

RETURN = r"""
modules:
  description: The modules as they were at the last look.
  returned: always
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
    exists:
      description: Whether it has an identity at the hub.
      type: bool
      returned: always
    connected:
      description: Whether it is connected.
      type: bool
      returned: always
    last_activity:
      description: When it was last active (UTC), null for never.
      type: str
      returned: always
    ready:
      description: Whether it is connected and was active after the moment asked for, or ended well.
      type: bool
      returned: always
deployments:
  description:
    - How far the edge agents had come at the last look, of enabled devices with O(devices[].edge_agent).
  returned: always
  type: list
  elements: dict
  contains:
    device_id:
      description: Id of the device.
      type: str
      returned: always
    desired_version:
      description: Version of the deployment in the twin of C($edgeAgent).
      type: int
      returned: always
    reported_version:
      description: Version that it last reported to have carried out, null for none.
      type: int
      returned: always
    code:
      description: How it went, V(200) for well.
      type: int
      returned: always
    description:
      description: What it reports besides.
      type: str
      returned: always
    waiting_modules:
      description:
        - By name of each module that is to run and neither does nor ended well as its restart policy allows,
          its state and why.
      type: dict
      returned: always
    ready:
      description: Whether all of it runs, or ended well.
      type: bool
      returned: always
waited_seconds:
  description: How long it took.
  returned: always
  type: float
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    activity,
    iothub_auth,
    iothub_client,
    iothub_module,
    rest_client,
)


class DeviceDisabledError(Exception):
    """The device may not connect, so waiting is no use."""


@dataclass(frozen=True)
class Seen:
    """One device at one look. agent: None where nobody waits for it. disabled: why waiting is no use."""

    modules: list[activity.ModuleState]
    agent: activity.AgentState | None
    disabled: str = ""

    def ready(self, after: datetime) -> bool:
        return all(state.ready(after) for state in self.modules) and (self.agent is None or self.agent.ready)


def look(client: iothub_client.HubClient, device: dict[str, Any]) -> Seen:
    """Return the state of one device; none of its modules exists when it does not."""
    device_id, modules = device["device_id"], device["modules"]
    twin = client.get_twin(device_id)
    if twin is not None and twin.get("status") == "disabled":
        # A hub tells some callers nothing of the modules of such a device.
        reason = twin.get("statusReason")
        why = f"device {device_id} is disabled at the hub{f' ({reason})' if reason else ''}: enable it"
        return Seen(activity.states(device_id, [], modules), None, why)
    quiet = device["connected"]
    found = client.module_twins(device_id, [*modules, *quiet]) if twin is not None else []
    agent = None
    if device["edge_agent"]:
        own = client.get_twin(device_id, "$edgeAgent") if twin is not None else None
        agent = activity.agent_state(device_id, own)
    ended = agent.ended if agent else frozenset()
    states = activity.states(device_id, found, modules, ended=ended) + activity.states(
        device_id, found, quiet, speak=False
    )
    return Seen(states, agent)


def wait(
    client: iothub_client.HubClient, params: dict[str, Any], once: bool
) -> tuple[list[Seen], datetime, float]:
    """Look until all are ready, the time is over, or once.

    Return (what was seen of each device, moment to be active after, seconds). Raises DeviceDisabledError,
    unless it looks once.
    """
    started = time.monotonic()
    after = activity.parse_time(params["active_after"])
    wanted = {device["device_id"]: device for device in params["devices"]}
    seen = {device_id: look(client, device) for device_id, device in wanted.items()}
    if after is None:
        now = datetime.now(UTC) + timedelta(seconds=client.clock_offset or 0.0)
        after = now - timedelta(seconds=params["active_within"])
    while True:
        for one in seen.values():
            if one.disabled and not once:
                raise DeviceDisabledError(one.disabled)
        pending = [device_id for device_id, one in seen.items() if not one.ready(after)]
        waited = time.monotonic() - started
        left = params["wait_timeout"] - waited
        if once or not pending or left <= 0:
            return list(seen.values()), after, round(waited, 1)
        time.sleep(min(params["poll_interval"], left))
        for device_id in pending:
            seen[device_id] = look(client, wanted[device_id])


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
                    "modules": {"type": "list", "elements": "str", "required": True},
                    "connected": {"type": "list", "elements": "str", "default": []},
                    "edge_agent": {"type": "bool", "default": False},
                },
            },
            "active_after": {"type": "str"},
            "active_within": {"type": "int", "default": 300},
            "wait_timeout": {"type": "int", "default": 300},
            "poll_interval": {"type": "float", "default": 5},
        },
        **iothub_module.RULES,
    )
    given = module.params["active_after"]
    if given and activity.parse_time(given) is None:
        module.fail_json(msg=f"active_after is {given!r}; write it like 2026-02-01T10:00:00Z")
    if module.params["poll_interval"] < 0.1:
        module.fail_json(msg="poll_interval must be at least 0.1 s")
    try:
        seen, after, waited = wait(iothub_module.client(module.params), module.params, module.check_mode)
    except (DeviceDisabledError, rest_client.ServiceError, iothub_auth.CredentialError) as error:
        module.fail_json(msg=iothub_module.explain(error))
    for one in seen:
        if one.disabled:
            module.warn(one.disabled)
    states = [state for one in seen for state in one.modules]
    agents = [one.agent for one in seen if one.agent is not None]
    report = {
        "modules": [{**state.as_dict(), "ready": state.ready(after)} for state in states],
        "deployments": [agent.as_dict() for agent in agents],
        "waited_seconds": waited,
    }
    missing = [line for agent in agents if not agent.ready for line in activity.explain_agent(agent)]
    missing += [activity.explain(state, after) for state in states if not state.ready(after)]
    if missing and not module.check_mode:
        module.fail_json(msg=f"Not ready after {waited:.0f} s. {'. '.join(missing)}", **report)
    module.exit_json(changed=False, **report)


if __name__ == "__main__":
    main()
