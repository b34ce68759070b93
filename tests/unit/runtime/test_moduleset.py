# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module set: what is refused and why, and names that fit Kubernetes and never collide."""

from __future__ import annotations

import json
import re

import pytest
from edgeha_runtime.daemon import moduleset
from edgeha_runtime.daemon.moduleset import ModuleSetError
from hypothesis import given
from hypothesis import strategies as st

IDS = st.text(st.sampled_from("abcXYZ019-:.+%_#*?!(),=@;$'"), min_size=1, max_size=128).filter(
    lambda text: re.search("[a-zA-Z0-9]", text)
)


def parse(*modules: object) -> moduleset.ModuleSet:
    return moduleset.parse(json.dumps(modules), "gw")


def test_a_good_module_is_read_with_defaults() -> None:
    (module,) = parse({"name": "$edgeHub", "image": "r/hub:1.6", "env": {"B": "2", "A": ""}}).modules
    assert module == moduleset.Module(
        "$edgeHub", "r/hub:1.6", (("A", ""), ("B", "2")), "IfNotPresent", "gw-edgehub"
    )


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"name": "a/b", "image": "i"}, "module id"),
        ({"name": "..", "image": "i"}, "no letter or digit"),
        ({"name": "m"}, "image is missing"),
        ({"name": "m", "image": "i", "createOptions": "{}"}, "unknown key 'createOptions'"),
        ({"name": "m", "image": "i", "imagePullPolicy": "on-create"}, "imagePullPolicy is none of"),
        ({"name": "m", "image": "i", "env": {"A": 1}}, "env A is not a string"),
        ({"name": "m", "image": "i", "env": {"A=B": "1"}}, "env name 'A=B'"),
        (
            {"name": "m", "image": "i", "env": {"IOTEDGE_DEVICEID": "x"}},
            "IOTEDGE_DEVICEID is set by the daemon",
        ),
        ("m", "not an object"),
    ],
)
def test_a_wrong_module_is_refused_by_name_and_the_others_stand(entry: object, reason: str) -> None:
    found = parse(entry, {"name": "good", "image": "i"})
    assert [module.name for module in found.modules] == ["good"]
    assert reason in "".join(found.refused.values())


@pytest.mark.parametrize("text", ["", "{", "{}", "null", "[" * 100_000])
def test_what_is_no_list_is_no_module_set(text: str) -> None:
    with pytest.raises(ModuleSetError):
        moduleset.parse(text, "gw")


@pytest.mark.parametrize("names", [("My.Module", "my-module"), ("same", "same"), ("daemon", "DAEMON")])
def test_names_that_collide_are_both_refused(names: tuple[str, str]) -> None:
    found = parse(*({"name": name, "image": "i"} for name in names))
    assert not found.modules
    assert set(found.refused) == set(names)
    assert "rename one" in found.refused[names[0]]


def test_a_module_cannot_take_the_daemons_name() -> None:
    assert "the daemon" in parse({"name": "daemon", "image": "i"}).refused["daemon"]


@given(IDS)
def test_object_names_are_dns_labels_that_leave_room_for_the_pods_suffix(name: str) -> None:
    made = moduleset.object_name("plant07-gw", name)
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", made)
    assert len(made) <= moduleset.MAX_OBJECT_NAME


@given(st.lists(IDS, min_size=2, max_size=6, unique=True))
def test_no_two_accepted_modules_share_an_object_name(names: list[str]) -> None:
    found = parse(*({"name": name, "image": "i"} for name in names))
    assert len(found.accounts) == len(found.modules)
    assert found.names == set(names)
