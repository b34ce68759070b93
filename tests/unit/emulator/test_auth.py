# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared access signatures against the signer of Microsoft's device library."""

import time
from base64 import b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from azure.iot.device.common.auth.sastoken import RenewableSasToken
from azure.iot.device.common.auth.signing_mechanism import SymmetricKeySigningMechanism
from hypothesis import given
from hypothesis import strategies as st
from iothub_emulator.auth import POLICY_RIGHTS, Authenticator, Right, SasToken
from iothub_emulator.errors import UnauthorizedError

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
OTHER = "YWJjZGVmZ2hpamFiY2RlZmdoaWphYmNkZWZnaGlqYWI="
NOW = 1_800_000_000.0


def signed(resource: str, *, policy: str | None = None, key: str = KEY) -> str:
    signer = SymmetricKeySigningMechanism(key)  # type: ignore[no-untyped-call]  # typed in part only
    return str(RenewableSasToken(resource, signer, policy, ttl=3600))  # type: ignore[no-untyped-call]  # the same


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator(["172.29.0.1", "Hub.example"], dict.fromkeys(POLICY_RIGHTS, KEY))


@given(st.text(min_size=1, max_size=60), st.binary(min_size=16, max_size=64))
def test_signature_of_the_library_is_accepted(resource: str, key: bytes) -> None:
    text = b64encode(key).decode()
    resource = resource.encode("utf-8", "ignore").decode()
    token = SasToken.parse(signed(resource, key=text))
    assert token.signed_by([None, text])
    assert not token.signed_by([OTHER, None])
    assert not token.signed_by([])


def test_fields_in_any_order_and_raw_resource() -> None:
    fields = dict(
        part.split("=", 1) for part in signed("172.29.0.1", policy="service").split(" ")[1].split("&")
    )
    shuffled = "SharedAccessSignature " + "&".join(
        f"{key}={fields[key]}" for key in ("sr", "sig", "skn", "se")
    )
    token = SasToken.parse(shuffled)
    assert token.signed_by([KEY])
    assert (token.policy, token.expiry) == ("service", int(fields["se"]))
    assert not SasToken.parse(shuffled.replace("172.29", "172%2E29")).signed_by([KEY]), "sr is signed as sent"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Bearer x",
        "SharedAccessSignature ",
        "SharedAccessSignature sr=a&sig=YQ==",
        "SharedAccessSignature sr=a&sig=YQ==&se=x",
        "SharedAccessSignature sr=a&sig=*&se=1",
        "SharedAccessSignature sr=a&sr=b&sig=YQ==&se=1",
        "SharedAccessSignature sr=a&sig=YQ==&se=1&more=1",
        "SharedAccessSignature sr&sig=YQ==&se=1",
    ],
)
def test_malformed_tokens(text: str) -> None:
    with pytest.raises(UnauthorizedError):
        SasToken.parse(text)


@given(st.text(max_size=80))
def test_no_text_breaks_the_parser(text: str) -> None:
    with pytest.raises(UnauthorizedError):
        SasToken.parse(f"SharedAccessSignature {text}")


@pytest.mark.parametrize(
    ("resource", "path", "good"),
    [
        ("172.29.0.1", "devices/d", True),
        ("172.29.0.1:8443", "twins/d", True),
        ("HUB.EXAMPLE", "devices/d", True),
        ("172.29.0.1:", "devices/d", False),
        ("172.29.0.11", "devices/d", False),
        ("other.example", "devices/d", False),
        ("172.29.0.1/devices/d", "devices/d/modules/m", True),
        ("172.29.0.1/devices/d", "devices/dd", False),
        ("172.29.0.1/devices/d/modules/m", "devices/d", False),
        ("172.29.0.1/devices/d/modules/%24edgeAgent", "devices/d/modules/$edgeAgent", True),
        ("172.29.0.1/devices/D", "devices/d", False),
    ],
)
@pytest.mark.parametrize("encode", [quote, quote_plus, str])
def test_what_a_token_is_good_for(
    authenticator: Authenticator, resource: str, path: str, good: bool, encode: Callable[[str], str]
) -> None:
    if encode is str and "%" in resource:
        resource = quote(resource)
    token = SasToken(encode(resource), b"", int(NOW) + 1, None)
    if good:
        authenticator.check_validity(token, path.split("/"), NOW)
    else:
        with pytest.raises(UnauthorizedError):
            authenticator.check_validity(token, path.split("/"), NOW)


def test_a_token_ends_with_its_second(authenticator: Authenticator) -> None:
    token = SasToken("172.29.0.1", b"", int(NOW), None)
    authenticator.check_validity(token, ["devices"], NOW - 0.001)
    with pytest.raises(UnauthorizedError) as error:
        authenticator.check_validity(token, ["devices"], NOW)
    assert "expired" in error.value.reason


@pytest.mark.parametrize(
    ("policy", "rights"),
    [
        ("iothubowner", {"REGISTRY_READ", "REGISTRY_WRITE", "SERVICE_CONNECT", "DEVICE_CONNECT"}),
        ("service", {"SERVICE_CONNECT"}),
        ("device", {"DEVICE_CONNECT"}),
        ("registryRead", {"REGISTRY_READ"}),
        ("registryReadWrite", {"REGISTRY_READ", "REGISTRY_WRITE"}),
    ],
)
def test_rights_of_the_policies(authenticator: Authenticator, policy: str, rights: set[str]) -> None:
    token = SasToken.parse(signed("172.29.0.1", policy=policy))
    for right in Right:
        if right.name in rights:
            assert authenticator.check_policy(token, right) == policy
        else:
            with pytest.raises(UnauthorizedError) as error:
                authenticator.check_policy(token, right)
            assert f"lacks the right {right.name}" in error.value.reason


def test_token_hides_its_signature() -> None:
    token = SasToken.parse(signed("172.29.0.1"))
    assert repr(token.signature) not in repr(token)
    assert token.expiry > time.time()
