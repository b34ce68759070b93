# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import cluster_rules, inventory_rules
from ansible_collections.edgeha.iotedge.plugins.module_utils.cluster_rules import Members

THREE = Members(["gw1", "gw2", "gw3"], ["gw4"], ["gw1", "gw2", "gw3", "gw4"])
JOIN = {
    "edge_cluster_mode": "join",
    "edge_join_url": "https://10.7.0.10:6443",
    "edge_join_token": f"K10{'a' * 64}::node:0123456789abcdef",
}
ELSEWHERE = {"edge_k3s_datastore": "endpoint", "edge_k3s_datastore_endpoint": "https://10.7.0.20:2379"}
WORKERS = Members([], ["gw4"], ["gw4"])


def check(members: Members = THREE, **values: Any) -> cluster_rules.Found:
    def get(name: str) -> Any:
        return inventory_rules.usable(name, values.get(name))

    return cluster_rules.check("plant07", get, members)


def rows(members: Members = THREE, **values: Any) -> list[tuple[str, str]]:
    found = check(members, **values).problems
    assert all(problem.host == "plant07" and problem.fix for problem in found)
    return [(problem.subject, f"{problem.fact}: {problem.fix}") for problem in found]


def servers(count: int) -> Members:
    names = [f"gw{number}" for number in range(count)]
    return Members(names, [], names)


def test_good_clusters() -> None:
    assert rows() == []
    assert rows(servers(1)) == []
    assert rows(servers(2), edge_k3s_datastore="endpoint", edge_k3s_datastore_endpoint="mysql://x") == []
    assert rows(WORKERS, **JOIN) == []
    assert rows(Members(), edge_cluster_mode="existing") == []


@pytest.mark.parametrize(
    ("members", "values", "subject", "words"),
    [
        (Members(), {}, "group edge_servers", "has no machine of this cluster"),
        (servers(2), {}, "group edge_servers", "has 2 servers: etcd loses its majority with 1 of them"),
        (servers(4), {}, "group edge_servers", "make it 3 or 5"),
        (servers(2), {"edge_cluster_server_count": 3}, "variable edge_cluster_server_count", "a slice or"),
        (servers(3), {"edge_cluster_server_count": "1"}, "variable edge_cluster_server_count", "correct the"),
        (
            Members(["gw1", "gw2", "gw3"], [], ["gw1", "gw3"]),
            {},
            "group edge_servers",
            "gw2 cannot be seen in this run",
        ),
        (THREE, {"edge_k3s_datastore": "endpoint"}, "variable edge_k3s_datastore_endpoint", "is not set"),
        (
            THREE,
            {"edge_k3s_datastore_endpoint": "mysql://x"},
            "variable edge_k3s_datastore_endpoint",
            "edge_k3s_datastore is embedded",
        ),
        (
            THREE,
            {
                "edge_k3s_datastore": "endpoint",
                "edge_k3s_datastore_endpoint": "mysql://x",
                "edge_k3s_etcd": True,
            },
            "variable edge_k3s_etcd",
            "choose one of them",
        ),
        (
            THREE,
            {"edge_k3s_datastore_ca": "-----BEGIN"},
            "variable edge_k3s_datastore_ca",
            "edge_k3s_datastore is embedded",
        ),
        (
            THREE,
            {**ELSEWHERE, "edge_k3s_datastore_certificate": "-----BEGIN"},
            "variable edge_k3s_datastore_key",
            "is not set, and edge_k3s_datastore_certificate is",
        ),
        (
            THREE,
            {"edge_k3s_profile": "cis", "edge_k3s_secrets_encryption": False},
            "variable edge_k3s_secrets_encryption",
            "edge_k3s_profile is cis",
        ),
        (THREE, {"edge_service_cidr": "10.42.128.0/17"}, "variable edge_service_cidr", "overlaps"),
        (THREE, {"edge_cluster_vip": "10.42.0.10"}, "variable edge_cluster_vip", "network of the pods"),
        (THREE, {"edge_cluster_vip": "10.43.0.10"}, "variable edge_cluster_vip", "network of the services"),
        (THREE, {"edge_kubeconfig_write": True}, "variable edge_kubeconfig", "edge_kubeconfig_write is"),
        (THREE, {"edge_kubeconfig_write": "yes"}, "variable edge_kubeconfig", "edge_kubeconfig_write is"),
        (WORKERS, {**JOIN, "edge_join_url": None}, "variable edge_join_url", "is not set"),
        (WORKERS, {**JOIN, "edge_join_token": None}, "variable edge_join_token", "is not set"),
        (WORKERS, {**JOIN, "edge_join_token": "K10abc"}, "variable edge_join_token", "cut short"),
        (WORKERS, {**JOIN, "edge_join_url": "http://a"}, "variable edge_join_url", "https address"),
        (THREE, JOIN, "group edge_servers", "only agents join"),
        (Members(), JOIN, "group edge_agents", "has no machine"),
        (
            WORKERS,
            {**JOIN, "edge_join_kind": "kubeadm", "edge_join_token": "abcdef.0123456789abcdef"},
            "variable edge_join_ca_hash",
            "is not set",
        ),
    ],
)
def test_each_mistake(members: Members, values: dict[str, Any], subject: str, words: str) -> None:
    [(found, text)] = rows(members, **values)
    assert found == subject
    assert words in text


def test_agents_that_joined_need_no_token() -> None:
    values = {**JOIN, "edge_join_token": None, "edge_join_kind": "kubeadm"}
    assert rows(Members([], ["gw4"], ["gw4"], ["gw4"]), **values) == []
    assert len(rows(Members([], ["gw4", "gw5"], ["gw4", "gw5"], ["gw4"]), **values)) == 2


