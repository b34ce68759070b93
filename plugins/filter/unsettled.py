# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: unsettled
short_description: Releases of gateways that are not known to be as wanted
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Compares releases with what a look at the cluster and a look at the hub found, so that nothing needs to be
    run for gateways that are as wanted.
positional: observed, devices
options:
  _input:
    description: Releases as the filter P(edgeha.iotedge.releases#filter) returns them.
    type: list
    elements: dict
    required: true
  observed:
    description: What M(edgeha.iotedge.cluster_info) returned as C(cluster.gateways).
    type: list
    elements: dict
    required: true
  devices:
    description: What M(edgeha.iotedge.iothub_check) returned as C(devices).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
todo: "{{ releases | edgeha.iotedge.unsettled(cluster.gateways, devices) }}"
"""

RETURN = r"""
_value:
  description:
    - The releases, with C(unfinished) besides, the revision that a run before left half-way, or null.
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils.releases import unsettled


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"unsettled": unsettled}
