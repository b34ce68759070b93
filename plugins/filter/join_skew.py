# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: join_skew
short_description: Which machines would join a cluster with a version that does not go with it
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - A kubelet is never newer than the API of its cluster, and at most three minor versions older. An agent of
    k3s is not newer than its server in anything.
  - A version that is not known is not judged.
positional: version
options:
  _input:
    description:
      - Mapping with C(kind) (V(k3s) or V(kubeadm)), C(locked) (versions of k3s that can be installed) and
        C(machines), a list of C(host), C(version) (of what is installed, empty for that of the cluster or
        when it is not known) and C(api) (the version that the cluster told the machine, or empty).
    type: dict
    required: true
  version:
    description: Version of the cluster's API, empty when it is not known.
    type: str
    required: true
"""

EXAMPLES = r"""
problems: "{{ joining | edgeha.iotedge.join_skew('v1.34.4+k3s1') }}"
"""

RETURN = r"""
_value:
  description: Problems with C(host), C(subject), C(fact) and C(fix).
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import join_rules


def join_skew(joining: Mapping[str, Any], version: str) -> list[dict[str, str]]:
    found = join_rules.joining(
        joining.get("machines") or [],
        str(joining.get("kind")),
        str(version or ""),
        joining.get("locked") or [],
    )
    return [problem.as_dict() for problem in found]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"join_skew": join_skew}
