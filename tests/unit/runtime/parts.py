# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What several tests of the runtime use."""

from __future__ import annotations

# The daemon's variables that every gateway has.
ENVIRONMENT = {
    "EDGEHA_RELEASE": "gw",
    "EDGEHA_NAMESPACE": "edge-gw",
    "EDGEHA_POD_NAME": "gw-daemon-1",
    "EDGEHA_NODE_NAME": "node-a",
    "EDGEHA_DEVICE_ID": "gw-1",
    "EDGEHA_IOTHUB_HOSTNAME": "hub.example.net",
    "EDGEHA_DEVICE_KEY_FILE": "/k",
    "EDGEHA_STATE_DIR": "/s",
    "EDGEHA_TRUST_BUNDLE_FILE": "/t",
    "EDGEHA_WORKLOAD_PROXY_IMAGE": "r/workload-proxy:1",
}
