# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: problem_table
short_description: Show problems as a table
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Returns the lines of a table of problems, each problem once, sorted by host and subject.
options:
  _input:
    description: Problems with the keys C(host), C(subject), C(fact) and C(fix).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
lines: "{{ problems | edgeha.iotedge.problem_table }}"
"""

RETURN = r"""
_value:
  description: The lines of the table.
  type: list
  elements: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import problems


def problem_table(found: list[Mapping[str, Any]]) -> list[str]:
    return problems.render(problems.from_dict(entry) for entry in found)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"problem_table": problem_table}
