#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iothub_deployments
short_description: Deploy modules to many IoT Edge devices, and really replace what changed
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Creates, changes and deletes deployments at scale (automatic deployments) of an Azure IoT Hub, also
    layered ones.
  - A hub never changes the content of a deployment. It answers a changed one with success and ignores it.
    This module makes a new version in that case and deletes the old one afterwards.
  - The id at the hub is therefore the deployment's id, a dash, and 12 hex digits of what the content means,
    and the label C(edgeha_deployment) holds the deployment's id. RV(deployments[].configuration_id) tells
    it. Other spellings of the same content, such as another way to write createOptions, make no new version.
  - Priority, target condition, labels and metrics are changed in place, under the same id.
  - The whole list is checked before the first deployment is changed, conditions and metrics by the hub
    itself. Each error names the item, and for content the JSON path.
  - When some deployments fail, the others are done all the same. An interrupted run is finished by the next,
    which removes the older versions that are left.
options:
  deployments:
    description:
      - The deployments, each once.
    type: list
    elements: dict
    required: true
    suboptions:
      id:
        description:
          - Id of the deployment, 1 to 115 lower-case ASCII letters, digits and C(-+%_*!').
        type: str
        required: true
      state:
        description:
          - Whether the deployment is to exist. V(absent) deletes all versions of it. What it set on devices
            stays there unless another deployment takes over.
        type: str
        choices: [present, absent]
        default: present
      content:
        description:
          - What it sets, as an object or as the text of a JSON file with C(modulesContent).
          - With the whole C(properties.desired) of C($edgeAgent) and C($edgeHub) it is a deployment, with
            keys such as C(properties.desired.modules.NAME) and C(properties.desired.routes.NAME) a layer.
          - Required for a new deployment. Left out, the content stays.
        type: raw
      priority:
        description:
          - Of the deployments that target a device the one of the highest priority wins, and of equal ones
            the newest. Left out, it stays; a new one gets 0.
          - Give deployments that share devices different priorities. Replaced content makes a deployment the
            newest, so that an equal one of somebody else, which had won before, wins no more. Such a tie
            gives a warning.
        type: int
      target_condition:
        description:
          - Devices that it is for, such as C(tags.site='plant07'), or V(*) for all edge devices. An empty
            text targets none. Left out, it stays; a new one targets none.
        type: str
      labels:
        description:
          - Texts by name. They replace those that are there; left out, these stay.
        type: dict
      metrics:
        description:
          - Queries by name, which the hub counts for the deployment. They replace those that are there; left
            out, these stay.
          - C({id}) in a query stands for the id at the hub, such as in C(configurations.[[{id}]].status).
        type: dict
      adopt:
        description:
          - Take over (or with O(deployments[].state=absent) delete) a deployment that has exactly this id at
            the hub and was made by other means. Without it such a deployment is an error.
          - With the same content it keeps its id until its content changes.
        type: bool
        default: false
  replace_timeout:
    description:
      - Seconds to wait until a new version targets as many devices as the old one of the same condition. The
        old one is deleted then and not before. After this time it is kept, which is an error; the next run
        finishes.
      - A hub looks shortly after the creation and then every five minutes. With V(0) the old one is deleted
        at once, which by the hub's rules is enough.
    type: int
    default: 360
extends_documentation_fragment:
  - edgeha.iotedge.iothub
  - edgeha.iotedge.azure_login
  - edgeha.iotedge.iothub.attributes
attributes:
  check_mode:
    description: Reads the hub, lets it test conditions and metrics, and says what would change.
    support: full
  diff_mode:
    description: Shows each deployment that changes before and after, without the passwords of registries.
    support: full
notes:
  - While content is replaced, both versions exist. The newer one has the priority that is wanted, so it wins,
    or the older one still wins; no device gets a third deployment in between, and none is left without. Of a
    layer both versions are laid on each other meanwhile, the newer one last.
  - A hub holds 100 configurations, a free one 10. New ones and one place for replacements have to fit, or
    nothing is changed.
  - Passwords of registries are hidden in results. Other secrets in content, such as in C(env), are not known
    as such. A task with those should set C(no_log=true).
seealso:
  - module: edgeha.iotedge.iothub_edge_modules
"""

EXAMPLES = r"""
- name: Deploy the modules of a file to all gateways of a plant
  edgeha.iotedge.iothub_deployments:
    hostname: contoso.azure-devices.net
    policy_key: "{{ vault_iothub_policy_key }}"
    deployments:
      - id: plant
        content: "{{ lookup('ansible.builtin.file', 'files/plant.json') }}"
        priority: 10
        target_condition: tags.site='plant07'
        labels:
          release: "42"
        metrics:
          applied: >-
            SELECT deviceId FROM devices.modules WHERE moduleId = '$edgeAgent'
            AND configurations.[[{id}]].status = 'Applied'

- name: Add a module to those that measure pressure
  edgeha.iotedge.iothub_deployments:
    hostname: contoso.azure-devices.net
    policy_key: "{{ vault_iothub_policy_key }}"
    deployments:
      - id: pressure
        priority: 20
        target_condition: tags.pressure=true
        content:
          modulesContent:
            $edgeAgent:
              properties.desired.modules.pressure:
                type: docker
                status: running
                restartPolicy: always
                settings:
                  image: registry.example/pressure:1.4
                  createOptions: {}
"""

RETURN = r"""
deployments:
  description: The deployments in the order of the list, as they are now (in check mode, as they would be).
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Id of the deployment, as it was given.
      type: str
      returned: always
    configuration_id:
      description: Its id at the hub.
      type: str
      returned: when it is present
      sample: plant-3f9c0a1b2c4d
    state:
      description: V(present) or V(absent).
      type: str
      returned: always
    action:
      description: What was done, one of V(none), V(create), V(update) and V(delete).
      type: str
      returned: always
    replaced:
      description: Ids at the hub of older versions that were (in check mode, would be) deleted.
      type: list
      elements: str
      returned: always
    priority:
      description: Its priority.
      type: int
      returned: when it is present
    target_condition:
      description: Which devices it is for.
      type: str
      returned: when it is present
    labels:
      description: Its labels, without the module's own.
      type: dict
      returned: when it is present
    metrics:
      description: The queries of its metrics.
      type: dict
      returned: when it is present
    warnings:
      description: What in the content is allowed and yet most likely a mistake, each with its JSON path.
      type: list
      elements: str
      returned: always
"""

import threading
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    configuration_calls,
    deployments,
    edge_manifest,
    iothub_client,
    iothub_module,
    item_list,
    rest_client,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.deployments import (
    ActualDeployment,
    DesiredDeployment,
)

# A hub of one unit takes 20 calls for configurations a minute.
_POLL_SECONDS = 10.0
_FIRST_POLL_SECONDS = 0.2


def replace(client: iothub_client.HubClient, body: dict[str, Any], etag: str, timeout: float) -> None:
    """Carry out the body of a plan: put the version that is to stay, and only then delete the others."""
    if body["put"] is not None:
        put(client, body["put"], etag)
    old = [str(entry["id"]) for entry in body["delete"]]
    if old and body["ids"] and timeout:
        wait_for_targets(client, body["ids"][0], old, timeout)
    for entry in body["delete"]:
        configuration_calls.delete(client, str(entry["id"]), str(entry.get("etag") or "*"))


def put(client: iothub_client.HubClient, body: dict[str, Any], etag: str) -> None:
    try:
        configuration_calls.put(client, body, etag or None)
    except rest_client.ServiceResponseError as error:
        if error.status == 413:
            raise item_list.Refused(
                f"{error.message}. A hub holds 100 configurations, a free one 10: remove some"
            ) from error
        if error.status != 409 or etag:
            raise
        # It came into being since the hub was read, perhaps by our own call whose answer was lost.
        found = [entry for entry in configuration_calls.read_all(client) if entry.get("id") == body["id"]]
        if (
            not found
            or (found[0].get("labels") or {}).get(deployments.LABEL) != body["labels"][deployments.LABEL]
        ):
            raise
        configuration_calls.put(client, body, str(found[0].get("etag") or "*"))


def wait_for_targets(client: iothub_client.HubClient, stays: str, old: list[str], timeout: float) -> None:
    deadline, pause = time.monotonic() + timeout, _FIRST_POLL_SECONDS
    while not deployments.targets_enough(stays, old, configuration_calls.read_all(client)):
        if time.monotonic() + pause > deadline:
            raise item_list.Refused(
                f"{stays} targets fewer devices than {', '.join(old)} after {timeout:g} s, so the older one "
                "was kept: run again, or raise replace_timeout"
            )
        time.sleep(pause)
        pause = min(pause * 2, _POLL_SECONDS)


def make_steps(module: AnsibleModule) -> item_list.Steps[DesiredDeployment, ActualDeployment]:
    client = iothub_module.client(module.params)
    everything = configuration_calls.read_all(client)
    # One after the other: replacements then need one free place and not one each.
    one_at_a_time = threading.Lock()
    plans: list[item_list.Plan] = []

    def read(desired: DesiredDeployment) -> ActualDeployment:
        actual = deployments.find(desired, everything)
        if not deployments.needs_query_test(desired, actual):
            return actual
        queries = deployments.metric_queries(desired.metrics or {}, desired.version_id)
        errors = configuration_calls.query_errors(client, desired.target_condition or "", queries)
        return deployments.with_query_errors(actual, errors)

    def plan(desired: DesiredDeployment, state: ActualDeployment) -> item_list.Plan:
        found = deployments.plan(desired, state)
        plans.append(found)
        errors = deployments.room_errors(plans, len(everything))
        if errors:
            raise item_list.Refused(errors[0])
        for text in desired.content.warnings if desired.content else ():
            module.warn(f"deployment {desired.id}: {text}")
        if desired.present and state.rivals:
            module.warn(
                f"deployment {desired.id}: {', '.join(state.rivals)} has the same priority, so that the "
                "newest of them wins where both target a device: give them different priorities"
            )
        return found

    def write(
        _desired: DesiredDeployment, found: item_list.Plan, state: ActualDeployment
    ) -> ActualDeployment:
        with one_at_a_time:
            replace(client, dict(found.body), found.etag, float(module.params["replace_timeout"]))
        return state

    def entry(desired: DesiredDeployment, found: item_list.Plan, _state: ActualDeployment) -> dict[str, Any]:
        shown = {key: value for key, value in found.after.items() if key != "content"}
        return {
            **shown,
            "id": desired.id,
            "state": "present" if desired.present else "absent",
            "replaced": [str(old["id"]) for old in found.body.get("delete", [])],
            "warnings": list(desired.content.warnings) if desired.content else [],
        }

    return item_list.Steps(
        option=deployments.OPTION,
        label=lambda desired: desired.id,
        read=read,
        plan=plan,
        write=write,
        entry=entry,
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **iothub_module.argument_spec(),
            "deployments": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "id": {"type": "str", "required": True},
                    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                    "content": {"type": "raw"},
                    "priority": {"type": "int"},
                    "target_condition": {"type": "str"},
                    "labels": {"type": "dict"},
                    "metrics": {"type": "dict"},
                    "adopt": {"type": "bool", "default": False},
                },
            },
            "replace_timeout": {"type": "int", "default": 360},
        },
        **iothub_module.RULES,
    )
    items = [DesiredDeployment.of(item) for item in module.params["deployments"]]
    for given in module.params["deployments"]:
        module.no_log_values.update(edge_manifest.secrets(given["content"]))
    item_list.run(module, items, deployments.list_errors(items), lambda: make_steps(module))


if __name__ == "__main__":
    main()
