# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names that nobody knows are told once, with the nearest one."""

from __future__ import annotations

from ansible_collections.edgeha.iotedge.plugins.lookup.unknown_variables import LookupModule


def unknown(hostvars: dict[str, dict[str, object]]) -> list[dict[str, str]]:
    return LookupModule().run(list(hostvars), variables={"hostvars": hostvars})


def test_a_mistyped_name_is_told_once_for_all_hosts() -> None:
    variables = {
        "edge_k3s_versoin": "v1.34.5+k3s1",
        "edge_runtime_timeout": 60,
        "edge_confirm": "plant07",
        "gw": 1,
    }
    (problem,) = unknown({"plant07": variables, "gw1": variables})
    assert (problem["host"], problem["subject"]) == ("plant07", "variable edge_k3s_versoin")
    assert problem["fix"] == "did you mean edge_k3s_version?"


def test_public_variables_and_options_of_roles_are_known() -> None:
    assert (
        unknown({"plant07": {"edge_backup_dir": "/srv", "edge_runtime_timeout": 60, "iothub_hostname": "h"}})
        == []
    )
