#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: edge_gateways_info
short_description: Tell where the pods of gateways run
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Returns the pods of a list of gateways on one cluster, with their nodes and states.
options:
  gateways:
    description:
      - The gateways.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - Name of the gateway, which is the name of its Helm release.
        type: str
        required: true
      namespace:
        description:
          - Namespace of the gateway.
        type: str
        required: true
  wait_timeout:
    description:
      - Seconds to wait until the daemon of each gateway runs as its release has it and is ready. What is not
        ready then is told and is no failure.
    type: int
    default: 0
  daemon:
    description:
      - Ask the daemon and edgeHub of each gateway, too, how they do. It takes the right to get C(pods/proxy).
    type: bool
    default: false
extends_documentation_fragment:
  - edgeha.iotedge.cluster
  - edgeha.iotedge.cluster.attributes
  - edgeha.iotedge.read_only
"""

EXAMPLES = r"""
- name: Look where the gateway runs
  edgeha.iotedge.edge_gateways_info:
    kubeconfig: /etc/edge/plant07.kubeconfig
    gateways:
      - name: plant07-gw
        namespace: edge-plant07-gw
  register: running
"""

RETURN = r"""
gateways:
  description: The gateways in the order of the list.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the gateway.
      type: str
      returned: always
    namespace:
      description: Its namespace.
      type: str
      returned: always
    node:
      description: Node of the daemon's pod, null when no pod of it is on a node.
      type: str
      returned: always
    ready:
      description: Whether its daemon runs as its release has it and is ready.
      type: bool
      returned: always
    refused:
      description: Why the cluster makes no pod of the daemon, such as a quota; null where it does.
      type: str
      returned: always
    pods:
      description:
        - Its pods with name, component, module, slot, standby (it waits at its gate), node, phase, ready, and
          trouble if there is any.
      type: list
      elements: dict
      returned: always
    daemon:
      description:
        - What the daemon tells, with version, modules (their states), edge_ca_until, device_certificate_until
          (null for a device with a symmetric key), state_available_bytes, state_size_bytes and reasons for
          not being ready. Null when it does not answer.
      type: dict
      returned: with O(daemon)
    waiting_messages:
      description: How many messages wait in edgeHub, null where there is none or it does not tell.
      type: int
      returned: with O(daemon)
"""


import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import cluster_client, gateway_objects

POLL_SECONDS = 1.0


def look(client: Any, gateways: list[dict[str, Any]], limit: float) -> list[dict[str, Any]]:
    """Return the gateways, looked at until all are ready or the limit (in seconds) is over."""
    deadline = time.monotonic() + limit
    found = {entry["name"]: gateway_objects.pods_of(client, **entry) for entry in gateways}
    while waiting := [entry for entry in gateways if not found[entry["name"]]["ready"]]:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(POLL_SECONDS, left))
        found |= {entry["name"]: gateway_objects.pods_of(client, **entry) for entry in waiting}
    return list(found.values())


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **cluster_client.argument_spec(),
            "gateways": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "namespace": {"type": "str", "required": True},
                },
            },
            "wait_timeout": {"type": "int", "default": 0},
            "daemon": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        with cluster_client.opened(module) as client:
            limit = 0 if module.check_mode else module.params["wait_timeout"]
            found = look(client, module.params["gateways"], limit)
            if module.params["daemon"]:
                found = [gateway | gateway_objects.told_by_pods(client, gateway) for gateway in found]
    except cluster_client.ClusterError as error:
        module.fail_json(msg=f"The cluster cannot be read. {error}")
    module.exit_json(changed=False, gateways=found)


if __name__ == "__main__":
    main()
