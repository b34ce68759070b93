#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: azure_iot_resources
short_description: Make the resource group, the IoT hub and the provisioning service in Azure
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Makes or updates a resource group, an Azure IoT Hub in it with its shared access policies, and a Device
    Provisioning Service that is linked to the hub.
  - What is not named is left as it is, such as other tags, other policies and their keys, routes and
    endpoints.
  - Needs none of the collections for Azure. Calls go to Azure Resource Manager with the login of O(auth).
  - A hub that is new takes some minutes. The module waits for it, and a run that is interrupted is finished
    by the next.
options:
  auth:
    description:
      - How calls are allowed. V(cli) uses the login of C(az login), V(service_principal) a client id and its
        secret, V(managed_identity) the identity of the Azure or Arc machine that the task runs on.
    type: str
    choices: [cli, service_principal, managed_identity]
    default: cli
  resource_group:
    description:
      - Name of the resource group.
    type: str
    required: true
  location:
    description:
      - Where new resources are made, such as V(westeurope). Required for those that are not there yet.
    type: str
  tags:
    description:
      - Tags of all three resources, texts by name. Other tags stay.
    type: dict
  hub:
    description:
      - Name of the hub, the first part of its host name. Without it only the group is made.
    type: str
  sku:
    description:
      - Edition of the hub. A new one is V(S1) by default. A free hub (V(F1)) stays free.
    type: str
    choices: [F1, B1, B2, B3, S1, S2, S3]
  units:
    description:
      - Units of the hub. A new one has 1 by default.
    type: int
  policies:
    description:
      - Shared access policies of the hub, each with its rights. Others stay. Azure makes the keys, and those
        that are there are kept.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - Name of the policy.
        type: str
        required: true
      rights:
        description:
          - What it may do. V(RegistryWrite) includes V(RegistryRead).
        type: list
        elements: str
        choices: [RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect]
        required: true
  dps:
    description:
      - Name of the Device Provisioning Service, which is linked to O(hub).
    type: str
  link_policy:
    description:
      - Policy of the hub that the provisioning service signs with.
    type: str
    default: iothubowner
  state:
    description:
      - Whether the resources are to be there. V(absent) deletes what O(scope) says.
    type: str
    choices: [present, absent]
    default: present
  scope:
    description:
      - What V(absent) deletes. V(resources) is the provisioning service O(dps) if it is named, and the hub
        with all its devices. V(resource_group) is the group with everything in it.
    type: str
    choices: [resources, resource_group]
    default: resources
  confirm:
    description:
      - With O(state=absent), the name of the hub for O(scope=resources) and of the group for
        O(scope=resource_group). With anything else nothing is deleted.
    type: str
    default: ""
  wait_timeout:
    description:
      - Seconds to wait for each resource until it is ready or gone.
    type: int
    default: 900
  on_timeout:
    description:
      - What to do after O(wait_timeout). V(report) ends without failure and says in RV(pending) what is not
        ready; what depends on it is left for the next run.
    type: str
    choices: [fail, report]
    default: fail
extends_documentation_fragment:
  - edgeha.iotedge.azure_login
attributes:
  check_mode:
    description: Reads Azure and says what would change.
    support: full
  diff_mode:
    description: Shows each resource before and after, without keys.
    support: full
seealso:
  - module: edgeha.iotedge.iothub_devices
"""

EXAMPLES = r"""
- name: Make a hub and a provisioning service
  edgeha.iotedge.azure_iot_resources:
    resource_group: plants
    location: westeurope
    hub: contoso-plants
    sku: S1
    units: 2
    policies:
      - name: edgeha
        rights: [RegistryWrite, ServiceConnect]
    dps: contoso-enrol

- name: Delete the hub with all its devices
  edgeha.iotedge.azure_iot_resources:
    resource_group: plants
    hub: contoso-plants
    state: absent
    confirm: contoso-plants
"""

RETURN = r"""
actions:
  description: What was done for each resource, V(none), V(create), V(update) or V(delete).
  returned: success
  type: dict
  sample: {resource_group: none, hub: create, dps: create}
hub_hostname:
  description: Host name of the hub.
  returned: when there is one
  type: str
  sample: contoso-plants.azure-devices.net
