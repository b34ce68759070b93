# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: kubelet_version
short_description: Tell the version of the kubelet in a folder of the controller
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Asks the program itself, when its SHA-256 is the one in C(SHA256SUMS) beside it and it is made for a
    machine such as the controller.
options:
  _terms:
    description: Folders.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
version: "{{ lookup('edgeha.iotedge.kubelet_version', '/srv/kubernetes') }}"
"""

RETURN = r"""
_raw:
  description: The version, such as V(v1.34.4), empty when it is not known.
  type: list
  elements: str
"""

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import kubelet


class LookupModule(LookupBase):  # type: ignore[misc]  # ansible-core ships no types
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        return [kubelet.version(term) if term else "" for term in terms]
