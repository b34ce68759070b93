# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a machine needs to be a worker of a cluster of kubeadm."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import kubeadm_rules

HASH = "sha256:" + "1" * 64
DIGEST = "a" * 64
SUMS = f"{DIGEST}  kubelet\n{DIGEST}  ./kubeadm\n{DIGEST} *cni/bridge\n{DIGEST}  images/all.tar\n"
WANTED: dict[str, Any] = {
    "url": "https://10.7.0.1:6443", "token": "abcdef.0123456789abcdef", "ca_hash": HASH, "node_name": "gw4",
    "node_ip": "", "ignore": [], "source": "/srv/source", "sums": SUMS, "proxy": "", "no_proxy": "",
    "runtime_packages": ["containerd", "containernetworking-plugins"], "containerd_config": "",
}  # fmt: skip


def bare(**changes: Any) -> dict[str, Any]:
    return {
        "kubelet_conf": {"exists": False, "server": "", "ca_hashes": [], "problem": ""}, "half": [],
        "node": {"name": "gw4", "found": None, "ready": False, "status": 0, "problem": ""},
        "kubelet": {"load": "not-found", "active": "inactive", "enabled": ""}, "kubeadm_version": "",
        "sockets": [], "runtime_is_ours": False, "runtime_is_stale": False, "link_cni": True,
        "control_plane": False, "k3s": "", "files": {}, "family": "debian",
        "missing": ["containerd", "containernetworking-plugins", "kubelet", "kubeadm"], **changes,
    }  # fmt: skip


def joined(**changes: Any) -> dict[str, Any]:
    files = {
        path: {"sha256": DIGEST, "mode": "0755"}
        for path in ("/usr/local/bin/kubelet", "/usr/local/bin/kubeadm", "/opt/cni/bin/bridge")
    }
    for entry in kubeadm_rules.files({**WANTED, "sums": kubeadm_rules.sums(SUMS)}, own_runtime=True):
        digest = hashlib.sha256(entry["content"].encode()).hexdigest()
        files[entry["path"]] = {"sha256": digest, "mode": entry["mode"]}
    conf = {"exists": True, "server": "https://10.7.0.1:6443", "ca_hashes": [HASH], "problem": ""}
    found = {"name": "gw4", "found": True, "ready": True, "status": 0, "problem": ""}
    return bare(
        **{
            "kubelet_conf": conf, "node": found, "missing": [], "files": files, "link_cni": False,
            "kubelet": {"load": "loaded", "active": "active", "enabled": "enabled"},
            "sockets": [kubeadm_rules.SOCKETS[0]], "runtime_is_ours": True, **changes,
        }
    )  # fmt: skip


def test_bare_machine_joins() -> None:
    plan = kubeadm_rules.plan(bare(), WANTED)
    assert plan["action"] == "join"
    assert plan["problems"] == []
    assert plan["packages"] == ["containerd", "containernetworking-plugins"]
    assert [entry["dest"] for entry in plan["install"]] == [
        "/opt/cni/bin/bridge",
        "/usr/local/bin/kubeadm",
        "/usr/local/bin/kubelet",
    ]
    assert plan["images"] == ["images/all.tar"]
    assert [entry["path"] for entry in plan["write"]] == [
        kubeadm_rules.UNIT_FILE,
        kubeadm_rules.CONTAINERD_FILE,
    ]
    # Whoever brings network plugins of his own needs no others.
    assert not plan["link_cni"]
    assert not plan["restart_kubelet"]
    assert WANTED["token"] not in json.dumps(plan)


def test_without_a_source_kubelet_and_kubeadm_are_packages() -> None:
    plan = kubeadm_rules.plan(bare(), {**WANTED, "sums": ""})
    assert plan["packages"] == ["containerd", "containernetworking-plugins", "kubelet", "kubeadm"]
    assert plan["install"] == []
    assert kubeadm_rules.UNIT_FILE not in [entry["path"] for entry in plan["write"]]
    assert plan["link_cni"]


def test_finished_machine_needs_nothing() -> None:
    plan = kubeadm_rules.plan(joined(), WANTED)
    assert plan["reasons"] == []
    assert plan["action"] == "keep"
    assert plan["write"] == plan["install"] == plan["images"] == []
    # An API that does not answer is no reason to do anything.
    silent = {"name": "gw4", "found": None, "ready": False, "status": 0, "problem": "no answer"}
    assert kubeadm_rules.plan(joined(node=silent), WANTED)["reasons"] == []


def test_a_runtime_of_somebody_else_is_left_alone() -> None:
    plan = kubeadm_rules.plan(bare(sockets=["/run/crio/crio.sock"]), WANTED)
    assert plan["packages"] == []
    assert [entry["path"] for entry in plan["write"]] == [kubeadm_rules.UNIT_FILE]
    assert plan["socket"] == "/run/crio/crio.sock"


def test_node_that_vanished_and_kubelet_that_stands_still() -> None:
    gone = {"name": "gw4", "found": False, "ready": False, "status": 0, "problem": ""}
    plan = kubeadm_rules.plan(joined(node=gone), WANTED)
    assert (plan["action"], plan["restart_kubelet"]) == ("restart", True)
    still = {"load": "loaded", "active": "inactive", "enabled": "enabled"}
    assert kubeadm_rules.plan(joined(kubelet=still), WANTED)["action"] == "start"


