# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node of k3s is to be, and that nothing restarts which did not change."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import yaml
from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_config

SUM = "a" * 64
OTHER = "b" * 64
LOCK = {
    "v1.34.4+k3s1": {"k3s": {"amd64": SUM, "arm64": OTHER}, "images": {"amd64": OTHER}},
    "v1.34.10+k3s1": {"k3s": {"amd64": OTHER}},
}
SETTINGS: dict[str, Any] = {
    "binary": "/usr/local/bin/k3s",
    "data_dir": "/var/lib/rancher/k3s",
    "node_name": "gw1",
    "node_ip": "10.7.0.11",
    "tls_san": ["10.7.0.10", "gw1", "gw1", ""],
    "cluster_cidr": "10.42.0.0/16",
    "service_cidr": "10.43.0.0/16",
    "cluster_domain": "cluster.local",
    "disable": ["traefik"],
    "secrets_encryption": True,
    "datastore_endpoint": "",
    "datastore_ca": "",
    "datastore_certificate": "",
    "datastore_key": "",
    "snapshot_schedule": "",
    "snapshot_retention": 0,
    "profile": "",
    "options": [],
    "registries": "",
    "proxy": "",
    "no_proxy": "",
    "addresses": ["10.7.0.11", "10.7.0.12"],
}
SERVERS = ["10.7.0.12", "10.7.0.13"]
FOUND = {"action": "found", "via": "", "wave": 0}


def release(**other: Any) -> dict[str, Any]:
    options = {"source": "https://mirror.test/k3s/", "data_dir": "/data", **other}
    return k3s_config.release(LOCK, "v1.34.4+k3s1", "x86_64", **options)


def content(files: list[dict[str, Any]], path: str) -> Any:
    (entry,) = [entry for entry in files if entry["path"] == path]
    return yaml.safe_load(entry["content"])


def wanted(**other: Any) -> dict[str, Any]:
    return {
        "role": "server",
        "plan": {"action": "keep", "via": "", "wave": 0},
        "files": k3s_config.files("server", SETTINGS),
        "release": release(),
        "init": True,
        "servers": SERVERS,
        "token": "",
        "labels": [],
        "taints": [],
        "change_version": False,
        "may_restart": True,
        **other,
    }


def seen(content_of_file: str, mode: str = "0600") -> dict[str, Any]:
    digest = hashlib.sha256(content_of_file.encode()).hexdigest()
    return {"exists": True, "sha256": digest, "mode": mode, "uid": 0, "mtime": 1}


ABSENT = {"exists": False, "sha256": "", "mode": "", "uid": -1, "mtime": 0}


def bare() -> dict[str, Any]:
    """What the probe says of a machine without k3s."""
    return {
        "binary": {"path": "/usr/local/bin/k3s", "sha256": "", "version": ""},
        "unit": {"name": "", "active": "inactive", "enabled": False},
        "data": {"server": False, "agent": False, "token_sha256": ""},
        "files": {},
        "stale": [],
    }


def settled() -> dict[str, Any]:
    """What it says of a server that is as wanted."""
    files = {
        entry["path"]: seen(entry["content"], entry["mode"]) if entry["state"] == "present" else ABSENT
        for entry in wanted()["files"]
    }
    files[k3s_config.TOKEN_FILE] = seen("secret")
    files[k3s_config.JOIN_FILE] = seen(k3s_config.join_text(server="10.7.0.13"))
    return {
        "binary": {"path": "/usr/local/bin/k3s", "sha256": SUM, "version": "v1.34.4+k3s1"},
        "unit": {"name": "k3s", "active": "active", "enabled": True},
        "data": {"server": True, "agent": True, "token_sha256": "abc"},
        "files": files,
        "stale": [],
    }


def test_the_newest_version_is_the_greatest_number() -> None:
    assert k3s_config.newest(LOCK) == "v1.34.10+k3s1"
    assert k3s_config.newest({}) == ""
    names = ["v1.35.0-rc1+k3s1", "v1.35.0+k3s1", "v1.35.0+k3s2", "other"]
    assert k3s_config.newest(dict.fromkeys(names)) == "v1.35.0+k3s2"


