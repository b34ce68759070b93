# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every virtual machine of the lab starts from: a kernel, what it needs to find its disk, and the disk.

The disk is the bare machine's tree with a kernel of its own. `mke2fs` writes the tree into a file, so
nothing is mounted and no loop device is needed.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from edgeha_lab import build, engine, paths, process
from edgeha_lab.cache import cached, fingerprint
from edgeha_lab.progress import LabError, step

ROOT_LABEL = "lab-root"
_ROOT_SIZE = "4G"
_LIMIT = 900.0
_PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "mke2fs": "e2fsprogs", "debugfs": "e2fsprogs"}


@dataclass(frozen=True)
class VmImage:
    """A folder of the cache with the three files that a machine starts from."""

    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.img"

    @property
    def root(self) -> Path:
        return self.folder / "root.img"


def make() -> VmImage:
    """Builds what is missing, in the engine that runs; the same inputs give the same folder."""
    missing = [package for program, package in _PROGRAMS.items() if not shutil.which(program)]
    if missing:
        raise LabError(
            f"a virtual machine needs {', '.join(sorted(set(missing)))}: 'make system-vm' installs it"
        )
    machine = build.machine_image()
    source = paths.LAB_SOURCES / "vm"
    key = fingerprint(source, machine, Path(__file__))
    log = paths.cache() / "logs" / "vm-image.log"

    def fill(folder: Path) -> None:
        name = f"edgeha-lab/vm:{key}"
        tree = folder / "tree"
        with step("making the system of a virtual machine", log):
            arguments = [f"MACHINE_IMAGE={machine}", f"DEBIAN_MIRROR={build.debian_mirror()}"]
            flags = [word for argument in arguments for word in ("--build-arg", argument)]
            engine.docker("build", *flags, "--tag", name, source, "--file", source / "Containerfile",
                          log=log, limit=_LIMIT)  # fmt: skip
            _unpack(name, tree, log)
        with step("making the disk of a virtual machine", log):
            for file, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd.img", "initrd.img-*")):
                found = next((tree / "boot").glob(pattern))
                shutil.move(found, folder / file)
            process.run(
                ["mke2fs", "-q", "-t", "ext4", "-m", "0", "-L", ROOT_LABEL, "-d", tree,
                 folder / "root.img", _ROOT_SIZE],
                log=log,
                limit=_LIMIT,
            )  # fmt: skip
        shutil.rmtree(tree)
        engine.docker_output("image", "rm", name)

    return VmImage(cached("vm", key, fill)[0])


def _unpack(image: str, tree: Path, log: Path) -> None:
    """The files of an image, without those that an engine adds to a container."""
    archive = tree.with_suffix(".tar")
    container = engine.docker_output("create", image).strip()
    try:
        engine.docker("export", "--output", archive, container, log=log)
    finally:
        engine.docker_output("rm", "--volumes", container)
    tree.mkdir()
    process.run(["tar", "--numeric-owner", "-C", tree, "-xpf", archive], log=log)
    archive.unlink()
    for name in (".dockerenv", "etc/hostname", "etc/hosts", "etc/machine-id", "etc/resolv.conf"):
        (tree / name).unlink(missing_ok=True)
    shutil.rmtree(tree / "dev")
    (tree / "dev").mkdir()
