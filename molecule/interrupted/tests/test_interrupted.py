# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Five runs that were killed and one that was not have left one cluster."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
from machines import machine


def test_all_three_servers_vote() -> None:
    server = machine("server1")
    nodes = json.loads(server.check_output("k3s kubectl get nodes -o json"))["items"]
    voters = {
        item["metadata"]["name"]
        for item in nodes
        for condition in item["status"]["conditions"]
        if condition["type"] == "EtcdIsVoter" and condition["status"] == "True"
    }
    assert voters == {"server1", "server2", "server3"}
