# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of the machine is what other tools tell of it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from edgeha_runtime import __version__
from edgeha_runtime.daemon import system_info


def test_the_machine_is_told_as_its_kernel_says() -> None:
    found = system_info.info("manual.sas")
    assert found["osType"] == "Linux"
    assert found["architecture"] == platform.machine()
    assert found["kernel_version"] == platform.release()
    assert found["version"] == __version__
    assert found["cpus"] == os.cpu_count()
    assert found["total_memory"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found["provisioning"]["type"] == "manual.sas"
    assert found["provisioning"]["dynamicReprovisioning"] is False


async def test_resources_are_those_of_the_machine(tmp_path: Path) -> None:
    found = await system_info.resources(tmp_path)
    assert 0 <= found["used_cpu"] <= 100
    assert 0 < found["used_ram"] < found["total_ram"]
    assert found["total_ram"] == system_info.info("")["total_memory"]
    assert found["host_uptime"] > 0
    assert found["process_uptime"] >= 0
    assert json.loads(found["docker_stats"]) == []
    assert json.loads(json.dumps(found)) == found


async def test_disks_are_those_of_the_state_and_of_the_container(tmp_path: Path) -> None:
    disks = (await system_info.resources(tmp_path))["disks"]
    for folder, disk in ((tmp_path, disks[0]), (Path("/"), disks[-1])):
        told = subprocess.run(
            ["df", "--output=fstype", str(folder)], capture_output=True, text=True, check=True
        )
        assert (disk["file_system"], disk["file_type"]) == (told.stdout.split()[1], "Unknown")
        assert disk["total_space"] == pytest.approx(shutil.disk_usage(folder).total, rel=0.01)
        assert 0 <= disk["available_space"] <= disk["total_space"]


MOUNTS = """\
proc /proc proc rw 0 0
/dev/sdb {state}-other ext4 rw 0 0
systemd-1 {state} autofs rw 0 0
nas:/edge {state} nfs4 rw 0 0
/dev/sdc {state}/below ext4 rw 0 0
overlay / overlay rw 0 0
"""


async def test_the_disk_of_a_folder_is_the_last_one_mounted_nearest_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    (state / "store").mkdir(parents=True)
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS.format(state=state))
    monkeypatch.setattr(system_info, "_MOUNTS", mounts)
    for folder in (state, state / "store"):
        disks = (await system_info.resources(folder))["disks"]
        assert [(disk["name"], disk["file_system"]) for disk in disks] == [
            ("nas:/edge", "nfs4"),
            ("overlay", "overlay"),
        ]


async def test_one_disk_for_both_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/sda / ext4 rw 0 0\n")
    monkeypatch.setattr(system_info, "_MOUNTS", mounts)
    assert [disk["name"] for disk in (await system_info.resources(tmp_path))["disks"]] == ["/dev/sda"]
