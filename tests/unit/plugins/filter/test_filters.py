# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.edgeha.iotedge.plugins.filter import (
    chart_digest,
    cluster_table,
    gateway_table,
    problem_table,
)


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("name: a\n")
    (tmp_path / "templates" / "a.yaml").write_text("x")
    return tmp_path


def test_digest_stays_while_the_files_do(chart: Path) -> None:
    before = chart_digest.chart_digest(str(chart))
    (chart / "Chart.yaml").touch()
    assert chart_digest.chart_digest(str(chart)) == before
    assert chart_digest.chart_digest(f"{chart}/templates/..") == before


@pytest.mark.parametrize("change", ["content", "name", "more", "moved"])
def test_digest_sees_every_change(chart: Path, change: str) -> None:
    before = chart_digest.chart_digest(str(chart))
    file = chart / "templates" / "a.yaml"
    if change == "content":
        file.write_text("y")
    elif change == "name":
        file.rename(file.with_name("b.yaml"))
    elif change == "more":
        file.with_name("b.yaml").write_text("")
    else:
        # The same bytes in the same order, cut at another place.
        (chart / "Chart.yaml").write_text("name: a\nx")
        file.write_text("")
    assert chart_digest.chart_digest(str(chart)) != before


def test_folder_that_is_no_chart(tmp_path: Path) -> None:
    with pytest.raises(AnsibleFilterError, match=r"Chart\.yaml"):
        chart_digest.chart_digest(str(tmp_path))


def test_table_of_gateways() -> None:
    gateways = [
        {"name": "gw1", "device_id": "dev1", "namespace": "edge-gw1"},
        {"name": "gw2", "device_id": "dev2", "namespace": "edge-gw2"},
    ]
    modules = [
        {"device_id": "dev1", "module_id": "a", "connected": True, "last_activity": "2026-02-01T12:00:00Z"},
        {"device_id": "dev1", "module_id": "b", "connected": False, "last_activity": "2026-02-01T12:00:01Z"},
    ]
    lines = gateway_table.gateway_table(gateways, "hub.example", [{"name": "gw1", "node": "n1"}], modules)
    assert lines[2].split() == [
        *("gw1", "dev1", "hub.example", "edge-gw1", "n1", "a,", "b", "1", "of", "2", "2026-02-01T12:00:01Z")
    ]
    assert lines[3].split() == ["gw2", "dev2", "hub.example", "edge-gw2", "-", "-", "0", "of", "0", "never"]


def test_table_of_problems() -> None:
    lines = problem_table.problem_table([{"host": "h", "subject": "s", "fact": "f", "fix": "x"}])
    assert lines[-1].split() == ["h", "s", "f", "x"]


def test_a_cluster_is_shown_with_what_is_still_to_do() -> None:
    nodes = [
        {"name": "gw2", "ready": False, "schedulable": False, "version": "v1.34.4+k3s1", "labels": {}},
        {"name": "gw1", "ready": True, "schedulable": True, "version": "v1.34.5+k3s1",
         "labels": {"node-role.kubernetes.io/etcd": "true", "node-role.kubernetes.io/control-plane": "true"}},
    ]  # fmt: skip
    lines = cluster_table.cluster_table(nodes, "plant07", "https://10.7.0.10:6443", "v1.34.5+k3s1")
    assert [line.split()[2:] for line in lines[2:4]] == [
        ["gw1", "control-plane,", "etcd", "ready", "v1.34.5+k3s1"],
        ["gw2", "-", "not", "ready,", "takes", "no", "pods", "v1.34.4+k3s1"],
    ]
    assert lines[4].startswith(
        "plant07 runs v1.34.4+k3s1, and v1.34.5+k3s1 is wanted: run playbooks/upgrade.yml"
    )
    assert len(cluster_table.cluster_table(nodes, "plant07", "https://10.7.0.10:6443")) == 4
