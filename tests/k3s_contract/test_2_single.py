# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One server with SQLite, from its files to its change to etcd. The machine is empty again at the end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from .machine import DATA, Machine, condition, eventually, lab

MANIFESTS = f"{DATA}/server/manifests"
WORKLOAD = """apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default}}
spec:
  containers: [{{name: w, image: "registry.edgeha.test/lab/workload:1"}}]
"""


@pytest.fixture(scope="module")
def single(machines: dict[str, Machine], versions: list[str], vip: str) -> Iterator[Machine]:
    machine = machines[max(name for name in machines if machines[name].role == "server")]
    machine.install(versions[0])
    machine.configure(
        node_label=["one=1", "two=2"],
        write_kubeconfig_mode="0600",
        secrets_encryption=True,
        tls_san=[vip],
        disable=["traefik", "servicelb"],
    )
    machine.write("/etc/rancher/k3s/config.yaml.d/10-more.yaml", "node-label+: ['three=3']\n")
    machine.write("/etc/rancher/k3s/config.yaml.d/20-mode.yaml", "write-kubeconfig-mode: '0640'\n")
    machine.write(
        "/etc/rancher/k3s/registries.yaml",
        "mirrors:\n  docker.io:\n    endpoint: ['https://mirror.example:5000']\n"
        "configs:\n  mirror.example:5000:\n    auth: {username: user, password: hidden}\n",
    )
    machine.start()
    yield machine
    lab("fault", "wipe", machine.name)


def test_systemd_hears_of_it_when_the_api_is_ready(single: Machine) -> None:
    assert single.https("/readyz", admin=True) == (200, "ok")


def test_answers_to_strangers(single: Machine) -> None:
    assert single.https("/ping") == (200, "pong")
    status, bundle = single.https("/cacerts")
    assert status == 200
    assert bundle == single.run(f"cat {DATA}/server/tls/server-ca.crt").rstrip("\n")
    assert single.https("/readyz")[0] == 401
    assert single.https("/v1-k3s/config")[0] == 401


