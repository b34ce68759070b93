# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: kubeadm_join
short_description: Configuration with which kubeadm joins a machine
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Returns the configuration as JSON. It holds the token, so it is a secret.
positional: version, socket
options:
  _input:
    description:
      - C(url), C(token), C(ca_hash), C(node_name), C(node_ip) and C(ignore), errors that do not count.
    type: dict
    required: true
  version:
    description: Version of kubeadm, which decides the form.
    type: str
    required: true
  socket:
    description: Socket of the container runtime.
    type: str
    required: true
"""

EXAMPLES = r"""
content: "{{ wanted | edgeha.iotedge.kubeadm_join('v1.34.4', '/run/containerd/containerd.sock') }}"
"""

RETURN = r"""
_value:
  description: The configuration.
  type: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.edgeha.iotedge.plugins.module_utils import kubeadm_rules


def kubeadm_join(wanted: Mapping[str, Any], version: str, socket: str) -> str:
    try:
        return kubeadm_rules.join_configuration(wanted, version, socket)
    except ValueError as error:
        raise AnsibleFilterError(f"edge_join_url: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"kubeadm_join": kubeadm_join}
