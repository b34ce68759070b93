# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two servers whose state is in an etcd on a machine that has no k3s."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests import tls

from .machine import DATA, Machine, condition, eventually, lab

ETCD = "/opt/etcd"
KEYS = "/etc/datastore"
TOKEN = "datastore-secret"
UNIT = f"""[Service]
Type=notify
ExecStart={ETCD}/etcd --name elsewhere --data-dir /var/lib/etcd --unsafe-no-fsync --client-cert-auth \\
  --listen-client-urls https://0.0.0.0:2379,https://0.0.0.0:22379 \\
  --advertise-client-urls https://{{address}}:2379 \\
  --trusted-ca-file {KEYS}/ca.crt --cert-file {KEYS}/own.crt --key-file {KEYS}/own.key
"""


def _program() -> Path:
    """The lab's Kubernetes build is etcd too, when it is called so."""
    home = os.environ.get("EDGEHA_LAB_HOME") or Path.home() / ".cache" / "edgeha-lab"
    return (Path(home) / "cache" / "bin" / "kubectl").resolve(strict=True)


def _give_keys(machine: Machine, authority: tls.Issued, own: tls.Issued) -> None:
    machine.write(f"{KEYS}/ca.crt", authority.pem)
    machine.write(f"{KEYS}/own.crt", own.pem)
    machine.write(f"{KEYS}/own.key", own.key_pem)


@pytest.fixture(scope="module")
def servers(machines: dict[str, Machine], versions: list[str]) -> Iterator[list[Machine]]:
    both, elsewhere = [machines["server1"], machines["server2"]], machines["server3"]
    for machine in [*both, elsewhere]:
        if machine.exists(DATA):
            lab("fault", "wipe", machine.name)
    authority = tls.issue("datastore authority", ca=True)
    _give_keys(elsewhere, authority, tls.issue("etcd", authority, address=elsewhere.address))
    with _program().open("rb") as program:
        ssh = ["ssh", "-i", elsewhere.key, *elsewhere.options.split(), f"root@{elsewhere.address}"]
        command = f"mkdir -p {ETCD} && cat > {ETCD}/etcd && chmod 755 {ETCD}/etcd"
        subprocess.run([*ssh, command], stdin=program, check=True, timeout=120)
    elsewhere.write("/etc/systemd/system/etcd.service", UNIT.format(address=elsewhere.address), "644")
    elsewhere.run("systemctl daemon-reload && systemctl start etcd")
    for machine in both:
        _give_keys(machine, authority, tls.issue(machine.name, authority))
        machine.install(versions[0])
        machine.configure(
            token=TOKEN,
            datastore_endpoint=f"https://{elsewhere.address}:2379,https://{elsewhere.address}:22379",
            datastore_cafile=f"{KEYS}/ca.crt",
            datastore_certfile=f"{KEYS}/own.crt",
            datastore_keyfile=f"{KEYS}/own.key",
            secrets_encryption=True,
            disable=["traefik", "servicelb"],
        )
    # At once: neither names the other, and one of them begins the cluster.
    for machine in both:
        machine.run("systemctl start --no-block k3s")
    for machine in both:
        eventually(f"{machine.name} to be Ready", partial(both[0].is_ready, machine.name), 180)
    yield both
    for machine in [*both, elsewhere]:
        lab("fault", "wipe", machine.name)


def test_servers_meet_in_a_datastore_elsewhere(servers: list[Machine]) -> None:
    first, second = servers
    first.kubectl("create configmap shared --from-literal=a=b")
    assert second.get("configmap shared")["data"] == {"a": "b"}
    for file in ("tls/server-ca.crt", "tls/client-ca.crt", "tls/service.key", "cred/encryption-config.json"):
        digests = {machine.run(f"sha256sum < {DATA}/server/{file}") for machine in servers}
        assert len(digests) == 1, file
    tokens = {machine.run(f"cat {DATA}/server/token") for machine in servers}
    assert len(tokens) == 1


def test_no_server_is_a_member_of_etcd(servers: list[Machine]) -> None:
    for machine in servers:
        node = servers[0].node(machine.name)
        assert "node-role.kubernetes.io/control-plane" in node["metadata"]["labels"]
        assert "node-role.kubernetes.io/etcd" not in node["metadata"]["labels"]
        assert condition(node, "EtcdIsVoter") == ""
        assert not machine.exists(f"{DATA}/server/db/etcd")
        assert not machine.exists(f"{DATA}/server/db/state.db")


def test_there_are_no_snapshots_of_it(servers: list[Machine]) -> None:
    done = servers[0].ask("k3s etcd-snapshot save")
    assert done.returncode != 0
    assert "etcd datastore disabled" in done.stdout + done.stderr


def test_a_server_starts_again_from_it(servers: list[Machine]) -> None:
    second = servers[1]
    second.restart()
    eventually("the node to be Ready", second.is_ready)
    assert second.get("configmap shared")["data"] == {"a": "b"}


def test_another_token_is_refused(servers: list[Machine]) -> None:
    second = servers[1]
    done = second.ask(
        "timeout 60 k3s server --token another-secret --data-dir /tmp/other --node-name stranger "
        "--lb-server-port 6555 --https-listen-port 6554"
    )
    assert done.returncode not in (0, 124)
    assert "encrypted with different token" in done.stdout + done.stderr
    second.run("rm -rf /tmp/other")


def test_other_kinds_are_not_taken_for_it(servers: list[Machine]) -> None:
    """The real k3s tries to connect, and says no more of the password than the work-alike."""
    second = servers[1]
    done = second.ask(
        "timeout 60 k3s server --token x --data-dir /tmp/other --lb-server-port 6555 "
        "--https-listen-port 6554 --datastore-endpoint 'postgres://user:verysecret@127.0.0.1:1/k3s'"
    )
    assert done.returncode != 0
    assert "verysecret" not in done.stdout + done.stderr
    second.run("rm -rf /tmp/other")
