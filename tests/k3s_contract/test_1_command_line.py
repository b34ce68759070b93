# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program on a machine where nothing runs."""

from __future__ import annotations

import pytest

from .machine import Machine


@pytest.fixture(scope="module")
def bare(machines: dict[str, Machine], versions: list[str]) -> Machine:
    machine = machines["server1"]
    machine.install(versions[0], images=False)
    return machine


def test_says_its_version(bare: Machine, versions: list[str]) -> None:
    assert bare.run("k3s --version").startswith(f"k3s version {versions[0]} (")


@pytest.mark.parametrize("command", ["server", "agent"])
def test_refuses_an_unknown_flag(bare: Machine, command: str) -> None:
    done = bare.ask(f"k3s {command} --server https://127.0.0.1:6443 --token x --no-such-flag")
    assert done.returncode != 0
    assert "flag provided but not defined: -no-such-flag" in done.stdout + done.stderr


def test_names_its_commands(bare: Machine) -> None:
    text = bare.run("k3s --help")
    commands = "server agent kubectl crictl ctr etcd-snapshot token secrets-encrypt certificate check-config"
    assert [command for command in commands.split() if f" {command} " not in text] == []


def test_an_agent_wants_server_and_token(bare: Machine) -> None:
    done = bare.ask("k3s agent --token x")
    assert done.returncode != 0
    assert "--server is required" in done.stdout + done.stderr
    done = bare.ask("k3s agent --server https://127.0.0.1:6443")
    assert done.returncode != 0
    assert "--token is required" in done.stdout + done.stderr


def test_reset_and_join_exclude_each_other(bare: Machine) -> None:
    done = bare.ask("k3s server --cluster-reset --server https://127.0.0.1:6443 --token x")
    assert done.returncode != 0
    assert "--cluster-reset" in done.stdout + done.stderr


def test_a_full_token_is_held_against_the_authority(bare: Machine) -> None:
    done = bare.ask(f"timeout 20 k3s server --token K10{'0' * 64}::server:secret")
    assert done.returncode not in (0, 124)
