# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `lab up --topology k3s` asks of the engine, and the inventory it leaves behind."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml


class Engine:
    """Containers by name with their state; answers as the docker client would."""

    def __init__(self) -> None:
        self.containers: dict[str, str] = {}
        self.started: list[str] = []
        self.removed: list[str] = []

    def __call__(self, *words: str) -> str:
        verb = words[0]
        if verb == "ps":
            return "".join(f"{name} {state}\n" for name, state in self.containers.items())
        if verb == "run":
            name = words[words.index("--name") + 1]
            self.containers[name] = "running"
            self.started.append(name)
        elif verb == "rm":
            for name in words[3:]:
                del self.containers[name]
                self.removed.append(name)
        elif verb == "inspect":
            return f"172.29.9.{sorted(self.containers).index(words[-1]) + 2}\n"
        elif verb == "exec":
            return f"ssh-ed25519 AAAA{words[1]} root@{words[1]}\n"
        return ""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    from edgeha_lab import cluster, machines
    from edgeha_lab import engine as real

    fake = Engine()
    monkeypatch.setattr(real, "docker_output", fake)
    monkeypatch.setattr(cluster, "network", lambda _: "172.29.9.1")
    monkeypatch.setattr(machines, "answers", lambda _: True)
    return fake


def bring_up(servers: int | None, agents: int | None) -> Any:
    from edgeha_lab import machines
    from edgeha_lab.paths import Instance

    instance = Instance("bare")
    machines.up(instance, "image", servers, agents)
    return instance


def test_the_inventory_names_machines_key_and_host_keys(engine: Engine) -> None:
    instance = bring_up(2, 1)
    document = yaml.safe_load((instance.folder / "inventory" / "hosts.yml").read_text())["all"]
    assert {group: list(body["hosts"]) for group, body in document["children"].items()} == {
        "edge_servers": ["server1", "server2"],
        "edge_agents": ["agent1"],
    }
    assert document["children"]["edge_agents"]["hosts"]["agent1"] == {"ansible_host": "172.29.9.2"}
    key = Path(document["vars"]["ansible_ssh_private_key_file"])
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    known_hosts = instance.folder / "ssh" / "known_hosts"
    assert "StrictHostKeyChecking=yes" in document["vars"]["ansible_ssh_common_args"]
    assert f"UserKnownHostsFile={known_hosts}" in document["vars"]["ansible_ssh_common_args"]
    assert "172.29.9.2 ssh-ed25519 AAAAedgeha-bare-agent1\n" in known_hosts.read_text()


def test_a_second_up_starts_nothing_and_keeps_the_key(engine: Engine) -> None:
    key = (bring_up(1, 1).folder / "ssh" / "id_ed25519").read_text()
    engine.started.clear()
    instance = bring_up(None, None)
    assert engine.started == engine.removed == []
    assert (instance.folder / "ssh" / "id_ed25519").read_text() == key


def test_other_numbers_add_and_remove_machines(engine: Engine) -> None:
    bring_up(1, 2)
    engine.started.clear()
    bring_up(3, 1)
    assert engine.started == ["edgeha-bare-server2", "edgeha-bare-server3"]
    assert engine.removed == ["edgeha-bare-agent2"]


def test_a_machine_without_power_is_not_made_anew(engine: Engine) -> None:
    from edgeha_lab.progress import LabError

    bring_up(1, 0)
    engine.containers["edgeha-bare-server1"] = "exited"
    with pytest.raises(LabError, match="lab fault heal server1"):
        bring_up(1, 0)


@pytest.mark.parametrize(("servers", "agents"), [(0, 1), (10, 0), (1, -1)])
def test_numbers_that_make_no_lab_are_refused(engine: Engine, servers: int, agents: int) -> None:
    from edgeha_lab.progress import LabError

    with pytest.raises(LabError, match="1 to 9 servers"):
        bring_up(servers, agents)
    assert not engine.started


def test_a_lab_does_not_change_its_topology(lab_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from edgeha_lab.cli import main
    from edgeha_lab.paths import Instance

    folder = Instance("one").folder
    folder.mkdir(parents=True)
    (folder / "instance.json").write_text(json.dumps({"topology": "kind"}))
    assert main(["--name", "one", "up", "--topology", "k3s"]) == 1
    assert "lab one is of topology kind" in capsys.readouterr().err


def test_numbers_of_machines_go_with_their_topology(capsys: pytest.CaptureFixture[str]) -> None:
    from edgeha_lab.cli import main

    assert main(["--name", "one", "up", "--servers", "2"]) == 1
    assert "--topology k3s" in capsys.readouterr().err
