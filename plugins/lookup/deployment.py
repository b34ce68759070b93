# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: deployment
short_description: Read an IoT Edge deployment manifest as modules of the runtime's chart
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Finds a deployment manifest, checks it and returns its modules as the chart's value C(modules) holds them.
  - What this version cannot carry out is an error that names the JSON path; nothing is left out in silence.
options:
  _terms:
    description:
      - Path of the manifest, searched as M(edgeha.iotedge.inventory_check) does.
    required: true
"""

EXAMPLES = r"""
- name: Show the modules of a manifest
  ansible.builtin.debug:
    msg: "{{ lookup('edgeha.iotedge.deployment', 'files/plant07.json') }}"
"""

RETURN = r"""
_raw:
  description:
    - For each manifest a list of modules with the keys C(name), C(image), C(env) and C(imagePullPolicy).
  type: list
  elements: list
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.edgeha.iotedge.plugins.module_utils import deployment
from ansible_collections.edgeha.iotedge.plugins.module_utils.inventory_rules import FileMissingError
from ansible_collections.edgeha.iotedge.plugins.module_utils.manifest_json import ManifestError
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import files


class LookupModule(LookupBase):  # type: ignore[misc]  # ansible-core ships no types
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        self.set_options(var_options=variables, direct=kwargs)
        found = []
        for term in terms:
            try:
                text = files.find(term, variables or {}).read_text("utf-8")
                found.append(deployment.parse(text).modules)
            except FileMissingError as error:
                raise AnsibleLookupError(
                    f"the deployment file {term} does not exist (searched: {', '.join(error.searched)})"
                ) from error
            except (OSError, UnicodeDecodeError) as error:
                raise AnsibleLookupError(f"the deployment file {term} cannot be read: {error}") from error
            except ManifestError as error:
                raise AnsibleLookupError(
                    f"the deployment file {term} is not valid: {'; '.join(error.errors)}"
                ) from error
        return found
