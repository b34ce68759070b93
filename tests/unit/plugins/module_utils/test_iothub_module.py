# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest

COLLECTIONS = Path(__file__).resolve().parents[4] / ".collections"
PROGRAM = """
import sys
sys.path.insert(0, {collections!r})
from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_module
from ansible_collections.edgeha.iotedge.plugins.modules import {module}
options = {{"auth": "sas", "hostname": "h", "policy_name": "p", "policy_key": {key!r}}}
iothub_module.client({{**options, "timeout": 1, "retry_budget": 1}})
print([name for name in sys.modules if name.split(".")[0] in ("azure", "msal", "requests")])
"""


@pytest.mark.parametrize("module", ["iothub_devices", "iothub_deployments", "dps_enrollments"])
def test_shared_access_key_needs_no_package_of_azure(module: str) -> None:
    key = base64.b64encode(bytes(32)).decode()
    program = PROGRAM.format(collections=str(COLLECTIONS), module=module, key=key)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
