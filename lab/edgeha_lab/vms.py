# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`lab up --topology vm`: one virtual machine with a kernel of its own.

It is for what containers cannot show: kernel modules, settings of the whole kernel, swap, restarts, disks,
and mounts of iSCSI and NFS. It stands in the instance's network, and in an inventory as bare machines do.
Where the host has no KVM that works, its processor is emulated.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import shutil
import signal
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from edgeha_lab import cluster, machines, process
from edgeha_lab.cache import fingerprint
from edgeha_lab.paths import Instance
from edgeha_lab.progress import LabError, say, step, wait_for
from edgeha_lab.vm_image import ROOT_LABEL, VmImage

HOSTNAME = "server1"
_MEMORY_MIB = 1536
_PROCESSORS = 2
# Emulated, Debian's least processor: for what more there is the kernel loads modules, and that takes seconds.
_PROCESSOR = {"kvm": "host", "tcg": "qemu64,-svm,+rdrand"}
# An emulated machine that has a tenth of a core starts too.
_START_LIMIT = 600.0
_STOP_LIMIT = 20.0
_PROBE_LIMIT = 5.0
_DISKS = ("root", "swap", "empty", "used")
_EMPTY_BYTES = 1 << 30
# `mitigations=off`: an emulated processor pays for them dearly, and nobody shares it.
_KERNEL_LINE = f"root=LABEL={ROOT_LABEL} ro console=ttyS0 quiet net.ifnames=0 mitigations=off panic=5"


def is_of(instance: Instance) -> bool:
    return cluster.known(instance).get("topology") == "vm"


def up(instance: Instance, image: VmImage) -> None:
    """Makes the machine, or gives back its power; a machine that runs is left alone."""
    instance.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    instance.logs.mkdir(exist_ok=True)
    gateway = cluster.network(instance)
    record = cluster.known(instance)
    node = f"{instance.cluster}-{HOSTNAME}"
    record |= {"topology": "vm", "gateway": gateway, "nodes": {node: _address(gateway)}}
    record.setdefault("accelerator", accelerator(image.kernel))
    cluster.write_record(instance, record)
    machines.make_key(instance)
    if not _root(instance).exists():
        with step("making the machine's disks and identity"):
            _make(instance, image)
    if nodes(instance)[node] != "running":
        _start(instance)
    machines.write_inventory(instance)
    say(f"a virtual machine answers by ssh: ansible-playbook -i {machines.inventory(instance)} …")


def nodes(instance: Instance) -> dict[str, str]:
    """State of the machine by its name: running or exited."""
    state = "running" if _pid(instance) else "exited"
    return dict.fromkeys(cluster.known(instance).get("nodes", {}), state)


def power(instance: Instance) -> None:
    """Ends the machine at once: what it had not written to its disks yet is lost."""
    pid = _pid(instance)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_for("the virtual machine to end", lambda: _pid(instance) is None, _STOP_LIMIT, pause=0.05)


def heal(instance: Instance) -> None:
    if _pid(instance) is None:
        cluster.network(instance)
        _start(instance)


def down(instance: Instance) -> None:
    """Ends the machine and takes its cable out of the host; its files go with the instance's folder."""
    with step(f"removing {', '.join(nodes(instance))}"):
        power(instance)
        if (Path("/sys/class/net") / _cable(instance)).exists():
            process.output(["ip", "link", "delete", _cable(instance)])


def _folder(instance: Instance) -> Path:
    return instance.folder / "vm"


def _root(instance: Instance) -> Path:
    return _folder(instance) / "root.img"


def _address(gateway: str) -> str:
    """The first address after the host's: no container is in the network of a virtual machine."""
    return str(ipaddress.ip_address(gateway) + 1)


def _mac(instance: Instance) -> str:
    """A locally administered address that stays the same."""
    digits = fingerprint(instance.name)[:10]
    return ":".join(["52", *(digits[n : n + 2] for n in range(0, 10, 2))])


def _cable(instance: Instance) -> str:
    """Name of the tap device on this host (15 characters at the most)."""
    return f"vm-{fingerprint(instance.name)[:8]}"


# Disks


def _make(instance: Instance, image: VmImage) -> None:
    folder = _folder(instance)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for file in (image.kernel, image.initrd):
        shutil.copy2(file, folder)
    for name, size in (("swap", 64 << 20), ("empty", _EMPTY_BYTES), ("used", 128 << 20)):
        disk = folder / f"{name}.img"
        disk.touch(mode=0o600)
        os.truncate(disk, size)
    process.output(["mkswap", "--label", "lab-swap", folder / "swap.img"])
    somebodys = folder / "somebodys"
    somebodys.mkdir()
    (somebodys / "orders.csv").write_text("number,part\n1,bolt\n")
    process.output(["mke2fs", "-q", "-t", "ext4", "-L", "orders", "-d", somebodys, folder / "used.img"])
    # The root disk comes last and whole: it says that the machine is made.
    partial = folder / "root.partial"
    process.output(["cp", "--sparse=always", "--reflink=auto", image.root, partial], limit=_START_LIMIT)
    _identify(instance, partial)
    partial.rename(_root(instance))


