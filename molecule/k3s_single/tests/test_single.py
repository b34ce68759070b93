# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One server alone keeps its state in SQLite, and asks for nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

from testinfra.host import Host

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
from machines import machine


def server() -> Host:
    return machine("server1")


def test_its_state_is_in_sqlite() -> None:
    assert server().file("/var/lib/rancher/k3s/server/db/state.db").exists
    assert not server().file("/var/lib/rancher/k3s/server/db/etcd/member").exists


def test_the_program_can_be_run_by_all_and_written_by_root() -> None:
    program = server().file("/usr/local/bin/k3s")
    assert (program.user, oct(program.mode)) == ("root", "0o755")
    assert server().check_output("k3s --version").splitlines()[0].split()[2] == "v1.34.4+k3s1"


def test_the_kubeconfig_stays_on_the_server() -> None:
    assert oct(server().file("/etc/rancher/k3s/k3s.yaml").mode) == "0o600"
    assert not (Path.home() / ".kube" / "config").exists()
