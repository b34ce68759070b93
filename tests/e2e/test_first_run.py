# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One command takes a bare cluster to a running gateway, and then has nothing left to do."""

from __future__ import annotations

import json
import re

from tests.e2e.conftest import FirstRun, Observed, observed, site_of
from tests.e2e.lab import Gateway, Lab, wait_for
from tests.e2e.playbook import Playbooks

MESSAGES_LIMIT_SECONDS = 30


def test_check_mode_on_the_bare_cluster_changes_nothing_and_says_what_would(
    lab: Lab, playbooks: Playbooks, gateway: Gateway
) -> None:
    seen = observed(
        lab, lambda: playbooks.run("site.yml", "--check", "--diff", variables=site_of(gateway)).finished()
    )
    assert not [name for name in seen.before if gateway.name in name]
    assert seen.differences == []
    # The device, the namespace and the release; the Secret's namespace is only pretended to be there.
    assert seen.run.changed == 3, seen.run.changed_tasks()


def test_first_run_ends_with_messages_at_the_hub(lab: Lab, gateway: Gateway, first_run: FirstRun) -> None:
    assert first_run.run.changed > 0
    messages = wait_for(
        "three messages of the sensor at the hub",
        lambda: found if len(found := lab.messages(gateway.name, first_run.last_message)) >= 3 else None,
        MESSAGES_LIMIT_SECONDS,
    )
    assert {message.module for message in messages} == {"sensor"}
    assert [message.sequence for message in messages] == list(range(1, len(messages) + 1))
    assert lab.hub("GET", f"/twins/{gateway.name}/modules/sensor")["connectionState"] == "Connected"
    # Sent from a pod on a worker of this cluster, and not from anywhere else.
    nodes = {pod["spec"]["nodeName"] for pod in lab.pods(gateway, "module")}
    assert {message.node for message in messages} == nodes


def test_first_run_prints_the_table_of_gateways(lab: Lab, gateway: Gateway, first_run: FirstRun) -> None:
    daemon = lab.ready_pod(gateway, "daemon", limit=5)
    node = re.escape(daemon["spec"]["nodeName"])
    hub = re.escape(lab.hostname)
    assert re.search(
        r"GATEWAY +DEVICE +HUB +NAMESPACE +NODE +MODULES +CONNECTED +LAST ACTIVITY", first_run.run.text
    )
    row = rf"{gateway.name} +{gateway.name} +{hub} +{gateway.namespace} +{node} +sensor +1 of 1 +20\d\d-"
    assert re.search(row, first_run.run.text)


def test_second_run_changes_and_restarts_nothing(lab: Lab, gateway: Gateway, second_run: Observed) -> None:
    assert second_run.run.changed == 0, second_run.run.changed_tasks()
    # Pods with their restarts and Helm's revisions are among what is compared.
    assert f"Secret/{gateway.namespace}/sh.helm.release.v1.{gateway.name}.v1" in second_run.before
    assert [name for name in second_run.before if name.startswith(f"Pod/{gateway.namespace}/")]
    assert second_run.differences == []
    history = json.loads(
        lab.helm("history", gateway.name, "--namespace", gateway.namespace, "--output", "json")
    )
    assert [(entry["revision"], entry["status"]) for entry in history] == [(1, "deployed")]


def test_run_with_nothing_to_do_asks_the_registry_for_its_rights_only(
    lab: Lab, playbooks: Playbooks, gateway: Gateway, second_run: Observed
) -> None:
    """A hub allows few calls of its registry, and keys that are held already are no reason for one."""

    def calls() -> int:
        counted: int = lab.hub("GET", "/$emulator/statistics")["calls"].get("identityRegistry", 0)
        return counted

    before = calls()
    playbooks.run("site.yml", variables=site_of(gateway)).finished()
    # Preflight tries whether the policy may read and write.
    assert calls() - before == 2


def test_check_mode_on_the_finished_cluster_finds_nothing_to_change(
    lab: Lab, playbooks: Playbooks, gateway: Gateway, second_run: Observed
) -> None:
    seen = observed(
        lab, lambda: playbooks.run("site.yml", "--check", "--diff", variables=site_of(gateway)).finished()
    )
    assert seen.run.changed == 0, seen.run.changed_tasks()
    assert seen.differences == []
