# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: deployment
short_description: Read an IoT Edge deployment manifest as values of the runtime's chart
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Finds a deployment manifest, checks it and returns what the chart needs of it.
  - One with C(systemModules) is carried out by edgeAgent, which the hub gives it to. One without them is
    carried out by the gateway's daemon alone; what that cannot do is an error that names the JSON path.
options:
  _terms:
    description:
      - Path of the manifest, searched as M(edgeha.iotedge.inventory_check) does.
    required: true
"""

EXAMPLES = r"""
- name: Show the names of the modules that a manifest runs
  ansible.builtin.debug:
    msg: "{{ lookup('edgeha.iotedge.deployment', 'files/plant07.json').names }}"
"""

RETURN = r"""
_raw:
  description:
    - For each manifest C(names) of the modules that are to run; C(modules) for the daemon, with the keys
      C(name), C(image), C(env) and C(imagePullPolicy); C(edge_agent), the chart's value C(edgeAgent), or
      null; and C(content), what the hub is given, or null. C(content) may hold passwords of registries.
  type: list
  elements: dict
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
                manifest = deployment.parse(text)
                found.append(
                    {
                        "names": manifest.names,
                        "modules": manifest.modules,
                        "edge_agent": manifest.edge_agent,
                        "content": manifest.content,
                    }
                )
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
