# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: k3s_lock
short_description: The versions of k3s that can be verified
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Returns the lock of this collection, and the operator's own lock over it.
options:
  _terms:
    description:
      - Path of a lock file on the controller, searched as M(edgeha.iotedge.inventory_check) does. Empty for
        none.
      - It maps versions to artifacts (V(k3s), V(images)), these to architectures, and these to a SHA-256.
    required: true
"""

EXAMPLES = r"""
- name: Show the versions that are known
  ansible.builtin.debug:
    msg: "{{ lookup('edgeha.iotedge.k3s_lock', '') | list }}"
"""

RETURN = r"""
_raw:
  description:
    - The lock.
  type: list
  elements: dict
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.edgeha.iotedge.plugins.module_utils.inventory_rules import FileMissingError
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import k3s_lock


class LookupModule(LookupBase):  # type: ignore[misc]  # ansible-core ships no types
    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        try:
            return [k3s_lock.load(term, variables or {}) for term in terms]
        except FileMissingError as error:
            places = ", ".join(error.searched)
            raise AnsibleLookupError(
                f"edge_k3s_lock: the file does not exist (searched: {places})"
            ) from error
        except OSError as error:
            raise AnsibleLookupError(f"edge_k3s_lock: {error.filename}: {error.strerror}") from error
        except k3s_lock.LockError as error:
            raise AnsibleLookupError(f"edge_k3s_lock: {error}") from error
