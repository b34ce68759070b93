# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The service side of the Device Provisioning Service: the calls that the modules need.

The contract is the service's data plane API, api-version 2021-10-01.
"""

from __future__ import annotations

from ansible_collections.edgeha.iotedge.plugins.module_utils import rest_client


class DpsClient(rest_client.RestClient):
    """Calls one provisioning service; see RestClient."""

    SERVICE = "DPS"
    API_VERSION = "2021-10-01"
