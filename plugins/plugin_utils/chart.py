# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The chart of ours, asked on the controller whether it takes values."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import releases

CHART = Path(__file__).resolve().parents[2] / "charts" / "edge-runtime"
LIMIT_SECONDS = 60
# Any that the chart takes: that of a cluster is looked at there.
_KUBERNETES = "1.34.0"
# What keys of a gateway and variables of its cluster give, in a form that the chart takes.
_OTHERS: Mapping[str, Any] = {
    "gateway": {"name": "gateway", "deviceId": "gateway", "iothubHostname": "hub.example.org"},
    "credential": {"existingSecret": "gateway-device"},
    "image": {"registry": "registry.example.org"},
}


def errors(helm: str, values: Mapping[str, Any]) -> list[str]:
    """Return why the chart does not take values, a line for each reason; empty when it does.

    helm: name or path of the program. values: beside those that something else decides.
    """
    # Dates, say, which YAML makes of texts: Helm gets them as texts.
    document = json.dumps(releases.merged(_OTHERS, values), default=str)
    try:
        done = subprocess.run(
            [helm, "template", "gateway", str(CHART), f"--kube-version={_KUBERNETES}", "--values=-"],
            input=document,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"helm cannot be asked: {error}"]
    if done.returncode == 0:
        return []
    found = [line.strip().removeprefix("- ") for line in done.stderr.splitlines() if line.startswith("- ")]
    return found or [" ".join(done.stderr.partition("Error:")[2].split()) or "helm refuses them"]
