# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module set: what is refused and why, and names that fit Kubernetes and never collide."""

from __future__ import annotations

import json
import re

import pytest
from edgeha_runtime.daemon import moduleset
from edgeha_runtime.daemon.create_options import Parts
from edgeha_runtime.daemon.moduleset import ModuleSetError
from hypothesis import given
from hypothesis import strategies as st

IDS = st.text(st.sampled_from("abcXYZ019-:.+%_#*?!(),=@;$'"), min_size=1, max_size=128).filter(
    lambda text: re.search("[a-zA-Z0-9]", text)
)


def parse(*modules: object) -> moduleset.ModuleSet:
    return moduleset.parse(json.dumps(modules), "gw")


def test_a_good_module_is_read_with_defaults() -> None:
    (module,) = parse({"name": "edgeHub", "image": "r/hub:1.6", "env": {"B": "2", "A": ""}}).modules
    assert module == moduleset.Module(
        "edgeHub", "r/hub:1.6", (("A", ""), ("B", "2")), "IfNotPresent", "gw-edgehub", Parts()
    )


def test_variables_of_the_module_win_over_those_of_create_options() -> None:
    (module,) = parse(
        {"name": "m", "image": "i", "env": {"A": "own"}, "createOptions": '{"Env": ["A=b", "C=d"]}'}
    ).modules
    assert module.env == (("A", "own"), ("C", "d"))


def bound(name: str, port: str = "8443", volume: str = "data") -> dict[str, object]:
    host = {"PortBindings": {"443/tcp": [{"HostPort": port}]}, "Binds": [f"{volume}:/data"]}
    return {"name": name, "image": "i", "createOptions": {"HostConfig": host}}


def test_two_modules_cannot_have_one_port_of_the_host() -> None:
    found = parse(bound("a"), bound("b"), bound("c", "444"))
    assert [module.name for module in found.modules] == ["c"]
    assert found.refused == {
        "a": "its port 8443/tcp is that of b too: take another one",
        "b": "its port 8443/tcp is that of a too: take another one",
    }


def test_two_modules_share_a_volume_where_two_nodes_can_have_it() -> None:
    modules = json.dumps([bound("a", "1"), bound("b", "2"), bound("c", "3", "other")])
    assert moduleset.parse(modules, "gw").refused == {}
    found = moduleset.parse(modules, "gw", shares_volumes=False)
    assert set(found.refused) == {"a", "b"}
    assert "its volume data is that of b too: use ReadWriteMany" in found.refused["a"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"name": "a/b", "image": "i"}, "module id"),
        ({"name": "..", "image": "i"}, "no letter or digit"),
        ({"name": "m"}, "image is missing"),
        ({"name": "m", "image": "i", "createOption": "{}"}, "unknown key 'createOption'"),
        ({"name": "m", "image": "i", "createOptions": "{"}, "createOptions is not JSON"),
        ({"name": "m", "image": "i", "createOptions": []}, "createOptions is not a JSON object"),
        ({"name": "m", "image": "i", "createOptions": {"Tty": 1}}, "createOptions.Tty: is neither"),
        (
            {"name": "m", "image": "i", "createOptions": {"Env": ["IOTEDGE_X=1"]}},
            "env IOTEDGE_X is set by the daemon",
        ),
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
