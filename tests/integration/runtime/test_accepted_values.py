# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What preflight takes of a gateway, at the limits of its rules, the chart takes too.

Helm comes after devices and deployments are at the hub: what it refuses then leaves a site half made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import deployment, inventory_rules, releases

from tests.integration.runtime.test_chart import CHART, helm
from tests.unit.plugins.module_utils.test_inventory_rules import GOOD, facts, many, read_file

DPS = {
    "dps": {"id_scope": "0ne000A1B2C", "registration_id": "7." + "a" * 126},
    "credential": {"secret": "own"},
}
ACCEPTED: dict[str, dict[str, Any]] = {
    "long name": {"name": "a" * 40},
    "name": {"name": "p-7"},
    "device": {"device_id": "Plant-07:.+%_#*?!(),=@;$'"},
    "hosts": {"hostname": f"{'a' * 63}.example", "parent_hostname": "b.example", "parent": "up"},
    "class of the cluster": {"storage": {"class": None}},
    "size as a number": {"storage": {"size": 1073741824}},
    "storage": {"storage": {"size": "1Ti", "access_mode": "ReadWriteOncePod", "class": "nfs.example"}},
    "dps": DPS,
    "group": {**DPS, "dps": {**DPS["dps"], "group": True, "endpoint": "dps.example.org:8443"}},
    "secret store": {"credential": {"secret_provider_class": "vault.example"}},
    "address": {"deployment": "edge.json", "address": "10.0.0.9", "exposure": "LoadBalancer"},
    "standby": {"standby": True, "node_selector": {"kubernetes.io/hostname": "gw1"}},
    "fifty modules": {"deployment": "fifty.json"},
}


@pytest.mark.parametrize("entry", ACCEPTED.values(), ids=ACCEPTED)
def test_the_chart_takes_what_preflight_takes(entry: dict[str, Any], tmp_path: Path) -> None:
    entry = {"name": "gw1", "deployment": "gw1.json", **entry}
    fifty = entry["deployment"] == "fifty.json"
    assert facts(edge_gateways=[{**entry, "deployment": "gw1.json"} if fifty else entry]) == []
    manifest = deployment.parse(many(50) if fifty else read_file(entry["deployment"]))
    gateways = inventory_rules.normalise_gateways([entry], {}, "nfs")
    settings = {
        "iothub_hostname": GOOD["iothub_hostname"],
        "image_registry": GOOD["edge_image_registry"],
        "trust_bundle": "",
        "https_proxy": "http://proxy.example.org:3128",
        "no_proxy": ".example.org",
        "toleration_seconds": "30",
        "chart_digest": "sha256:0",
        "credentials": [None],
    }
    contents = [{"modules": manifest.modules, "edge_agent": manifest.edge_agent}]
    [release] = releases.wanted(gateways, contents, settings)
    values = tmp_path / "values.json"
    values.write_text(json.dumps(release["values"]))
    done = helm("template", release["name"], CHART, "--kube-version=1.34.4", "--values", values)
    assert done.returncode == 0, done.stderr
