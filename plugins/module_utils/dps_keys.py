# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys of the devices of an enrollment group. Pure.

Source: "Symmetric key attestation" (Microsoft Learn), Group enrollments.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_auth


def derive_device_key(group_key: str, registration_id: str) -> str:
    """Return the key of one device of a group in base64: HMAC-SHA256 of its registration id.

    group_key: base64. The service compares registration ids without case, a key is derived with the very id
    that the device gives. Raises CredentialError when the key of the group is not valid, ValueError for an
    empty id.
    """
    if not registration_id:
        raise ValueError("the registration id is empty")
    digest = hmac.new(iothub_auth.decode_key(group_key), registration_id.encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()
