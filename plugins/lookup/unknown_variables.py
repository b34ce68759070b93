# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: unknown_variables
short_description: Find variables that begin like ours and are none of ours
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Returns a problem for each variable of the hosts that begins with C(edge_) or C(iothub_) and is no public
    variable, with the nearest name. M(edgeha.iotedge.inventory_check) tells them too; this is for playbooks
    that run without it.
  - A variable that several hosts have is told of once.
options:
  _terms:
    description:
      - Names of hosts.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Refuse variables that nobody knows
  ansible.builtin.fail:
    msg: "{{ unknown | edgeha.iotedge.problem_table | join('; ') }}"
  vars:
    unknown: "{{ query('edgeha.iotedge.unknown_variables', *ansible_play_hosts) }}"
  when: unknown | length > 0
  run_once: true
"""

RETURN = r"""
_raw:
  description:
    - Problems with C(host), C(subject), C(fact) and C(fix).
  type: list
  elements: dict
"""

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.edgeha.iotedge.plugins.module_utils import inventory_rules
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import role_options


class LookupModule(LookupBase):  # type: ignore[misc]  # ansible-core ships no types
    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, str]]:
        self.set_options(var_options=variables, direct=kwargs)
        hostvars = (variables or {}).get("hostvars", {})
        known = role_options.names()
        found: dict[str, dict[str, str]] = {}
        for host in terms:
            for problem in inventory_rules.unknown_variables(host, list(hostvars[host]), known):
                found.setdefault(problem.subject, problem.as_dict())
        return list(found.values())
