# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The container engine: the one that runs, or one of our own that goes away with the lab.

An engine of our own puts everything it makes (images, networks, firewall rules,
its bridge) where `stop` finds it again. On a host that lacks CAP_SYS_RESOURCE
its containers are started through lab/tools/cmd/oci-shim.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

from edgeha_lab import paths, process
from edgeha_lab.progress import LabError, say, step, wait_for

_CAP_SYS_RESOURCE = 24
_START_LIMIT = 60.0
_STOP_LIMIT = 60.0


def _folder() -> Path:
    return paths.home() / "run" / ".engine"


def _own_socket() -> str:
    return f"unix://{_folder() / 'docker.sock'}"


def environment() -> dict[str, str]:
    """What a Docker client needs to reach the engine in use; LabError when there is none."""
    if _own_is_running():
        return {"DOCKER_HOST": _own_socket(), "DOCKER_BUILDKIT": "0"}
    if _answers(None):
        return {"DOCKER_BUILDKIT": "0"}
    raise LabError("no Docker engine runs; start the lab's own with 'lab up' (or start yours)")


def is_running() -> bool:
    return _own_is_running() or _answers(None)


def ensure(shim: Path) -> None:
    """Uses the engine that runs on this machine, or starts one of the lab's own."""
    if is_running():
        return
    if not shutil.which("dockerd"):
        raise LabError("there is no Docker engine on this machine; 'make system' installs Debian's docker.io")
    # Two engines would take each other's bridge and firewall rules away.
    others = [
        pid.name for pid in Path("/proc").iterdir() if pid.name.isdigit() and _is_dockerd(int(pid.name))
    ]
    if others:
        raise LabError(
            f"a Docker engine runs (process {', '.join(others)}) on a socket that is not Docker's own: set "
            "DOCKER_HOST to use it, or stop it (a lab with another EDGEHA_LAB_HOME: 'lab down' there)"
        )
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (paths.cache() / "engine").mkdir(parents=True, exist_ok=True)
    _remember_host_network(folder)
    # An engine that was killed leaves its process ids behind, and others may have them now.
    (folder / "docker.pid").unlink(missing_ok=True)
    shutil.rmtree(folder / "exec", ignore_errors=True)
    # A file of our own: the host's /etc/docker/daemon.json is for the host's engine.
    configuration = folder / "daemon.json"
    configuration.write_text("{}\n")
    command = [
        "dockerd",
        f"--data-root={paths.cache() / 'engine'}",
        f"--exec-root={folder / 'exec'}",
        f"--pidfile={folder / 'docker.pid'}",
        f"--host={_own_socket()}",
        f"--config-file={configuration}",
        "--live-restore=false",
    ]
    if not _holds_sys_resource():
        command += [f"--add-runtime=lab={shim}", "--default-runtime=lab"]
        say("this host lacks CAP_SYS_RESOURCE: containers start through the OCI shim")
    log = folder / "dockerd.log"
    with step("starting a Docker engine of the lab's own", log):
        with log.open("ab") as output:
            engine = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

        def answers() -> bool:
            if engine.poll() is not None:
                raise LabError(f"the Docker engine ended with {engine.returncode}:\n{process.tail(log)}")
            return _answers(_own_socket())

        wait_for("the Docker engine to answer", answers, _START_LIMIT)


def stop() -> None:
    """Ends the lab's own engine and takes back what it changed on the host; keeps its image cache."""
    folder = _folder()
    if not folder.exists():
        return
    pid = _own_pid()
    with step("stopping the lab's Docker engine"):
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            wait_for("the Docker engine to end", lambda: not _is_dockerd(pid), _STOP_LIMIT)
        _restore_host_network(folder)
        shutil.rmtree(folder)


def _answers(host: str | None) -> bool:
    command = ["docker"] + (["--host", host] if host else []) + ["version", "--format", "{{.Server.Version}}"]
    try:
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _own_pid() -> int | None:
    try:
        pid = int((_folder() / "docker.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pid if _is_dockerd(pid) else None


def _own_is_running() -> bool:
    return _own_pid() is not None and _answers(_own_socket())


def _is_dockerd(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "(dockerd)" in status and ") Z " not in status


def _holds_sys_resource() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False


# A Docker engine leaves its bridge, its firewall rules and IP forwarding behind when it ends.
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def _remember_host_network(folder: Path) -> None:
    file = folder / "host-network.json"
    if file.exists():
        return  # what an engine that was killed found is still what to go back to
    memory = {
        "iptables": process.output(["iptables-save"]),
        "ip_forward": _FORWARDING.read_text().strip(),
        "had_bridge": Path("/sys/class/net/docker0").exists(),
    }
    file.write_text(json.dumps(memory))


def _restore_host_network(folder: Path) -> None:
    file = folder / "host-network.json"
    if not file.exists():
        return
    memory = json.loads(file.read_text())
    # Tables that were not there before have nothing to be restored to: empty them.
    before = memory["iptables"]
    for table in ("filter", "nat", "raw", "mangle"):
        if f"*{table}\n" not in before:
            policies = _empty_table(table)
            if policies:
                process.output(["iptables-restore"], stdin=policies.encode())
    if before.strip():
        process.output(["iptables-restore"], stdin=before.encode())
    if not memory["had_bridge"] and Path("/sys/class/net/docker0").exists():
        process.output(["ip", "link", "delete", "docker0"])
    _FORWARDING.write_text(memory["ip_forward"])


def _empty_table(table: str) -> str:
    now = process.output(["iptables-save", "-t", table])
    chains = [line.split()[0] for line in now.splitlines() if line.startswith(":") and " - " not in line]
    return (
        "\n".join([f"*{table}", *(f"{chain} ACCEPT [0:0]" for chain in chains), "COMMIT", ""])
        if chains
        else ""
    )


def docker(*words: str | Path, log: Path, limit: float = 600, cwd: Path | None = None) -> None:
    process.run(["docker", *words], log=log, env=environment(), limit=limit, cwd=cwd)


def docker_output(*words: str, limit: float = 60) -> str:
    return process.output(["docker", *words], env=environment(), limit=limit)


def remove_containers(names: Iterable[str]) -> None:
    """Removes containers with the volumes that only they have."""
    doomed = list(names)
    if doomed:
        with step(f"removing {', '.join(doomed)}"):
            docker_output("rm", "--force", "--volumes", *doomed)


def remove_network(name: str) -> None:
    if name in docker_output("network", "ls", "--format", "{{.Name}}").split():
        docker_output("network", "rm", name)


def _egress_rule(bridge: str) -> list[str]:
    return ["DOCKER-USER", "-i", bridge, "!", "-o", bridge, "-j", "REJECT"]


def close_network(bridge: str) -> None:
    """Lets nothing out of a lab's network: its nodes reach each other and this host, and no one else."""
    if not _has_rule(bridge):
        process.output(["iptables", "--wait", "-I", *_egress_rule(bridge)])


def open_network(bridge: str) -> None:
    """Takes the rule of `close_network` away."""
    if _has_rule(bridge):
        process.output(["iptables", "--wait", "-D", *_egress_rule(bridge)])


def _has_rule(bridge: str) -> bool:
    check = ["iptables", "--wait", "-C", *_egress_rule(bridge)]
    return subprocess.run(check, capture_output=True, check=False).returncode == 0
