# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What cluster_join would do with machines, in check mode on folders that stand in for theirs."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.plugins.playbook import run_play

SECRET = "do-not-show-me-0123456789"
RELEASE = {"version": "v1.34.4+k3s1", "files": [], "problem": None}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """Return what one run over all machines says, and the message of each that fails."""
    place = tmp_path_factory.mktemp("join")
    source = place / "source"
    source.mkdir()
    sums = ""
    for name in ("kubelet", "kubeadm"):
        (source / name).write_text(name)
        sums += f"{digest(name)}  {name}\n"
    (source / "SHA256SUMS").write_text(sums)
    newer = place / "newer"
    newer.mkdir()
    text = "#!/bin/sh\necho Kubernetes v1.36.0\n"
    (newer / "kubelet").write_text(text)
    (newer / "kubelet").chmod(0o755)
    (newer / "SHA256SUMS").write_text(f"{digest(text)}  kubelet\n{digest(text)}  kubeadm\n")
    data = place / "data"
    (data / "agent").mkdir(parents=True)
    (data / "agent" / "server-ca.crt").write_text("ours")

    def k3s(token: str, folder: Path) -> dict[str, Any]:
        return {
            "cluster_join_url": "https://10.7.0.11:6443",
            "cluster_join_token": token,
            "cluster_join_release": RELEASE,
            "cluster_join_data_dir": str(folder),
        }

    hosts = {
        "fresh": k3s(f"K10{digest('ours')}::node:{SECRET}", place / "none"),
        "fits": k3s(f"K10{digest('ours')}::node:{SECRET}", data),
        "elsewhere": k3s(f"K10{digest('theirs')}::node:{SECRET}", data),
        "worker": {
            "cluster_join_kind": "kubeadm",
            "cluster_join_url": "https://10.7.0.21:6443",
            "cluster_join_token": f"abcdef.{SECRET}",
            "cluster_join_ca_hash": f"sha256:{'1' * 64}",
            "cluster_join_source": str(source),
        },
        "newer": {
            **k3s(f"K10{digest('ours')}::node:{SECRET}", place / "none"),
            "cluster_join_api_version": "v1.34.3+k3s1",
        },
        "newerworker": {
            "cluster_join_kind": "kubeadm",
            "cluster_join_url": "https://10.7.0.21:6443",
            "cluster_join_ca_hash": f"sha256:{'1' * 64}",
            "cluster_join_source": str(newer),
            "cluster_join_api_version": "v1.34.4",
        },
        "incomplete": {
            "cluster_join_kind": "kubeadm",
            "cluster_join_url": "https://10.7.0.21:6443",
            "cluster_join_ca_hash": f"sha256:{'1' * 64}",
            "cluster_join_source": str(place),
        },
    }
    (place / "SHA256SUMS").write_text(f"{digest('kubeadm')}  kubeadm\n")
    task = {"name": "Join", "ansible.builtin.include_role": {"name": "edgeha.iotedge.cluster_join"}}
    results = {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    done = run_play(place, hosts, [task], "--check", "--diff", "-vv", environment=results)
    said = done.stdout + done.stderr
    failed = dict(re.findall(r'fatal: \[(\w+)\]: FAILED! => .*?"msg": "(.*?)"', said, re.DOTALL))
    return said, failed


def recap(said: str, name: str) -> tuple[int, int]:
    """Return the tasks that would change a machine, and those that failed on it."""
    (found,) = re.findall(rf"^{name}\s*: .*changed=(\d+) .*failed=(\d+)", said, re.MULTILINE)
    return int(found[0]), int(found[1])


@pytest.mark.parametrize("name", ["fresh", "fits"])
def test_an_agent_of_this_cluster_or_of_none_would_join(run: tuple[str, dict[str, str]], name: str) -> None:
    said, failed = run
    assert name not in failed, failed
    assert recap(said, name)[0] > 0
    assert "would start k3s-agent.service" in said


def test_an_agent_of_another_cluster_is_refused(run: tuple[str, dict[str, str]]) -> None:
    said, failed = run
    assert "elsewhere is an agent of another cluster" in failed["elsewhere"]
    assert recap(said, "elsewhere") == (0, 1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("newer", "v1.34.4+k3s1 is newer than the cluster, which runs v1.34.3+k3s1"),
        ("newerworker", "v1.36.0 is newer than the cluster, which runs v1.34.4"),
    ],
)
def test_a_version_that_does_not_go_with_the_cluster_is_refused_before_any_change(
    run: tuple[str, dict[str, str]], name: str, words: str
) -> None:
    said, failed = run
    # The table breaks its lines.
    assert set(words.split()) <= set(failed[name].replace("\\n", " ").split())
    assert recap(said, name) == (0, 1)


def test_a_worker_would_install_and_join(run: tuple[str, dict[str, str]]) -> None:
    said, failed = run
    assert "worker" not in failed, failed
    assert "would join https://10.7.0.21:6443 as worker" in said
    assert "/usr/local/bin/kubelet" in said


def test_a_source_that_lacks_a_program_is_named(run: tuple[str, dict[str, str]]) -> None:
    said, failed = run
    assert "SHA256SUMS does not name kubelet" in " ".join(failed["incomplete"].split())
    assert recap(said, "incomplete") == (0, 1)


def test_no_token_is_shown(run: tuple[str, dict[str, str]]) -> None:
    assert SECRET not in run[0]
