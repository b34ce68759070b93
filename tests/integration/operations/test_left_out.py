# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An operation on a cluster that others run says so, and does not even look at its machines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# Nobody listens there: who would be asked would be unreachable.
INVENTORY = """
all:
  vars: {ansible_host: 127.0.0.1, ansible_port: 1}
  children:
    edge_clusters: {hosts: {plant07: {edge_cluster_mode: join, edge_join_kind: kubeadm}}}
    edge_agents: {hosts: {gw1: {}, gw2: {}}}
"""


@pytest.mark.parametrize("name", ["reset", "upgrade", "rotate_keys"])
def test_it_is_said_once_for_a_cluster(tmp_path: Path, name: str) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(INVENTORY)
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "--inventory", inventory,
         f"playbooks/{name}.yml", "--extra-vars", "edge_confirm=plant07"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "ANSIBLE_FORCE_COLOR": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    line = f"Its edge_cluster_mode is join, so {name} is done by whoever runs that cluster"
    assert " ".join(done.stdout.split()).count(f"plant07: left as it is. {line}") == 1, done.stdout
