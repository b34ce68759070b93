# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.edgeha.iotedge.plugins.filter import misnamed_groups


def test_each_is_a_sentence() -> None:
    found = misnamed_groups.misnamed_groups(
        {"edge_cluster": ["plant07"], "edge_servers": ["gw1"], "all": ["gw1"]}
    )
    assert found == ["There is a group edge_cluster - did you mean edge_clusters?"]
