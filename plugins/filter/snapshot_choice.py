# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: snapshot_choice
short_description: Which server of a cluster takes a snapshot, and from where
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Finds the server that holds a snapshot, or one that a file of the controller can be sent to.
positional: source, is_file, data_dir
options:
  _input:
    description:
      - Machines of one cluster with C(host), C(server) and C(state), which M(edgeha.iotedge.k3s_probe)
        returned as C(k3s), or nothing when it did not answer.
    type: list
    elements: dict
    required: true
  source:
    description: A file of the controller, the name of a snapshot on a server, or V(newest).
    type: str
    required: true
  is_file:
    description: Whether there is such a file.
    type: bool
    required: true
  data_dir:
    description: Data folder of k3s.
    type: str
    default: /var/lib/rancher/k3s
"""

EXAMPLES = r"""
choice: "{{ machines | edgeha.iotedge.snapshot_choice('newest', false) }}"
"""

RETURN = r"""
_value:
  description:
    - C(host), C(path) of the snapshot on that host, C(upload) (whether it has to be sent there), and
      C(problem), which is empty when there is none.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_snapshots


def snapshot_choice(
    machines: list[Mapping[str, Any]], source: str, is_file: bool, data_dir: str = "/var/lib/rancher/k3s"
) -> dict[str, Any]:
    return k3s_snapshots.choose(machines, str(source or ""), bool(is_file), data_dir)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"snapshot_choice": snapshot_choice}
