# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: path
short_description: Find a file that the inventory names
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Returns the absolute path of a file, searched as M(edgeha.iotedge.inventory_check) does.
  - A path where no file is found comes back as it was given, so that whoever opens it tells what is missing.
options:
  _terms:
    description:
      - Path of the file. An empty text gives an empty text.
    required: true
"""

EXAMPLES = r"""
- name: Show where the CA bundle is
  ansible.builtin.debug:
    msg: "{{ lookup('edgeha.iotedge.path', 'files/ca.pem') }}"
"""

RETURN = r"""
_raw:
  description:
    - Absolute paths.
  type: list
  elements: path
"""

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.edgeha.iotedge.plugins.module_utils.inventory_rules import FileMissingError
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import files


class LookupModule(LookupBase):  # type: ignore[misc]  # ansible-core ships no types
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        found = []
        for term in terms:
            try:
                found.append(str(files.find(term, variables or {}).resolve()) if term else "")
            except FileMissingError:
                found.append(term)
        return found
