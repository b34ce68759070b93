# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options that every module that speaks to a Device Provisioning Service has; with azure_login."""

    DOCUMENTATION = r"""
options:
  hostname:
    description:
      - Host name of the service, such as V(contoso.azure-devices-provisioning.net); a port may follow after a
        colon.
      - Required unless O(connection_string) is given.
    type: str
  policy_name:
    description:
      - Name of the shared access policy that O(policy_key) belongs to, or whose key O(fetch_key) fetches.
    type: str
    default: provisioningserviceowner
  policy_key:
    description:
      - Primary or secondary key of the shared access policy, in base64, for O(auth=sas).
    type: str
  connection_string:
    description:
      - Connection string of the service, in place of O(hostname), O(policy_name) and O(policy_key).
    type: str
  fetch_key:
    description:
      - With another O(auth) than V(sas), fetch the key of O(policy_name) from Azure Resource Manager and sign
        with it, instead of sending a token of the login.
    type: bool
    default: false
  token_scope:
    description:
      - Scope of the token when O(auth) is not V(sas),
        V(https://azure-devices-provisioning.net/.default) when not given.
    type: str
"""

    ATTRIBUTES = r"""
attributes:
  action_group:
    description: Use C(group/edgeha.iotedge.dps) in C(module_defaults) to set the service for all modules.
    support: full
    membership:
      - edgeha.iotedge.dps
"""