def test_files_of_a_release() -> None:
    found = release(images=True)
    assert found["problem"] == {}
    assert [entry["source"] for entry in found["files"]] == [
        "https://mirror.test/k3s/v1.34.4%2Bk3s1/k3s",
        "https://mirror.test/k3s/v1.34.4%2Bk3s1/k3s-airgap-images-amd64.tar.zst",
    ]
    assert found["files"][1]["dest"].startswith("/data/agent/images/")
    arm = k3s_config.release(LOCK, "v1.34.4+k3s1", "aarch64", source="/srv/k3s", data_dir="/data")
    assert arm["files"][0]["source"] == "/srv/k3s/v1.34.4+k3s1/k3s-arm64"
    assert arm["files"][0]["sha256"] == OTHER


@pytest.mark.parametrize(
    ("version", "architecture", "fact"),
    [("v9.9.9+k3s1", "x86_64", "is not in the lock file"), ("v1.34.10+k3s1", "aarch64", "no SHA-256 of k3s")],
)
def test_what_a_lock_does_not_hold(version: str, architecture: str, fact: str) -> None:
    found = k3s_config.release(LOCK, version, architecture, source="https://m.test", data_dir="/data")
    assert fact in found["problem"]["fact"]
    assert found["files"] == []


def test_configuration_of_a_server() -> None:
    config = content(k3s_config.files("server", SETTINGS), k3s_config.CONFIG_FILE)
    assert config["tls-san"] == ["10.7.0.10", "gw1"]
    assert config["node-ip"] == "10.7.0.11"
    assert config["token-file"] == k3s_config.TOKEN_FILE
    assert not {"server", "cluster-init", "token", "etcd-snapshot-retention", "datastore-endpoint"} & set(
        config
    )


def test_configuration_of_an_agent_has_nothing_of_a_server() -> None:
    config = content(k3s_config.files("agent", SETTINGS), k3s_config.CONFIG_FILE)
    assert set(config) == {"data-dir", "token-file", "node-name", "node-ip"}


def test_other_options_are_added_and_ours_are_refused() -> None:
    options = ["kubelet-arg=a=1", "kubelet-arg=b=2", "debug=true", "server=https://x", "nonsense"]
    settings = {**SETTINGS, "options": options, "profile": "cis"}
    config = content(k3s_config.files("server", settings), k3s_config.CONFIG_FILE)
    assert config["kubelet-arg"][0] == "streaming-connection-idle-timeout=5m"
    assert config["kubelet-arg"][-2:] == ["a=1", "b=2"]
    assert config["debug"] is True
    assert "server" not in config
    facts = [problem["fact"] for problem in k3s_config.option_problems(options, "edge_k3s_server_options")]
    assert facts == ["the key server is kept by this collection", "'nonsense' is not key=value"]


def test_a_datastore_elsewhere_is_reached_with_files_of_root_alone() -> None:
    settings = {
        **SETTINGS,
        "datastore_endpoint": "https://10.7.0.20:2379",
        "datastore_ca": "authority\n\n",
        "datastore_certificate": "certificate",
        "datastore_key": "key",
        "snapshot_schedule": "@daily",
    }
    files = k3s_config.files("server", settings)
    config = content(files, k3s_config.CONFIG_FILE)
    assert config["datastore-endpoint"] == "https://10.7.0.20:2379"
    assert "etcd-snapshot-schedule-cron" not in config
    texts = {}
    for key in ("datastore-cafile", "datastore-certfile", "datastore-keyfile"):
        (entry,) = [entry for entry in files if entry["path"] == config[key]]
        assert (entry["mode"], entry["hidden"]) == ("0600", True)
        texts[key] = entry["content"]
    assert list(texts.values()) == ["authority\n", "certificate\n", "key\n"]
    # A database that asks for a password only, and an agent, need none of it.
    only = {**SETTINGS, "datastore_endpoint": "postgres://edge:secret@10.7.0.20/k3s"}
    assert not any("datastore" in entry["path"] for entry in k3s_config.files("server", only))
    assert not any("datastore" in entry["path"] for entry in k3s_config.files("agent", settings))


