# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: upgrade_plan
short_description: What an upgrade of k3s does on each machine of a cluster
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Decides by what runs now which machines take another version, in which order, and refuses a downgrade or a
    step over a minor version.
positional: wanted, batch
options:
  _input:
    description:
      - Machines of one cluster with C(host), C(server) (whether it is one), C(node) (name of its node) and
        C(state), which M(edgeha.iotedge.k3s_probe) returned as C(k3s), or nothing when it did not answer.
    type: list
    elements: dict
    required: true
  wanted:
    description: The version of k3s, such as V(v1.34.5+k3s1).
    type: str
    required: true
  batch:
    description: Agents that are upgraded at once. V(0) is a tenth of them, one at least.
    type: int
    default: 0
"""

EXAMPLES = r"""
plan: "{{ machines | edgeha.iotedge.upgrade_plan('v1.34.5+k3s1') }}"
"""

RETURN = r"""
_value:
  description:
    - C(problems), with any of which nothing is to be changed; C(hosts) with C(action) (V(keep), V(upgrade),
      or V(release) for a machine that is finished but for our cordon) and C(wave) of each; whether a
      C(snapshot) is due; and C(lines) that say what is done.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import upgrade_plan as core


def upgrade_plan(machines: list[Mapping[str, Any]], wanted: str, batch: int = 0) -> dict[str, Any]:
    return core.plan(core.machines_from(machines), str(wanted), int(batch or 0))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"upgrade_plan": upgrade_plan}
