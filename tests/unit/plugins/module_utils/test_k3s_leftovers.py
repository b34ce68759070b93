# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is k3s's on a machine, and what is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_leftovers
from ansible_collections.edgeha.iotedge.plugins.modules import k3s_leftovers as module

DATA = "/var/lib/rancher/k3s"
MOUNTS = r"""overlay / overlay rw 0 0
/dev/sda1 /var/lib/rancher/k3s ext4 rw 0 0
tmpfs /run/k3s/containerd/io.containerd.grpc.v1.cri/sandboxes/1/shm tmpfs rw 0 0
overlay /run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/1/rootfs overlay rw 0 0
nsfs /run/netns/cni-1 nsfs rw 0 0
nsfs /run/netns/site nsfs rw 0 0
nas:/state /var/lib/kubelet/pods/1/volumes/kubernetes.io~nfs/a\040b nfs4 rw 0 0
/dev/sdb1 /var/lib/rancher/k3s/storage ext4 rw 0 0
tmpfs /run/k3svault tmpfs rw 0 0
"""


def test_mounts_of_pods_go_and_disks_of_the_machine_stay() -> None:
    kept = ["/var/lib/rancher/k3s/storage"]
    found = k3s_leftovers.mounts(MOUNTS, DATA, kept)
    assert set(found) == {
        "/run/k3s/containerd/io.containerd.grpc.v1.cri/sandboxes/1/shm",
        "/run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/1/rootfs",
        "/run/netns/cni-1",
        "/var/lib/kubelet/pods/1/volumes/kubernetes.io~nfs/a b",
    }
    assert [point.count("/") for point in found] == sorted(
        (point.count("/") for point in found), reverse=True
    )


def test_interfaces_of_pods_and_of_their_network() -> None:
    masters = {"eth0": "", "veth1": "cni0", "veth2": "br0", "cni0": "", "flannel.1": "", "br0": ""}
    assert k3s_leftovers.interfaces(masters) == ["veth1", "cni0", "flannel.1"]


def test_rules_of_others_stay() -> None:
    saved = """*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080
-A KUBE-SERVICES -m comment --comment "x" -j RETURN
COMMIT
"""
    kept, gone = k3s_leftovers.strip_rules(saved)
    assert gone == 4
    assert (
        kept
        == """*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8080
COMMIT
"""
    )
    assert k3s_leftovers.strip_rules(kept) == (kept, 0)


def test_processes_with_all_that_they_started() -> None:
    parents = {1: 0, 10: 1, 11: 10, 12: 11, 20: 1, 30: 1, 31: 1}
    programs = {
        10: f"{DATA}/data/abc/bin/containerd-shim-runc-v2",
        20: "/usr/sbin/sshd",
        30: "/usr/local/bin/k3s (deleted)",
    }
    groups = {1: "0::/init.scope", 20: "0::/system.slice", 31: "0::/kubepods/besteffort/pod1"}
    found = k3s_leftovers.processes(parents, programs, groups, DATA, "/usr/local/bin/k3s")
    assert found == [10, 11, 12, 30, 31]
    inside = dict.fromkeys((1, 20, 31), "4:cpu:/kubepods/pod9")
    assert k3s_leftovers.processes(parents, {}, inside, DATA, "/usr/local/bin/k3s") == []


@pytest.mark.parametrize(
    "path", ["/", "/var", "/var/lib", "/var/lib/data", "/data", "relative", "/var/lib/x/../.."]
)
def test_folders_that_are_never_emptied(path: str) -> None:
    assert not k3s_leftovers.is_safe(path)


@pytest.mark.parametrize("path", [DATA, "/srv/k3s", "/mnt/disk1/k3s", "/data/k3s", "/var/lib/rancher"])
def test_folders_that_may_be_emptied(path: str) -> None:
    assert k3s_leftovers.is_safe(path)


def test_files_on_disks_of_the_machine_are_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("server/db", "storage/disk/volume", "storage/local/volume"):
        (tmp_path / name).mkdir(parents=True)
    real = module.text
    table = f"/dev/sda1 {tmp_path} ext4 rw 0 0\n/dev/sdb1 {tmp_path}/storage/disk ext4 rw 0 0\n"
    monkeypatch.setattr(
        module, "text", lambda path: table if path in ("/proc/self/mounts", "/etc/fstab") else real(path)
    )
    params = {"data_dir": str(tmp_path), "binary": str(tmp_path / "none"), "limit": 1}
    machine = module.Machine(SimpleNamespace(params=params))  # type: ignore[arg-type]
    assert str(tmp_path) in machine._files()
    machine._delete(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "storage",
        "storage/disk",
        "storage/disk/volume",
    ]
    assert str(tmp_path) not in machine._files()
