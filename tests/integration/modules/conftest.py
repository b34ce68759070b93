# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A hub on loopback and a way to run plays against it, as an operator does: through ansible-playbook."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.ports import free_port

if TYPE_CHECKING:
    from ansible_collections.edgeha.iotedge.plugins.module_utils.iothub_client import HubClient

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / ".collections"))
START_LIMIT_SECONDS = 30
PLAYBOOK_LIMIT_SECONDS = 300
HIDDEN_SUFFIX = ".hidden.json"


@dataclass
class Hub:
    """A running emulator. hostname: with port. keys: by name of the policy."""

    hostname: str
    ca_file: str
    keys: dict[str, str]

    def client(self) -> HubClient:
        """Return the client of the modules."""
        from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_auth, iothub_client

        policy = iothub_auth.SasPolicy("iothubowner", self.keys["iothubowner"])
        return iothub_client.HubClient(self.hostname, policy, ca_file=self.ca_file)

    def device_ids(self) -> list[str]:
        """Return what devices the hub has, asked with the client of the modules."""
        client = self.client()
        found = client.request("GET", "/devices", query={"top": "1000"}).body
        client.close()
        return sorted(str(device["deviceId"]) for device in found)


@pytest.fixture
def start_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Hub]]:
    """Return a function that starts a hub of its own; extra arguments go to its command line."""
    started: list[subprocess.Popen[bytes]] = []
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "lab" / "iothub-emulator")}

    def start(*extra: str) -> Hub:
        state = tmp_path_factory.mktemp("hub")
        base = [sys.executable, "-m", "iothub_emulator"]
        subprocess.run(
            [*base, "init", "--state", str(state), "--name", "127.0.0.1"],
            env=environment,
            check=True,
            capture_output=True,
            timeout=START_LIMIT_SECONDS,
        )
        https, mqtt = free_port(), free_port()
        with (state / "serve.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *base,
                    *("serve", "--state", str(state), "--listen", "127.0.0.1"),
                    *("--https-port", str(https), "--mqtt-port", str(mqtt)),
                    *extra,
                ],
                env=environment,
                stderr=log,
            )
        started.append(process)
        deadline = time.monotonic() + START_LIMIT_SECONDS
        # The pid file is written after the hub listens.
        while not (state / "serve.pid").exists():
            assert process.poll() is None, (state / "serve.log").read_text()
            assert time.monotonic() < deadline, "the hub does not listen"
            time.sleep(0.05)
        keys = json.loads((state / "policies.json").read_text())
        return Hub(f"127.0.0.1:{https}", str(state / "ca.pem"), keys)

    yield start
    for process in started:
        process.terminate()
        process.wait(START_LIMIT_SECONDS)


@pytest.fixture
def hub(start_hub: Callable[..., Hub]) -> Hub:
    return start_hub()


@dataclass
class Run:
    """A finished run.

    results:  by name of the task, of the first host that has one.
    changed:  tasks that changed something, of all hosts.
    failures: messages of failed tasks.
    text:     all that was printed.
    """

    code: int
    results: dict[str, dict[str, Any]]
    changed: int
    failures: list[str]
    text: str


def run_playbook(arguments: list[str], cwd: Path = ROOT, **environment: str) -> Run:
    """Run ansible-playbook and return what its tasks said."""
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("ansible-playbook")), *arguments],
        cwd=cwd,
        env={
            **os.environ,
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, errors = process.communicate(timeout=PLAYBOOK_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        # Asked to end, it ends its workers too; killed, it would leave them running for ever.
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=START_LIMIT_SECONDS)
        process.kill()
        raise
    text = out + errors
    start = out.find("{\n")
    assert start >= 0, text
    document, _ = json.JSONDecoder().raw_decode(out[start:])
    results: dict[str, dict[str, Any]] = {}
    failures: list[str] = []
    for play in document["plays"]:
        for task in play["tasks"]:
            for result in task["hosts"].values():
                results.setdefault(task["task"]["name"].rpartition(" : ")[2], result)
                if result.get("failed"):
                    failures.append(str(result.get("msg")))
    changed = sum(host["changed"] for host in document["stats"].values())
    return Run(process.returncode, results, changed, failures, text)


@pytest.fixture(name="run_playbook")
def run_playbook_fixture() -> Callable[..., Run]:
    return run_playbook


def write_play(folder: Path, tasks: dict[str, dict[str, Any]], defaults: dict[str, dict[str, Any]]) -> Path:
    """Write a playbook of tasks, given as ``{name: {module: arguments}}``, with defaults by action group.

    A task that returns keys has to hide its result: it is kept in a file beside the playbook, for `run_play`.
    """

    def with_hidden(name: str, task: dict[str, Any]) -> list[dict[str, Any]]:
        if not any(isinstance(value, dict) and value.get("return_keys") for value in task.values()):
            return [{"name": name, **task}]
        kept = task.get("register", f"hidden_{abs(hash(name))}")
        target = folder / f"{name}{HIDDEN_SUFFIX}"
        copy = {"content": f"{{{{ {kept} | to_json }}}}", "dest": str(target), "mode": "0600"}
        keep = {"name": f"keep {name}", "ansible.builtin.copy": copy, "check_mode": False, "diff": False}
        return [{"name": name, **task, "register": kept, "no_log": True}, {**keep, "no_log": True}]

    playbook = folder / "play.yml"
    document = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "module_defaults": {f"group/edgeha.iotedge.{group}": options for group, options in defaults.items()},
        "tasks": [part for name, task in tasks.items() for part in with_hidden(name, task)],
    }
    playbook.write_text(yaml.safe_dump([document]))
    return playbook


def run_play(playbook: Path, *options: str) -> Run:
    """Run a playbook of `write_play`."""
    done = run_playbook(["-i", "localhost,", str(playbook), *options])
    for hidden in playbook.parent.glob(f"*{HIDDEN_SUFFIX}"):
        name = hidden.name.removesuffix(HIDDEN_SUFFIX)
        # Keeping the result is no change of the task's own.
        done.changed -= bool(done.results[f"keep {name}"].get("changed"))
        done.results[name] = json.loads(hidden.read_text())
        hidden.unlink()
    return done


@pytest.fixture
def write_playbook(hub: Hub, tmp_path: Path) -> Callable[[dict[str, dict[str, Any]]], Path]:
    """Return a function that writes a playbook of tasks, see `write_play`, for the hub."""
    defaults = {"hostname": hub.hostname, "policy_key": hub.keys["iothubowner"], "ca_file": hub.ca_file}
    return lambda tasks: write_play(tmp_path, tasks, {"iothub": defaults})


@pytest.fixture
def play(write_playbook: Callable[[dict[str, dict[str, Any]]], Path]) -> Callable[..., Run]:
    """Return a function that runs tasks, see `write_play`, against the hub."""
    return lambda tasks, *options: run_play(write_playbook(tasks), *options)
