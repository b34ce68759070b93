# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests stand in their order: the last ones turn the server with SQLite into one with etcd."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
from machines import EPHEMERAL, machine, nothing_to_change, places_of, play, recap

SITE = "../shared/converge.yml"
ELSEWHERE = ["server1", "server2"]
DATA = "/var/lib/rancher/k3s"
CONFIGURATION = "/etc/rancher/k3s"
CONVERT = ("--limit", "plant08,server3", "--extra-vars", "scenario_etcd=true")
POD = """{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain", "namespace": "default"},
"spec": {"containers": [{"name": "plain", "image": "none.test/plain:1"}]}}"""


def nodes(name: str) -> dict[str, dict[str, str]]:
    """Return the conditions of each node that a server knows."""
    items = json.loads(machine(name).check_output("k3s kubectl get nodes -o json"))["items"]
    return {
        item["metadata"]["name"]: {entry["type"]: entry["status"] for entry in item["status"]["conditions"]}
        for item in items
    }


def started(name: str) -> str:
    return str(machine(name).check_output("systemctl show -p MainPID,ExecMainStartTimestampMonotonic k3s"))


def config(name: str) -> dict[str, Any]:
    text = machine(name).check_output(f"cat {CONFIGURATION}/config.yaml")
    pairs = (line.partition(": ") for line in text.splitlines() if not line.startswith("#"))
    return {key: json.loads(value) for key, _, value in pairs}


def test_the_second_run_restarted_nothing() -> None:
    for name in [*ELSEWHERE, "server3"]:
        before = (EPHEMERAL / f"{name}.services").read_text().split("\n\n")
        (own,) = [block for block in before if "Id=k3s.service" in block]
        assert set(started(name).splitlines()) <= set(own.splitlines()), name


def test_check_mode_on_finished_machines_finds_nothing_to_change() -> None:
    rows = nothing_to_change(play(SITE, "--check", "--diff"))
    assert set(rows) >= {*ELSEWHERE, "server3"}
    assert "agent1" not in rows


def test_servers_of_one_datastore_are_one_cluster_and_no_members_of_etcd() -> None:
    found = nodes("server1")
    assert {name: conditions["Ready"] for name, conditions in found.items()} == dict.fromkeys(
        ELSEWHERE, "True"
    )
    assert not any("EtcdIsVoter" in conditions for conditions in found.values())
    assert nodes("server2").keys() == found.keys()
    assert len({machine(name).file(f"{DATA}/server/tls/server-ca.crt").sha256sum for name in ELSEWHERE}) == 1
    for name in ELSEWHERE:
        assert not machine(name).file(f"{DATA}/server/db/etcd").exists
        assert not machine(name).file(f"{DATA}/server/db/state.db").exists
        assert not {"server", "cluster-init"} & set(config(name))


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_opens_the_datastore_is_root_s_alone(name: str, tmp_path: Path) -> None:
    settings = config(name)
    for key in ("datastore-cafile", "datastore-certfile", "datastore-keyfile"):
        file = machine(name).file(settings[key])
        assert (file.user, oct(file.mode)) == ("root", "0o600"), key
    assert oct(machine(name).file(f"{CONFIGURATION}/config.yaml").mode) == "0o600"
    secret = (EPHEMERAL / "datastore" / "k3s.key").read_text().splitlines()[1]
    assert places_of(secret, machine(name), tmp_path) == []


def test_neither_key_nor_address_is_in_a_log_of_the_controller() -> None:
    secret = (EPHEMERAL / "datastore" / "k3s.key").read_text().splitlines()[1]
    endpoint = config("server1")["datastore-endpoint"]
    logs = [*EPHEMERAL.glob("*.log")]
    assert logs
    for log in logs:
        text = log.read_text(errors="replace")
        assert secret not in text, log
        assert endpoint not in text, log


def test_secrets_are_encrypted_where_they_are_kept() -> None:
    create = "k3s kubectl create {} word --from-literal=word={}"
    machine("server1").check_output(create.format("secret generic", "plainlyvisible"))
    machine("server1").check_output(create.format("configmap", "quitevisible"))
    held = "grep -r -a -l {} /var/lib/etcd | wc -l"
    assert int(machine("agent1").check_output(held.format("quitevisible"))) > 0
    assert int(machine("agent1").check_output(held.format("plainlyvisible"))) == 0


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_profile_holds(name: str) -> None:
    host = machine(name)
    kubelet = host.check_output(f"cat {DATA}/agent/etc/kubelet.conf.d/00-k3s-defaults.conf")
    assert "protectKernelDefaults: true" in kubelet
    names = "vm/panic_on_oom vm/overcommit_memory kernel/panic kernel/panic_on_oops"
    assert host.check_output(f"cd /proc/sys && cat {names}").split() == ["0", "1", "10", "1"]
    audit = host.file(f"{DATA}/server/logs/audit.log")
    assert audit.size > 0
    assert oct(audit.mode) == "0o600"
    entry = json.loads(host.check_output(f"tail -n 1 {audit.path}"))
    assert (entry["kind"], entry["level"]) == ("Event", "Metadata")
    refused = host.run(f"echo '{POD}' | k3s kubectl apply --dry-run=server -f -")
    assert refused.rc != 0
    assert 'violates PodSecurity "restricted:latest"' in refused.stderr
    allowed = POD.replace('"default"', '"kube-system"')
    host.check_output(f"echo '{allowed}' | k3s kubectl apply --dry-run=server -f -")


def test_check_mode_tells_of_the_change_to_etcd_and_makes_none() -> None:
    assert machine("server3").file(f"{DATA}/server/db/state.db").exists
    machine("server3").check_output("k3s kubectl create configmap before --from-literal=a=b")
    before = started("server3")
    done = play(SITE, "--check", "--diff", *CONVERT)
    rows = recap(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:]
    assert rows["server3"].changed > 0
    assert started("server3") == before
    assert not machine("server3").file(f"{DATA}/server/db/etcd/member").exists


def test_one_server_with_sqlite_becomes_one_with_etcd_by_one_run() -> None:
    others = {name: started(name) for name in ELSEWHERE}
    done = play(SITE, *CONVERT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    host = machine("server3")
    assert host.file(f"{DATA}/server/db/etcd/member/wal").exists
    assert nodes("server3")["server3"].get("EtcdIsVoter") == "True"
    assert host.check_output("k3s kubectl get configmap before -o jsonpath={.data.a}") == "b"
    assert host.check_output("systemctl show -p NRestarts k3s") == "NRestarts=0"
    assert {name: started(name) for name in ELSEWHERE} == others


def test_the_run_after_that_finds_nothing_to_change() -> None:
    before = started("server3")
    nothing_to_change(play(SITE, *CONVERT))
    assert started("server3") == before
