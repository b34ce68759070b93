# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`lab build`: programs from Go modules, a base image from debootstrap, and the images on top.

Every product stands in the cache under the digest of what it is made of. Programs
and base system build side by side; images follow, in the engine that runs.
"""

from __future__ import annotations

import platform
import re
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from edgeha_lab import engine, paths, process
from edgeha_lab.cache import cached, fingerprint
from edgeha_lab.progress import LabError, step

KUBERNETES = "v1.34.4"
REGISTRY = "registry.edgeha.test"
_GO_LIMIT = 2400.0
_SYSTEM_LIMIT = 900.0
_IMAGE_LIMIT = 600.0
_SUITE = "bookworm"
_BASE_PACKAGES = [
    "ca-certificates",
    "iptables",
    "python-is-python3",
    "python3",
    "python3-pip",
    "python3-venv",
]
# Debian guards its own Python packages; in an image there is nothing else to guard. And a source
# package builds with Debian's setuptools, not with a fetched one (0 means "no isolation" to pip).
_BASE_ENVIRONMENT = "PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_BUILD_ISOLATION=0 DEBIAN_FRONTEND=noninteractive"


@dataclass(frozen=True)
class Build:
    """What a lab needs from `build`: folders of programs, the node image's name, the modules' archive."""

    kubernetes: Path
    tools: Path
    node_image: str
    module_images: Path

    @property
    def kind(self) -> Path:
        return self.tools / "kind"

    @property
    def kubectl(self) -> Path:
        return self.kubernetes / "kubectl"


def collection_version() -> str:
    return str(yaml.safe_load((paths.CHECKOUT / "galaxy.yml").read_text())["version"])


def build() -> Build:
    paths.cache().mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=2) as pool:
        base_system = pool.submit(make_base_system)
        tools = tool_programs()
        engine.ensure(tools / "oci-shim")
        kubernetes = kubernetes_programs()
        base_image = make_base_image(base_system.result())
    node_image = _node_image(base_image, kubernetes, tools)
    module_images = _module_images(base_image)
    _link_programs(kubernetes, tools)
    return Build(kubernetes, tools, node_image, module_images)


def _log(name: str) -> Path:
    return paths.cache() / "logs" / f"{name}.log"


def architecture() -> str:
    """This machine's, as Go calls it. Raises LabError for one that the lab does not build for."""
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    machine = platform.machine()
    if machine not in names:
        raise LabError(f"this machine is a {machine}; the lab builds for {', '.join(names)}")
    return names[machine]


# Programs


def go_version() -> str:
    """What builds: it is a part of the key of each program."""
    return process.output(["go", "env", "GOVERSION"]).strip()


def go_build(module: Path, packages: list[str], into: Path, ldflags: str, log: Path) -> None:
    """Static programs of a module's packages, into a folder. Raises LabError with the end of the log."""
    process.run(
        [
            "go",
            "build",
            "-trimpath",
            "-mod=readonly",
            "-ldflags",
            f"-s -w {ldflags}",
            "-o",
            f"{into}/",
            *packages,
        ],
        cwd=module,
        env={"CGO_ENABLED": "0", "GOFLAGS": "", "GOTOOLCHAIN": "local"},
        log=log,
        limit=_GO_LIMIT,
    )


def kubernetes_programs() -> Path:
    """Folder with `kube`, the names that it has, and etcd; built when it is not in the cache."""
    source = paths.LAB_SOURCES / "kubernetes"
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    versions = {
        "k8s.io/component-base/version.gitVersion": KUBERNETES,
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "k8s.io/client-go/pkg/version.gitVersion": KUBERNETES,
    }
    ldflags = " ".join(f"-X {name}={value}" for name, value in versions.items())

    def build_programs(folder: Path) -> None:
        log = _log("kubernetes")
        with step(f"building Kubernetes {KUBERNETES} and etcd from Go modules", log):
            go_build(source, ["./cmd/..."], folder, ldflags, log)
        for name in ("kubectl", "kubeadm", "kubelet"):
            (folder / name).symlink_to("kube")

    return cached("kubernetes", fingerprint(source, ldflags, go_version(), architecture()), build_programs)[0]


def tool_programs() -> Path:
    """Folder with kind, helm, oci-shim, pause and the storage provisioner; built when not in the cache."""
    source = paths.LAB_SOURCES / "tools"

    def build_programs(folder: Path) -> None:
        log = _log("tools")
        with step("building kind, helm and the storage provisioner from Go modules", log):
            go_build(source, ["tool", "./cmd/..."], folder, "", log)

    return cached("tools", fingerprint(source, go_version(), architecture()), build_programs)[0]


