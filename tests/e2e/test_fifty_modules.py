# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fifty modules of one deployment, as pods on a cluster."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lab import ROOT, Gateway, Lab, wait_for
from tests.e2e.playbook import Playbooks

COUNT = 50
KINDS = ("pods", "services", "serviceaccounts")
MANIFEST = json.loads((ROOT / "inventories/local/files/edge.json").read_text())
# Two cores start fifty interpreters one after another.
LIMIT_SECONDS = 600


def manifest_of(count: int, second: str = "30") -> dict[str, Any]:
    """A deployment of so many sensors. second: how often the second one of them sends, in s."""
    manifest = copy.deepcopy(MANIFEST)
    desired = manifest["modulesContent"]["$edgeAgent"]["properties.desired"]
    sensor = desired["modules"].pop("sensor")
    for number in range(count):
        module = copy.deepcopy(sensor)
        module["env"]["SEND_INTERVAL_SECONDS"] = {"value": second if number == 1 else "30"}
        desired["modules"][f"sensor{number}"] = module
    return dict(manifest)


@pytest.mark.slow
def test_fifty_modules_come_change_and_go(
    lab: Lab,
    playbooks: Playbooks,
    new_gateway: Callable[[str], Gateway],
    tmp_path: Path,
    measured: Callable[[str], None],
) -> None:
    gateway = new_gateway("e2e-fifty")
    file = tmp_path / "fifty.json"
    site = {
        "edge_gateways": [{"name": gateway.name, "deployment": str(file)}],
        "edge_verify_wait_timeout": LIMIT_SECONDS,
    }

    def run(manifest: dict[str, Any]) -> None:
        file.write_text(json.dumps(manifest))
        with playbooks.start("site.yml", variables=site) as started:
            started.wait(2 * LIMIT_SECONDS).finished()

    def pods() -> dict[str, str]:
        return {
            pod["metadata"]["annotations"]["net.azure-devices.edge.module-id"]: pod["metadata"]["uid"]
            for pod in lab.pods(gateway, "module")
            if not pod["metadata"].get("deletionTimestamp")
        }

    def others() -> list[str]:
        """What is left of modules besides sensor0."""
        found = [item for kind in KINDS for item in lab.get(kind, "-n", gateway.namespace)["items"]]
        names = [item["metadata"]["name"] for item in found]
        return [name for name in names if "sensor" in name and "sensor0" not in name]

    run(manifest_of(COUNT))
    before = pods()
    assert len(others()) >= len(KINDS) * (COUNT - 1)
    assert len(before) == COUNT + 2
    ready = [pod for pod in lab.pods(gateway, "module") if pod["status"]["phase"] == "Running"]
    assert len(ready) == COUNT + 2
    starts = sorted(pod["status"]["startTime"] for pod in ready)
    measured(f"{COUNT} modules: first pod {starts[0]}, last pod {starts[-1]}")

    run(manifest_of(COUNT, second="20"))
    after = pods()
    assert {name for name in before if before[name] != after[name]} == {"sensor1"}

    run(manifest_of(1))
    wait_for("the others to go", lambda: set(pods()) == {"edgeAgent", "edgeHub", "sensor0"}, 120)
    left = [name for name in lab.devices() if name.startswith(f"{gateway.name}/")]
    assert sorted(left) == [f"{gateway.name}/{name}" for name in ("$edgeAgent", "$edgeHub", "sensor0")]
    # Pods are there until their kubelets have ended them.
    wait_for("what was theirs to go", lambda: not others(), 120)
