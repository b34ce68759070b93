# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: derive_device_key
short_description: Key of one device of an enrollment group
version_added: 0.1.0
author:
  - edgeha developers (@edgeha)
description:
  - Derives the symmetric key of a device from the key of its enrollment group, as the Azure Device
    Provisioning
    Service does. The result is a secret, use it in tasks with C(no_log=true) only.
positional: registration_id
options:
  _input:
    description: Primary or secondary key of the group, in base64.
    type: str
    required: true
  registration_id:
    description: Registration id of the device, written as the device itself gives it.
    type: str
    required: true
seealso:
  - module: edgeha.iotedge.dps_groups
"""

EXAMPLES = r"""
device_key: "{{ group.primary_key | edgeha.iotedge.derive_device_key('plant07-gw') }}"
"""

RETURN = r"""
_value:
  description: The key in base64.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.edgeha.iotedge.plugins.module_utils import dps_keys


def derive_device_key(group_key: Any, registration_id: Any) -> str:
    """Return the key of one device of a group; see dps_keys."""
    try:
        return dps_keys.derive_device_key(str(group_key), str(registration_id))
    except ValueError as error:
        raise AnsibleFilterError(f"derive_device_key: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"derive_device_key": derive_device_key}