def _link_programs(*folders: Path) -> None:
    place = paths.binaries()
    place.mkdir(exist_ok=True)
    for name in ("kubectl", "kind", "helm"):
        target = next(folder / name for folder in folders if (folder / name).exists())
        link = place / name
        link.unlink(missing_ok=True)
        link.symlink_to(target)


# Base system


def debian_mirror() -> str:
    """The mirror that this host's own apt uses for Debian."""
    for file in [*Path("/etc/apt").glob("sources.list.d/*"), Path("/etc/apt/sources.list")]:
        if not file.is_file():
            continue
        for line in file.read_text().splitlines():
            found = re.match(r"(?:URIs:|deb(?:\s+\[[^]]*\])?)\s*(\S+/debian)/?(?:\s|$)", line)
            if found:
                return found.group(1)
    raise LabError("no Debian mirror in this host's apt settings (/etc/apt/sources.list, sources.list.d)")


def make_base_system() -> Path:
    """Archive of a Debian with what nodes and machines have; bootstrapped when it is not in the cache."""

    def bootstrap(folder: Path) -> None:
        log = _log("base")
        root = folder / "root"
        with step(f"bootstrapping Debian {_SUITE}", log):
            process.run(
                [
                    "debootstrap",
                    "--variant=minbase",
                    f"--include={','.join(_BASE_PACKAGES)}",
                    _SUITE,
                    root,
                    debian_mirror(),
                ],
                log=log,
                limit=_SYSTEM_LIMIT,
            )
            for leftover in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
                shutil.rmtree(root / leftover, ignore_errors=True)
            process.run(["tar", "--numeric-owner", "-C", root, "-cf", folder / "base.tar", "."], log=log)
            shutil.rmtree(root)

    key = fingerprint(_SUITE, *_BASE_PACKAGES, architecture())
    return cached("base", key, bootstrap)[0] / "base.tar"


# Images


def _ensure_image(name: str, make: Callable[[], None]) -> str:
    known = engine.docker_output("image", "ls", "--quiet", name).strip()
    if not known:
        make()
    return name


def make_base_image(archive: Path) -> str:
    """Name of the image that all others are made from, of the archive of a base system."""
    name = f"edgeha-lab/base:{fingerprint(archive.parent.name, _BASE_ENVIRONMENT)}"

    def load() -> None:
        with step("making the base image"):
            engine.docker(
                "import",
                "--change",
                f"ENV {_BASE_ENVIRONMENT}",
                archive,
                name,
                log=_log("base"),
            )

    return _ensure_image(name, load)


def docker_build(context: Path, name: str, log: Path, **arguments: str) -> None:
    """An image from the folder's Containerfile. `arguments`: of the build."""
    flags = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    containerfile = context / "Containerfile"
    engine.docker(
        "build", *flags, "--tag", name, "--file", containerfile, context, log=log, limit=_IMAGE_LIMIT
    )


def _kubernetes_images(base: str, kubernetes: Path, tools: Path, work: Path, log: Path) -> list[str]:
    """One image with every program of the cluster, under each name that kubeadm asks for."""
    whole = f"{REGISTRY}/lab/kubernetes:lab"
    context = work / "kubernetes"
    context.mkdir()
    for name in ("kube", "coredns", "pod-network"):
        shutil.copy2(kubernetes / name, context)
    for name in ("local-path-provisioner", "pause"):
        shutil.copy2(tools / name, context)
    components = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"]
    links = " && ".join(f"ln -s kube /usr/local/bin/{program}" for program in [*components, "etcd"])
    (context / "Containerfile").write_text(
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n"
        "COPY kube coredns pod-network local-path-provisioner /usr/local/bin/\n"
        f"RUN {links}\n"
    )
    docker_build(context, whole, log, BASE_IMAGE=base)

    wanted = process.output(
        [kubernetes / "kubeadm", "config", "images", "list", f"--kubernetes-version={KUBERNETES}"]
    ).split()
    for image in wanted:
        program = image.rpartition("/")[2].partition(":")[0]
        if program == "pause":
            text = 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n'
        elif program == "coredns":
            text = f'FROM {whole}\nENTRYPOINT ["/usr/local/bin/coredns"]\n'
        else:
            engine.docker("tag", whole, image, log=log)
            continue
        (context / "Containerfile").write_text(text)
        docker_build(context, image, log)
    return [whole, *wanted]


def _node_image(base: str, kubernetes: Path, tools: Path) -> str:
    source = paths.LAB_SOURCES / "node"
    key = fingerprint(source, base, kubernetes.name, tools.name, *_this_recipe())
    name = f"edgeha-lab/node:{key}"

    def make() -> None:
        log = _log("node-image")
        work = paths.cache() / "node-image.partial"
        shutil.rmtree(work, ignore_errors=True)
        context = work / "node"
        (context / "bin").mkdir(parents=True)
        with step("making the node image", log):
            images = _kubernetes_images(base, kubernetes, tools, work, log)
            shutil.copytree(source, context, dirs_exist_ok=True)
            engine.docker("save", "--output", context / "images.tar", *images, log=log)
            for program in (kubernetes / "kube", tools / "oci-shim"):
                shutil.copy2(program, context / "bin")
            (context / "files" / "kind" / "version").write_text(KUBERNETES)
            docker_build(context, name, log, BASE_IMAGE=base)
        shutil.rmtree(work)

    return _ensure_image(name, make)


