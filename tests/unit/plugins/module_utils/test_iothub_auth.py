# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signatures are checked against Microsoft's own client, which is only in the test environment."""

from __future__ import annotations

import base64
from urllib.parse import parse_qs

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_auth
from azure.iot.hub.sastoken import SasToken
from hypothesis import given
from hypothesis import strategies as st

KEY = base64.b64encode(bytes(range(32))).decode()


def fields(token: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(token.partition(" ")[2]).items()}


@given(
    host=st.from_regex(r"[a-z][a-z0-9.-]{0,30}(:[0-9]{2,5})?", fullmatch=True),
    policy=st.sampled_from(["iothubowner", "service", "reg read+write"]),
    key=st.binary(min_size=16, max_size=64),
)
def test_token_is_the_one_microsofts_client_makes(host: str, policy: str, key: bytes) -> None:
    text = base64.b64encode(key).decode()
    theirs = SasToken(host, text, policy, ttl=100)
    ours = iothub_auth.sign(host, text, theirs.expiry_time, policy)
    assert fields(ours)["sig"] == fields(str(theirs))["sig"]
    assert fields(ours)["se"] == str(theirs.expiry_time)
    assert fields(ours)["skn"] == policy


def test_device_token_has_no_policy() -> None:
    assert "skn" not in iothub_auth.sign("hub.example/devices/a", KEY, 1)


@pytest.mark.parametrize("key", ["not base64!", "YWJj", base64.b64encode(bytes(65)).decode(), ""])
def test_bad_key_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(iothub_auth.CredentialError) as caught:
        iothub_auth.decode_key(key)
    assert not key or key not in str(caught.value)


def test_connection_string_of_a_service() -> None:
    host, policy = iothub_auth.service_connection(
        f"HostName=hub.example;SharedAccessKeyName=service;SharedAccessKey={KEY}"
    )
    assert (host, policy.name, policy.key) == ("hub.example", "service", KEY)
    assert KEY not in repr(policy)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("HostName=h;SharedAccessKeyName=p", "lacks SharedAccessKey"),
        ("SharedAccessKeyName=p;SharedAccessKey=k", "no HostName"),
        ("HostName=h;HostName=i", "HostName twice"),
        ("HostName=h;nonsense", "part 2"),
    ],
)
def test_connection_string_that_cannot_be_used(text: str, fact: str) -> None:
    with pytest.raises(iothub_auth.CredentialError, match=fact):
        iothub_auth.service_connection(text)
