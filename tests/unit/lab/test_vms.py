# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `lab up --topology vm` decides: without a virtual machine, but with a real disk in a file."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml


def lab(name: str = "soft", **record: Any) -> Any:
    from edgeha_lab.paths import Instance

    instance = Instance(name)
    (instance.folder / "vm").mkdir(parents=True)
    known = {"topology": "vm", "gateway": "172.29.9.1", "accelerator": "tcg"}
    known["nodes"] = {f"edgeha-{name}-server1": "172.29.9.2"}
    (instance.folder / "instance.json").write_text(json.dumps(known | record))
    return instance


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for folder in ("etc/ssh", "etc/systemd/network", "root/.ssh"):
        (tree / folder).mkdir(parents=True)
    file = tmp_path / "disk.img"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, file, "8M"], check=True)
    return file


def debugfs(disk: Path, request: str) -> str:
    return subprocess.run(["debugfs", "-R", request, disk], check=True, capture_output=True, text=True).stdout


def test_identity_is_written_into_a_disk_and_secrets_are_roots_alone(disk: Path, tmp_path: Path) -> None:
    from edgeha_lab import vms

    files = {
        "/etc/hostname": "server1\n",
        "/etc/ssh/ssh_host_ed25519_key": "key\n",
        "/root/.ssh/authorized_keys": "who\n",
    }
    vms.write_into(disk, files, tmp_path / "files")
    modes = {}
    for place, text in files.items():
        assert debugfs(disk, f"cat {place}") == text
        said = debugfs(disk, f"stat {place}").split()
        modes[place] = said[said.index("Mode:") + 1]
        assert said[said.index("User:") + 1] == "0"
    assert modes == {
        "/etc/hostname": "0644",
        "/etc/ssh/ssh_host_ed25519_key": "0600",
        "/root/.ssh/authorized_keys": "0600",
    }
    assert not (tmp_path / "files").exists()
    assert subprocess.run(["e2fsck", "-fn", disk], capture_output=True, check=False).returncode == 0


def test_a_file_that_did_not_get_into_the_disk_is_told(disk: Path, tmp_path: Path) -> None:
    from edgeha_lab import vms
    from edgeha_lab.progress import LabError

    with pytest.raises(LabError, match="/no/such/folder/file could not be written"):
        vms.write_into(disk, {"/no/such/folder/file": "text\n"}, tmp_path / "files")


def test_a_machine_has_its_address_name_and_an_id_of_its_own() -> None:
    from edgeha_lab import vms

    instance = lab()
    first, second = (vms.identity(instance, "172.29.9.2", "172.29.9.1") for _ in range(2))
    assert first["/etc/hostname"] == "server1\n"
    assert "Address=172.29.9.2/24\nGateway=172.29.9.1\n" in first["/etc/systemd/network/lab.network"]
    assert first["/etc/machine-id"] != second["/etc/machine-id"]
    [mac] = [word for word in vms.command_line(instance, "tcg") if "mac=" in word]
    assert mac.partition("mac=")[2].split(",")[0] in first["/etc/systemd/network/lab.network"]


def test_the_command_line_names_every_disk_and_emulates_where_it_must() -> None:
    from edgeha_lab import vms

    instance = lab()
    words = vms.command_line(instance, "tcg")
    serials = [word.rpartition("serial=")[2] for word in words if "serial=" in word]
    assert serials == ["lab-root", "lab-swap", "lab-empty", "lab-used"]
    assert words[words.index("-machine") + 1] == "q35,accel=tcg"
    assert "accel=kvm" in " ".join(vms.command_line(instance, "kvm"))


def test_two_labs_share_no_cable_and_no_hardware_address() -> None:
    from edgeha_lab import vms

    lines = [vms.command_line(lab(name), "tcg") for name in ("a", "a-name-of-20-letters")]
    cables = [next(word for word in line if "ifname=" in word) for line in lines]
    names = [word.partition("ifname=")[2].partition(",")[0] for word in cables]
    assert len(set(names)) == 2
    assert all(len(name) <= 15 for name in names)
    macs = [next(word for word in line if "mac=" in word) for line in lines]
    assert len(set(macs)) == 2


@pytest.mark.parametrize("pid", ["", "no number", "4194304999", "that of the test"])
def test_a_process_that_is_not_the_machine_is_not_taken_for_it(pid: str) -> None:
    from edgeha_lab import vms

    instance = lab()
    # Made here and not above: each worker of the tests has another, and all must collect the same tests.
    text = str(os.getpid()) if pid == "that of the test" else pid
    (instance.folder / "vm" / "pid").write_text(text)
    assert vms.nodes(instance) == {"edgeha-soft-server1": "exited"}
    vms.power(instance)


