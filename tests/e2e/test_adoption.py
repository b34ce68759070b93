# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of a gateway comes back from a backup, on a claim of somebody: the next run takes it over."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import observed, site_of
from tests.e2e.lab import Gateway, Lab, digest, wait_for
from tests.e2e.playbook import Playbooks, problems

MESSAGES_LIMIT_SECONDS = 30
FILES = ("master-key.json", "identities.json")


@pytest.mark.slow
def test_a_gateway_goes_on_with_the_state_of_a_backup(
    lab: Lab, playbooks: Playbooks, new_gateway: Callable[[str], Gateway], tmp_path: Path
) -> None:
    gateway = new_gateway("e2e-backup")
    playbooks.run("site.yml", variables=site_of(gateway)).finished()
    sensor = lab.module(gateway.name, "sensor")
    kept = {name: digest(lab.state_folder(gateway) / name) for name in FILES}
    backup = tmp_path / "backup"
    lost = lose(lab, gateway, backup)
    restore(lab, gateway, backup, lost)

    # What the claim is cannot be changed, and that is told before anything is.
    entry = {**site_of(gateway)["edge_gateways"][0], "storage": {"access_mode": "ReadWriteOnce"}}
    (problem,) = problems(playbooks.run("site.yml", variables={"edge_gateways": [entry]}))
    assert problem.fact == (
        "gateway e2e-backup: its claim e2e-backup-state in edge-e2e-backup is ReadWriteMany, and "
        "ReadWriteOnce is asked for"
    )

    checked = playbooks.run("site.yml", "--check", "--diff", variables=site_of(gateway)).finished()
    assert any("Take the state" in task for task in checked.changed_tasks()), checked.changed_tasks()
    since = max(message.seq for message in lab.messages(gateway.name))
    playbooks.run("site.yml", variables=site_of(gateway)).finished()
    wait_for("messages at the hub", lambda: lab.messages(gateway.name, since), MESSAGES_LIMIT_SECONDS)
    assert {name: digest(lab.state_folder(gateway) / name) for name in FILES} == kept
    again = lab.module(gateway.name, "sensor")
    assert again["generationId"] == sensor["generationId"]
    assert (again["authentication"] == sensor["authentication"]) is True  # no keys in a failure's text

    seen = observed(lab, lambda: playbooks.run("site.yml", variables=site_of(gateway)).finished())
    assert seen.run.changed == 0, seen.run.changed_tasks()
    assert seen.differences == []


def lose(lab: Lab, gateway: Gateway, backup: Path) -> dict[str, Any]:
    """Take a backup of the state, and lose the gateway with its namespace and its volume. What that was."""
    lab.helm("uninstall", gateway.name, "--namespace", gateway.namespace, "--wait")
    folder = lab.state_folder(gateway)
    shutil.copytree(folder.parent, backup)
    claim = lab.get("persistentvolumeclaims", f"{gateway.name}-state", "--namespace", gateway.namespace)
    name = claim["spec"]["volumeName"]
    volume: dict[str, Any] = lab.get("persistentvolume", name)["spec"]
    lab.kubectl("delete", "namespace", gateway.namespace, "--timeout=120s")
    lab.kubectl("delete", "persistentvolume", name, "--ignore-not-found")
    return volume


def restore(lab: Lab, gateway: Gateway, backup: Path, lost: dict[str, Any]) -> None:
    """Make namespace, volume and claim as a person would, with the state in it."""
    name = f"{gateway.name}-state"
    place = lab.state / "shared" / f"restored-{gateway.name}"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(backup, place)
    for path in (place, *place.rglob("*")):
        shutil.chown(path, 10001, 10001)
    size = {"storage": "1Gi"}
    path = Path((lost.get("hostPath") or lost["local"])["path"]).parent / place.name
    volume: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": place.name},
        "spec": {
            "capacity": size,
            "accessModes": lost["accessModes"],
            "storageClassName": lost["storageClassName"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(path), "type": "Directory"},
            "claimRef": {"name": name, "namespace": gateway.namespace},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": gateway.namespace},
        "spec": {
            "accessModes": lost["accessModes"],
            "storageClassName": lost["storageClassName"],
            "volumeName": place.name,
            "resources": {"requests": size},
        },
    }
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": gateway.namespace}}
    for found in (namespace, volume, claim):
        lab.kubectl("create", "--filename", "-", data=found)
    wait_for(
        "the claim to be bound",
        lambda: lab.get("pvc", name, "--namespace", gateway.namespace)["status"]["phase"] == "Bound",
        30,
    )
