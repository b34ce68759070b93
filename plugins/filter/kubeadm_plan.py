# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: kubeadm_plan
short_description: What a machine needs to be a worker of a cluster of kubeadm
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Compares what M(edgeha.iotedge.kubeadm_probe) found with what is wanted.
positional: wanted
options:
  _input:
    description: What M(edgeha.iotedge.kubeadm_probe) returned as C(kubeadm).
    type: dict
    required: true
  wanted:
    description: What is wanted, as the role P(edgeha.iotedge.cluster_join#role) says it.
    type: dict
    required: true
"""

EXAMPLES = r"""
plan: "{{ look.kubeadm | edgeha.iotedge.kubeadm_plan(wanted) }}"
"""

RETURN = r"""
_value:
  description: The action, the problems, the reasons, and for each step what it needs.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.edgeha.iotedge.plugins.module_utils import kubeadm_rules


def kubeadm_plan(look: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return kubeadm_rules.plan(look, wanted)
    except ValueError as error:
        raise AnsibleFilterError(f"edge_join_source: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"kubeadm_plan": kubeadm_plan}
