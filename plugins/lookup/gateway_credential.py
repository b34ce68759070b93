# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: gateway_credential
short_description: Read the credential of a gateway from files on the controller
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Reads the files C(credential.certificate_file) and C(credential.key_file) of gateways, searched as
    M(edgeha.iotedge.inventory_check) does. Files that Ansible Vault encrypted are decrypted.
  - Of the key of an enrollment group the device's own key is derived, so that the group's never leaves the
    controller.
options:
  _terms:
    description:
      - Gateways as the filter P(edgeha.iotedge.gateways#filter) returns them.
    required: true
"""

EXAMPLES = r"""
- name: Show the fingerprints of the credentials
  ansible.builtin.debug:
    msg: "{{ query('edgeha.iotedge.gateway_credential', *gateways) | map(attribute='digest') }}"
"""

RETURN = r"""
_raw:
  description:
    - For each gateway C(data), the data of its Secret in base64, and C(digest), a fingerprint that can be
      shown.
    - Both are null for a gateway whose credential comes from somewhere else.
  type: list
  elements: dict
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.edgeha.iotedge.plugins.module_utils import gateway_identity, releases
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import credential_files


class LookupModule(LookupBase):  # type: ignore[misc]  # ansible-core ships no types
    def run(
        self, terms: list[dict[str, Any]], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        self.set_options(var_options=variables, direct=kwargs)
        found = []
        for gateway in terms:
            data = None
            if gateway["credential"]["source"] == gateway_identity.FILES:
                try:
                    data = credential_files.secret_data(gateway, variables or {}, self._loader)
                except credential_files.CredentialFileError as error:
                    raise AnsibleLookupError(f"gateway {gateway['name']}: {error}") from error
            found.append({"data": data, "digest": releases.data_digest(data) if data else None})
        return found
