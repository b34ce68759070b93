# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import value_formats
from ansible_collections.edgeha.iotedge.plugins.module_utils.public_variables import VARIABLES

FULL_TOKEN = f"K10{'a' * 64}::server:0123456789abcdef"

GOOD: list[tuple[str, Any]] = [
    ("edge_cluster_vip", "10.7.0.10"),
    ("edge_cluster_vip_interface", "enp1s0.100"),
    ("edge_cluster_cidr", "10.44.0.0/16"),
    ("edge_service_cidr", "10.43.0.0/16"),
    ("edge_cluster_domain", "plant07.example.org"),
    ("edge_k3s_version", "v1.34.4+k3s1"),
    ("edge_k3s_version", "v1.35.0-rc1+k3s1"),
    ("edge_k3s_source", "https://mirror.example.org/k3s"),
    ("edge_k3s_source", "/srv/k3s"),
    ("edge_k3s_data_dir", "/data/k3s"),
    ("edge_k3s_token", "0123456789abcdef"),
    ("edge_k3s_token", FULL_TOKEN),
    ("edge_k3s_datastore_endpoint", "postgres://user:password@db.example.org:5432/k3s"),
    ("edge_k3s_datastore_endpoint", "https://one.example.org:2379,https://10.7.0.20:2379"),
    ("edge_k3s_datastore_ca", "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n"),
    ("edge_k3s_datastore_key", "-----BEGIN EC PRIVATE KEY-----\nabc\n-----END EC PRIVATE KEY-----"),
    ("edge_k3s_server_options", ["kubelet-arg=max-pods=60", "flannel-backend=host-gw"]),
    ("edge_k3s_disable", ["traefik", "servicelb"]),
    ("edge_node_labels", ["site=plant07", "example.org/line=2", "empty="]),
    ("edge_node_taints", ["dedicated=gateway:NoSchedule", "key:NoExecute"]),
    ("edge_node_ip", "10.7.0.11"),
    ("edge_node_name", "gw1.plant07"),
    ("edge_http_proxy", "http://user:password@proxy.example.org:3128"),
    ("edge_image_registry", "registry.example.org:5000/edge"),
    ("edge_no_proxy", "localhost, .example.org,10.0.0.0/8"),
    ("edge_snapshot_schedule", "0 */6 * * *"),
    ("edge_snapshot_schedule", "@daily"),
    ("edge_snapshot_retention", 5),
    ("edge_prepare_ntp_servers", ["time.example.org", "10.7.0.1"]),
    ("edge_cluster_server_count", "3"),
    ("edge_join_ca_hash", f"sha256:{'0' * 64}"),
    ("edge_gateways", [{"name": "anything"}]),
    (
        "edge_node_disks",
        [{"device": "/dev/sdb", "filesystem": "xfs", "mount": "/var/lib/rancher", "label": "edge-k3s"}],
    ),
]
BAD: list[tuple[str, Any, str]] = [
    ("edge_cluster_vip", "10.7.0.300", "no IPv4 address"),
    ("edge_cluster_vip", "fd00::1", "no IPv4 address"),
    ("edge_cluster_vip", "127.0.0.1", "cannot be the address of a cluster"),
    ("edge_cluster_vip_interface", "this is none", "no name of an interface"),
    ("edge_cluster_cidr", "10.42.0.1/16", "did you mean 10.42.0.0/16?"),
    ("edge_cluster_cidr", "10.42.0.0", "add the size, like 10.42.0.0/16"),
    ("edge_cluster_cidr", "somewhere", "is no network"),
    ("edge_cluster_cidr", "10.42.0.0/25", "each node takes a /24"),
    ("edge_cluster_cidr", "10.42.0.0/16,10.44.0.0/16", "names several networks"),
    ("edge_cluster_cidr", "10.42.0.0/16,fd42::/56", "a network of IPv6"),
    ("edge_service_cidr", "fd43::/112", "a network of IPv6"),
    ("edge_service_cidr", "10.0.0.0/8", "take a /12 or smaller"),
    ("edge_cluster_domain", "Plant_07", "no DNS name"),
    ("edge_k3s_version", "1.34.4", "write it like v1.34.4+k3s1"),
    ("edge_k3s_version", "v1.34.4-k3s2", "write it like v1.34.4+k3s2"),
    ("edge_k3s_version", "latest", "write it like v1.34.4+k3s1"),
    ("edge_k3s_source", "ftp://mirror.example.org", "no http address"),
    ("edge_k3s_source", "https://user:hunter2@mirror.example.org", "has a user name"),
    ("edge_k3s_data_dir", "k3s", "no absolute path"),
    ("edge_k3s_data_dir", "/var/../k3s/x", "no absolute path"),
    ("edge_k3s_data_dir", "/var", "a folder of the system"),
    ("edge_k3s_token", "hunter2", "has 7 characters"),
    ("edge_k3s_token", "hunter2 hunter2 hunter2", "holds a space"),
    ("edge_k3s_token", FULL_TOKEN[:-20], "cut short"),
    ("edge_k3s_datastore_endpoint", "hunter2", "does not begin like"),
    ("edge_k3s_datastore_endpoint", "https://one:2379,two:2379", "no address of an etcd"),
    ("edge_k3s_datastore_certificate", "/etc/ssl/hunter2.crt", "not a path"),
    ("edge_k3s_datastore_key", "-----BEGIN CERTIFICATE-----", "BEGIN PRIVATE KEY"),
    ("edge_k3s_server_options", ["max-pods"], "item 0 is not key=value"),
    ("edge_k3s_server_options", ["data-dir=/x"], "use edge_k3s_data_dir"),
    ("edge_k3s_agent_options", ["bind-address=0.0.0.0"], "remove it"),
    ("edge_k3s_disable", ["trafik"], "did you mean traefik?"),
    ("edge_node_labels", ["site"], "is not key=value"),
    ("edge_node_labels", ["site=a b"], "the value 'a b' is not valid"),
    ("edge_node_labels", ["-x=1"], "the name '-x' is not valid"),
    ("edge_node_labels", ["Example.org/x=1"], "is no DNS name"),
    ("edge_node_labels", ["site=a", "site=b"], "site stands twice"),
    ("edge_node_taints", ["dedicated=gateway"], "is not key=value:Effect"),
    ("edge_node_taints", ["dedicated=gateway:Never"], "the effect 'Never'"),
    ("edge_node_ip", "gw1", "is no IPv4 address"),
    ("edge_node_ip", "fd00::11", "is no IPv4 address"),
    ("edge_node_ip", "10.7.0.11,fd00::11", "is no IPv4 address"),
    ("edge_node_name", "GW_1", "no DNS name"),
    ("edge_node_name", "a" * 64, "has 64 characters"),
    ("edge_http_proxy", "proxy:3128", "is not an address of a proxy"),
    ("edge_http_proxy", "http://proxy:99999", "no valid port"),
    ("edge_image_registry", "https://registry.example.org", "not the address of a registry"),
    ("edge_image_registry", "registry.example.org/", "not the address of a registry"),
    ("edge_no_proxy", "http://example.org", "is an address"),
    ("edge_no_proxy", "a.example b.example", "holds a space"),
    ("edge_snapshot_schedule", "every day", "no schedule of five fields"),
    ("edge_snapshot_retention", 0, "give 1 or more"),
    ("edge_prepare_ntp_servers", ["a b"], "no host name"),
    ("edge_node_disks", [{"device": "/dev/sdb"}], "item 0 has no filesystem"),
    (
        "edge_node_disks",
        [{"device": "/dev/sdb", "filesystem": "xfs", "mount": "/data", "label": "k3s", "size": 1}],
        "has the key size, which is not known",
    ),
    ("edge_node_disks", ["/dev/sdb"], "item 0 is not a mapping"),
    (
        "edge_node_disks",
        [{"device": "/dev/sdb", "filesystem": "btrfs", "mount": "/data", "label": "k3s"}],
        "btrfs",
    ),
    ("edge_join_ca_hash", "abc", "is not sha256:"),
]


