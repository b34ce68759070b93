# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two gateways above each other: the lower one reaches the hub only through the upper one."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import observed
from tests.e2e.lab import ROOT, Gateway, Lab, wait_for
from tests.e2e.playbook import Playbooks
from tests.tls import issue

MANIFEST = str(ROOT / "inventories/local/files/edge.json")
MESSAGES_LIMIT_SECONDS = 60


@pytest.mark.slow
def test_messages_of_the_lower_gateway_come_by_the_upper_one(
    lab: Lab, playbooks: Playbooks, new_gateway: Callable[[str], Gateway], tmp_path: Path
) -> None:
    top, line = new_gateway("e2e-top"), new_gateway("e2e-line")
    authority = issue("edge CA of the tests", ca=True)
    # Whoever makes a CA of their own gives it to the gateway, and its certificate to all that connect to it.
    lab.kubectl("create", "namespace", top.namespace)
    lab.kubectl("create", "--filename", "-", data={
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ca", "namespace": top.namespace},
        "data": {
            "tls.crt": base64.b64encode(authority.pem.encode()).decode(),
            "tls.key": base64.b64encode(authority.key_pem.encode()).decode(),
        },
    })  # fmt: skip
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(lab.ca_file.read_text() + authority.pem)
    host = f"{top.name}-gateway.{top.namespace}.svc.cluster.local"
    upper = {
        "name": top.name, "deployment": MANIFEST, "hostname": host,
        "chart_values": {"edgeCa": {"existingSecret": "ca"}},
    }  # fmt: skip
    lower = {"name": line.name, "deployment": MANIFEST, "parent": top.name}
    # The lower one stands first: all are waited for together, so the order does not matter.
    site: dict[str, Any] = {
        "edge_ca_bundle": str(bundle),
        "edge_gateways": [lower, upper],
        "edge_verify_wait_timeout": 120,
    }
    playbooks.run("site.yml", variables=site).finished()
    for gateway in (line, top):
        wait_for(
            f"messages of {gateway.name}", lambda name=gateway.name: lab.messages(name),
            MESSAGES_LIMIT_SECONDS,
        )  # fmt: skip
    # As the hub tells of it, and as the upper one's edgeHub does: the way is the one that was asked for.
    device, above = (lab.hub("GET", f"/devices/{name}") for name in (line.name, top.name))
    assert device["parentScopes"] == [above["deviceScope"]]
    hub = ("--selector=net.azure-devices.edge.module=edgeHub", "--container=module", "--tail=-1")
    log = lab.kubectl("logs", *hub, "--namespace", top.namespace)
    passed_on = {
        entry["identity"] for entry in map(json.loads, log.splitlines()) if entry["event"] == "below"
    }
    assert {f"{line.name}/$edgeAgent", f"{line.name}/$edgeHub", f"{line.name}/sensor"} <= passed_on
    daemon = lab.ready_pod(line, "daemon", 60)
    env = {entry["name"]: entry.get("value") for entry in daemon["spec"]["containers"][0]["env"]}
    assert env["EDGEHA_PARENT_HOSTNAME"] == host

    seen = observed(lab, lambda: playbooks.run("site.yml", variables=site).finished())
    assert seen.run.changed == 0, seen.run.changed_tasks()
    assert seen.differences == []
