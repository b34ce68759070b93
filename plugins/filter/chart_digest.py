# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: chart_digest
short_description: Digest of the files of a Helm chart
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Returns a digest over names and contents of all files in the folder of a chart.
  - Given to the chart as a value it shows Helm a chart that changed without a new version, which
    M(kubernetes.core.helm) does not see by itself without the plugin helm-diff.
options:
  _input:
    description: Folder of the chart.
    type: path
    required: true
"""

EXAMPLES = r"""
digest: "{{ '/opt/charts/edge-runtime' | edgeha.iotedge.chart_digest }}"
"""

RETURN = r"""
_value:
  description: SHA-256 in hexadecimal.
  type: str
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError


def chart_digest(folder: str) -> str:
    """Return the SHA-256 over all files below a folder: name, length and content of each, sorted by name."""
    root = Path(folder)
    if not (root / "Chart.yaml").is_file():
        raise AnsibleFilterError(f"{folder} is not the folder of a chart: it has no Chart.yaml")
    digest = hashlib.sha256()
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        content = file.read_bytes()
        # Name and length end what follows, so that no two sets of files give the same stream.
        digest.update(f"{file.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"chart_digest": chart_digest}
