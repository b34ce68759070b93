# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connection strings of devices and modules. Pure.

Source: "Control access to IoT Hub" (Microsoft Learn); a parent of the device stands in GatewayHostName.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_auth
from ansible_collections.edgeha.iotedge.plugins.module_utils.authentication import Authentication

KEYS = ("primary", "secondary")


def identity_of(term: str) -> tuple[str, str | None]:
    """Return (device id, module id or None) of ``DEVICE`` or ``DEVICE/MODULE``: ids hold no slash.

    Raises ValueError for anything else.
    """
    parts = term.split("/")
    if len(parts) > 2 or not all(parts):
        raise ValueError(f"{term!r} is neither DEVICE nor DEVICE/MODULE")
    return parts[0], parts[1] if len(parts) == 2 else None


def connection_string(
    hostname: str, identity: Mapping[str, Any], key: str = "primary", gateway_hostname: str | None = None
) -> str:
    """Return the connection string of an identity, a secret unless it authenticates by certificate.

    identity: as the registry has it, with its keys. key: one of KEYS.
    Raises CredentialError for one that cannot connect on its own, such as a module of the hub's.
    """
    authentication = Authentication.from_body(identity.get("authentication"))
    parts = {"HostName": hostname, "DeviceId": identity.get("deviceId"), "ModuleId": identity.get("moduleId")}
    if authentication.type == "sas":
        value = authentication.primary_key if key == "primary" else authentication.secondary_key
        if not value:
            raise iothub_auth.CredentialError(f"it has no {key} key")
        parts["SharedAccessKey"] = value
    elif authentication.type in ("self_signed", "certificate_authority"):
        parts["x509"] = "true"
    else:
        raise iothub_auth.CredentialError(
            f"it authenticates by {authentication.type!r}, for which there is no connection string"
        )
    parts["GatewayHostName"] = gateway_hostname
    return ";".join(f"{name}={value}" for name, value in parts.items() if value)
