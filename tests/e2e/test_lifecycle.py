# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""State outlives an upgrade, a rollback and a removal; with purge nothing stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import observed, site_of
from tests.e2e.lab import ROOT, Gateway, Lab, digest, wait_for
from tests.e2e.playbook import Playbooks

FILES = ("master-key.json", "identities.json")
READY_LIMIT_SECONDS = 120


def test_an_upgrade_and_a_rollback_lose_nothing(
    lab: Lab, playbooks: Playbooks, new_gateway: Callable[[str], Gateway]
) -> None:
    gateway = new_gateway("e2e-older")
    playbooks.run("site.yml", variables=site_of(gateway)).finished()
    state = {name: digest(lab.state_folder(gateway) / name) for name in FILES}
    (module,) = lab.pods(gateway, "module")
    daemon = lab.ready_pod(gateway, "daemon", READY_LIMIT_SECONDS)

    def same_but_for_the_daemon(before: dict[str, Any]) -> dict[str, Any]:
        now = wait_for(
            "another daemon",
            lambda: (
                found
                if (found := lab.ready_pod(gateway, "daemon", READY_LIMIT_SECONDS))["metadata"]["uid"]
                != before["metadata"]["uid"]
                else None
            ),
            READY_LIMIT_SECONDS,
        )
        assert {name: digest(lab.state_folder(gateway) / name) for name in FILES} == state
        (pod,) = lab.pods(gateway, "module")
        assert pod["metadata"]["uid"] == module["metadata"]["uid"]
        since = max(message.seq for message in lab.messages(gateway.name))
        wait_for("messages at the hub", lambda: lab.messages(gateway.name, since), 60)
        return now

    chart = str(ROOT / "charts/edge-runtime")
    words = ("--namespace", gateway.namespace, "--wait", "--timeout=2m")
    bundle = lab.ca_file.read_text() + "\n# a newer one\n"
    lab.helm("upgrade", gateway.name, chart, "--reuse-values", f"--set-string=trustBundle={bundle}", *words)
    daemon = same_but_for_the_daemon(daemon)
    lab.helm("rollback", gateway.name, "1", *words)
    same_but_for_the_daemon(daemon)
    # The collection finds what it wants, and changes nothing.
    assert playbooks.run("site.yml", variables=site_of(gateway)).finished().changed == 0


@pytest.mark.slow
def test_state_stays_until_it_is_purged(
    lab: Lab, playbooks: Playbooks, new_gateway: Callable[[str], Gateway]
) -> None:
    gateway = new_gateway("e2e-leaves")
    site = site_of(gateway)
    playbooks.run("site.yml", variables=site).finished()
    claim = f"{gateway.name}-state"
    before = lab.get("pvc", claim, "--namespace", gateway.namespace)["metadata"]["uid"]
    master = digest(lab.state_folder(gateway) / "master-key.json")

    def absent(**more: Any) -> dict[str, Any]:
        return {
            "edge_confirm": "lab", "edge_gateways": [{**site["edge_gateways"][0], "state": "absent", **more}],
        }  # fmt: skip

    playbooks.run("site.yml", variables=absent()).finished()
    assert lab.hub("GET", f"/devices/{gateway.name}") is None
    assert lab.get("pvc", claim, "--namespace", gateway.namespace)["metadata"]["uid"] == before
    assert digest(lab.state_folder(gateway) / "master-key.json") == master
    wait_for("its pods to go", lambda: not lab.pods(gateway, "module"), 60)

    # Its device is a new one with the same name, and what was sealed before is still its own.
    since = max((message.seq for message in lab.messages(gateway.name)), default=0)
    playbooks.run("site.yml", variables=site).finished()
    wait_for("messages at the hub", lambda: lab.messages(gateway.name, since), 60)
    assert digest(lab.state_folder(gateway) / "master-key.json") == master

    checked = playbooks.run("site.yml", "--check", variables=absent(purge=True)).finished()
    assert any("purged" in task for task in checked.changed_tasks()), checked.changed_tasks()
    playbooks.run("site.yml", variables=absent(purge=True)).finished()
    names = [item["metadata"]["name"] for item in lab.get("namespaces")["items"]]
    assert gateway.namespace not in names
    seen = observed(lab, lambda: playbooks.run("site.yml", variables=absent(purge=True)).finished())
    assert seen.run.changed == 0, seen.run.changed_tasks()
    assert seen.differences == []
