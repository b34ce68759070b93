# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting at an API of the test's own, with real certificates."""

from __future__ import annotations

import base64
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_api, kube_api
from ansible_collections.edgeha.iotedge.plugins.modules import k3s_probe, k3s_wait

from tests.tls import issue, serving

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the modules need root")


class Cluster:
    """What the API answers; a path that is not in it is 404."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[str] = []
        self.port = 0
        self.folder = Path()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of a server, with keys of an administrator."""
    data = tmp_path_factory.mktemp("data")
    tls = data / "server" / "tls"
    tls.mkdir(parents=True)
    servers, clients = issue("server-ca", ca=True), issue("client-ca", ca=True)
    servers.write(tls, "server-ca")
    clients.write(tls, "client-ca")
    issue("serving", servers, address="127.0.0.1").write(tls, "serving")
    issue("client-admin", clients).write(tls, "client-admin")
    return data


@pytest.fixture
def cluster(files: Path) -> Iterator[Cluster]:
    state = Cluster()
    state.folder = files
    tls = files / "server" / "tls"

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.asked.append(self.path)
            status, body = state.answers.get(self.path.partition("?")[0], (404, {"reason": "NotFound"}))
            raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_words: Any) -> None:
            return None

    with serving(Handler, tls / "serving.crt", tls / "serving.key", tls / "client-ca.crt") as state.port:
        yield state


def node(ready: bool = True) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready), "reason": "Reason"}]
    return {"metadata": {"name": "gw1"}, "status": {"conditions": conditions}}


