# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.edgeha.iotedge.plugins.module_utils import problems, table
from ansible_collections.edgeha.iotedge.plugins.module_utils.problems import Problem
from hypothesis import given
from hypothesis import strategies as st


def test_table_is_sorted_and_shows_each_problem_once() -> None:
    found = [Problem("b", "hub", "f", "x"), Problem("a", "hub", "f", "x"), Problem("b", "hub", "f", "x")]
    lines = problems.render(found)
    assert lines[0].split() == ["HOST", "SUBJECT", "FACT", "FIX"]
    assert [line.split()[0] for line in lines[2:]] == ["a", "b"]


def test_problem_survives_the_way_through_ansible() -> None:
    problem = Problem("a", "b", "c", "d")
    assert problems.from_dict(problem.as_dict()) == problem


def test_command_that_tries_a_connection_names_the_inventory_of_the_run() -> None:
    assert problems.ping("gw2", ["/a/hosts.yml", "my sites/b"]) == (
        "ansible -i /a/hosts.yml -i 'my sites/b' gw2 -m ping"
    )
    assert problems.ping("gw2", "gw1,gw2,") == "ansible -i gw1,gw2, gw2 -m ping"
    assert problems.ping("gw2", None) == problems.ping("gw2", []) == "ansible -i INVENTORY gw2 -m ping"


@given(st.lists(st.lists(st.text("ab ", max_size=40), min_size=2, max_size=2), max_size=4))
def test_no_word_of_a_cell_is_lost(rows: list[list[str]]) -> None:
    lines = table.render(("H", "I"), rows, max_width=10)
    shown = "".join("".join(line.split()) for line in lines[2:])
    assert sorted(shown) == sorted("".join("".join(cell.split()) for row in rows for cell in row))