dps_hostname:
  description: Host name of the provisioning service.
  returned: when there is one
  type: str
id_scope:
  description: ID scope of the provisioning service, which devices are given.
  returned: when there is one
  type: str
pending:
  description: What is not ready yet, with the state that Azure tells.
  returned: success
  type: list
  elements: str
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    arm_client,
    azure_login,
    azure_resources,
    iothub_auth,
    iothub_module,
    item_list,
    rest_client,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.azure_resources import Wanted

_FIRST_POLL_SECONDS = 0.25
_POLL_SECONDS = 10.0


class Timeout(Exception):  # noqa: N818 - says what it is
    """Something is not ready in time; the message says what, and its state."""


class Run:
    """One run: what was read, and what was done so far."""

    def __init__(self, module: AnsibleModule, wanted: Wanted) -> None:
        self.module = module
        self.wanted = wanted
        self.arm = arm_client.ArmClient(
            azure_login.login(module.params), **iothub_module.connection_options(module.params)
        )
        self.plans: dict[str, item_list.Plan] = {}
        self.result: dict[str, Any] = {}

    def present(self) -> None:
        wanted, arm = self.wanted, self.arm
        group = arm.read(arm_client.GROUPS, wanted.group)
        self._do("resource_group", azure_resources.plan_group(wanted, group), arm_client.GROUPS, "")
        if not wanted.hub:
            return
        hub = arm.read(arm_client.HUBS, wanted.group, wanted.hub) if group else None
        dps = arm.read(arm_client.PROVISIONING, wanted.group, wanted.dps) if group and wanted.dps else None
        if hub and not self.module.check_mode:
            # Azure refuses to change what is being changed, by an interrupted run for one.
            hub = self._wait("hub", arm_client.HUBS, wanted.hub)
        policies = arm.policies(arm_client.HUBS, wanted.group, wanted.hub) if hub else []
        plan = azure_resources.plan_hub(wanted, hub, policies)
        self._do("hub", plan, arm_client.HUBS, wanted.hub)
        if plan.changed and not self.module.check_mode:
            hub = self._wait("hub", arm_client.HUBS, wanted.hub)
            policies = arm.policies(arm_client.HUBS, wanted.group, wanted.hub)
            rest = azure_resources.plan_hub(wanted, hub, policies)
            if plan.action == "create" and rest.changed:
                arm.write(arm_client.HUBS, wanted.group, wanted.hub, rest.body, rest.etag)
                hub = self._wait("hub", arm_client.HUBS, wanted.hub)
                policies = arm.policies(arm_client.HUBS, wanted.group, wanted.hub)
        hostname = str(((hub or {}).get("properties") or {}).get("hostName") or "")
        if hostname:
            self.result["hub_hostname"] = hostname
        if not wanted.dps:
            return
        text = ""
        if hub:
            text = azure_resources.hub_connection_string(hostname, wanted.link_policy, policies)
        # In check mode a hub that is not there has no host name yet.
        if dps and not self.module.check_mode:
            dps = self._wait("dps", arm_client.PROVISIONING, wanted.dps)
        plan = azure_resources.plan_dps(wanted, dps, hostname or f"{wanted.hub}.azure-devices.net", text)
        self._do("dps", plan, arm_client.PROVISIONING, wanted.dps)
        if plan.changed and not self.module.check_mode:
            dps = self._wait("dps", arm_client.PROVISIONING, wanted.dps)
        properties = (dps or {}).get("properties") or {}
        for name, key in (("dps_hostname", "serviceOperationsHostName"), ("id_scope", "idScope")):
            if properties.get(key):
                self.result[name] = properties[key]

    def absent(self, scope: str) -> None:
        wanted = self.wanted
        group = self.arm.read(arm_client.GROUPS, wanted.group)
        if scope == "resource_group":
            self._remove("resource_group", arm_client.GROUPS, "", group)
            return
        for what, kind, name in (
            ("dps", arm_client.PROVISIONING, wanted.dps),
            ("hub", arm_client.HUBS, wanted.hub),
        ):
            if name:
                found = self.arm.read(kind, wanted.group, name) if group else None
                self._remove(what, kind, name, found)

    def _do(self, what: str, plan: item_list.Plan, kind: str, name: str) -> None:
        if plan.changed and not self.module.check_mode:
            self.arm.write(kind, self.wanted.group, name, plan.body, plan.etag)
        self.plans[what] = plan

    def _remove(self, what: str, kind: str, name: str, found: Any) -> None:
        before = {"location": found.get("location"), "tags": found.get("tags")} if found else {}
        if found and not self.module.check_mode:
            self.arm.remove(kind, self.wanted.group, name)
        self.plans[what] = item_list.Plan("delete" if found else "none", before=before)
        if found and not self.module.check_mode:
            self._until(lambda: self._leaving(what, kind, name))

    def _leaving(self, what: str, kind: str, name: str) -> str:
        gone = self.arm.read(kind, self.wanted.group, name) is None
        return "" if gone else f"{what} {name or self.wanted.group}: Deleting"

    def _wait(self, what: str, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def look() -> str:
            resource = self.arm.read(kind, self.wanted.group, name)
            found.update(resource or {})
            return azure_resources.pending(what, name, resource)

        self._until(look)
        return found

    def _until(self, look: Any) -> None:
        deadline, pause = time.monotonic() + self.module.params["wait_timeout"], _FIRST_POLL_SECONDS
        while text := look():
            if time.monotonic() + pause > deadline:
                raise Timeout(text)
            time.sleep(pause)
            pause = min(pause * 2, _POLL_SECONDS)

    def outcome(self) -> dict[str, Any]:
        return {
            "changed": any(plan.changed for plan in self.plans.values()),
            "actions": {what: plan.action for what, plan in self.plans.items()},
            "diff": {
                "before": {what: dict(plan.before) for what, plan in self.plans.items()},
                "after": {what: dict(plan.after) for what, plan in self.plans.items()},
            },
            **self.result,
        }


def run(module: AnsibleModule) -> None:
    params = module.params
    wanted = Wanted(
        group=params["resource_group"],
        location=params["location"] or "",
        tags=params["tags"],
        hub=params["hub"] or "",
        sku=params["sku"],
        units=params["units"],
        policies={policy["name"]: policy["rights"] for policy in params["policies"]},
        dps=params["dps"] or "",
        link_policy=params["link_policy"],
    )
    absent = params["state"] == "absent"
    errors = azure_resources.errors(wanted)
    if absent:
        refusal = azure_resources.confirm_error(params["scope"], wanted.group, wanted.hub, params["confirm"])
        errors += [refusal] if refusal else []
    if errors:
        module.fail_json(msg=f"Nothing was changed. {'; '.join(errors)}", errors=errors)
    with iothub_module.failing(module):
        work = Run(module, wanted)
    pending: list[str] = []
    try:
        if absent:
            work.absent(params["scope"])
        else:
            work.present()
    except Timeout as timeout:
        pending = [str(timeout)]
        if params["on_timeout"] == "fail":
            module.fail_json(
                msg=f"{timeout}. Not ready after {params['wait_timeout']} s; run again to go on waiting",
                pending=pending,
                **work.outcome(),
            )
    except (rest_client.ServiceError, iothub_auth.CredentialError, item_list.Refused) as error:
        module.fail_json(msg=iothub_module.explain(error), **work.outcome())
    module.exit_json(pending=pending, **work.outcome())


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **iothub_module.login_argument_spec(sas=False),
            "resource_group": {"type": "str", "required": True},
            "location": {"type": "str"},
            "tags": {"type": "dict"},
            "hub": {"type": "str"},
            "sku": {"type": "str", "choices": list(azure_resources.SKUS)},
            "units": {"type": "int"},
            "policies": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "rights": {
                        "type": "list",
                        "elements": "str",
                        "choices": list(azure_resources.RIGHTS),
                        "required": True,
                    },
                },
            },
            "dps": {"type": "str"},
            "link_policy": {"type": "str", "default": "iothubowner"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "scope": {"type": "str", "choices": ["resources", "resource_group"], "default": "resources"},
            "confirm": {"type": "str", "default": ""},
            "wait_timeout": {"type": "int", "default": 900},
            "on_timeout": {"type": "str", "choices": ["fail", "report"], "default": "fail"},
        },
        supports_check_mode=True,
    )
    run(module)


if __name__ == "__main__":
    main()
