# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: vip_plan
short_description: What is to be done on a server for the address of its cluster
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Compares what M(edgeha.iotedge.vip_probe) found with what is wanted.
positional: wanted
options:
  _input:
    description: What M(edgeha.iotedge.vip_probe) returned as C(vip).
    type: dict
    required: true
  wanted:
    description:
      - C(address), empty when there is to be none; C(peers), the address of each other server by its name;
        C(data_dir), C(api_port) and C(join_port) of k3s; C(firewall), whether firewalls are opened.
    type: dict
    required: true
"""

EXAMPLES = r"""
plan: "{{ look.vip | edgeha.iotedge.vip_plan({'address': '10.7.0.10', 'peers': {'gw2': '10.7.0.12'},
  'data_dir': '/var/lib/rancher/k3s', 'api_port': 6443, 'join_port': 6443, 'firewall': true}) }}"
"""

RETURN = r"""
_value:
  description:
    - C(problems); C(act), whether anything is to be done; C(remove), whether all of ours is to go; the texts
      C(block) and C(script); and for each step whether it is needed.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import vip


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"vip_plan": vip.plan}