@pytest.mark.parametrize(
    ("endpoint", "places"),
    [
        ("https://one.test:2379,https://[fd00::2]", ["one.test:2379", "[fd00::2]:2379"]),
        ("postgres://edge:hunter2@db.test/k3s?sslmode=require", ["db.test:5432"]),
        ("postgres://edge:hunter2@db.test:5433/k3s", ["db.test:5433"]),
        ("mysql://edge:hun@ter2@tcp(db.test:3307)/k3s", ["db.test:3307"]),
        ("mysql://edge:hunter2@tcp(db.test)/k3s", ["db.test:3306"]),
        ("mysql://edge:hunter2@unix(/run/mysqld.sock)/k3s", []),
        ("nats://a.test,b.test", ["a.test:4222"]),
        ("postgres://edge:hunter2@db.test:x/k3s", []),
        ("postgres://edge:2222#hunter2@db.test/k3s", []),
        ("postgres://edge:2222/hunter2@db.test/k3s", []),
        ("postgres://", []),
        ("", []),
    ],
)
def test_places_of_a_datastore_hold_no_secret(endpoint: str, places: list[str]) -> None:
    assert value_formats.datastore_places(endpoint) == places


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_good_values(name: str, value: Any) -> None:
    assert value_formats.check(name, value) == []


@pytest.mark.parametrize(("name", "value", "words"), BAD)
def test_each_bad_value_has_fact_and_fix(name: str, value: Any, words: str) -> None:
    [(fact, fix)] = value_formats.check(name, value)
    assert fact
    assert fix
    assert words in f"{fact}: {fix}"
    assert "hunter2" not in fact + fix


def test_every_format_is_of_a_public_variable() -> None:
    assert set(value_formats.FORMATS) <= set(VARIABLES)


def test_empty_values_have_no_format() -> None:
    assert [value_formats.check(name, "") for name in value_formats.FORMATS] == [[]] * len(
        value_formats.FORMATS
    )


def test_folder_on_a_disk_of_its_own() -> None:
    disks = [{"mount": "/var/lib/rancher"}, {"mount": "/data/"}]
    assert value_formats.on_own_disk(disks, "/var/lib/rancher/k3s")
    assert value_formats.on_own_disk(disks, "/data")
    assert not value_formats.on_own_disk(disks, "/var/lib/rancher2")
    assert not value_formats.on_own_disk([], "/data")


def test_tokens_for_a_cluster_that_is_there() -> None:
    assert value_formats.join_token("k3s", FULL_TOKEN) == []
    assert value_formats.join_token("k3s", "bare-secret") == []
    assert value_formats.join_token("k3s", FULL_TOKEN[:40])
    assert value_formats.join_token("k3s", "two words")
    assert value_formats.join_token("kubeadm", "abcdef.0123456789abcdef") == []
    assert value_formats.join_token("kubeadm", FULL_TOKEN)
    assert value_formats.k3s_token_hash(FULL_TOKEN) == "a" * 64
    assert value_formats.k3s_token_hash("bare-secret") == ""


@pytest.mark.parametrize("url", ["http://a:6443", "10.7.0.10:6443", "https://a/path", "https://a:70000"])
def test_addresses_that_are_none(url: str) -> None:
    assert value_formats.join_url(url)
    assert value_formats.join_url("https://10.7.0.10:6443") == []
