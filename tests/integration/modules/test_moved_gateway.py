# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The device of a gateway that is absent goes, unless a gateway of another cluster has it now."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.modules.conftest import Hub, Run

# What playbooks/runtime.yml does last.
PLAY = {
    "hosts": "edge_clusters",
    "connection": "local",
    "gather_facts": False,
    "vars": {"ansible_python_interpreter": "{{ ansible_playbook_python }}"},
    "roles": ["edgeha.iotedge.public_variables"],
    "tasks": [
        {
            "ansible.builtin.import_role": {
                "name": "edgeha.iotedge.iothub_identity",
                "tasks_from": "removed",
                "rolespec_validate": False,
            }
        }
    ],
}


@pytest.mark.parametrize(
    ("elsewhere", "left"),
    [
        pytest.param({}, ["gw-1"], id="moved"),
        pytest.param(
            {"edge_gateways": [{"name": "other", "device_id": "gw-1"}]}, ["gw-1"], id="by its device"
        ),
        pytest.param({"edge_gateways": [{"name": "gw-1", "state": "absent"}]}, [], id="absent there too"),
        pytest.param({"edge_gateways": []}, [], id="nowhere"),
        pytest.param({"iothub_hostname": "other.azure-devices.net"}, [], id="at another hub"),
    ],
)
def test_only_a_device_that_nobody_has_is_deleted(
    run_playbook: Callable[..., Run], hub: Hub, tmp_path: Path, elsewhere: dict[str, Any], left: list[str]
) -> None:
    client = hub.client()
    client.request("PUT", "/devices/gw-1", body={"deviceId": "gw-1", "capabilities": {"iotEdge": True}})
    client.close()
    hosts = {
        "plant01": {"edge_gateways": [{"name": "gw-1", "state": "absent"}]},
        "plant02": {"edge_gateways": [{"name": "gw-1", "deployment": "gw.json"}], **elsewhere},
    }
    variables = {
        "edge_ca_bundle": hub.ca_file,
        "iothub_hostname": hub.hostname,
        "iothub_policy_key": hub.keys["iothubowner"],
    }
    inventory = {"all": {"children": {"edge_clusters": {"hosts": hosts}}, "vars": variables}}
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    (tmp_path / "play.json").write_text(json.dumps([PLAY]))
    words = ["-i", str(tmp_path / "hosts.json"), str(tmp_path / "play.json"), "--limit", "plant01"]
    run = run_playbook(words)
    assert (run.code, run.changed) == (0, 0 if left else 1), run.text
    assert hub.device_ids() == left
