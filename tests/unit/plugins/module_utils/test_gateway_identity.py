# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import gateway_identity

PRINT = "0123456789ABCDEF0123456789ABCDEF01234567"
PAIR = {"type": "x509", "certificate_file": "gw.pem", "key_file": "gw.key"}
DPS = {"id_scope": "0ne000A1B2C"}


def facts(**entry: Any) -> list[str]:
    found = list(gateway_identity.errors({"name": "gw", **entry}))
    assert all(fix for _fact, fix in found)
    return [fact for fact, _fix in found]


def device(**entry: Any) -> dict[str, Any]:
    found: dict[str, Any] = gateway_identity.normalised({"name": "gw", **entry}, "gw")["device"]
    return found


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"hostname": "plant07-gw.example.org", "parent": "top"},
        {"parent": "Top_1", "parent_hostname": "top.example.org"},
        {"parent": ""},
        {"credential": {"secret": "own"}},
        {"credential": {"secret_provider_class": "vault"}},
        {"credential": PAIR},
        {"credential": {**PAIR, "thumbprints": [PRINT, PRINT]}},
        {"credential": {"type": "x509", "secret": "gw-tls"}},
        {"dps": DPS, "credential": {"key_file": "enrollment.key"}},
        {"dps": {**DPS, "group": True, "registration_id": "gw-07"}, "credential": {"secret": "own"}},
        {"dps": {**DPS, "endpoint": "dps.example.org:8443"}, "credential": PAIR, "parent_hostname": "top"},
    ],
)
def test_what_is_right(entry: dict[str, Any]) -> None:
    assert facts(**entry) == []


@pytest.mark.parametrize(
    ("entry", "fact"),
    [
        ({"hostname": "https://gw"}, "hostname 'https://gw' is not a host name"),
        ({"hostname": "GW"}, "hostname 'GW' is not a host name"),
        ({"parent_hostname": "top_1"}, "parent_hostname 'top_1' is not a host name"),
        ({"parent": "a b"}, "parent: the device id 'a b' holds"),
        ({"parent": "gw"}, "is its own parent"),
        ({"parent": "Top_1"}, "the parent 'Top_1' is no host name, and there is no parent_hostname"),
        (
            {"parent": "top", "dps": DPS, "credential": PAIR},
            "has parent and dps: its device is not there before",
        ),
        ({"dps": {"group": True}, "credential": PAIR}, "dps has no id_scope"),
        ({"dps": {**DPS, "registration_id": "gw."}, "credential": PAIR}, "dps.registration_id 'gw.'"),
        ({"dps": {**DPS, "endpoint": "https://x"}, "credential": PAIR}, "dps.endpoint 'https://x'"),
        ({"dps": DPS, "credential": PAIR, "tags": {"a": 1}}, "has tags and dps"),
        ({"dps": DPS}, "has dps, and nothing tells where the key of its enrollment is"),
        ({"credential": {"type": "tpm"}}, "credential.type is 'tpm'"),
        ({"credential": {"secret": "No"}}, "credential.secret 'No' is not the name"),
        ({"credential": {"type": "x509"}}, "credential.type is x509, and nothing tells where"),
        ({"credential": {**PAIR, "secret": "own"}}, "credential has secret and key_file"),
        ({"credential": {"secret": "a", "secret_provider_class": "b"}}, "credential has secret and secret_p"),
        (
            {"credential": {"type": "x509", "key_file": "a"}},
            "credential has key_file and no certificate_file",
        ),
        (
            {"credential": {"type": "x509", "certificate_file": "a"}},
            "credential has certificate_file and no key_file",
        ),
        ({"credential": {**PAIR, "thumbprints": "AB"}}, "credential.thumbprints is no list"),
        ({"credential": {**PAIR, "thumbprints": [PRINT] * 3}}, "credential.thumbprints is no list"),
        ({"credential": {**PAIR, "thumbprints": ["AB:CD"]}}, "credential.thumbprints: 'AB:CD' is no"),
        ({"credential": {**PAIR, "thumbprints": [PRINT]}, "dps": DPS}, "has credential.thumbprints and dps"),
        ({"credential": {"thumbprints": [PRINT]}}, "credential has thumbprints and a symmetric key"),
        ({"credential": {"key_file": "a"}}, "has credential.key_file, and the hub is where"),
    ],
)
def test_what_is_wrong_is_one_problem(entry: dict[str, Any], fact: str) -> None:
    (found,) = facts(**entry)
    assert found.startswith(fact)


def test_the_device_that_the_hub_is_to_have() -> None:
    assert device(tags={"site": 7}) == {"device_id": "gw", "edge": True, "tags": {"site": 7}}
    assert device(parent="") == {"device_id": "gw", "edge": True, "parent": ""}
    assert device(credential={**PAIR, "thumbprints": [PRINT]})["authentication"] == {
        "type": "self_signed", "primary_thumbprint": PRINT,
    }  # fmt: skip
    assert device(credential=PAIR)["authentication"] == {"type": "certificate_authority"}
    # The service registers it, so nothing of it is wanted but that it is there.
    assert device(dps=DPS, credential=PAIR) == {"device_id": "gw"}


@pytest.mark.parametrize("wrong", ["x509", 7, ["x"], None])
def test_what_is_no_mapping_waits_for_its_row(wrong: object) -> None:
    found = gateway_identity.normalised(
        {"name": "gw", "credential": wrong, "dps": wrong, "hostname": 7}, "gw"
    )
    assert (found["credential"]["source"], found["dps"], found["hostname"]) == ("hub", {}, "")
    assert facts(credential=wrong, dps=wrong) == []
