# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came from a folder of the controller is what is installed, and nothing else was asked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))
from machines import STATE, machine


@pytest.mark.parametrize("name", ["server1", "agent1"])
def test_program_and_images_are_those_of_the_folder(name: str) -> None:
    host = machine(name)
    lock = yaml.safe_load((STATE / "k3s-lock.yml").read_text())["v1.34.4+k3s1"]
    assert host.file("/usr/local/bin/k3s").sha256sum in lock["k3s"].values()
    (archive,) = host.file("/var/lib/rancher/k3s/agent/images").listdir()
    assert host.file(f"/var/lib/rancher/k3s/agent/images/{archive}").sha256sum in lock["images"].values()


def test_nobody_asked_the_mirror() -> None:
    log = STATE / "logs" / "k3s-mirror.log"
    assert not log.exists() or "GET" not in log.read_text()
