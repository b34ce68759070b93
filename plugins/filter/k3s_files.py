# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: k3s_files
short_description: Make the files of a node of k3s
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Returns configuration, registries, environment and unit. Those that are to be no more have no content.
positional: settings
options:
  _input:
    description: V(server) or V(agent).
    type: str
    required: true
  settings:
    description: The settings, as the role k3s_service has them.
    type: dict
    required: true
"""

EXAMPLES = r"""
files: "{{ 'server' | edgeha.iotedge.k3s_files(settings) }}"
"""

RETURN = r"""
_value:
  description:
    - Files with C(path), C(content), C(mode) and C(state).
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_config


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"k3s_files": k3s_config.files}
