# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module set: what is refused and why, and names that fit Kubernetes and never collide."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Any

import pytest
from edgeha_runtime.daemon import moduleset
from edgeha_runtime.daemon.create_options import Parts
from edgeha_runtime.daemon.docker_schema import OPTIONS
from edgeha_runtime.daemon.moduleset import Candidate, Module, ModuleSetError, Registry
from hypothesis import given
from hypothesis import strategies as st

IDS = st.text(st.sampled_from("abcXYZ019-:.+%_#*?!(),=@;$'"), min_size=1, max_size=128).filter(
    lambda text: re.search("[a-zA-Z0-9]", text)
)


def parse(*modules: object, shares_volumes: bool = True) -> moduleset.ModuleSet:
    """The set of the ConfigMap's modules alone, as the daemon reads it."""
    found = moduleset.entries(json.dumps(modules))
    candidates = [moduleset.from_entry(entry, number, "gw") for number, entry in enumerate(found)]
    return moduleset.assemble(candidates, "gw", shares_volumes=shares_volumes)


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


def test_a_stopped_module_holds_no_port() -> None:
    specs = [
        {
            "name": name,
            "type": "docker",
            "config": {
                "settings": {
                    "image": "i",
                    "createOptions": {"HostConfig": {"PortBindings": {"1/tcp": [{"HostPort": "8443"}]}}},
                }
            },
        }
        for name in "ab"
    ]
    for running in (True, False):
        candidates = [
            moduleset.from_spec(specs[0], "gw"),
            moduleset.from_spec(specs[1], "gw", running=running),
        ]
        assert set(moduleset.assemble(candidates, "gw").refused) == ({"a", "b"} if running else set())


def test_modules_share_a_volume_unless_it_is_one_pods() -> None:
    modules = [bound("a", "1"), bound("b", "2"), bound("c", "3", "other")]
    assert parse(*modules).refused == {}
    found = parse(*modules, shares_volumes=False)
    assert set(found.refused) == {"a", "b"}
    assert "its volume data is that of b too: use ReadWriteOnce or ReadWriteMany" in found.refused["a"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"name": "a/b", "image": "i"}, "module id"),
        ({"name": "..", "image": "i"}, "no letter or digit"),
        ({"name": "$edgeAgent", "image": "i"}, "write edgeAgent, edgeHub"),
        ({"name": "m", "image": "i", "env": {"A": "\ud83d"}}, "the module holds NaN"),
        ({"name": "m", "image": "i", "createOptions": '{"Env": ["A=\\ud83d"]}'}, "createOptions holds NaN"),
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
    ],
)
def test_a_wrong_module_is_refused_by_name_and_the_others_stand(entry: object, reason: str) -> None:
    found = parse(entry, {"name": "good", "image": "i"})
    assert [module.name for module in found.modules] == ["good"]
    assert reason in "".join(found.refused.values())


@pytest.mark.parametrize("text", ["", "{", "{}", "null", "[" * 100_000])
def test_what_is_no_list_is_no_module_set(text: str) -> None:
    with pytest.raises(ModuleSetError):
        moduleset.entries(text)


@pytest.mark.parametrize(
    "entry", ["m", None, [], {}, {"image": "i"}, {"name": None}, {"name": 7}, {"name": " "}, {"Name": "m"}]
)
def test_a_module_that_nobody_can_name_makes_the_set_unreadable(entry: object) -> None:
    with pytest.raises(ModuleSetError, match=r"entry 1 of modules\.json .*Nothing of the set is changed"):
        moduleset.entries(json.dumps([{"name": "a", "image": "i"}, entry]))


@pytest.mark.parametrize(
    ("name", "good"),
    [("m", True), ("$edgeHub", True), ("edgeHub", True), (".", False), ("..", False), ("...", False),
     ("a/b", False), ("", False), ("$", False), ("$other", False), ("-", False)],
)  # fmt: skip
def test_names_of_identities_are_those_of_modules(name: str, good: bool) -> None:
    assert (moduleset.identity_problems(name) == []) is good


@pytest.mark.parametrize("names", [("My.Module", "my-module"), ("same", "same"), ("daemon", "DAEMON")])
def test_names_that_collide_are_both_refused(names: tuple[str, str]) -> None:
    found = parse(*({"name": name, "image": "i"} for name in names))
    assert not found.modules
    assert set(found.refused) == set(names)
    assert "rename one" in found.refused[names[0]]


