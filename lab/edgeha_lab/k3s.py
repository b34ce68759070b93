# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`lab k3s`: releases of the k3s work-alike, and a mirror that is laid out like k3s's release site.

A release is a folder named by its version: the program, an archive of images, the digests of both.
An instance keeps the releases that it was started with, whatever is built later.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from edgeha_lab import build, engine, paths, process
from edgeha_lab.cache import cached, fingerprint
from edgeha_lab.paths import Instance
from edgeha_lab.progress import LabError, say, step, wait_for

VERSIONS = ["v1.34.4+k3s1", "v1.34.5+k3s1"]
WORKLOAD_IMAGE = f"{build.REGISTRY}/lab/workload:1"
_PAUSE_IMAGE = "docker.io/rancher/mirrored-pause:3.6"
_DNS_IMAGE = "docker.io/rancher/mirrored-coredns-coredns:1.12.3"
_PORT = 8480
_MARK = b"EDGEHAK3"
_SOURCE = paths.LAB_SOURCES / "k3s"
_LIMIT = 60.0


def releases() -> Path:
    """Builds what is missing; returns the folder with one folder for each version."""
    paths.cache().mkdir(parents=True, exist_ok=True)
    swapped = os.environ.get("LAB_K3S_BINARY")
    engine.ensure(build.tool_programs() / "oci-shim")
    images = _images()
    if swapped:
        program = Path(swapped).resolve()
        key = fingerprint(program, images.name, *_this_recipe())
        versions = {_version_of(program): program}
    else:
        programs = _programs()
        payload = _payload()
        key = fingerprint(programs.name, payload.name, images.name, *_this_recipe())
        versions = {version: programs / version / "k3s" for version in VERSIONS}

    def lay_out(folder: Path) -> None:
        with step(f"laying out the releases {', '.join(versions)}"):
            for version, program in versions.items():
                place = folder / version
                place.mkdir()
                target = place / _file("k3s")
                shutil.copyfile(program, target)
                if not swapped:
                    _append(target, payload / "tools.tar.gz")
                target.chmod(0o755)
                archive = place / f"k3s-airgap-images-{build.architecture()}.tar.zst"
                os.link(images / "images.tar.zst", archive)
                lines = [f"{_digest(file)}  {file.name}\n" for file in (archive, target)]
                (place / f"sha256sum-{build.architecture()}.txt").write_text("".join(lines))
                (place / "k3s-images.txt").write_text(f"{_DNS_IMAGE}\n{_PAUSE_IMAGE}\n")

    return cached("k3s-releases", key, lay_out)[0]


def _file(name: str) -> str:
    return name if build.architecture() == "amd64" else f"{name}-{build.architecture()}"


def _version_of(program: Path) -> str:
    found = re.search(r"v\d+\.\d+\.\d+\+\S+", process.output([program, "--version"]))
    if not found:
        raise LabError(f"{program} does not say its version: is it a k3s?")
    return found.group(0)


def _programs() -> Path:
    programs = [file for file in sorted(_SOURCE.glob("*.go")) if not file.name.endswith("_test.go")]
    sources = [*programs, _SOURCE / "go.mod", _SOURCE / "go.sum", _SOURCE / "cmd"]
    key = fingerprint(*sources, *VERSIONS, build.go_version(), build.architecture())

    def compile_all(folder: Path) -> None:
        log = paths.cache() / "logs" / "k3s.log"
        with step("building the k3s work-alike from Go modules", log):
            for version in VERSIONS:
                major, minor, _ = version.removeprefix("v").split(".", 2)
                values = {
                    "main.version": version,
                    "k8s.io/component-base/version.gitVersion": version,
                    "k8s.io/component-base/version.gitMajor": major,
                    "k8s.io/component-base/version.gitMinor": minor,
                    "k8s.io/client-go/pkg/version.gitVersion": version,
                }
                ldflags = " ".join(f"-X {name}={value}" for name, value in values.items())
                place = folder / version
                place.mkdir()
                build.go_build(_SOURCE, ["."], place, ldflags, log)
            build.go_build(_SOURCE, ["./cmd/..."], folder, "", log)

    return cached("k3s-programs", key, compile_all)[0]


def _payload() -> Path:
    """The tools that stand behind the program: containerd, runc, CNI plugins and the shim before runc."""
    base, shim = build.make_base_image(build.make_base_system()), build.tool_programs() / "oci-shim"
    key = fingerprint(_SOURCE / "tools", base, shim, *_this_recipe())

    def collect(folder: Path) -> None:
        log = paths.cache() / "logs" / "k3s-tools.log"
        with step("collecting containerd, runc and CNI plugins", log):
            image, container = "edgeha-lab/k3s-tools:build", "edgeha-lab-k3s-tools"
            build.docker_build(_SOURCE / "tools", image, log, BASE_IMAGE=base)
            engine.docker("create", "--name", container, image, "true", log=log)
            try:
                engine.docker("cp", f"{container}:/tools", folder, log=log)
            finally:
                engine.docker("rm", container, log=log)
            shutil.copy2(shim, folder / "tools")
            tar = [
                "tar",
                "--sort=name",
                "--mtime=@0",
                "--owner=0",
                "--group=0",
                "--numeric-owner",
                "-I",
                "gzip -n -6",
            ]
            process.run([*tar, "-C", folder / "tools", "-cf", folder / "tools.tar.gz", "."], log=log)
            shutil.rmtree(folder / "tools")

    return cached("k3s-payload", key, collect)[0]


