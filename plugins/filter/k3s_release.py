# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: k3s_release
short_description: Find the files of a version of k3s in a lock
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Returns what M(edgeha.iotedge.verified_files) is to install on a machine.
positional: version, architecture
options:
  _input:
    description: The lock, version to artifact (V(k3s), V(images)) to architecture to SHA-256.
    type: dict
    required: true
  version:
    description: The wanted version; empty for the newest of the lock.
    type: str
    required: true
  architecture:
    description: Architecture of the machine, such as V(x86_64).
    type: str
    required: true
  images:
    description: Whether the archive of images is wanted too.
    type: bool
    default: false
  source:
    description: URL or folder on the controller that has a folder for each version.
    type: str
    required: true
  data_dir:
    description: Folder in which k3s keeps its data.
    type: path
    required: true
  binary:
    description: Where the program goes.
    type: path
    default: /usr/local/bin/k3s
"""

EXAMPLES = r"""
release: "{{ lock | edgeha.iotedge.k3s_release('v1.34.3+k3s1', 'x86_64', source='https://mirror.example.org/k3s',
  data_dir='/var/lib/rancher/k3s') }}"
"""

RETURN = r"""
_value:
  description:
    - C(version), C(files) with C(name) V(k3s) or V(images), and C(problem) with C(fact) and C(fix), empty
      when all is well.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_config


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"k3s_release": k3s_config.release}