def test_a_module_cannot_take_the_daemons_name() -> None:
    assert "the daemon" in parse({"name": "daemon", "image": "i"}).refused["daemon"]


def test_a_module_cannot_take_the_gateways_service() -> None:
    found = parse({"name": "Gateway", "image": "i"}, {"name": "a", "image": "i"})
    assert "the gateway's Service" in found.refused["Gateway"]
    assert found.accounts == {"gw-a": "a"}


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("Sensor", "sensor"),
        ("edgeHub", "edgehub"),
        ("a-1", "a-1"),
        ("a" * 63, "a" * 63),
        ("a" * 64, ""),
        ("1a", ""),
        ("a_b", ""),
        ("a.b", ""),
        ("a-", ""),
    ],
)
def test_a_module_is_found_by_its_id_where_dns_can_have_it(name: str, host: str) -> None:
    assert moduleset.host_name(name) == host


@pytest.mark.parametrize(
    ("name", "taker"),
    [("gw-daemon", "the daemon"), ("GW-Gateway", "the gateway's Service"), ("gw-b", "module b")],
)
def test_a_module_cannot_be_found_by_the_name_of_another_object(name: str, taker: str) -> None:
    found = parse({"name": name, "image": "i"}, {"name": "b", "image": "i"}, {"name": "c", "image": "i"})
    assert f"its object name {name.lower()} belongs to {taker} too: rename one" in found.refused[name]
    assert "c" not in found.refused


def test_the_pods_of_a_refused_module_keep_their_identity() -> None:
    found = parse({"name": "edgeAgent", "image": "i", "env": 1}, bound("a"), bound("b"))
    assert set(found.refused) == {"edgeAgent", "a", "b"}
    assert found.accounts == {"gw-edgeagent": "$edgeAgent", "gw-a": "a", "gw-b": "b"}
    assert found.agent == "$edgeAgent"


def test_an_account_of_two_names_is_nobodys() -> None:
    found = parse({"name": "Sensor", "image": "i"}, {"name": "sensor"}, {"name": "daemon"}, {"name": "../x"})
    assert set(found.refused) == {"sensor", "daemon", "../x"}
    assert found.accounts == {"gw-sensor": "Sensor"}
    assert parse({"name": "Sensor"}, {"name": "sensor"}).accounts == {}


def test_modules_that_one_label_cannot_tell_apart_are_refused() -> None:
    names = ["x" * 63 + end for end in "ab"]
    found = parse(*({"name": name, "image": "i"} for name in names), {"name": "x" * 62, "image": "i"})
    assert set(found.refused) == set(names)
    assert "rename one" in found.refused[names[0]]


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


def test_the_hub_calls_the_modules_of_the_runtime_by_names_with_a_dollar() -> None:
    found = parse(*({"name": name, "image": "i"} for name in ("edgeAgent", "edgeHub", "m")), {"name": "bad"})
    accounts = {"gw-edgeagent": "$edgeAgent", "gw-edgehub": "$edgeHub", "gw-m": "m"}
    assert found.accounts == accounts | {"gw-bad": "bad"}
    assert found.identities == {"$edgeAgent", "$edgeHub", "m", "bad"}
    assert found.agent == "$edgeAgent"
    assert parse({"name": "edgeagent", "image": "i"}).agent == ""


def wanted(name: Any = "m", image: Any = "r/m:1", env: Any = None, **settings: Any) -> dict[str, Any]:
    """A ModuleSpec as edgeAgent sends it."""
    config = {"settings": {"image": image, **settings}, "env": [] if env is None else env}
    return {"name": name, "type": "docker", "imagePullPolicy": "On-Create", "config": config}


def deployed(spec: dict[str, Any], **state: Any) -> Module:
    found = moduleset.from_spec(spec, "gw", **state)
    assert found.problems == ()
    assert found.module is not None
    return found.module


def refusal(spec: dict[str, Any], own_secrets: frozenset[str] = frozenset()) -> str:
    found = moduleset.from_spec(spec, "gw", own_secrets)
    assert found.module is None
    return "; ".join(found.problems)