def test_power_ends_the_process_of_the_machine() -> None:
    from edgeha_lab import vms

    instance = lab()
    place = instance.folder / "vm" / "pid"
    command = ["sh", "-c", "echo begun; read never", "sh", str(place)]
    sleeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert sleeper.stdout is not None
    # Before it runs, a new process may be found without its command line.
    assert sleeper.stdout.readline() == b"begun\n"
    place.write_text(str(sleeper.pid))
    assert vms.nodes(instance) == {"edgeha-soft-server1": "running"}
    os.kill(sleeper.pid, 0)
    vms.power(instance)
    assert sleeper.wait(timeout=60) == -9


@pytest.mark.parametrize(("outcome", "wanted"), [("ends", "kvm"), ("fails", "tcg"), ("hangs", "tcg")])
def test_kvm_is_used_only_where_it_runs_a_kernel(
    monkeypatch: pytest.MonkeyPatch, outcome: str, wanted: str
) -> None:
    from edgeha_lab import vms

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        if outcome == "hangs":
            raise subprocess.TimeoutExpired(command, 5)
        return subprocess.CompletedProcess(command, 0 if outcome == "ends" else 1)

    monkeypatch.setattr(vms.os, "access", lambda *_: True)
    monkeypatch.setattr(vms.subprocess, "run", run)
    assert vms.accelerator(Path("vmlinuz")) == wanted


def test_a_host_without_kvm_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeha_lab import vms

    monkeypatch.setattr(vms.os, "access", lambda *_: False)
    monkeypatch.setattr(vms.subprocess, "run", lambda *_, **__: pytest.fail("asked"))
    assert vms.accelerator(Path("vmlinuz")) == "tcg"


def test_up_makes_disks_once_and_leaves_a_machine_that_runs_alone(
    monkeypatch: pytest.MonkeyPatch, disk: Path
) -> None:
    from edgeha_lab import cluster, vms
    from edgeha_lab.paths import Instance
    from edgeha_lab.vm_image import VmImage

    for name in ("vmlinuz", "initrd.img"):
        (disk.parent / name).write_text(name)
    disk.rename(disk.parent / "root.img")
    subprocess.run(
        ["debugfs", "-w", "-R", "mkdir /etc/systemd/network", disk.parent / "root.img"], check=True
    )
    started: list[str] = []
    monkeypatch.setattr(cluster, "network", lambda _: "172.29.9.1")
    monkeypatch.setattr(vms, "accelerator", lambda _: "tcg")
    monkeypatch.setattr(vms, "_start", lambda instance: started.append(instance.name))
    instance = Instance("new")
    vms.up(instance, VmImage(disk.parent))
    root = instance.folder / "vm" / "root.img"
    before = root.read_bytes()
    assert debugfs(root, "cat /etc/hostname") == "server1\n"
    kind = ["blkid", "-o", "value", "-s", "TYPE", root.parent / "swap.img"]
    assert subprocess.run(kind, capture_output=True, text=True, check=True).stdout.strip() == "swap"
    assert debugfs(root.parent / "used.img", "cat /orders.csv").startswith("number,part")
    assert not any((root.parent / "empty.img").read_bytes()[:65536])
    inventory = yaml.safe_load((instance.folder / "inventory" / "hosts.yml").read_text())
    assert inventory["all"]["children"]["edge_servers"]["hosts"] == {
        "server1": {"ansible_host": "172.29.9.2"}
    }
    host_key = (instance.folder / "ssh" / "known_hosts").read_text()
    assert host_key.startswith("172.29.9.2 ssh-ed25519 ")
    key = root.parent.parent / "ssh" / "host_ed25519_key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600

    vms.up(instance, VmImage(disk.parent))
    assert root.read_bytes() == before
    monkeypatch.setattr(vms, "_pid", lambda _: 7)
    vms.up(instance, VmImage(disk.parent))
    assert started == ["new", "new"]


def test_numbers_of_machines_do_not_go_with_a_virtual_machine(capsys: pytest.CaptureFixture[str]) -> None:
    from edgeha_lab.cli import main

    assert main(["--name", "one", "up", "--topology", "vm", "--agents", "2"]) == 1
    assert "there is one virtual machine" in capsys.readouterr().err
