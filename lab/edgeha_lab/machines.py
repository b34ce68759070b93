# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`lab up --topology k3s`: bare machines with sshd, for roles that make nodes of them.

A machine is a privileged container with systemd, an address and an identity of its own. The
inventory that Ansible uses stands in the instance's folder, with a key and the machines' host keys.
"""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from edgeha_lab import cluster, engine, k3s, process
from edgeha_lab.paths import Instance
from edgeha_lab.progress import LabError, say, step, wait_for

_START_LIMIT = 60.0
_MOST_SERVERS = 9
_MOST_AGENTS = 40
_AT_ONCE = 4


def up(instance: Instance, image: str, servers: int | None, agents: int | None) -> None:
    """Makes the machines that are missing. Numbers that are not given stay as they are (first: 3 and 0)."""
    before = cluster.known(instance).get("machines", {"servers": 3, "agents": 0})
    wanted = {
        "servers": before["servers"] if servers is None else servers,
        "agents": before["agents"] if agents is None else agents,
    }
    names = [f"server{n + 1}" for n in range(wanted["servers"])]
    names += [f"agent{n + 1}" for n in range(wanted["agents"])]
    if not 1 <= wanted["servers"] <= _MOST_SERVERS or not 0 <= wanted["agents"] <= _MOST_AGENTS:
        raise LabError(f"a lab has 1 to {_MOST_SERVERS} servers and 0 to {_MOST_AGENTS} agents, not {wanted}")
    instance.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    instance.logs.mkdir(exist_ok=True)
    record = {"topology": "k3s", "gateway": cluster.network(instance), "machines": wanted}
    cluster.write_record(instance, record | {"nodes": cluster.known(instance).get("nodes", {})})
    make_key(instance)

    there = cluster.nodes(instance)
    surplus = [node for node in there if node.removeprefix(f"{instance.cluster}-") not in names]
    engine.remove_containers(surplus)
    for name in names:
        state = there.get(f"{instance.cluster}-{name}", "running")
        if state != "running":
            raise LabError(f"{name} is {state}: 'lab fault heal {name}' gives it its power back")
    missing = [name for name in names if f"{instance.cluster}-{name}" not in there]
    if missing:
        with step(f"starting machines {', '.join(missing)}"), ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda name: _start(instance, f"{instance.cluster}-{name}", name, image), missing))
    cluster.write_record(instance, record | {"nodes": cluster.addresses(instance)})
    _let_in(instance)
    write_inventory(instance)
    say(f"{len(names)} bare machines answer by ssh: ansible-playbook -i {inventory(instance)} …")


def inventory(instance: Instance) -> Path:
    return instance.folder / "inventory" / "hosts.yml"


def answers(address: str) -> bool:
    """Whether a machine's sshd says its name."""
    try:
        with socket.create_connection((address, 22), timeout=2) as connection:
            connection.settimeout(2)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _key(instance: Instance) -> Path:
    return instance.folder / "ssh" / "id_ed25519"


def make_key(instance: Instance) -> None:
    """The key of root on every machine of the instance."""
    generate_key(_key(instance), instance.cluster)


def public_key(instance: Instance) -> str:
    return _key(instance).with_suffix(".pub").read_text().strip()


def generate_key(key: Path, comment: str) -> None:
    if not key.with_suffix(".pub").exists():
        key.parent.mkdir(exist_ok=True, mode=0o700)
        key.unlink(missing_ok=True)
        process.output(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", key])


def replace(instance: Instance, node: str) -> None:
    """Puts a new, empty machine in the place of one: same name and address, nothing else is the same."""
    address = cluster.known(instance)["nodes"][node]
    image = engine.docker_output("inspect", "--format", "{{.Config.Image}}", node).strip()
    engine.remove_containers([node])
    with step(f"starting an empty machine {node} at {address}"):
        _start(instance, node, node.removeprefix(f"{instance.cluster}-"), image, address)
    _let_in(instance)


def _start(instance: Instance, node: str, hostname: str, image: str, address: str = "") -> None:
    engine.docker_output(
        "run", "--detach", "--privileged", "--cgroupns", "private",
        "--name", node, "--hostname", hostname, "--network", instance.network,
        "--label", f"{cluster.MACHINE_LABEL}={instance.cluster}",
        *(["--ip", address] if address else []),
        "--tmpfs=/run", "--tmpfs=/tmp", "--volume=/var", image,
    )  # fmt: skip


def _let_in(instance: Instance) -> None:
    """Waits for each sshd, allows the lab's key, and writes down the host keys from inside the machines."""
    script = f"umask 077 && mkdir -p /root/.ssh && echo '{public_key(instance)}' > /root/.ssh/authorized_keys"
    script += " && cat /etc/ssh/ssh_host_*_key.pub"

    def let_in(node: str, address: str) -> list[str]:
        wait_for(f"sshd on {node} ({address})", lambda: answers(address), _START_LIMIT)
        keys = engine.docker_output("exec", node, "sh", "-c", script)
        return [f"{address} {' '.join(line.split()[:2])}" for line in keys.splitlines()]

    nodes = cluster.known(instance)["nodes"]
    with step(f"waiting for sshd on {', '.join(nodes)}"), ThreadPoolExecutor() as pool:
        lines = [line for found in pool.map(let_in, nodes, nodes.values()) for line in found]
    known_hosts(instance).write_text("".join(f"{line}\n" for line in lines))


def known_hosts(instance: Instance) -> Path:
    return instance.folder / "ssh" / "known_hosts"


def write_inventory(instance: Instance) -> None:
    groups: dict[str, dict[str, dict[str, str]]] = {"edge_servers": {}, "edge_agents": {}}
    for node, address in cluster.known(instance)["nodes"].items():
        name = node.removeprefix(f"{instance.cluster}-")
        group = "edge_servers" if name.startswith("server") else "edge_agents"
        groups[group][name] = {"ansible_host": address}
    options = [
        "StrictHostKeyChecking=yes",
        f"UserKnownHostsFile={known_hosts(instance)}",
        "IdentitiesOnly=yes",
    ]
    document = {
        "all": {
            "children": {group: {"hosts": hosts} for group, hosts in groups.items()},
            "vars": {
                "ansible_user": "root",
                "ansible_ssh_private_key_file": str(_key(instance)),
                "ansible_ssh_common_args": " ".join(f"-o {option}" for option in options),
                "ansible_host_key_checking": True,
                "ansible_python_interpreter": "/usr/bin/python3",
                **k3s.variables(instance, cluster.known(instance)["gateway"]),
            },
        }
    }
    inventory(instance).parent.mkdir(exist_ok=True)
    inventory(instance).write_text("---\n" + yaml.safe_dump(document, sort_keys=False))