def test_a_module_of_edge_agent_is_read_whole() -> None:
    auth = {"serveraddress": "r.example.net", "username": "robot", "password": "p:w"}
    spec = wanted(
        "edgeHub",
        " r/hub:1.5 ",
        [{"key": "B", "value": "1"}, {"key": "A", "value": ""}, {"key": "B", "value": "2"}],
        createOptions={"Env": ["C=3", "A=under"], "HostConfig": {"Memory": 5}},
        auth=auth,
    )
    assert deployed(spec, running=False, restarts=3) == Module(
        "edgeHub",
        "r/hub:1.5",
        (("A", ""), ("B", "2"), ("C", "3")),
        "IfNotPresent",
        "gw-edgehub",
        Parts(env={"C": "3", "A": "under"}, container={"resources": {"limits": {"memory": "5"}}}),
        deployed=True,
        running=False,
        restarts=3,
        registry=Registry("r.example.net", "robot", "p:w"),
    )


def test_what_the_contract_leaves_open_has_its_defaults() -> None:
    spec = {"name": "m", "type": "docker", "config": {"settings": {"image": "i"}}}
    assert deployed(spec) == Module("m", "i", (), "IfNotPresent", "gw-m", Parts(), deployed=True)
    assert deployed(spec | {"imagePullPolicy": "Never"}).image_pull_policy == "Never"


@pytest.mark.parametrize("auth", [None, {}])
def test_no_login_is_no_registry(auth: Any) -> None:
    assert deployed(wanted(auth=auth)).registry is None


@pytest.mark.parametrize("options", [{"Tty": True}, '{"Tty": true}'])
def test_create_options_come_as_object_or_as_text(options: Any) -> None:
    assert deployed(wanted(createOptions=options)).parts.container == {"tty": True}


def test_variables_of_the_contract_may_come_from_edge_agent() -> None:
    assert deployed(wanted(env=[{"key": "IOTEDGE_X", "value": "1"}])).env == (("IOTEDGE_X", "1"),)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({}, "name is no module id"),
        (wanted(None), "name is no module id"),
        (wanted("$edgeHub"), "write edgeAgent, edgeHub"),
        (wanted() | {"type": "vm"}, "type is not docker"),
        (wanted() | {"imagePullPolicy": "Always"}, "imagePullPolicy is none of On-Create, Never"),
        (wanted() | {"imagePullPolicy": []}, "imagePullPolicy is none of"),
        (wanted() | {"config": []}, "config is missing or not an object"),
        (wanted() | {"config": {"settings": "i"}}, "config.settings is missing or not an object"),
        (wanted(image=" "), "config.settings.image is missing"),
        (wanted(env={}), "config.env is not a list"),
        (wanted(env=["A=1"]), "config.env[0] has no key and value that are texts"),
        (wanted(env=[{"key": "A", "value": 1}]), "config.env[0] has no key and value"),
        (wanted(env=[{"key": "A", "value": "1"}, {"key": "A=", "value": "1"}]), "config.env[1] has a key"),
        (wanted(env=[{"key": "A", "value": "\0"}]), "config.env[0] has a value with a zero byte"),
        (wanted(env=[{"key": "A", "value": "\ud83d"}]), "the module holds NaN, Infinity or half of"),
        (wanted(auth="x"), "config.settings.auth is not an object"),
        (
            wanted(auth={"serveraddress": "r", "username": "u"}),
            "auth lacks serveraddress, username or password",
        ),
        (wanted(auth={"serveraddress": "r", "username": "u", "password": ""}), "auth lacks"),
        (wanted(createOptions="{"), "createOptions is not JSON"),
        (wanted(createOptions={"k8s-extensions": {"affinity": {"a": float("nan")}}}), "holds NaN"),
        (wanted(createOptions='{"Env": ["A=\\ud83d"]}'), "createOptions holds NaN"),
        (wanted(createOptions=f'{{"Env": {"[" * 100}{"]" * 100}}}'), "createOptions is nested more than 64"),
        (wanted(createOptions={"HostConfig": {"NanoCpus": 10**400}}), "NanoCpus: is not a whole number"),
    ],
)
def test_a_wrong_spec_is_refused_by_the_contracts_field(spec: dict[str, Any], reason: str) -> None:
    assert reason in refusal(spec)


