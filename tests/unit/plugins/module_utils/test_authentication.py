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


def test_keys_are_the_hubs_to_make_and_shown_nowhere() -> None:
    empty = {"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}}
    assert Authentication().body() == empty
    given = Authentication("sas", KEY, OTHER)
    assert given.body() == {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": OTHER}}
    assert KEY not in f"{given!r} {given.view()!r}"
    assert given.view() == {"type": "sas"}
    assert given.without_keys() == Authentication()


def test_a_wish_differs_from_what_is_there() -> None:
    there = Authentication.from_body(SAS)
    assert there == Authentication("sas", KEY, OTHER)
    assert not Authentication().differs(there)
    assert not Authentication("sas", f" {KEY}\n", OTHER).differs(there)
    assert Authentication("sas", OTHER, KEY).differs(there)
    # A twin does not tell the keys, so nothing can be said of them.
    assert not Authentication("sas", OTHER, KEY).differs(there.without_keys())
    assert Authentication("certificate_authority").differs(there)
    assert not Authentication("certificate_authority").differs(
        Authentication.from_body({"type": "certificateAuthority"})
    )


def test_thumbprints_are_compared_without_case_and_mean_themselves() -> None:
    there = Authentication.from_body(SELF_SIGNED)
    same = Authentication("self_signed", None, None, SHA1.upper(), SHA256.lower())
    assert not same.differs(there)
    fewer = Authentication("self_signed", primary_thumbprint=SHA1)
    assert fewer.differs(there)
    assert fewer.body() == {
        "type": "selfSigned",
        "x509Thumbprint": {"primaryThumbprint": SHA1, "secondaryThumbprint": None},
    }
    assert there.view() == {
        "type": "self_signed",
        "primary_thumbprint": SHA1,
        "secondary_thumbprint": SHA256,
    }
    assert Authentication("certificate_authority").body() == {"type": "certificateAuthority"}


def test_twin_tells_type_and_thumbprints() -> None:
    prints = {"PrimaryThumbprint": SHA1, "SecondaryThumbprint": None}
    twin = {"authenticationType": "selfSigned", "x509Thumbprint": prints}
    assert Authentication.from_twin(twin) == Authentication("self_signed", primary_thumbprint=SHA1)
    # The hub's own modules have a type that nobody can ask for.
    assert Authentication.from_twin({"authenticationType": "none"}).view() == {"type": "none"}


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
        (Authentication("self_signed"), "needs primary_thumbprint"),
        (Authentication("tpm"), "'tpm'"),
    ],
)
def test_one_mistake_is_one_error_without_the_key(wanted: Authentication, fact: str) -> None:
    [error] = wanted.errors()
    assert fact in error
    assert KEY not in error


def test_valid_ones_have_no_error() -> None:
    assert Authentication().errors() == []
    assert Authentication("sas", KEY, OTHER).errors() == []
    assert Authentication("self_signed", None, None, SHA1, "").errors() == []


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
