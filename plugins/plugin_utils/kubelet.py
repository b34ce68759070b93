# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kubelet in the folder of the controller from which machines are installed (edge_join_source)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from ansible_collections.edgeha.iotedge.plugins.module_utils import kubeadm_rules, this_machine

_SECONDS = 20


def version(folder: str) -> str:
    """Return the version of the kubelet, empty when it is not known.

    It is asked itself, when it is the file that SHA256SUMS means and made for a machine such as this one.
    """
    place = Path(folder).expanduser()
    program = place / "kubelet"
    try:
        sums = kubeadm_rules.sums((place / kubeadm_rules.SUMS_FILE).read_text("utf-8"))
        if this_machine.sha256(program) != sums.get("kubelet"):
            return ""
        done = subprocess.run(
            [str(program), "--version"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    found = re.search(r"v\d+\.\d+\.\d+", done.stdout)
    return found[0] if found and done.returncode == 0 else ""