def _append(program: Path, payload: Path) -> None:
    """The form that lab/k3s/payload.go reads from the end."""
    content = payload.read_bytes()
    trailer = hashlib.sha256(content).hexdigest().encode() + len(content).to_bytes(8, "big") + _MARK
    with program.open("ab") as output:
        output.write(content + trailer)


def _images() -> Path:
    """The archive of images that a release has beside it, with a small workload of the lab's own in it."""
    programs, kubernetes, tools = _programs(), build.kubernetes_programs(), build.tool_programs()
    key = fingerprint(programs / "workload", kubernetes.name, tools / "pause", *_this_recipe())

    def make(folder: Path) -> None:
        log = paths.cache() / "logs" / "k3s-images.log"
        with step("making the archive of images", log):
            context = folder / "context"
            context.mkdir()
            names = {
                _PAUSE_IMAGE: tools / "pause",
                _DNS_IMAGE: kubernetes / "coredns",
                WORKLOAD_IMAGE: programs / "workload",
            }
            for name, program in names.items():
                shutil.copy2(program, context / program.name)
                (context / "Containerfile").write_text(
                    f'FROM scratch\nCOPY {program.name} /{program.name}\nENTRYPOINT ["/{program.name}"]\n'
                )
                build.docker_build(context, name.removeprefix("docker.io/"), log)
            archive = folder / "images.tar"
            short = [name.removeprefix("docker.io/") for name in names]
            engine.docker("save", "--output", archive, *short, log=log)
            with archive.open("rb") as source, (folder / "images.tar.zst").open("wb") as target:
                subprocess.run([programs / "compress"], stdin=source, stdout=target, check=True, timeout=600)
            archive.unlink()
            shutil.rmtree(context)

    return cached("k3s-images", key, make)[0]


def _this_recipe() -> list[Path]:
    return [Path(__file__)]


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


# The mirror of an instance


def _folder(instance: Instance) -> Path:
    return instance.folder / "k3s"


def lock_file(instance: Instance) -> Path:
    return instance.folder / "k3s-lock.yml"


def site(instance: Instance) -> Path:
    return _folder(instance) / "site"


def variables(instance: Instance, gateway: str) -> dict[str, str]:
    """What an inventory says of the mirror, once there is one."""
    if not lock_file(instance).exists():
        return {}
    return {"edge_k3s_source": f"http://{gateway}:{_PORT}", "edge_k3s_lock": str(lock_file(instance))}


def is_wanted(instance: Instance) -> bool:
    """Whether the instance was started with a mirror, which may be gone since."""
    return lock_file(instance).exists()


def pin(instance: Instance) -> None:
    """Gives an instance its releases: those of now, when it has none."""
    if lock_file(instance).exists():
        return
    source, place = releases(), site(instance)
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(source, place, copy_function=os.link)
    lock: dict[str, Any] = {}
    for release in sorted(path for path in place.iterdir() if path.is_dir()):
        sums = (release / f"sha256sum-{build.architecture()}.txt").read_text().splitlines()
        digests = {name: digest for digest, name in (line.split() for line in sums)}
        images = f"k3s-airgap-images-{build.architecture()}.tar.zst"
        lock[release.name] = {
            "k3s": {build.architecture(): digests[_file("k3s")]},
            "images": {build.architecture(): digests[images]},
        }
    lock_file(instance).write_text("---\n" + yaml.safe_dump(lock))


def start_mirror(instance: Instance, gateway: str) -> None:
    """Serves the instance's releases to its machines, laid out like k3s's release site."""
    pin(instance)
    if mirror_pid(instance) is None:
        log = instance.logs / "k3s-mirror.log"
        log.parent.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "http.server", "--bind", gateway, "--directory", str(site(instance))]
        with step(f"starting the mirror of k3s releases on {gateway}", log), log.open("ab") as output:
            server = subprocess.Popen(
                [*command, str(_PORT)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            (_folder(instance) / "mirror.pid").write_text(str(server.pid))

            def listens() -> bool:
                if server.poll() is not None:
                    raise LabError(f"the mirror ended with {server.returncode}:\n{process.tail(log)}")
                return bool(process.output(["ss", "-Hltn", "src", f"{gateway}:{_PORT}"]).strip())

            wait_for("the mirror to listen", listens, _LIMIT)
    names = ", ".join(sorted(path.name for path in site(instance).iterdir()))
    say(f"k3s releases {names}: http://{gateway}:{_PORT}, digests in {lock_file(instance)}")


def stop_mirror(instance: Instance) -> None:
    running = mirror_pid(instance)
    if running is not None:
        os.kill(running, signal.SIGTERM)
        wait_for("the mirror to end", lambda: mirror_pid(instance) is None, _LIMIT)


def mirror_pid(instance: Instance) -> int | None:
    try:
        number = int((_folder(instance) / "mirror.pid").read_text())
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
        dead = ") Z " in Path(f"/proc/{number}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return number if b"http.server" in words and not dead else None
