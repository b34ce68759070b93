# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options that every module that speaks to an IoT Hub has."""

    DOCUMENTATION = r"""
options:
  hostname:
    description:
      - Host name of the hub, such as V(contoso.azure-devices.net); a port may follow after a colon.
      - Required together with O(policy_key), unless O(connection_string) is given.
    type: str
  policy_name:
    description:
      - Name of the shared access policy that O(policy_key) belongs to.
    type: str
    default: iothubowner
  policy_key:
    description:
      - Primary or secondary key of the shared access policy, in base64.
    type: str
  connection_string:
    description:
      - Service connection string of the hub, in place of O(hostname), O(policy_name) and O(policy_key).
    type: str
  ca_file:
    description:
      - PEM file of certificate authorities that are trusted in addition to those of the system.
    type: path
  timeout:
    description:
      - Seconds to wait for a connection and for each answer.
      - A throttled hub queues calls for some seconds before it refuses them.
    type: int
    default: 30
  retry_budget:
    description:
      - Seconds that one call may spend on waiting while the hub throttles it or fails.
    type: int
    default: 180
requirements:
  - No Python package beyond the standard library.
notes:
  - The environment variables E(https_proxy) and E(no_proxy) are honoured.
"""

    ATTRIBUTES = r"""
attributes:
  action_group:
    description: Use C(group/edgeha.iotedge.iothub) in C(module_defaults) to set the hub once for all modules.
    support: full
    membership:
      - edgeha.iotedge.iothub
"""