def wait(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], *states: str, check: bool = False, **more: Any
) -> dict[str, Any]:
    arguments = {
        "states": list(states), "node": "gw1", "data_dir": str(cluster.folder), "api_port": cluster.port,
        "timeout": 0, "_ansible_check_mode": check, **more,
    }  # fmt: skip
    with patch_module_args(arguments), pytest.raises(SystemExit):
        k3s_wait.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_what_is_so_already_is_not_waited_for(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.answers = {"/readyz": (200, "ok"), "/api/v1/nodes/gw1": (200, node())}
    done = wait(cluster, capsys, "readyz", "node_ready")
    assert not done.get("failed")
    assert (done["changed"], done["missing"], done["node"]["name"]) == (False, [], "gw1")
    # It asks for nothing but what is waited for, and once.
    assert [path.partition("?")[0] for path in cluster.asked] == ["/readyz", "/api/v1/nodes/gw1"]


def test_what_comes_to_be_while_it_waits(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.answers = {"/api/v1/nodes/gw1": (200, node(ready=False))}
    timer = threading.Timer(0.3, lambda: cluster.answers.update({"/api/v1/nodes/gw1": (200, node())}))
    timer.start()
    done = wait(cluster, capsys, "node_ready", timeout=20)
    timer.join()
    assert not done.get("failed")
    assert done["elapsed"] >= 0.3


def test_a_limit_ends_it_and_says_what_is_missing(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.answers = {"/readyz": (500, "[+]ping ok\n[-]etcd failed: reason withheld\n")}
    done = wait(cluster, capsys, "readyz", "node_ready")
    assert done["failed"] is True
    assert f"waited {done['elapsed']:.0f} s for readyz, node_ready" in done["msg"]
    assert "HTTP 500 (etcd); the cluster has no node gw1" in done["msg"]
    assert done["missing"][0] == "the API is not ready: HTTP 500 (etcd)"


def test_check_mode_looks_once_and_does_not_fail(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    done = wait(cluster, capsys, "node_ready", check=True, timeout=60)
    assert not done.get("failed")
    assert done["missing"] == ["the cluster has no node gw1"]
    assert len(cluster.asked) == 1


def test_a_node_that_is_gone(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert not wait(cluster, capsys, "node_gone").get("failed")
    cluster.answers = {"/api/v1/nodes/gw1": (200, node())}
    assert "still there" in wait(cluster, capsys, "node_gone")["msg"]
    # No answer is no proof that it is gone.
    cluster.answers = {"/api/v1/nodes/gw1": (503, "")}
    assert "HTTP 503" in wait(cluster, capsys, "node_gone")["msg"]


def test_nobody_answers(cluster: Cluster, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "does not answer" in wait(cluster, capsys, "readyz", api_port=1)["msg"]
    assert "no keys" in wait(cluster, capsys, "readyz", data_dir=str(tmp_path))["msg"]
    broken = str(tmp_path / "none")
    assert "names no server" in wait(cluster, capsys, "readyz", kubeconfig=broken)["msg"]


def test_a_version_must_be_named(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs version" in wait(cluster, capsys, "kubelet_version")["msg"]


def kubeconfig(cluster: Cluster, **other: str) -> str:
    tls = cluster.folder / "server" / "tls"

    def data(file: str) -> str:
        return base64.b64encode((tls / file).read_bytes()).decode()

    values = {
        "certificate-authority-data": data("server-ca.crt"),
        "server": f"https://127.0.0.1:{cluster.port}",
        "client-certificate-data": data("client-admin.crt"),
        "client-key-data": data("client-admin.key"),
        **other,
    }
    return (
        "apiVersion: v1\nclusters:\n- cluster:\n"
        f"    certificate-authority-data: {values['certificate-authority-data']}\n"
        f"    server: {values['server']}\n  name: default\nusers:\n- name: default\n  user:\n"
        f"    client-certificate-data: {values['client-certificate-data']}\n"
        f"    client-key-data: {values['client-key-data']}\n"
    )


def test_a_kubeconfig_instead_of_keys(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cluster.answers = {"/readyz": (200, "ok")}
    file = tmp_path / "k3s.yaml"
    file.write_text(kubeconfig(cluster))
    assert not wait(cluster, capsys, "readyz", kubeconfig=str(file)).get("failed")
    file.write_text(json.dumps({"clusters": [{"cluster": {"server": f"https://127.0.0.1:{cluster.port}"}}]}))
    assert not wait(cluster, capsys, "readyz", kubeconfig=str(file)).get("failed")


def test_kubeconfigs_that_say_no_single_place(cluster: Cluster) -> None:
    two = kubeconfig(cluster) + kubeconfig(cluster, server="https://10.7.0.12:6443")
    with pytest.raises(ValueError, match="more than one server"):
        k3s_api.of_kubeconfig(two)
    with pytest.raises(ValueError, match="no server"):
        k3s_api.of_kubeconfig("")
    with pytest.raises(ValueError, match="base64"):
        k3s_api.of_kubeconfig(kubeconfig(cluster, **{"client-key-data": "!"}))


def test_another_authority_is_not_trusted(cluster: Cluster, tmp_path: Path) -> None:
    access = k3s_api.Access(f"https://127.0.0.1:{cluster.port}", issue("stranger", ca=True).pem)
    reachable, problem = k3s_api.readyz(k3s_api.connect(access))
    assert not reachable
    assert "certificate" in problem
    with pytest.raises(kube_api.KubeError, match="https"):
        k3s_api.connect(k3s_api.Access("http://127.0.0.1"))
    with pytest.raises(kube_api.KubeError, match="cannot be read"):
        k3s_api.connect(k3s_api.Access("https://127.0.0.1", str(tmp_path / "none")))


def test_what_the_probe_says_of_an_api(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.answers = {
        "/readyz": (200, "ok"),
        "/version": (200, {"gitVersion": "v1.34.4+k3s1"}),
        "/api/v1/nodes": (200, {"items": [node()]}),
    }

    def look(**more: Any) -> dict[str, Any]:
        arguments = {"data_dir": str(cluster.folder), "api_port": cluster.port, "units": ["none"], **more}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            k3s_probe.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)["k3s"]
        return answer

    found = look()
    assert found["api"] == {
        "reachable": True, "readyz": True, "foreign": False, "version": "v1.34.4+k3s1", "problem": ""
    }  # fmt: skip
    assert [entry["name"] for entry in found["nodes"]] == ["gw1"]
    assert look(ask_nodes=False)["nodes"] == []
    cluster.answers["/readyz"] = (500, "[-]etcd failed\n")
    assert look()["api"]["problem"] == "HTTP 500 (etcd)"
    stranger = look(data_dir="/nowhere")["api"]
    assert (stranger["foreign"], stranger["version"]) == (True, "")