def test_notes_on_what_has_no_effect() -> None:
    found = check(THREE, edge_cluster_mode="existing", edge_cluster_vip="10.7.0.10")
    assert found.problems == []
    assert found.notes == [
        "plant07: edge_cluster_mode is existing, so nothing is done on gw1, gw2, gw3, gw4",
        "plant07: edge_cluster_vip has no effect where edge_cluster_mode is existing",
    ]
    assert check(THREE, edge_join_url="https://a").notes == [
        "plant07: edge_join_url has no effect where edge_cluster_mode is k3s"
    ]


def test_etcd_or_not() -> None:
    def has_etcd(members: Members, **values: Any) -> bool:
        return cluster_rules.has_etcd(lambda name: inventory_rules.usable(name, values.get(name)), members)

    assert has_etcd(THREE)
    assert not has_etcd(servers(1))
    assert has_etcd(servers(1), edge_k3s_etcd="true")
    assert has_etcd(servers(1), edge_cluster_server_count=3)
    assert not has_etcd(THREE, edge_k3s_datastore="endpoint")
    assert not has_etcd(WORKERS, **JOIN)


def test_groups() -> None:
    found = cluster_rules.groups(
        ["plant07", "depot09"],
        ["a", "b", "plant07"],
        ["a", "c", "d"],
        {"a": "plant07", "b": "plnt07", "c": None, "d": "zzz", "plant07": "plant07"},
    )
    assert {(problem.host, problem.subject, problem.fix.split(":")[0]) for problem in found} == {
        ("a", "groups", "leave it in one of them"),
        ("plant07", "groups", "give the cluster a host of its own in edge_clusters"),
        ("b", "variable edge_cluster", "did you mean plant07?"),
        (
            "c",
            "variable edge_cluster",
            "set it for the machines of each site to the name of its cluster host",
        ),
        ("d", "variable edge_cluster", "there are depot09, plant07"),
    }


def test_cluster_of_a_machine() -> None:
    assert cluster_rules.cluster_of(None, ["plant07"]) == "plant07"
    assert cluster_rules.cluster_of(None, ["plant07", "depot09"]) is None
    assert cluster_rules.cluster_of("depot09", ["plant07", "depot09"]) == "depot09"
    assert cluster_rules.cluster_of("nowhere", ["plant07"]) is None


def test_groups_whose_names_are_nearly_ours() -> None:
    members = {
        "all": ["plant07", *"abcdefg"],
        "edge_clusters": ["plant07"],
        "edge_servers": ["a"],
        "edge_server": list("bcdef"),
        "edge-Agents": ["g"],
        # Of the operator: another name, or no host that would be left out.
        "edge_site": ["b"],
        "edge_servers1": ["a"],
    }
    found = cluster_rules.misnamed_groups(members)
    assert found == {"edge-Agents": ("edge_agents", ["g"]), "edge_server": ("edge_servers", list("bcdef"))}
    problems = cluster_rules.misnamed(found)
    assert [(problem.host, problem.subject, problem.fix) for problem in problems] == [
        ("g", "group edge-Agents", "did you mean edge_agents?"),
        ("b", "group edge_server", "did you mean edge_servers?"),
    ]
    assert problems[1].fact.endswith("nothing would be done with b, c, d and 2 more")


def test_size_of_a_group_that_has_another_name_does_not_count() -> None:
    none = check(Members()).problems
    assert [problem.subject for problem in none] == ["group edge_servers"]
    two = check(Members(["a", "b"], [], ["a"])).problems
    assert [
        problem.fact.split(":")[0] for problem in cluster_rules.without_counts(two, ["edge_servers"])
    ] == ["b cannot be seen in this run"]
    assert cluster_rules.without_counts(none, ["edge_servers"]) == []
    assert cluster_rules.without_counts(none, ["edge_agents"]) == none
    told = check(edge_cluster_server_count=5).problems
    assert cluster_rules.without_counts(told, ["edge_agents"]) == told
    assert cluster_rules.without_counts(told, ["edge_servers"]) == []


def test_two_names_for_one_machine() -> None:
    found = cluster_rules.same_place({"gw1": ("10.7.0.11", ""), "gw2": ("10.7.0.11", ""), "gw3": ("x", "")})
    assert [(problem.host, problem.subject, problem.fact) for problem in found] == [
        ("gw1", "address 10.7.0.11", "is also the address of gw2"),
    ]
    # The same address behind another jump host is another machine.
    assert cluster_rules.same_place({"gw1": ("10.7.0.11", "-J a"), "gw2": ("10.7.0.11", "-J b")}) == []


def test_addresses_that_change_with_the_host_that_asks() -> None:
    raw = {"gw1": "{{ inventory_hostname }}.example.org", "gw2": "10.7.0.12", "gw3": None}
    [problem] = cluster_rules.addresses_by_name(raw)
    assert (problem.host, problem.subject) == ("gw1", "variable ansible_host")


def test_tokens_are_not_shared_and_not_shown() -> None:
    found = cluster_rules.shared_tokens({"a": "hunter2", "b": "hunter2", "c": "other", "d": "", "e": ""})
    assert [problem.host for problem in found] == ["a", "b"]
    assert "hunter2" not in repr(found)


def test_variable_of_a_cluster_on_a_machine() -> None:
    names = ["edge_cluster_vip", "edge_node_labels", "edge_k3s_version", "other"]
    found = cluster_rules.misplaced("gw1", "plant07", names, lambda name: name == "edge_k3s_version")
    assert [(problem.host, problem.subject) for problem in found] == [("gw1", "variable edge_cluster_vip")]
