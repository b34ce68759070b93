# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: iothub_connection_string
short_description: Connection string of a device or module on an Azure IoT Hub
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Reads identities from the hub and returns the strings that devices and modules connect with.
  - A string with a key in it is a secret. Use it in tasks with C(no_log=true) only.
  - For an identity with a certificate it ends in C(x509=true) and holds no secret.
options:
  _terms:
    description:
      - Devices as V(DEVICE), modules as V(DEVICE/MODULE).
    required: true
    type: list
    elements: str
  key:
    description:
      - Which of the two keys.
    type: str
    choices: [primary, secondary]
    default: primary
  gateway_hostname:
    description:
      - Host name of the gateway that the device connects through, when it has a parent.
    type: str
extends_documentation_fragment:
  - edgeha.iotedge.iothub
  - edgeha.iotedge.azure_login
seealso:
  - module: edgeha.iotedge.iothub_devices
  - module: edgeha.iotedge.iothub_modules
"""

EXAMPLES = r"""
- name: Give a device its connection string
  ansible.builtin.copy:
    content: >-
      {{ lookup('edgeha.iotedge.iothub_connection_string', 'line1', gateway_hostname='plant07-gw.local',
                hostname='contoso.azure-devices.net', policy_key=vault_iothub_policy_key) }}
    dest: /etc/line1.connection
    mode: "0600"
  no_log: true

- name: Look at the string of a module, with its secondary key
  ansible.builtin.set_fact:
    camera: "{{ lookup('edgeha.iotedge.iothub_connection_string', 'line1/camera', key='secondary',
      connection_string=vault_iothub_connection_string) }}"
  no_log: true
"""

RETURN = r"""
_raw:
  description: The connection strings, in the order of the terms.
  type: list
  elements: str
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    connection_string,
    identity_reader,
    iothub_auth,
    iothub_client,
    iothub_module,
    item_list,
    module_identity,
    rest_client,
)
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import iothub_options

display = Display()


class LookupModule(LookupBase):  # type: ignore[misc]  # ansible-core ships no types
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        try:
            client = iothub_options.client({name: self.get_option(name) for name in iothub_options.NAMES})
        except (iothub_options.OptionError, iothub_auth.CredentialError, rest_client.ServiceError) as error:
            raise AnsibleLookupError(f"iothub_connection_string: {iothub_module.explain(error)}") from error
        try:
            return [self._one(client, str(term)) for term in terms]
        finally:
            client.close()

    def _one(self, client: iothub_client.HubClient, term: str) -> str:
        try:
            device_id, module_id = connection_string.identity_of(term)
            errors = module_identity.id_errors(device_id, module_id)
            if errors:
                raise item_list.Refused("; ".join(errors))
            identity = identity_reader.read_identity(client, device_id, module_id)
            text = connection_string.connection_string(
                client.hostname, identity, self.get_option("key"), self.get_option("gateway_hostname")
            )
        except (ValueError, rest_client.ServiceError) as error:
            raise AnsibleLookupError(
                f"iothub_connection_string: {term}: {iothub_module.explain(error)}"
            ) from error
        if identity.get("status") == "disabled":
            display.warning(
                f"iothub_connection_string: the device {device_id!r} is disabled and cannot connect"
            )
        return text
