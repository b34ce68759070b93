# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Options of a login at Azure, and of the connection."""

    # The part for modules that can do with a shared access key.
    DOCUMENTATION = r"""
options:
  auth:
    description:
      - How calls are allowed. V(sas) signs with a shared access key and needs no Azure package.
      - V(cli) uses the login of C(az login), V(service_principal) a client id and its secret,
        V(managed_identity) the identity of the Azure or Arc machine that the task runs on.
    type: str
    choices: [sas, cli, service_principal, managed_identity]
    default: sas
  subscription_id:
    description:
      - Subscription to work in. By default that of C(az login), or E(AZURE_SUBSCRIPTION_ID).
    type: str
  tenant_id:
    description:
      - Tenant of the service principal, or E(AZURE_TENANT_ID) or E(AZURE_TENANT).
    type: str
  client_id:
    description:
      - Id of the service principal or of a user-assigned managed identity, or E(AZURE_CLIENT_ID).
    type: str
  client_secret:
    description:
      - Secret of the service principal, or E(AZURE_CLIENT_SECRET) or E(AZURE_SECRET).
    type: str
  authority:
    description:
      - Host that the service principal logs in at, such as V(https://login.microsoftonline.us) in the cloud
        for the US government. The public cloud's by default.
    type: str
  resource_manager:
    description:
      - Address of Azure Resource Manager, V(https://management.azure.com) by default; with O(auth=cli) that
        of the cloud that C(az) works with.
    type: str
  ca_file:
    description:
      - PEM file of certificate authorities that are trusted in addition to those of the system.
      - Tokens are fetched by the Azure packages, which take E(REQUESTS_CA_BUNDLE) instead.
    type: path
  timeout:
    description:
      - Seconds to wait for a connection and for each answer.
      - A throttled service queues calls for some seconds before it refuses them.
    type: int
    default: 30
  retry_budget:
    description:
      - Seconds that one call may spend on waiting while the service throttles it or fails.
    type: int
    default: 180
requirements:
  - azure-cli-core for O(auth=cli), azure-identity for O(auth=service_principal) and O(auth=managed_identity)
notes:
  - The environment variables E(https_proxy) and E(no_proxy) are honoured.
"""
