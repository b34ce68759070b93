# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: k3s_drift
short_description: Tell what of k3s is not as wanted on a machine
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Compares what M(edgeha.iotedge.k3s_probe) saw with what is wanted. A service is to be restarted if and
    only if what runs is not what is wanted.
positional: wanted
options:
  _input:
    description: C(k3s) of M(edgeha.iotedge.k3s_probe).
    type: dict
    required: true
  wanted:
    description:
      - C(role), C(plan), C(files), C(release), C(init), C(servers), C(token), C(labels), C(taints),
        C(change_version) and C(may_restart).
    type: dict
    required: true
"""

EXAMPLES = r"""
drift: "{{ look.k3s | edgeha.iotedge.k3s_drift(wanted) }}"
"""

RETURN = r"""
_value:
  description:
    - C(action), C(wave), C(reasons), C(install), C(write), C(token), C(join), C(settled), C(service),
      C(notes) and C(problems). Nothing in it is secret.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_config


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"k3s_drift": k3s_config.drift}
