# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order of an upgrade: the playbook as it is, on clusters that are a file.

Modules that would work on machines are replaced in a copy of the collection by ones that write down what they
were asked; plans, roles and waves are the real ones. What they do to real machines is the scenario upgrade's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
OLD, NEW = "v1.34.1+k3s1", "v1.34.3+k3s1"
CLUSTERS = {"plant07": ["gw1", "gw2", "box1"], "plant08": ["gw8", "gw9"]}

# What every replaced module begins with. STUB_HOST comes from the machine's interpreter.
BEGINNING = """
from __future__ import annotations
import fcntl, json, os
from ansible.module_utils.basic import AnsibleModule
HOST, PLACE = os.environ["STUB_HOST"], os.environ["STUB_PLACE"]
OPTIONS = ("name state peers reason limit leave force data_dir keep states node version timeout files "
           "restart_files read_token ask_nodes patience").split()
module = AnsibleModule({name: {"type": "raw"} for name in OPTIONS}, supports_check_mode=True)
params, lock = module.params, open(PLACE + "/lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
state = json.load(open(PLACE + "/state.json"))
cluster = next(machines for machines in state.values() if HOST in machines)
def note(*words):
    print(*words, file=open(PLACE + "/events", "a"))
def end(**result):
    if not module.check_mode:
        json.dump(state, open(PLACE + "/state.json", "w"))
    (module.fail_json if "msg" in result else module.exit_json)(**result)
"""
PROBE = """
me, server = cluster[HOST], HOST.startswith("gw")
nodes = [
    {"name": name, "ready": True, "schedulable": True, "kubelet": machine["version"], "labels": {},
     "taints": [], "voter": True if name.startswith("gw") else None,
     "annotations": {"edgeha.io/cordoned-by": "upgrade"} if machine.get("cordoned") else {}}
    for name, machine in cluster.items()
]
end(k3s={
    "role": "server" if server else "agent", "architecture": "x86_64", "files": {}, "stale": [],
    "binary": {"path": "", "version": me["version"], "sha256": "x"}, "etcd": {"members": []},
    "unit": {"name": "k3s" if server else "k3s-agent", "load": "loaded", "active": "active", "enabled": True,
             "exe_version": me["version"]},
    "config": {"server": "", "cluster_init": False, "node_name": HOST, "external": False},
    "data": {"server": server, "agent": True, "half": False,
             "datastore": "etcd" if server else "none",
             "etcd_member": server, "etcd_name": HOST + "-1a2b" if server else "", "members": [],
             "reset_flag": False, "tombstone": False, "ca_sha256": "", "token_sha256": "t", "snapshots": [],
             "ca_certificates": [min(cluster)] if server else [], "agent_ca_certificates": [min(cluster)]},
    "node": {"name": HOST, "name_from": "config", "name_file": "/etc/rancher/node/password"},
    "api": {"reachable": server, "readyz": server, "foreign": False, "version": "", "problem": ""},
    "nodes": nodes if server else [],
})
"""
NODE = """
node = cluster[params["name"]]
changed = params["state"] == "drained" or bool(node.get("cordoned"))
node["cordoned"] = params["state"] == "drained"
note(params["state"], params["name"], "by", HOST)
end(changed=changed)
"""
SWAP = """
note("swap", HOST)
if cluster[HOST].get("broken"):
    end(msg="the disk is full")
cluster[HOST]["version"] = params["version"]
end(changed=True)
"""
STUBS = {
    "k3s_probe": PROBE,
    "cluster_node": NODE,
    "stub_swap": SWAP,
    "k3s_snapshot": 'note("snapshot", HOST)\nend(changed=True, snapshot={}, snapshots=[])\n',
    "k3s_wait": 'note("wait", params["node"], *params["states"])\nend(changed=False)\n',
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the collection, its modules replaced, and an inventory."""
    root = tmp_path_factory.mktemp("upgrade")
    collection = root / "collections" / "ansible_collections" / "edgeha" / "iotedge"
    for name in ("playbooks", "roles", "plugins", "meta"):
        shutil.copytree(ROOT / name, collection / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "galaxy.yml", collection)
    for name, text in STUBS.items():
        (collection / "plugins" / "modules" / f"{name}.py").write_text(BEGINNING + text)
    for role in ("k3s_server", "k3s_agent"):
        shutil.rmtree(collection / "roles" / role)
        task = {"name": "Swap", "edgeha.iotedge.stub_swap": {"version": "{{ k3s_artifacts_version }}"}}
        tasks = collection / "roles" / role / "tasks"
        tasks.mkdir(parents=True)
        (tasks / "main.yml").write_text(json.dumps([task]))
    groups: dict[str, dict[str, Any]] = {"edge_servers": {}, "edge_agents": {}}
    for cluster, machines in CLUSTERS.items():
        for number, name in enumerate(machines):
            python = root / f"python-{name}"
            python.write_text(f'#!/bin/sh\nSTUB_HOST={name} STUB_PLACE={root} exec {sys.executable} "$@"\n')
            python.chmod(0o755)
            groups["edge_servers" if name.startswith("gw") else "edge_agents"][name] = {
                "edge_cluster": cluster,
                "ansible_host": f"10.{len(cluster)}.0.{number + 1}",
                "ansible_python_interpreter": str(python),
            }
    children = {name: {"hosts": hosts} for name, hosts in groups.items()}
    children["edge_clusters"] = {"hosts": {name: {} for name in CLUSTERS}}
    variables = {"ansible_connection": "local", "ansible_become": False, "edge_k3s_version": NEW}
    (root / "ansible.cfg").write_text("[defaults]\nforks = 10\n")
    (root / "hosts.json").write_text(json.dumps({"all": {"children": children, "vars": variables}}))
    return root


def begin(place: Path, **machines: dict[str, Any]) -> None:
    """Write what the machines are before a run: of the old version, but for those that are named."""
    clusters = {
        cluster: {name: {"version": OLD, **machines.get(name, {})} for name in names}
        for cluster, names in CLUSTERS.items()
    }
    (place / "state.json").write_text(json.dumps(clusters))


def state(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / "state.json").read_text())
    return found


def versions(place: Path) -> dict[str, str]:
    return {
        name: machine["version"] for cluster in state(place).values() for name, machine in cluster.items()
    }


def upgrade(place: Path, *options: str) -> tuple[int, str, list[str]]:
    """Run the playbook; return the exit code, what it said, and what the modules were asked."""
    (place / "events").write_text("")
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "--inventory", place / "hosts.json",
         *options, "edgeha.iotedge.upgrade"],
        cwd=place, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(place / "collections"),
             "ANSIBLE_HOME": str(place / "home"), "ANSIBLE_CONFIG": str(place / "ansible.cfg")},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr, (place / "events").read_text().splitlines()


def of(events: list[str], *machines: str) -> list[str]:
    return [event for event in events if event.split()[1] in machines]


def test_a_machine_that_fails_stops_its_own_cluster_and_goes_back_to_work(place: Path) -> None:
    begin(place, gw2={"broken": True})
    code, said, events = upgrade(place)
    assert code == 2, said[-3000:]
    assert of(events, "gw1", "gw2", "box1") == [
        "snapshot gw1",
        "drained gw1 by gw2",
        "swap gw1",
        "wait gw1 node_ready kubelet_version etcd_voter",
        "uncordoned gw1 by gw2",
        "drained gw2 by gw1",
        "swap gw2",
        "uncordoned gw2 by gw1",
    ]
    assert "gw2: the upgrade to v1.34.3+k3s1 stopped at Swap: the disk is full" in said
    assert "box1 keeps its version, because gw2" in said
    # The other cluster went on meanwhile, one server after the other too.
    assert [event.split()[0] for event in of(events, "gw8", "gw9")] == [
        "snapshot",
        *(["drained", "swap", "wait", "uncordoned"] * 2),
    ]
    assert versions(place) == {"gw1": NEW, "gw2": OLD, "box1": OLD, "gw8": NEW, "gw9": NEW}


def test_the_next_run_goes_on_with_what_is_left(place: Path) -> None:
    done = {"version": NEW}
    # Somebody took the power from the controller before gw1 was let go.
    begin(place, gw1={**done, "cordoned": True}, gw8=done, gw9=done)
    code, said, events = upgrade(place)
    assert code == 0, said[-3000:]
    assert events == [
        "wait gw1 node_ready kubelet_version etcd_voter",
        "uncordoned gw1 by gw2",
        "drained gw2 by gw1",
        "swap gw2",
        "wait gw2 node_ready kubelet_version etcd_voter",
        "uncordoned gw2 by gw1",
        "drained box1 by gw1",
        "swap box1",
        "wait box1 node_ready kubelet_version",
        "uncordoned box1 by gw1",
    ]
    assert set(versions(place).values()) == {NEW}
