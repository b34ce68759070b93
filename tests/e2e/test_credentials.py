# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices that prove themselves by a certificate, and those that the provisioning service registers."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import DEPLOYMENT, observed
from tests.e2e.lab import Gateway, Lab, wait_for
from tests.e2e.playbook import Playbooks
from tests.tls import issue

MESSAGES_LIMIT_SECONDS = 60


def speaks(lab: Lab, gateway: Gateway, since: int = 0) -> int:
    """Wait for a message of the gateway; returns the hub's number of it."""
    found = wait_for(
        f"messages of {gateway.name}", lambda: lab.messages(gateway.name, since), MESSAGES_LIMIT_SECONDS
    )
    return found[-1].seq


@pytest.mark.slow
def test_certificates_and_the_provisioning_service_by_the_inventory_alone(
    lab: Lab, playbooks: Playbooks, new_gateway: Callable[[str], Gateway], tmp_path: Path
) -> None:
    by_certificate, by_dps = new_gateway("e2e-cert"), new_gateway("e2e-dps")
    group_key = base64.b64encode(secrets.token_bytes(32)).decode()
    # Of each run its own: the service keeps what it knows as long as the lab.
    lab.enroll(f"e2e-plants-{secrets.token_hex(4)}", group_key)
    (tmp_path / "group.key").write_text(group_key)
    first = issue(by_certificate.name)
    chain, key = first.write(tmp_path)
    certificate: dict[str, Any] = {
        "name": by_certificate.name,
        "deployment": DEPLOYMENT,
        "credential": {
            "type": "x509",
            "certificate_file": str(chain),
            "key_file": str(key),
            "thumbprints": [first.thumbprint],
        },
    }
    provisioned = {
        "name": by_dps.name,
        "deployment": DEPLOYMENT,
        "dps": {"endpoint": lab.dps_host, "id_scope": lab.id_scope, "group": True},
        "credential": {"key_file": str(tmp_path / "group.key")},
    }
    site = {"edge_gateways": [certificate, provisioned]}
    run = playbooks.run("site.yml", "-vvv", "--diff", variables=site).finished()
    assert group_key not in run.text
    assert first.key_pem.splitlines()[1] not in run.text
    last = speaks(lab, by_certificate)
    speaks(lab, by_dps)
    device = lab.hub("GET", f"/devices/{by_certificate.name}")
    assert device["authentication"]["type"] == "selfSigned"
    thumbprint = device["authentication"]["x509Thumbprint"]["primaryThumbprint"]
    assert thumbprint.lower() == first.thumbprint.lower()

    # The group's key stays on the controller.
    stored = lab.get("secret", f"{by_dps.name}-device", "--namespace", by_dps.namespace)["data"]
    derived = hmac.digest(base64.b64decode(group_key), by_dps.name.encode(), "sha256")
    own = base64.b64encode(base64.b64encode(derived)).decode()
    assert (stored == {"device-key": own}) is True  # no keys in a failure's text
    everywhere = json.dumps(lab.get("secrets,configmaps", "--namespace", by_dps.namespace))
    assert base64.b64encode(group_key.encode()).decode() not in everywhere

    seen = observed(lab, lambda: playbooks.run("site.yml", variables=site).finished())
    assert seen.run.changed == 0, seen.run.changed_tasks()
    assert seen.differences == []

    # A renewed certificate: hub and Secret get it, and no pod starts anew.
    second = issue(by_certificate.name)
    second.write(tmp_path)
    certificate["credential"]["thumbprints"] = [second.thumbprint, first.thumbprint]
    renewed = observed(lab, lambda: playbooks.run("site.yml", variables=site).finished())
    assert renewed.run.changed > 0
    assert not [name for name in renewed.differences if name.startswith(("Pod/", "Deployment/"))]
    speaks(lab, by_certificate, last)