def machine_image() -> str:
    """Builds what bare machines need and no more; returns their image."""
    paths.cache().mkdir(parents=True, exist_ok=True)
    archive = make_base_system()
    engine.ensure(tool_programs() / "oci-shim")
    base = make_base_image(archive)
    source = paths.LAB_SOURCES / "machine"
    name = f"edgeha-lab/machine:{fingerprint(source, base)}"

    def make() -> None:
        log = _log("machine-image")
        with step("making the image of a bare machine", log):
            docker_build(source, name, log, BASE_IMAGE=base)

    return _ensure_image(name, make)


def _this_recipe() -> list[Path]:
    """This file is part of what an image is made of."""
    return [Path(__file__)]


# Images of the gateway's own parts and of the stand-in modules


def _module_images(base: str) -> Path:
    runtime = paths.CHECKOUT / "runtime"
    sensor, agent, hub = (paths.LAB_SOURCES / "images" / name for name in ("sensor", "agent", "hub"))
    # What agent and hub make of one variable.
    protocol = paths.LAB_SOURCES / "images" / "upstream_protocol.py"
    # The codec and the tokens of the emulator are those of the stand-in hub.
    emulator = paths.LAB_SOURCES / "iothub-emulator" / "iothub_emulator"
    tag = collection_version()
    log = _log("module-images")

    def make(folder: Path) -> None:
        with step("making the images of daemon, proxy and stand-in modules", log):
            names = [
                _python_image(
                    f"{REGISTRY}/edge-runtime:{tag}", runtime, ["edgeha_runtime"], folder, base, log
                ),
                _proxy_image(f"{REGISTRY}/workload-proxy:{tag}", runtime / "workload-proxy", folder, log),
                _python_image(f"{REGISTRY}/lab/sensor:{tag}", sensor, ["sensor.py"], folder, base, log),
                _python_image(
                    f"{REGISTRY}/lab/edge-agent:{tag}",
                    agent,
                    ["agent.py", "plan.py", "storage.py", protocol],
                    folder,
                    base,
                    log,
                ),
            ]
            names.append(
                _python_image(
                    f"{REGISTRY}/lab/edge-hub:{tag}", hub, ["edge_hub", protocol, emulator], folder, base, log
                )
            )
            engine.docker("save", "--output", folder / "modules.tar", *names, log=log)

    sources = (runtime, sensor, agent, hub)
    key = fingerprint(*sources, protocol, emulator, *map(_requirements, sources), base, tag, *_this_recipe())
    return cached("modules", key, make)[0] / "modules.tar"


def _python_image(name: str, source: Path, parts: list[str | Path], work: Path, base: str, log: Path) -> str:
    """An image whose packages are fetched here, by hash: its build needs no network."""
    context = work / "context"
    context.mkdir()
    for part in ["Containerfile", *parts]:
        place = source / part  # or a place of its own
        if place.is_dir():
            shutil.copytree(place, context / place.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(place, context)
    requirements = context / "requirements.txt"
    requirements.write_text(_requirements(source))
    manylinux = [f"--platform={name}_{platform.machine()}" for name in ("manylinux2014", "manylinux_2_28")]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps"]
    # The image's Python is Debian's, whatever Python runs here.
    command += ["--python-version=3.11", "--implementation=cp", *manylinux]
    command += [f"--dest={context / 'wheels'}", f"--requirement={requirements}"]
    process.run(command, log=log, limit=_IMAGE_LIMIT)
    docker_build(context, name, log, BASE_IMAGE=base, PIP_NO_INDEX="1")
    shutil.rmtree(context)
    return name


def _requirements(source: Path) -> str:
    """What an image needs, cut out of the one lock: versions with their hashes."""
    lock = paths.CHECKOUT / "requirements" / "requirements.lock"
    cut = paths.CHECKOUT / "runtime" / "lock_subset.py"
    return process.output([sys.executable, cut, "--lock", lock, "--roots", source / "requirements.in"])


def _proxy_image(name: str, source: Path, work: Path, log: Path) -> str:
    context = work / "context"
    context.mkdir()
    shutil.copy2(source / "Containerfile", context)
    go_build(source, ["."], context, "", log)
    docker_build(context, name, log)
    shutil.rmtree(context)
    return name