def _identify(instance: Instance, disk: Path) -> None:
    """Writes into the disk who the machine is and who may come in, before it starts for the first time."""
    host_key = machines.known_hosts(instance).with_name("host_ed25519_key")
    machines.generate_key(host_key, HOSTNAME)
    kind, key = host_key.with_suffix(".pub").read_text().split()[:2]
    [address] = cluster.known(instance)["nodes"].values()
    machines.known_hosts(instance).write_text(f"{address} {kind} {key}\n")
    files = identity(instance, address, cluster.known(instance)["gateway"])
    files["/etc/ssh/ssh_host_ed25519_key"] = host_key.read_text()
    files["/root/.ssh/authorized_keys"] = machines.public_key(instance) + "\n"
    write_into(disk, files, _folder(instance) / "files")


def identity(instance: Instance, address: str, gateway: str) -> dict[str, str]:
    """Files that make a machine this one and no other."""
    return {
        "/etc/hostname": f"{HOSTNAME}\n",
        "/etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {HOSTNAME}\n",
        "/etc/machine-id": f"{uuid.uuid4().hex}\n",
        "/etc/systemd/network/lab.network": (
            f"[Match]\nMACAddress={_mac(instance)}\n\n"
            f"[Network]\nAddress={address}/24\nGateway={gateway}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
        ),
    }


def write_into(disk: Path, files: Mapping[str, str], work: Path) -> None:
    """Writes files, which are not there yet, into an ext4 disk that nobody uses; only root may read them.

    `debugfs` ends well whatever happens, so each file is read again.
    """
    work.mkdir(mode=0o700)
    for place, text in files.items():
        source = work / secrets.token_hex(8)
        source.touch(mode=0o600)
        source.write_text(text)
        if place.startswith("/etc/") and not place.startswith("/etc/ssh/"):
            source.chmod(0o644)
        folder, _, name = place.rpartition("/")
        commands = f"cd {folder}\nwrite {source} {name}\n"
        process.output(["debugfs", "-w", "-f", "-", disk], stdin=commands.encode())
        if process.output(["debugfs", "-R", f"cat {place}", disk]) != text:
            raise LabError(f"{place} could not be written into {disk}")
    shutil.rmtree(work)


# The machine's process


def accelerator(kernel: Path) -> str:
    """Whether KVM runs a kernel here: a host may offer it and run nothing in it."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    # Without a disk the kernel ends by itself, at once.
    command = ["qemu-system-x86_64", "-machine", "q35,accel=kvm", "-cpu", "max", "-m", "256", "-nodefaults",
               "-display", "none", "-no-reboot", "-kernel", str(kernel), "-append", "panic=-1"]  # fmt: skip
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return "tcg"
    return "kvm" if ended.returncode == 0 else "tcg"


def command_line(instance: Instance, accelerator: str) -> list[str]:
    """What starts the machine's process, in the background."""
    folder = _folder(instance)
    console = instance.logs / f"{HOSTNAME}.log"
    words = [
        "qemu-system-x86_64", "-name", f"{instance.cluster}-{HOSTNAME}",
        "-machine", f"q35,accel={accelerator}", "-cpu", _PROCESSOR[accelerator],
        "-smp", str(_PROCESSORS),
        "-m", str(_MEMORY_MIB), "-no-user-config", "-nodefaults", "-display", "none",
        "-daemonize", "-pidfile", str(folder / "pid"),
        "-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd.img"), "-append", _KERNEL_LINE,
        "-chardev", f"file,id=console,path={console},append=on", "-serial", "chardev:console",
        "-netdev", f"tap,id=lan,ifname={_cable(instance)},script=no,downscript=no",
        "-device", f"virtio-net-pci,netdev=lan,mac={_mac(instance)},romfile=",
        "-device", "virtio-rng-pci",
    ]  # fmt: skip
    for name in _DISKS:
        # A power cut ends the process and not this host: what the machine wrote to its disk is in the file.
        words += [
            "-drive",
            f"if=none,id={name},file={folder / name}.img,format=raw,cache=unsafe,discard=unmap",
        ]
        words += ["-device", f"virtio-blk-pci,drive={name},serial=lab-{name}"]
    return words


def _start(instance: Instance) -> None:
    record = cluster.known(instance)
    [(node, address)] = record["nodes"].items()
    _plug_in(instance)
    (_folder(instance) / "pid").unlink(missing_ok=True)
    how = "KVM" if record["accelerator"] == "kvm" else "an emulated processor"
    with step(f"starting virtual machine {node} at {address} with {how}", instance.logs / f"{HOSTNAME}.log"):
        process.output(command_line(instance, record["accelerator"]))

        def answers() -> bool:
            if _pid(instance) is None:
                log = instance.logs / f"{HOSTNAME}.log"
                raise LabError(f"{node} ended while it started; its console: {log}\n{process.tail(log)}")
            return machines.answers(address)

        wait_for(f"sshd on {node} ({address})", answers, _START_LIMIT)


def _plug_in(instance: Instance) -> None:
    cable = _cable(instance)
    if not (Path("/sys/class/net") / cable).exists():
        process.output(["ip", "tuntap", "add", "dev", cable, "mode", "tap"])
    process.output(["ip", "link", "set", cable, "master", cluster.bridge(instance), "up"])


def _pid(instance: Instance) -> int | None:
    """Process of the machine; a number that another process has now is none."""
    try:
        pid = int((_folder(instance) / "pid").read_text())
        words = (Path("/proc") / str(pid) / "cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid if str(_folder(instance) / "pid") in words else None
