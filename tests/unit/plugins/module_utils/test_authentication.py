# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.edgeha.iotedge.plugins.module_utils import authentication
from ansible_collections.edgeha.iotedge.plugins.module_utils.authentication import Authentication

MODULES = Path(__file__).resolve().parents[4] / "plugins" / "modules"
KEY, OTHER = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
SHA1, SHA256 = "ab" * 20, "CD" * 32
# As a hub shows them.
SAS: dict[str, Any] = {
    "type": "sas",
    "symmetricKey": {"primaryKey": KEY, "secondaryKey": OTHER},
    "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
}
SELF_SIGNED: dict[str, Any] = {
    "type": "selfSigned",
    "symmetricKey": {"primaryKey": None, "secondaryKey": None},
    "x509Thumbprint": {"primaryThumbprint": SHA1, "secondaryThumbprint": SHA256},
}


def test_new_identity_gets_keys_of_the_hub() -> None:
    empty = {"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}}
    assert authentication.body(None, None) == empty
    assert authentication.body(None, Authentication()) == empty


def test_keys_that_are_there_are_sent_back() -> None:
    assert authentication.body(SAS, None) == SAS
    assert authentication.body(SAS, Authentication("sas")) == SAS
    assert not authentication.differs(SAS, Authentication("sas"))
    assert not authentication.differs(SAS, Authentication("sas", KEY, OTHER))


def test_given_keys_replace_others_unseen() -> None:
    wanted = Authentication("sas", OTHER, KEY)
    assert authentication.differs(SAS, wanted)
    assert authentication.keys_change(SAS, wanted)
    assert not authentication.keys_change(SELF_SIGNED, wanted)
    body = authentication.body(SAS, wanted)
    assert body["symmetricKey"] == {"primaryKey": OTHER, "secondaryKey": KEY}
    assert KEY not in repr(wanted)
    assert authentication.view(body) == {"type": "sas"}


def test_thumbprints_are_compared_without_case_and_kept_when_left_out() -> None:
    assert not authentication.differs(SELF_SIGNED, Authentication("self_signed", None, None, SHA1.upper()))
    wanted = Authentication("self_signed", primary_thumbprint=SHA256)
    assert authentication.body(SELF_SIGNED, wanted)["x509Thumbprint"] == {
        "primaryThumbprint": SHA256,
        "secondaryThumbprint": SHA256,
    }
    removed = Authentication("self_signed", secondary_thumbprint="")
    assert authentication.differs(SELF_SIGNED, removed)
    assert authentication.body(SELF_SIGNED, removed)["x509Thumbprint"]["secondaryThumbprint"] is None


def test_change_of_the_type_carries_nothing_over() -> None:
    assert authentication.body(SELF_SIGNED, Authentication("certificate_authority")) == {
        "type": "certificateAuthority"
    }
    minted = authentication.body(SELF_SIGNED, Authentication("sas"))
    assert minted == {"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}}
    assert authentication.view(SELF_SIGNED) == {
        "type": "self_signed",
        "primary_thumbprint": SHA1,
        "secondary_thumbprint": SHA256,
    }


@pytest.mark.parametrize(
    ("wanted", "fact"),
    [
        (Authentication("sas", KEY), "primary_key stands alone"),
        (Authentication("sas", "bm90IGxvbmc=", KEY), "8 bytes"),
        (Authentication("sas", "%%%%", KEY), "not base64"),
        (Authentication("sas", KEY, OTHER, SHA1), "takes no primary_thumbprint"),
        (Authentication("self_signed", KEY, OTHER, SHA1), "takes no primary_key and secondary_key"),
        (Authentication("self_signed", None, None, "ab" * 19), "38 characters"),
        (Authentication("self_signed", None, None, "zz" * 20), "hexadecimal"),
        (Authentication("self_signed", None, None, SHA1, "AB:" * 20), "secondary_thumbprint"),
        (Authentication("certificate_authority", None, None, SHA1), "takes no primary_thumbprint"),
        (Authentication("tpm"), "'tpm'"),
    ],
)
def test_one_mistake_is_one_error_without_the_key(wanted: Authentication, fact: str) -> None:
    [error] = authentication.errors(wanted)
    assert fact in error
    assert KEY not in error


def test_valid_ones_have_no_error() -> None:
    assert authentication.errors(None) == []
    assert authentication.errors(Authentication("sas", KEY, OTHER)) == []
    assert authentication.errors(Authentication("self_signed", None, None, SHA1, "")) == []


def test_self_signed_wants_a_thumbprint_unless_there_is_one() -> None:
    wanted = Authentication("self_signed")
    assert "needs" in (authentication.missing_thumbprint(None, wanted) or "")
    assert "needs" in (authentication.missing_thumbprint(SAS, wanted) or "")
    assert authentication.missing_thumbprint(SELF_SIGNED, wanted) is None
    assert authentication.missing_thumbprint(None, Authentication("sas")) is None


def test_option_becomes_a_value_and_spec_hides_keys() -> None:
    assert authentication.parse(None) is None
    assert authentication.parse({"type": "self_signed", "primary_thumbprint": SHA1}) == Authentication(
        "self_signed", primary_thumbprint=SHA1
    )
    options = authentication.argument_spec()["options"]
    assert options["primary_key"]["no_log"]
    assert options["secondary_key"]["no_log"]


def test_documentation_is_that_of_the_argument_spec_and_the_same_in_every_module() -> None:
    text = yaml.safe_load(authentication.DOCUMENTATION)
    options = authentication.argument_spec()["options"]
    assert set(text["suboptions"]) == set(options)
    assert text["suboptions"]["type"]["choices"] == options["type"]["choices"]
    for path in MODULES.glob("*.py"):
        source = path.read_text()
        if "authentication.argument_spec()" not in source:
            continue
        document = yaml.safe_load(source.split('DOCUMENTATION = r"""')[1].split('"""')[0])
        found = [
            option["suboptions"]["authentication"]
            for option in document["options"].values()
            if "authentication" in option.get("suboptions", {})
        ]
        assert found == [text], path.name
