# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options that every module that speaks to a cluster has; named as in kubernetes.core."""

    DOCUMENTATION = r"""
options:
  kubeconfig:
    description:
      - Path of the kubeconfig file, or its content as a mapping.
      - Without it E(K8S_AUTH_KUBECONFIG) is used, then E(KUBECONFIG), then C(~/.kube/config).
    type: raw
  context:
    description:
      - Context of the kubeconfig file; the file's current context when left out.
      - Without it E(K8S_AUTH_CONTEXT) is used.
    type: str
requirements:
  - openshift >= 0.13
  - kubernetes >= 24.2
"""

    ATTRIBUTES = r"""
attributes:
  action_group:
    description: Use C(group/edgeha.iotedge.cluster) in C(module_defaults) to set the cluster once.
    support: full
    membership:
      - edgeha.iotedge.cluster
"""