def test_another_version_on_a_node_is_left_to_the_upgrade_of_the_cluster() -> None:
    files = joined()["files"]
    files["/usr/local/bin/kubelet"] = {"sha256": "b" * 64, "mode": "0755"}
    assert kubeadm_rules.plan(joined(files=files), WANTED)["reasons"] == []


def test_what_an_interrupted_join_left_is_cleaned() -> None:
    plan = kubeadm_rules.plan(bare(half=[kubeadm_rules.AUTHORITY]), WANTED)
    assert plan["clean"] == [{"path": kubeadm_rules.AUTHORITY, "state": "absent"}]


@pytest.mark.parametrize(
    ("look", "fact"),
    [
        (bare(k3s="k3s-agent.service"), "is a node of k3s"),
        (bare(control_plane=True), "is a control plane"),
        (bare(family=""), "there is no container runtime"),
        (
            joined(kubelet_conf={"exists": True, "server": "x", "ca_hashes": ["sha256:2"], "problem": ""}),
            "belongs to another cluster, at x",
        ),
        (
            joined(kubelet_conf={"exists": True, "server": "x", "ca_hashes": [], "problem": "torn"}),
            "torn",
        ),
        (
            joined(node={"name": "gw4", "found": None, "ready": False, "status": 401, "problem": ""}),
            "no longer knows its certificate",
        ),
    ],
)
def test_machines_that_are_refused(look: dict[str, Any], fact: str) -> None:
    problems = kubeadm_rules.plan(look, WANTED)["problems"]
    assert [fact in problem["fact"] for problem in problems] == [True], problems
    assert problems[0]["fix"]


def test_a_source_without_kubelet() -> None:
    (problem,) = kubeadm_rules.plan(bare(), {**WANTED, "sums": f"{DIGEST}  kubeadm\n"})["problems"]
    assert "does not name kubelet" in problem["fact"]


def test_a_runtime_that_is_ours_reads_anew_what_the_machine_trusts() -> None:
    plan = kubeadm_rules.plan(joined(runtime_is_stale=True), WANTED)
    assert plan["restart_runtime"]
    assert not plan["restart_kubelet"]
    assert plan["reasons"] == ["containerd has been running since before a change of /etc/edgeha/trusted"]
    # One that was there is left as it is.
    assert kubeadm_rules.plan(joined(runtime_is_stale=True, runtime_is_ours=False), WANTED)["reasons"] == []


def test_a_proxy_stands_where_only_root_reads_it_and_goes_again() -> None:
    wanted = {**WANTED, "proxy": "http://user:secret@10.7.0.2:3128", "no_proxy": "10.0.0.0/8"}
    plan = kubeadm_rules.plan(joined(), wanted)
    modes = {entry["path"]: entry["mode"] for entry in plan["write"]}
    assert modes == {kubeadm_rules.PROXY_ENV: "0600", kubeadm_rules.PROXY_FILE: "0644"}
    assert [entry["path"] for entry in plan["write"] if "secret" in entry["content"]] == [
        kubeadm_rules.PROXY_ENV
    ]
    assert plan["restart_runtime"]
    assert not plan["restart_kubelet"]
    files = {**joined()["files"], kubeadm_rules.PROXY_FILE: {"sha256": "", "mode": "0644"}}
    gone = kubeadm_rules.plan(joined(files=files), WANTED)
    assert gone["write"] == [{"path": kubeadm_rules.PROXY_FILE, "state": "absent"}]
    assert gone["restart_runtime"]


def test_configuration_of_the_join() -> None:
    wanted = {**WANTED, "node_ip": "10.7.0.14", "ignore": ["Swap"]}
    newer = json.loads(kubeadm_rules.join_configuration(wanted, "v1.34.4", "/run/x.sock"))
    assert newer["apiVersion"] == "kubeadm.k8s.io/v1beta4"
    assert newer["discovery"]["bootstrapToken"] == {
        "apiServerEndpoint": "10.7.0.1:6443",
        "token": WANTED["token"],
        "caCertHashes": [HASH],
    }
    assert newer["nodeRegistration"] == {
        "name": "gw4",
        "criSocket": "unix:///run/x.sock",
        "kubeletExtraArgs": [{"name": "node-ip", "value": "10.7.0.14"}],
        "ignorePreflightErrors": ["Swap"],
    }
    older = json.loads(kubeadm_rules.join_configuration(wanted, "v1.30.9", "/run/x.sock"))
    assert older["apiVersion"] == "kubeadm.k8s.io/v1beta3"
    assert older["nodeRegistration"]["kubeletExtraArgs"] == {"node-ip": "10.7.0.14"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://10.7.0.1:6443", "10.7.0.1:6443"),
        ("10.7.0.1:6443", "10.7.0.1:6443"),
        ("https://api.plant.test", "api.plant.test:6443"),
        ("https://[fd00::1]:6443", "[fd00::1]:6443"),
    ],
)
def test_endpoint(url: str, expected: str) -> None:
    assert kubeadm_rules.endpoint(url) == expected


def test_sums_that_are_none() -> None:
    for text in ("abc  kubelet", f"{DIGEST}  ../kubelet", f"{DIGEST} kubelet extra"):
        with pytest.raises(ValueError, match="line 1 of SHA256SUMS"):
            kubeadm_rules.sums(text)


def test_the_unit_leaves_the_settings_to_kubeadm() -> None:
    assert "--config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS" in kubeadm_rules.KUBELET_UNIT
    sections = [line for line in kubeadm_rules.KUBELET_UNIT.splitlines() if line.startswith("[")]
    assert sections == ["[Unit]", "[Service]", "[Install]"]
