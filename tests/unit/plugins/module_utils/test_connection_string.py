# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import connection_string, iothub_auth

HOST = "contoso.azure-devices.net"
SAS = {"type": "sas", "symmetricKey": {"primaryKey": "UFJJ", "secondaryKey": "U0VD"}}
DEVICE: dict[str, Any] = {"deviceId": "line1", "authentication": SAS}


@pytest.mark.parametrize(
    ("identity", "more", "expected"),
    [
        (DEVICE, {}, f"HostName={HOST};DeviceId=line1;SharedAccessKey=UFJJ"),
        (DEVICE, {"key": "secondary"}, f"HostName={HOST};DeviceId=line1;SharedAccessKey=U0VD"),
        (
            {**DEVICE, "moduleId": "camera"},
            {"gateway_hostname": "gw.local"},
            f"HostName={HOST};DeviceId=line1;ModuleId=camera;SharedAccessKey=UFJJ;GatewayHostName=gw.local",
        ),
        (
            {**DEVICE, "authentication": {"type": "selfSigned", "symmetricKey": {"primaryKey": None}}},
            {},
            f"HostName={HOST};DeviceId=line1;x509=true",
        ),
        (
            {**DEVICE, "authentication": {"type": "certificateAuthority"}},
            {"gateway_hostname": "gw.local"},
            f"HostName={HOST};DeviceId=line1;x509=true;GatewayHostName=gw.local",
        ),
    ],
)
def test_string(identity: dict[str, Any], more: dict[str, str], expected: str) -> None:
    text = connection_string.connection_string(HOST, identity, **more)
    assert text == expected
    # What reads the strings of people reads ours.
    assert iothub_auth.parse_connection_string(text)["HostName"] == HOST


def test_identity_that_cannot_connect_on_its_own() -> None:
    for authentication, fact in (
        ({"type": "none"}, "'none'"),
        ({"type": "sas", "symmetricKey": {"primaryKey": "UFJJ"}}, "no secondary key"),
    ):
        with pytest.raises(iothub_auth.CredentialError, match=fact):
            connection_string.connection_string(
                HOST, {**DEVICE, "authentication": authentication}, "secondary"
            )


def test_terms() -> None:
    assert connection_string.identity_of("line1") == ("line1", None)
    assert connection_string.identity_of("line1/camera") == ("line1", "camera")
    for term in ("", "/", "a/", "/b", "a/b/c"):
        with pytest.raises(ValueError, match="neither DEVICE nor DEVICE/MODULE"):
            connection_string.identity_of(term)
