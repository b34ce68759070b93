# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real etcd and API server on loopback, without machines, out of the lab's Kubernetes build."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_LIMIT_SECONDS = 90
HOME = Path(os.environ.get("EDGEHA_LAB_HOME", Path.home() / ".cache" / "edgeha-lab"))
# The one of the PATH, or that of the lab.
HELM = shutil.which("helm") or str(HOME / "cache" / "bin" / "helm")


def kube_binary() -> Path:
    """Return the lab's binary that holds every component, the newest one, or EDGEHA_KUBE_BINARY."""
    if named := os.environ.get("EDGEHA_KUBE_BINARY"):
        return Path(named)
    built = sorted(HOME.glob("cache/kubernetes-*/kube"), key=lambda path: path.stat().st_mtime)
    assert built, "no Kubernetes binary: run the lab's build, or name one in EDGEHA_KUBE_BINARY"
    return built[-1]


@dataclass
class ControlPlane:
    """A running control plane. admin: kubeconfig of an administrator."""

    folder: Path
    port: int

    @property
    def admin(self) -> Path:
        return self.folder / "admin.kubeconfig"

    def config(self, token: str) -> str:
        """Return a kubeconfig for whoever has this token."""
        server = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self.folder / "pki/apiserver.crt"),
        }
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "t",
                "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
                "clusters": [{"name": "t", "cluster": server}],
                "users": [{"name": "t", "user": {"token": token}}],
            }
        )

    def kubectl(self, *arguments: str, data: Any = None) -> str:
        """Run kubectl as administrator; data is given to it as JSON."""
        done = subprocess.run(
            [str(kube_binary()), "kubectl", "--kubeconfig", str(self.admin), *arguments],
            input=None if data is None else json.dumps(data),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"kubectl {arguments}: {done.stderr}"
        return done.stdout


@contextlib.contextmanager
def running(folder: Path, ports: tuple[int, int, int]) -> Iterator[ControlPlane]:
    """Start a control plane, and end it afterwards. ports: of the API server, of etcd and of etcd's peers."""
    made = ControlPlane(folder, ports[0])
    etcd, peer = (f"http://127.0.0.1:{port}" for port in ports[1:])
    for command in (
        ["openssl", "genrsa", "-out", "sa.key", "2048"],
        ["openssl", "rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub"],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    (folder / "tokens.csv").write_text("admin-token,admin,1,system:masters\n")
    made.admin.write_text(made.config("admin-token"))
    made.admin.chmod(0o600)
    components = {
        "etcd": [
            *("--data-dir=etcd", f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            *(f"--initial-cluster=default={peer}", "--unsafe-no-fsync"),
        ],
        "kube-apiserver": [
            *(f"--etcd-servers={etcd}", "--cert-dir=pki", f"--secure-port={made.port}"),
            *("--bind-address=127.0.0.1", "--endpoint-reconciler-type=none", "--authorization-mode=RBAC"),
            *("--service-cluster-ip-range=10.99.0.0/24", "--token-auth-file=tokens.csv"),
            *("--service-account-key-file=sa.pub", "--service-account-signing-key-file=sa.key"),
            "--service-account-issuer=https://kubernetes.default.svc",
        ],
    }
    started: list[subprocess.Popen[bytes]] = []
    try:
        for name, flags in components.items():
            with (folder / f"{name}.log").open("wb") as log:
                started.append(
                    subprocess.Popen([str(kube_binary()), name, *flags], cwd=folder, stdout=log, stderr=log)
                )
        _wait_until_ready(made, started)
        yield made
    finally:
        for process in reversed(started):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            process.kill()
            process.wait(timeout=10)


def _wait_until_ready(made: ControlPlane, started: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + START_LIMIT_SECONDS
    while True:
        with contextlib.suppress(AssertionError):
            made.kubectl("get", "--raw", "/readyz")
            return
        dead = [process.args for process in started if process.poll() is not None]
        assert not dead, f"ended: {dead}, see the logs in {made.folder}"
        assert time.monotonic() < deadline, f"not ready in {START_LIMIT_SECONDS} s: see {made.folder}"
        time.sleep(0.5)
