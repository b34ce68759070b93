# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Five runs that were killed and one that was not have left one cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path

import testinfra

LAB_HOME = Path(os.environ.get("EDGEHA_LAB_HOME") or Path.home() / ".cache" / "edgeha-lab")
INVENTORY = LAB_HOME / "run" / os.environ["EDGEHA_LAB_NAME"] / "inventory" / "hosts.yml"


def test_all_three_servers_vote() -> None:
    server = testinfra.get_host(f"ansible://server1?ansible_inventory={INVENTORY}")
    nodes = json.loads(server.check_output("k3s kubectl get nodes -o json"))["items"]
    voters = {
        item["metadata"]["name"]
        for item in nodes
        for condition in item["status"]["conditions"]
        if condition["type"] == "EtcdIsVoter" and condition["status"] == "True"
    }
    assert voters == {"server1", "server2", "server3"}
