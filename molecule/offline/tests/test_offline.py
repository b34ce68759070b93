# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came from a folder of the controller is what is installed, and nothing else was asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import testinfra
import yaml

LAB_HOME = Path(os.environ.get("EDGEHA_LAB_HOME") or Path.home() / ".cache" / "edgeha-lab")
STATE = LAB_HOME / "run" / os.environ["EDGEHA_LAB_NAME"]
INVENTORY = STATE / "inventory" / "hosts.yml"


@pytest.mark.parametrize("name", ["server1", "agent1"])
def test_program_and_images_are_those_of_the_folder(name: str) -> None:
    host = testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}")
    lock = yaml.safe_load((STATE / "k3s-lock.yml").read_text())["v1.34.4+k3s1"]
    assert host.file("/usr/local/bin/k3s").sha256sum in lock["k3s"].values()
    (archive,) = host.file("/var/lib/rancher/k3s/agent/images").listdir()
    assert host.file(f"/var/lib/rancher/k3s/agent/images/{archive}").sha256sum in lock["images"].values()


def test_nobody_asked_the_mirror() -> None:
    log = STATE / "logs" / "k3s-mirror.log"
    assert not log.exists() or "GET" not in log.read_text()
