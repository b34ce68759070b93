#!/usr/bin/python
# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: print_lines
short_description: Print lines as they are
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Prints each line without quotes and line breaks of a callback, so that a table stays one.
  - This is an action plugin and runs on the controller.
options:
  lines:
    description:
      - The lines.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    description: Prints them too.
    support: full
  diff_mode:
    description: Changes nothing.
    support: N/A
"""

EXAMPLES = r"""
- name: Show a table
  edgeha.iotedge.print_lines:
    lines: "{{ table }}"
"""

RETURN = r"""
lines:
  description: The lines.
  returned: always
  type: list
  elements: str
"""
