# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import inventory_rules
from ansible_collections.edgeha.iotedge.plugins.module_utils.inventory_rules import Cluster, Unreadable
from ansible_collections.edgeha.iotedge.plugins.module_utils.problems import Problem

KEY = base64.b64encode(b"0123456789abcdef").decode()
MANIFEST = (
    '{"modulesContent": {"$edgeAgent": {"properties.desired": {"schemaVersion": "1.1", "modules": {}}}}}'
)
GOOD: dict[str, Any] = {
    "edge_cluster_mode": "existing",
    "edge_gateways": [{"name": "gw1", "deployment": "gw1.json"}],
    "edge_image_registry": "registry.example",
    "edge_kubeconfig": "k",
    "edge_storage_backend": "class",
    "edge_storage_class": "nfs",
    "iothub_hostname": "contoso.azure-devices.net",
    "iothub_policy_key": KEY,
}
GATEWAY = {"name": "gw1", "deployment": "gw1.json"}
EDGE = {"name": "gw1", "deployment": "edge.json"}
WITH_EDGE_HUB = (Path(__file__).parents[4] / "inventories/local/files/edge.json").read_text()


def read_file(path: str) -> str:
    if path == "missing.json":
        raise inventory_rules.FileMissingError(["/inventory/missing.json"])
    known = {"text.json": "hello", "empty.json": "{}", "edge.json": WITH_EDGE_HUB, "many.json": many(51)}
    return known.get(path, MANIFEST)


def many(count: int) -> str:
    """A manifest of so many modules."""
    module = {"settings": {"image": "registry.example/sensor:1"}}
    document = json.loads(MANIFEST)
    agent = document["modulesContent"]["$edgeAgent"]["properties.desired"]
    agent["modules"] = {f"m{number}": module for number in range(count)}
    return json.dumps(document)


def facts(**changes: Any) -> list[tuple[str, str, str]]:
    values = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    findings = inventory_rules.check_cluster(
        "plant07",
        values,
        read_file=read_file,
        file_error=lambda path: "is gone" if path == "missing" else None,
        certificate_error=lambda path: "is no PEM" if path == "bad.pem" else None,
        credential_error=lambda entry: "is no key" if entry["key_file"] == "bad.key" else None,
    )
    assert all(problem.host == "plant07" for problem in findings.problems)
    return [(problem.subject, problem.fact, problem.fix) for problem in findings.problems]


def test_good_inventory_has_no_problem() -> None:
    assert facts() == []


