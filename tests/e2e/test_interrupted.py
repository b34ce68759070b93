# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run that ends in the middle of the first installation: the same command goes on from there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import observed, site_of
from tests.e2e.lab import Gateway, Lab, wait_for
from tests.e2e.playbook import Playbooks, Started

INSTALL_LIMIT_SECONDS = 60
MESSAGES_LIMIT_SECONDS = 30


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(Started.interrupt, id="Ctrl-C"),
        # Nobody had time to say that it failed.
        pytest.param(Started.end, id="controller lost", marks=pytest.mark.slow),
    ],
)
def test_next_run_finishes_what_was_begun(
    lab: Lab,
    playbooks: Playbooks,
    new_gateway: Callable[[str], Gateway],
    stop: Callable[[Started], None],
) -> None:
    gateway = new_gateway(f"e2e-{stop.__name__}")
    copies: set[Path] = set()

    def half_way() -> bool:
        copies.update(copies_of_kubeconfig(playbooks))
        return bool(releases(lab, gateway) and lab.pods(gateway, "daemon"))

    since = max((message.seq for message in lab.messages(gateway.name)), default=0)
    with playbooks.start("site.yml", variables=site_of(gateway)) as run:
        # Helm makes the objects, and the run waits for the pods.
        wait_for(
            "the installation to be half-way",
            half_way,
            INSTALL_LIMIT_SECONDS,
            pause=0.2,
        )
        stop(run)
        # Otherwise it was over before it was interrupted.
        assert run.wait(limit=30).code != 0
    assert not copies, "nobody would remove them after this"

    playbooks.run("site.yml", variables=site_of(gateway)).finished()
    assert releases(lab, gateway)[-1] == "deployed"
    messages = wait_for(
        "messages at the hub", lambda: lab.messages(gateway.name, since), MESSAGES_LIMIT_SECONDS
    )
    assert {message.module for message in messages} == {"sensor"}
    # Nothing is left over: one pod of each kind, and a run after that has nothing to do.
    assert [len(lab.pods(gateway, component)) for component in ("daemon", "module")] == [1, 1]
    seen = observed(lab, lambda: playbooks.run("site.yml", variables=site_of(gateway)).finished())
    assert seen.run.changed == 0, seen.run.changed_tasks()
    assert seen.differences == []


def copies_of_kubeconfig(playbooks: Playbooks) -> set[Path]:
    """Temporary files with the key of the cluster's administrator, as there are while a module has one."""
    found = set()
    for file in (playbooks.folder / "tmp").rglob("*"):
        # They come and go.
        with contextlib.suppress(OSError):
            if file.is_file() and b"client-key-data" in file.read_bytes():
                found.add(file)
    return found


def releases(lab: Lab, gateway: Gateway) -> list[str]:
    """Status of each revision that Helm knows of a gateway, oldest first."""
    secrets = lab.get("secrets", f"--namespace={gateway.namespace}", "--selector=owner=helm")["items"]
    labels = [secret["metadata"]["labels"] for secret in secrets]
    return [entry["status"] for entry in sorted(labels, key=lambda entry: int(entry["version"]))]