def test_the_profile_asks_for_what_the_hardening_guide_asks() -> None:
    files = k3s_config.files("server", {**SETTINGS, "profile": "cis"})
    config = content(files, k3s_config.CONFIG_FILE)
    assert config["protect-kernel-defaults"] is True
    arguments = dict(entry.split("=", 1) for entry in config["kube-apiserver-arg"])
    assert arguments["enable-admission-plugins"] == "NodeRestriction,EventRateLimit"
    assert arguments["audit-log-path"] == "/var/lib/rancher/k3s/server/logs/audit.log"
    for name in ("audit-policy-file", "admission-control-config-file"):
        (entry,) = [entry for entry in files if entry["path"] == arguments[name]]
        assert entry["mode"] == "0600"
    admission = content(files, arguments["admission-control-config-file"])
    assert [plugin["name"] for plugin in admission["plugins"]] == ["PodSecurity", "EventRateLimit"]
    assert admission["plugins"][0]["configuration"]["defaults"]["enforce"] == "restricted"
    agent = content(k3s_config.files("agent", {**SETTINGS, "profile": "cis"}), k3s_config.CONFIG_FILE)
    assert agent["protect-kernel-defaults"] is True
    assert "kube-apiserver-arg" not in agent


def test_one_server_becomes_a_cluster_by_one_restart() -> None:
    look = settled()
    del look["files"][k3s_config.JOIN_FILE]
    found = k3s_config.drift(
        look, wanted(plan={"action": "keep", "via": "", "wave": 0, "convert": True}, servers=[], init=True)
    )
    assert yaml.safe_load(found["join"]) == {"cluster-init": True}
    assert (found["settled"], found["service"], found["write"]) == (None, "restarted", [])
    # With more servers in the inventory it names one of them afterwards, as all do.
    plan = {"action": "keep", "via": "", "wave": 0, "convert": True}
    grown = k3s_config.drift(look, wanted(plan=plan))
    assert yaml.safe_load(grown["join"]) == {"cluster-init": True}
    assert yaml.safe_load(grown["settled"]) == {"server": "https://10.7.0.12:6443"}


def test_what_is_inside_goes_past_the_proxy() -> None:
    files = k3s_config.files("server", {**SETTINGS, "proxy": "http://p:3128", "no_proxy": "a.test, b.test"})
    (entry,) = [entry for entry in files if entry["path"] == k3s_config.ENVIRONMENT_FILE]
    assert entry["state"] == "present"
    for name in ("10.43.0.0/16", "10.7.0.12", ".cluster.local", "b.test"):
        assert name in entry["content"]
    (none,) = [e for e in k3s_config.files("server", SETTINGS) if e["path"] == k3s_config.ENVIRONMENT_FILE]
    assert none["state"] == "absent"


def test_a_bare_machine_founds_with_what_is_only_for_the_founding() -> None:
    found = k3s_config.drift(bare(), wanted(plan=FOUND, labels=["a=b"]))
    assert found["install"] == ["k3s"]
    assert found["token"] == "generate"
    assert yaml.safe_load(found["join"]) == {"cluster-init": True, "node-label": ["a=b"]}
    assert yaml.safe_load(found["settled"]) == {"server": "https://10.7.0.12:6443"}
    assert found["service"] == "started"
    assert k3s_config.ENVIRONMENT_FILE not in found["write"]


def test_a_bare_machine_joins_by_a_server_that_lives() -> None:
    found = k3s_config.drift(bare(), wanted(plan={"action": "join", "via": "10.7.0.13"}))
    assert found["token"] == "read"
    assert yaml.safe_load(found["join"]) == {"server": "https://10.7.0.13:6443"}
    assert found["settled"] is None


def test_the_only_server_has_nobody_to_name() -> None:
    found = k3s_config.drift(bare(), wanted(plan=FOUND, servers=[], init=False))
    assert (found["join"], found["settled"]) == (None, None)
    found = k3s_config.drift(bare(), wanted(plan=FOUND, servers=[], init=True))
    assert yaml.safe_load(found["join"]) == {"cluster-init": True}
    assert found["settled"] is None


def test_servers_of_an_outside_datastore_name_nobody() -> None:
    found = k3s_config.drift(
        bare(), wanted(plan={"action": "join", "via": "10.7.0.13"}, servers=[], init=False)
    )
    assert (found["join"], found["settled"], found["token"]) == (None, None, "read")


