# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gives a bare machine of one lab a way into the kind cluster of another, and writes down what a join needs.

Arguments: names of the lab of machines and of the kind lab, and the machine. Into ``run/MACHINES/join`` go
``kubeadm.json`` (URL, token, digest of the authority, the machine's address) and ``source/``, the folder for
edge_join_source: the lab's own kubelet and kubeadm, and the images that every node of the cluster needs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HOME = Path(os.environ.get("EDGEHA_LAB_HOME") or Path.home() / ".cache" / "edgeha-lab")
IMAGES = (
    "registry.k8s.io/pause:3.10.1",
    "registry.k8s.io/kube-proxy:v1.34.4",
    "registry.edgeha.test/lab/kubernetes:lab",
)


def docker(*words: str) -> str:
    socket = HOME / "run" / ".engine" / "docker.sock"
    own = {"DOCKER_HOST": f"unix://{socket}"} if socket.exists() else {}
    done = subprocess.run(
        ["docker", *words], capture_output=True, text=True, check=False, env={**os.environ, **own}
    )
    if done.returncode:
        raise SystemExit(f"docker {' '.join(words)}: {done.stderr}")
    return done.stdout


def address(container: str, network: str) -> str:
    template = '{{with index .NetworkSettings.Networks "' + network + '"}}{{.IPAddress}}{{end}}'
    return docker("inspect", "--format", template, container).strip()


def digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def make_source(source: Path, node: str) -> None:
    """The folder for edge_join_source. Programs are links to the lab's build, where that is possible."""
    (source / "images").mkdir(parents=True, exist_ok=True)
    built = max(HOME.glob("cache/kubernetes-*/kube"), key=lambda path: path.stat().st_mtime)
    for name in ("kubelet", "kubeadm"):
        (source / name).unlink(missing_ok=True)
        try:
            (source / name).hardlink_to(built)
        except OSError:
            shutil.copy2(built, source / name)
    docker("exec", node, "ctr", "--namespace", "k8s.io", "images", "export", "/var/lib/images.tar", *IMAGES)
    docker("cp", f"{node}:/var/lib/images.tar", str(source / "images" / "node.tar"))
    docker("exec", node, "rm", "/var/lib/images.tar")
    names = ["kubeadm", "kubelet", "images/node.tar"]
    (source / "SHA256SUMS").write_text("".join(f"{digest(source / name)}  {name}\n" for name in names))


def main(machines: str, kind: str, machine: str) -> None:
    network, container = f"edgeha-{kind}", f"edgeha-{machines}-{machine}"
    folder = HOME / "run" / machines / "join"
    folder.mkdir(exist_ok=True, mode=0o700)
    if not address(container, network):
        docker("network", "connect", network, container)
    plane = f"edgeha-{kind}-control-plane"
    key = (
        "openssl x509 -pubkey -noout -in /etc/kubernetes/pki/ca.crt | openssl pkey -pubin -outform der"
        " | openssl dgst -sha256 -hex"
    )
    authority = subprocess.run(
        ["sh", "-c", key.replace("-in /etc/kubernetes/pki/ca.crt", "")],
        input=docker("exec", plane, "cat", "/etc/kubernetes/pki/ca.crt"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()[-1]
    make_source(folder / "source", f"edgeha-{kind}-worker")
    facts = {
        "url": f"https://{address(plane, network)}:6443",
        "token": docker("exec", plane, "kubeadm", "token", "create").strip(),
        "ca_hash": f"sha256:{authority}",
        "address": address(container, network),
        "shim": str(max(HOME.glob("cache/tools-*/oci-shim"))),
        "kubeconfig": str(HOME / "run" / kind / "kubeconfig"),
    }
    target = folder / "kubeadm.json"
    target.touch(mode=0o600)
    target.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