def test_all_that_is_wrong_is_told_at_once() -> None:
    told = refusal({"name": "m", "type": "vm", "config": {"env": 1}})
    assert told == (
        "type is not docker; config.settings is missing or not an object; "
        "config.settings.image is missing; config.env is not a list"
    )


def test_no_module_of_edge_agent_mounts_a_secret_of_the_gateway() -> None:
    volume = {"name": "v", "secret": {"secretName": "gw-device-key"}}
    spec = wanted(createOptions={"k8s-extensions": {"volumes": [{"volume": volume, "volumeMounts": []}]}})
    assert "gateway's own" in refusal(spec, frozenset({"gw-device-key"}))


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
TOP_OPTIONS = sorted(name for name in OPTIONS if "." not in name)


@given(
    spec=st.fixed_dictionaries(
        {},
        optional={
            "name": IDS | JSON,
            "type": st.just("docker") | JSON,
            "imagePullPolicy": st.sampled_from(["On-Create", "Never"]) | JSON,
            "config": JSON
            | st.fixed_dictionaries(
                {},
                optional={
                    "settings": JSON
                    | st.fixed_dictionaries(
                        {},
                        optional={
                            "image": st.just("i") | JSON,
                            "auth": JSON | st.dictionaries(st.sampled_from(["username", "password"]), JSON),
                            "createOptions": JSON
                            | JSON.map(json.dumps)
                            | st.dictionaries(st.sampled_from(TOP_OPTIONS), JSON, max_size=3),
                        },
                    ),
                    "env": JSON | st.lists(st.fixed_dictionaries({"key": JSON, "value": JSON}), max_size=3),
                },
            ),
        },
    )
)
def test_any_json_is_a_module_or_refused_with_reasons(spec: dict[str, Any]) -> None:
    found = moduleset.from_spec(spec, "gw")
    assert (found.module is None) == bool(found.problems)
    if found.module is not None:
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", found.module.object_name)
        # What cannot be sent to the cluster's API would end the daemon.
        json.dumps(asdict(found.module), ensure_ascii=False, allow_nan=False).encode()


def test_modules_of_the_chart_and_of_edge_agent_are_compared_with_each_other() -> None:
    base = [
        moduleset.from_entry({"name": name, "image": "i"}, number, "gw") for number, name in enumerate("ab")
    ]
    more = [moduleset.from_spec(wanted(name), "gw") for name in ("b", "c", "daemon")]
    found = moduleset.assemble([*base, *more, Candidate("d", None, ("one", "two"))], "gw")
    assert [module.name for module in found.modules] == ["a", "c"]
    assert found.refused == {
        "b": "its object name gw-b belongs to another module of that very name too: rename one",
        "daemon": "its object name gw-daemon belongs to the daemon too: rename one",
        "d": "one; two",
    }


def test_a_module_is_refused_where_another_one_of_its_name_is_wrong() -> None:
    found = moduleset.assemble([Candidate("m", None, ("wrong",)), moduleset.from_spec(wanted(), "gw")], "gw")
    assert (found.modules, found.refused) == ((), {"m": "wrong"})


UPSTREAM = "$upstream:443/sensor:1"


def test_images_of_upstream_are_the_parents() -> None:
    entry = moduleset.from_entry({"name": "m", "image": UPSTREAM}, 0, "gw", parent="top.plant").module
    auth = {"serveraddress": "$upstream:443", "username": "u", "password": "p"}
    spec = {"name": "m", "type": "docker", "config": {"settings": {"image": UPSTREAM, "auth": auth}}}
    made = moduleset.from_spec(spec, "gw", parent="top.plant").module
    assert entry is not None
    assert made is not None
    assert entry.image == made.image == "top.plant:443/sensor:1"
    assert made.registry is not None
    assert made.registry.server == "top.plant:443"


def test_images_of_upstream_are_refused_without_a_parent() -> None:
    said = "is of $upstream, and this gateway has no parent"
    assert moduleset.from_entry({"name": "m", "image": UPSTREAM}, 0, "gw").problems == (f"image {said}",)
    spec = {"name": "m", "type": "docker", "config": {"settings": {"image": UPSTREAM}}}
    assert moduleset.from_spec(spec, "gw").problems == (f"config.settings.image {said}",)
