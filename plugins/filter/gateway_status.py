# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: gateway_status
short_description: How gateways do, one record for each
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Puts together what a cluster, the gateways' daemons and the hub tell.
positional: running, modules, deployments, no_cluster, no_hub
options:
  _input:
    description: Gateways as the filter P(edgeha.iotedge.gateways#filter) returns them.
    type: list
    elements: dict
    required: true
  running:
    description: What M(edgeha.iotedge.edge_gateways_info) returned as C(gateways), with C(daemon) set.
    type: list
    elements: dict
    required: true
  modules:
    description: What M(edgeha.iotedge.iothub_wait) returned as C(modules).
    type: list
    elements: dict
    required: true
  deployments:
    description: What M(edgeha.iotedge.iothub_wait) returned as C(deployments).
    type: list
    elements: dict
    required: true
  no_cluster:
    description: Why the cluster could not be read.
    type: str
    default: ""
  no_hub:
    description: Why the hub could not be read.
    type: str
    default: ""
"""

EXAMPLES = r"""
status: "{{ gateways | edgeha.iotedge.gateway_status(pods.gateways, hub.modules, hub.deployments) }}"
"""

RETURN = r"""
_value:
  description:
    - For each gateway C(name), C(namespace), C(device_id), C(node), C(modules) with their states,
      C(connected) by module, C(deployment) as M(edgeha.iotedge.iothub_wait) tells it or null,
      C(last_message), C(waiting_messages) in edgeHub or null, C(edge_ca_until),
      C(device_certificate_until), C(state_available_bytes), C(state_size_bytes), C(daemon_version) and
      C(problems).
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import gateway_status


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"gateway_status": gateway_status.records}
