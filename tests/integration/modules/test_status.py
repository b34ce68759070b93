# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""status.yml tells of each gateway, whatever of its cluster is away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.modules.test_preflight import KUBECONFIG, MANIFEST
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.integration.modules.conftest import Hub, Run


def gateway(name: str, **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, "deployment": "gw.json", **more}]


@pytest.mark.parametrize("options", [[], ["--check"]], ids=["run", "check"])
def test_clusters_that_cannot_be_read_are_rows_of_the_table(
    run_playbook: Callable[..., Run], hub: Hub, tmp_path: Path, options: list[str]
) -> None:
    (tmp_path / "gw.json").write_text(MANIFEST)
    (tmp_path / "kubeconfig").write_text(json.dumps(KUBECONFIG))
    existing = {"edge_cluster_mode": "existing", "edge_kubeconfig": "kubeconfig"}
    clusters = {
        # The first of them has nothing to tell, and yet the others are told of.
        "a-empty": {**existing, "edge_gateways": []},
        "b-gone": {**existing, "edge_gateways": gateway("gw-b", state="absent")},
        "c-ours": {"edge_gateways": gateway("gw-c")},
        "d-theirs": {**existing, "edge_gateways": gateway("gw-d")},
    }
    server = {"ansible_host": "127.0.0.1", "ansible_port": free_port(), "edge_cluster": "c-ours"}
    inventory = {
        "all": {
            "children": {
                "edge_clusters": {"hosts": clusters},
                "edge_servers": {"hosts": {"c-server": server}},
            },
            "vars": {
                "edge_ca_bundle": hub.ca_file,
                "edge_status_folder": str(tmp_path / "status"),
                "iothub_hostname": hub.hostname,
                "iothub_policy_key": hub.keys["iothubowner"],
            },
        }
    }
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    (tmp_path / "status").mkdir()
    # What another program's kubeconfig names is not taken for the cluster that is away.
    run = run_playbook(
        ["-i", str(tmp_path / "hosts.json"), "playbooks/status.yml", *options],
        K8S_AUTH_KUBECONFIG=str(tmp_path / "kubeconfig"),
    )
    assert run.code == 0, run.text
    table = "\n".join(run.results["Show the gateways of all clusters"]["lines"])
    assert "gw-b" not in table
    for name, reason in (("gw-c", "none of its servers"), ("gw-d", "the API https://127.0.0.1:1 cannot be")):
        [row] = [line for line in table.splitlines() if line.startswith(name)]
        assert name in row
        assert reason in " ".join(table.split())
    if not options:
        kept = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "status").iterdir()}
        assert {name: len(rows) for name, rows in kept.items()} == {
            "a-empty": 0, "b-gone": 0, "c-ours": 1, "d-theirs": 1,
        }  # fmt: skip
