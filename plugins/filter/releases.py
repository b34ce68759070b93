# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: releases
short_description: Helm releases of gateways with the values of the chart
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Returns for each gateway its release with the values of the chart C(edge-runtime).
positional: deployments, settings
options:
  _input:
    description: Gateways as the filter P(edgeha.iotedge.gateways#filter) returns them.
    type: list
    elements: dict
    required: true
  deployments:
    description: For each gateway what the lookup P(edgeha.iotedge.deployment#lookup) returns.
    type: list
    elements: dict
    required: true
  settings:
    description:
      - Mapping with C(iothub_hostname), C(image_registry), C(trust_bundle), C(https_proxy), C(no_proxy),
        C(toleration_seconds) and C(chart_digest).
    type: dict
    required: true
"""

EXAMPLES = r"""
releases: "{{ gateways | edgeha.iotedge.releases(deployments, settings) }}"
"""

RETURN = r"""
_value:
  description: The releases with C(name), C(namespace), C(device_id) and C(values).
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils.releases import wanted


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"releases": wanted}