def test_nothing_is_done_to_a_server_that_is_as_wanted() -> None:
    found = k3s_config.drift(settled(), wanted())
    assert found["reasons"] == []
    assert found["service"] == ""


def test_a_cluster_in_sqlite_becomes_one_in_etcd_by_one_restart() -> None:
    found = k3s_config.drift(settled(), wanted(plan={"action": "keep", "via": "", "convert": True}))
    assert yaml.safe_load(found["join"]) == {"cluster-init": True}
    assert yaml.safe_load(found["settled"]) == {"server": "https://10.7.0.12:6443"}
    assert found["service"] == "restarted"


def test_a_version_that_is_in_no_lock_stops_only_who_needs_its_files() -> None:
    unknown = {"version": "v9", "files": [], "problem": {"fact": "is not in the lock", "fix": "add it"}}
    assert k3s_config.drift(bare(), wanted(plan=FOUND, release=unknown))["problems"][0]["subject"] == "k3s"
    found = k3s_config.drift(settled(), wanted(release=unknown))
    assert (found["problems"], found["notes"]) == ([], ["is not in the lock: add it"])


def test_the_join_file_is_never_a_reason_to_restart() -> None:
    look = settled()
    look["files"][k3s_config.JOIN_FILE] = seen(k3s_config.join_text(init=True))
    look["stale"] = [k3s_config.JOIN_FILE]
    found = k3s_config.drift(look, wanted())
    assert found["service"] == ""
    assert yaml.safe_load(found["settled"]) == {"server": "https://10.7.0.12:6443"}


@pytest.mark.parametrize("what", ["content", "mode", "stale", "binary"])
def test_what_runs_and_is_not_as_wanted_is_restarted(what: str) -> None:
    look = settled()
    if what == "content":
        look["files"][k3s_config.CONFIG_FILE]["sha256"] = OTHER
    elif what == "mode":
        look["files"][k3s_config.CONFIG_FILE]["mode"] = "0644"
    elif what == "stale":
        look["stale"] = ["binary"]
    else:
        look["binary"]["sha256"] = OTHER
    assert k3s_config.drift(look, wanted())["service"] == "restarted"


def test_another_version_is_told_and_not_installed_over_data() -> None:
    look = settled()
    look["binary"] = {"path": "", "sha256": OTHER, "version": "v1.34.3+k3s1"}
    found = k3s_config.drift(look, wanted())
    assert found["reasons"] == []
    assert "has k3s v1.34.3+k3s1" in found["notes"][0]
    assert k3s_config.drift(look, wanted(change_version=True))["install"] == ["k3s"]


def test_a_server_that_is_needed_does_not_restart() -> None:
    look = settled()
    look["stale"] = ["binary"]
    problem = k3s_config.drift(look, wanted(may_restart=False))["problems"][0]
    assert "cannot do without this server" in problem["fact"]
    assert k3s_config.drift(settled(), wanted(may_restart=False))["problems"] == []


def test_a_stopped_server_is_started_and_not_more() -> None:
    look = settled()
    look["unit"]["active"] = "failed"
    found = k3s_config.drift(look, wanted(plan={"action": "start", "via": ""}))
    assert found["service"] == "started"
    assert found["write"] == found["install"] == []


def test_a_token_that_is_not_the_cluster_s_is_a_problem() -> None:
    look = settled()
    look["data"]["token_sha256"] = hashlib.sha256(b"right").hexdigest()[:16]
    found = k3s_config.drift(look, wanted(token="wrong"))
    assert "is another than the token" in found["problems"][0]["fact"]
    full = f"K10{SUM}::server:right"
    assert k3s_config.drift(look, wanted(token=full))["problems"] == []


def test_an_agent_keeps_any_server_that_is_one() -> None:
    look = settled()
    files = k3s_config.files("agent", SETTINGS)
    look["unit"]["name"] = "k3s-agent"
    look["files"].update({e["path"]: seen(e["content"], e["mode"]) for e in files if e["state"] == "present"})
    assert k3s_config.drift(look, wanted(role="agent", files=files))["reasons"] == []
    found = k3s_config.drift(look, wanted(role="agent", files=files, servers=["10.7.0.10"]))
    assert yaml.safe_load(found["settled"]) == {"server": "https://10.7.0.10:6443"}
    assert found["service"] == ""
