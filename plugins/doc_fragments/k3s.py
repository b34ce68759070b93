# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options that modules for k3s have in common, as in module_utils/k3s_options.py."""

    DOCUMENTATION = r"""
options:
  data_dir:
    description:
      - Folder in which k3s keeps its data on this machine.
    type: path
    default: /var/lib/rancher/k3s
"""

    PROGRAM = r"""
options:
  binary:
    description:
      - The program that is installed.
    type: path
    default: /usr/local/bin/k3s
"""

    API = r"""
options:
  config_dir:
    description:
      - Folder that holds C(k3s/config.yaml) and C(node/password).
    type: path
    default: /etc/rancher
  api_port:
    description:
      - Port of the API on the machine itself.
    type: int
    default: 6443
"""
