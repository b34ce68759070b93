# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A gateway that is removed leaves its state, comes back with it, and with purge leaves nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.e2e.conftest import observed, site_of
from tests.e2e.lab import Gateway, Lab, digest, wait_for
from tests.e2e.playbook import Playbooks


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
