# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When the role edge_verify looks at the hub again."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
import yaml

VARS = yaml.safe_load((Path(__file__).parents[3] / "roles" / "edge_verify" / "vars" / "main.yml").read_text())


@pytest.mark.parametrize(
    ("agents", "settled", "waits"),
    [
        ([False, False], True, False),
        ([False, False], False, True),
        # Preflight saw modules that run; that edgeAgent refused the deployment it did not see.
        ([False, True], True, True),
        ([], False, False),
        ([], True, False),
    ],
)
def test_only_what_the_look_before_saw_in_full_is_not_looked_at_again(
    agents: list[bool], settled: bool, waits: bool
) -> None:
    found = (
        jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True)
        .from_string(VARS["__edge_verify_waits"])
        .render(
            __edge_verify_gateways=agents,
            __edge_verify_devices=[{"device_id": "gw", "edge_agent": agent} for agent in agents],
            edge_verify_settled=settled,
        )
    )
    assert found == str(waits)