@pytest.mark.parametrize(
    ("changes", "subject", "text"),
    [
        ({"edge_cluster_mode": "exsting"}, "variable edge_cluster_mode", "did you mean existing?"),
        ({"edge_storage_backend": "nfs"}, "variable edge_storage_backend", "not in this version"),
        ({"edge_storage_backend": None}, "variable edge_storage_backend", "is not set, so it is 'nfs'"),
        ({"iothub_auth": "cly"}, "variable iothub_auth", "did you mean cli?"),
        ({"iothub_fetch_key": "maybe"}, "variable iothub_fetch_key", "a text, not true or false"),
        ({"edge_cluster": "other"}, "variable edge_cluster", "'other'"),
        ({"edge_gateways": "gw1"}, "variable edge_gateways", "a text, not a list"),
        ({"edge_gateways": None}, "variable edge_gateways", "is not set"),
        ({"edge_gateways": ["gw1"]}, "edge_gateways[0]", "not a mapping"),
        ({"edge_gateways": [{"deployment": "a"}]}, "edge_gateways[0]", "has no name"),
        ({"edge_gateways": [GATEWAY, GATEWAY]}, "gateway gw1", "stands twice"),
        ({"edge_gateways": [{**GATEWAY, "name": "Gw_1"}]}, "gateway Gw_1", "DNS label"),
        ({"edge_gateways": [{**GATEWAY, "name": "g" * 41}]}, f"gateway {'g' * 41}", "40 characters"),
        ({"edge_gateways": [{**GATEWAY, "device_id": "a b"}]}, "gateway gw1", "' '"),
        ({"edge_gateways": [{**GATEWAY, "device_id": 7}]}, "gateway gw1", "a number, not a text"),
        ({"edge_gateways": [{**GATEWAY, "deploymnt": "a"}]}, "gateway gw1", "did you mean deployment?"),
        ({"edge_gateways": [{**GATEWAY, "parent": "gw1"}]}, "gateway gw1", "is its own parent"),
        (
            {"edge_gateways": [{**GATEWAY, "purge": True}]},
            "gateway gw1",
            "purge is true, and its state is not",
        ),
        (
            {
                "edge_gateways": [
                    {**GATEWAY, "dps": {"id_scope": "0ne1", "scope": "a"}, "credential": {"secret": "own"}}
                ]
            },
            "gateway gw1",
            "the key dps.scope is not known",
        ),
        ({"edge_gateways": [{**GATEWAY, "credential": {"kind": "x509"}}]}, "gateway gw1", "is not known"),
        (
            {
                "edge_gateways": [
                    {
                        **GATEWAY,
                        "credential": {"type": "x509", "certificate_file": "a.pem", "key_file": "bad.key"},
                    }
                ]
            },
            "gateway gw1",
            "is no key",
        ),
        (
            {"edge_gateways": [{**GATEWAY, "chart_values": {"image": {"registry": "r"}}}]},
            "gateway gw1",
            "chart_values has image.registry",
        ),
        (
            {"edge_gateways": [{**GATEWAY, "chart_values": {"modules": []}}]},
            "gateway gw1",
            "chart_values has modules",
        ),
        ({"edge_gateways": [{**GATEWAY, "address": "10.0.0.9"}]}, "gateway gw1", "no edgeHub"),
        ({"edge_gateways": [{**EDGE, "address": "plant.example"}]}, "gateway gw1", "is not an IPv4 address"),
        ({"edge_gateways": [{**EDGE, "exposure": "Ingress"}]}, "gateway gw1", "exposure is 'Ingress'"),
        (
            {
                "edge_gateways": [
                    {**EDGE, "address": "10.0.0.9"},
                    {**EDGE, "name": "gw2", "address": "10.0.0.9"},
                ]
            },
            "gateway gw2",
            "has the address 10.0.0.9, as gateway gw1 has",
        ),
        ({"edge_gateways": [{**GATEWAY, "tags": {"a.b": 1}}]}, "gateway gw1", "'a.b'"),
        (
            {"edge_gateways": [{**GATEWAY, "storage": {"sise": 1}}]},
            "gateway gw1",
            "did you mean storage.size?",
        ),
        ({"edge_gateways": [{**GATEWAY, "storage": {"size": "1 GB"}}]}, "gateway gw1", "not a size"),
        ({"edge_gateways": [{**GATEWAY, "node_selector": {"a": 7}}]}, "gateway gw1", "no texts"),
        (
            {"edge_gateways": [{**GATEWAY, "node_selector": "plant"}]},
            "gateway gw1",
            "node_selector is a text",
        ),
        ({"edge_gateways": [{**GATEWAY, "standby": "perhaps"}]}, "gateway gw1", "standby is a text"),
        (
            {"edge_gateways": [{**GATEWAY, "standby": True, "storage": {"access_mode": "ReadWriteOnce"}}]},
            "gateway gw1",
            "has a standby, and its storage.access_mode is ReadWriteOnce",
        ),
        ({"edge_gateways": [{**GATEWAY, "state": "gone"}]}, "gateway gw1", "possible are present"),
        ({"edge_gateways": [{**GATEWAY, "state": "absent"}]}, "gateway gw1", "edge_confirm=plant07"),
        ({"edge_gateways": [{"name": "gw1"}]}, "gateway gw1", "has no deployment"),
        ({"edge_gateways": [{**GATEWAY, "deployment": "missing.json"}]}, "gateway gw1", "does not exist"),
        ({"edge_gateways": [{**GATEWAY, "deployment": "text.json"}]}, "gateway gw1", "not JSON"),
        (
            {"edge_gateways": [{**GATEWAY, "deployment": "empty.json"}]},
            "gateway gw1",
            "$.modulesContent: missing",
        ),
        ({"edge_gateways": [{**GATEWAY, "name": "7plant"}]}, "gateway 7plant", "begin with a letter"),
        (
            {"edge_gateways": [{**GATEWAY, "deployment": "many.json"}]},
            "gateway gw1",
            "has 51; a device has at most 50 modules",
        ),
        (
            {"edge_gateways": [{**GATEWAY, "dps": {"id_scope": "0ne-1"}, "credential": {"secret": "own"}}]},
            "gateway gw1",
            "dps has no id_scope, or one that is none",
        ),
        (
            {
                "edge_gateways": [
                    {
                        **GATEWAY,
                        "dps": {"id_scope": "0ne1"},
                        "device_id": "Plant",
                        "credential": {"secret": "own"},
                    }
                ]
            },
            "gateway gw1",
            "dps.registration_id 'Plant' is not a registration id lower-case",
        ),
        (
            {"edge_http_proxy": "http://user:password@proxy.example.org:3128"},
            "variable edge_http_proxy",
            "holds a user name",
        ),
        ({"edge_gateway_defaults": {"name": "x"}}, "variable edge_gateway_defaults", "name is not known"),
        ({"edge_ca_bundle": "bad.pem"}, "variable edge_ca_bundle", "is no PEM"),
        ({"edge_kubeconfig": "missing"}, "variable edge_kubeconfig", "is gone"),
        ({"edge_kubeconfig": None}, "variable edge_kubeconfig", "is not set"),
        ({"edge_storage_class": None}, "variable edge_storage_class", "is not set"),
        ({"edge_image_registry": ""}, "variable edge_image_registry", "is not set"),
        ({"iothub_hostname": "https://contoso.net/"}, "variable iothub_hostname", "not a host name"),
        ({"iothub_hostname": Unreadable("'x' is undefined")}, "variable iothub_hostname", "'x' is undefined"),
        ({"iothub_policy_key": None}, "variable iothub_policy_key", "is not set"),
        ({"iothub_policy_key": "c2VjcmV0"}, "variable iothub_policy_key", "6 bytes"),
    ],
)
def test_each_mistake_is_one_problem_with_a_fix(changes: dict[str, Any], subject: str, text: str) -> None:
    [(found, fact, fix)] = facts(**changes)
    assert found == subject
    assert text in f"{fact} {fix}"
    assert "password" not in f"{fact} {fix}"
    assert fix