def test_the_node_becomes_ready(single: Machine, versions: list[str]) -> None:
    eventually("the node to be Ready", single.is_ready)
    info = single.node()["status"]["nodeInfo"]
    assert info["kubeletVersion"] == versions[0]
    assert single.node()["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] == "true"


def test_files_are_where_the_documents_say(single: Machine) -> None:
    for path in (
        "server/tls/server-ca.crt",
        "server/tls/client-ca.crt",
        "server/tls/request-header-ca.crt",
        "server/tls/etcd/server-ca.crt",
        "server/tls/service.key",
        "server/manifests",
        "agent/etc/containerd/config.toml",
        "agent/etc/kubelet.conf.d/00-k3s-defaults.conf",
        "agent/pod-manifests",
        "data/current/bin/containerd",
    ):
        assert single.exists(f"{DATA}/{path}"), path
    assert single.mode(f"{DATA}/server/token") == "600"


def test_sqlite_is_the_store_of_one_server(single: Machine) -> None:
    assert single.exists(f"{DATA}/server/db/state.db")
    assert not single.exists(f"{DATA}/server/db/etcd/member")


def test_the_token_is_in_the_secure_format(single: Machine) -> None:
    token = single.run(f"cat {DATA}/server/token").strip()
    authority = single.run(f"cat {DATA}/server/tls/server-ca.crt")
    assert token.startswith(f"K10{hashlib.sha256(authority.encode()).hexdigest()}::server:")
    assert single.run(f"cat {DATA}/server/node-token").strip() == token
    assert single.run(f"cat {DATA}/server/agent-token").strip() == token


def test_later_files_win_and_plus_appends(single: Machine) -> None:
    labels = single.node()["metadata"]["labels"]
    assert {name: labels.get(name) for name in ("one", "two", "three")} == {
        "one": "1",
        "two": "2",
        "three": "3",
    }


def test_the_kubeconfig_has_the_mode_that_is_asked_for(single: Machine) -> None:
    assert single.mode("/etc/rancher/k3s/k3s.yaml") == "640"
    assert "server: https://127.0.0.1:6443" in single.run("cat /etc/rancher/k3s/k3s.yaml")


def test_the_node_password_is_kept(single: Machine) -> None:
    assert single.mode("/etc/rancher/node/password") == "600"
    assert single.get(f"-n kube-system secret {single.name}.node-password.k3s")["data"]["hash"]


def test_images_of_the_folder_are_there(single: Machine) -> None:
    assert "rancher/mirrored-pause" in eventually("the images", lambda: single.run("k3s crictl images"))
    assert "registry.edgeha.test/lab/workload" in single.run("k3s ctr images ls -q")


def test_registries_reach_containerd(single: Machine) -> None:
    hosts = single.run(f"cat {DATA}/agent/etc/containerd/certs.d/docker.io/hosts.toml")
    assert "https://mirror.example:5000" in hosts
    assert single.mode(f"{DATA}/agent/etc/containerd/config.toml") == "600"


def test_manifests_are_applied(single: Machine) -> None:
    single.write(f"{MANIFESTS}/work.yaml", WORKLOAD.format(name="auto"))
    eventually("the pod of a manifest to run", lambda: _phase(single, "auto") == "Running")


def test_disabled_components_are_not_deployed(single: Machine) -> None:
    assert not single.exists(f"{MANIFESTS}/traefik.yaml")
    assert "traefik" not in single.kubectl("get deployments,daemonsets -A -o name")
    assert "coredns" in single.kubectl("-n kube-system get deployments -o name")


def test_secrets_are_encrypted(single: Machine) -> None:
    status = single.run("k3s secrets-encrypt status")
    assert "Encryption Status: Enabled" in status
    assert "AES-CBC" in status
    single.kubectl("create secret generic hidden --from-literal=word=plainlyvisible")
    found = single.ask(f"cat {DATA}/server/db/state.db* | grep -c plainlyvisible").stdout.strip()
    assert found == "0"


def test_there_are_no_snapshots_of_sqlite(single: Machine) -> None:
    assert single.ask("k3s etcd-snapshot save").returncode != 0


def test_certificates_are_told_and_rotated(single: Machine) -> None:
    table = single.run("k3s certificate check --output table")
    assert "client-admin.crt" in table
    assert "serving-kube-apiserver.crt" in table
    assert "EXPIRES" in table
    before = single.run(
        f"sha256sum {DATA}/server/tls/client-admin.crt {DATA}/server/tls/server-ca.crt"
    ).split()
    single.stop()
    single.run("k3s certificate rotate")
    single.start()
    after = single.run(
        f"sha256sum {DATA}/server/tls/client-admin.crt {DATA}/server/tls/server-ca.crt"
    ).split()
    assert before[0] != after[0]
    assert before[2] == after[2]
    assert single.run(f"ls -d {DATA}/server/tls-*")


def test_pods_live_through_a_restart(single: Machine) -> None:
    before = _containers(single)
    single.restart()
    eventually("the node to be Ready", single.is_ready)
    assert before
    assert _containers(single) == before


def test_labels_count_at_registration_only(single: Machine) -> None:
    single.write("/etc/rancher/k3s/config.yaml.d/10-more.yaml", "node-label+: ['late=1']\n")
    single.restart()
    eventually("the node to be Ready", single.is_ready)
    assert "late" not in single.node()["metadata"]["labels"]


def test_one_server_becomes_a_cluster(single: Machine) -> None:
    single.kubectl("create configmap before-etcd --from-literal=a=b")
    single.write("/etc/rancher/k3s/config.yaml.d/30-etcd.yaml", "cluster-init: true\n")
    single.restart()
    assert single.get("configmap before-etcd")["data"] == {"a": "b"}
    eventually("the condition EtcdIsVoter", lambda: condition(single.node(), "EtcdIsVoter") == "True")
    assert single.exists(f"{DATA}/server/db/etcd/member")


def _phase(machine: Machine, pod: str) -> str:
    return machine.ask(f"k3s kubectl get pod {pod} -o jsonpath={{.status.phase}}").stdout


def _containers(machine: Machine) -> list[str]:
    return sorted(machine.run("k3s crictl ps -q").split())
