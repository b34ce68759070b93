# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: disk_plan
short_description: Which disks of a machine are to be formatted and mounted
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Compares what M(edgeha.iotedge.disk_probe) found with what is wanted. A disk that holds anything
    which is not ours is a problem, and with a problem nothing is to be done.
positional: look, options
options:
  _input:
    description: Disks with C(device), C(filesystem), C(mount) and C(label).
    type: list
    elements: dict
    required: true
  look:
    description: What M(edgeha.iotedge.disk_probe) returned as C(disks).
    type: dict
    required: true
  options:
    description: Options of the mounts.
    type: str
    required: true
"""

EXAMPLES = r"""
plan: "{{ disks | edgeha.iotedge.disk_plan(look.disks, 'defaults,noatime') }}"
"""

RETURN = r"""
_value:
  description:
    - C(problems); C(format) and C(mount), the disks that need it; C(packages) to be installed; C(act),
      whether anything is to be done.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import disk_rules


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"disk_plan": disk_rules.plan}