def test_all_problems_come_at_once() -> None:
    found = facts(
        edge_storage_backend="nfs", iothub_hostname="a b", edge_gateways=[{"name": "A"}, {"name": "b c"}]
    )
    assert len(found) == 6


def test_two_gateways_with_one_device() -> None:
    [(subject, fact, _)] = facts(
        edge_gateways=[GATEWAY, {"name": "gw2", "device_id": "gw1", "deployment": "gw2.json"}]
    )
    assert subject == "gateway gw2"
    assert "gateway gw1" in fact


def test_secrets_are_in_no_problem() -> None:
    secret = "c3VwZXJzZWNyZXQ"
    assert secret not in repr(
        facts(iothub_policy_key=secret, edge_k3s_token=[secret], edge_join_token={"a": secret})
    )


def test_absent_gateway_needs_no_deployment_once_confirmed() -> None:
    assert facts(edge_confirm="plant07", edge_gateways=[{"name": "gw1", "state": "absent"}]) == []


def test_defaults_are_used() -> None:
    assert facts(edge_gateway_defaults={"deployment": "a.json"}, edge_gateways=[{"name": "gw1"}]) == []


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, False),
        ([], False),
        ("", False),
        ([{"name": "gw"}], True),
        (inventory_rules.Unreadable("x"), True),
    ],
)
def test_gateways_are_wanted(value: Any, wanted: bool) -> None:
    assert inventory_rules.wants_gateways({"edge_gateways": value}) is wanted


def test_unknown_variables_get_the_nearest_name() -> None:
    found = inventory_rules.unknown_variables(
        "plant07",
        ["edge_gatways", "iothub_hostnam", "edge_zzz", "edge_cluster", "other_thing", "edge_runtime_timout"],
        {"edge_runtime_timeout"},
    )
    assert {problem.subject: problem.fix for problem in found} == {
        "variable edge_gatways": "did you mean edge_gateways?",
        "variable iothub_hostnam": "did you mean iothub_hostname?",
        "variable edge_runtime_timout": "did you mean edge_runtime_timeout?",
        "variable edge_zzz": "remove it, or give it another prefix",
    }


def test_what_follows_from_a_name_is_no_problem_of_its_own() -> None:
    role_variables = {"edge_runtime_timeout"}
    meant = inventory_rules.misspelt(["iothub_hostnam", "edge_zzz", "edge_cluster_mod"], role_variables)
    assert meant == {
        "iothub_hostnam": "iothub_hostname", "edge_zzz": None, "edge_cluster_mod": "edge_cluster_mode",
    }  # fmt: skip
    follows = [
        Problem("plant07", "variable iothub_hostname", "is not set", "set it"),
        Problem("plant07", "group edge_servers", "has no machine, and edge_cluster_mode is k3s", "add one"),
    ]
    stays = [
        Problem(
            "plant07", "variable iothub_hostname", "'https://x' is not a host name", "give the name alone"
        ),
        Problem("plant07", "variable iothub_policy_key", "is not set", "set it"),
        Problem("plant07", "variable iothub_hostnam", "no variable of that name is known", "did you mean"),
    ]
    assert inventory_rules.without_consequences([*follows, *stays], meant.values()) == stays
    assert inventory_rules.without_consequences(follows, []) == follows


def gateways(*names: str, **extra: Any) -> list[dict[str, Any]]:
    return inventory_rules.normalise_gateways([{"name": name, **extra} for name in names])


def test_clusters_that_share_something() -> None:
    found = inventory_rules.clashes(
        [
            Cluster("a", "hub1", "10.0.0.1", gateways("gw1")),
            Cluster("b", "hub1", "10.0.0.1", gateways("gw2", device_id="gw1")),
            Cluster("c", "hub2", "10.0.0.3", gateways("gw3", device_id="gw1")),
            Cluster("d", "hub2", "", gateways("gw2")),
            Cluster("e", "hub3", "", gateways("gw5", address="10.0.0.3")),
        ]
    )
    assert {(problem.host, problem.subject) for problem in found} == {
        ("a", "address 10.0.0.1"),
        ("b", "address 10.0.0.1"),
        ("c", "address 10.0.0.3"),
        ("e", "address 10.0.0.3"),
        ("a", "device gw1 at hub1"),
        ("b", "device gw1 at hub1"),
        ("b", "gateway gw2"),
        ("d", "gateway gw2"),
    }
    assert all(problem.fix for problem in found)


def test_gateway_that_moves_does_not_clash_with_its_absent_self() -> None:
    assert (
        inventory_rules.clashes(
            [Cluster("a", "h", "", gateways("gw1", state="absent")), Cluster("b", "h", "", gateways("gw1"))]
        )
        == []
    )


def test_normalised_gateway() -> None:
    [gateway] = inventory_rules.normalise_gateways(
        [{"name": "gw1", "storage": {"size": "5Gi"}}, "nonsense"], {"deployment": "d.json"}, "nfs"
    )
    assert gateway == {
        "name": "gw1",
        "device_id": "gw1",
        "namespace": "edge-gw1",
        "state": "present",
        "tags": None,
        "deployment": "d.json",
        "standby": False,
        "node_selector": {},
        "address": "",
        "exposure": "ClusterIP",
        "storage": {"class": "nfs", "size": "5Gi", "access_mode": "ReadWriteMany"},
        "purge": False,
        "chart_values": {},
        "hostname": "",
        "parent_hostname": "",
        "credential": {
            "type": "symmetric_key",
            "source": "hub",
            "secret": "gw1-device",
            "secret_provider_class": "",
            "certificate_file": "",
            "key_file": "",
        },
        "dps": {},
        "device": {"device_id": "gw1", "edge": True},
    }


def test_a_parent_of_the_list_is_reached_by_its_own_name() -> None:
    top, line, other = inventory_rules.normalise_gateways(
        [
            {"name": "top", "hostname": "top.plant.example"},
            {"name": "line", "parent": "top"},
            {"name": "other", "parent": "elsewhere", "parent_hostname": "el.example"},
        ]
    )
    assert top["parent_hostname"] == ""
    assert (line["parent_hostname"], line["device"]["parent"]) == ("top.plant.example", "top")
    assert (other["parent_hostname"], other["device"]["parent"]) == ("el.example", "elsewhere")


@pytest.mark.parametrize("wrong", ["plant", 7, ["plant"], None])
def test_what_should_be_a_mapping_and_is_none_waits_for_its_row(wrong: object) -> None:
    [gateway] = inventory_rules.normalise_gateways(
        [{"name": "gw1", "node_selector": wrong, "storage": wrong}]
    )
    assert (gateway["node_selector"], gateway["storage"]["size"]) == ({}, "1Gi")


def test_storage_classes_with_all_modes_asked_of_them() -> None:
    entries = [
        {"name": "a"},
        {"name": "b", "storage": {"access_mode": "ReadWriteOnce"}},
        {"name": "c", "storage": {"class": "other"}},
        {"name": "d", "storage": {"class": "gone"}, "state": "absent"},
    ]
    assert inventory_rules.storage_classes(inventory_rules.normalise_gateways(entries, {}, "nfs")) == [
        {"name": "nfs", "access_modes": ["ReadWriteMany", "ReadWriteOnce"]},
        {"name": "other", "access_modes": ["ReadWriteMany"]},
    ]


def test_a_gateway_with_edge_hub_may_have_an_address() -> None:
    assert facts(edge_gateways=[{**EDGE, "address": "10.7.0.20", "exposure": "LoadBalancer"}]) == []
