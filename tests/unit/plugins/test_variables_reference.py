# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The reference for operators says what the table of public variables and the playbooks say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from ansible_collections.edgeha.iotedge.plugins.module_utils.public_variables import DEFAULTS, VARIABLES

from tests import mapping

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
OPERATIONS = (DOCS / "operations.md").read_text()
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
# What a role is given where the operator is silent. Empty values and 0 mean that the role decides.
LITERAL = r"\b{name}\s*\|\s*default\((\[[^\]]+\]|'[^']+'|true|false|[1-9][0-9]*)"
PLACES = {"cluster", "machine", "all", "`-e`"}


class Row(NamedTuple):
    name: str
    type: str
    default: str
    place: str
    meaning: str


def rows() -> list[Row]:
    lines = re.findall(
        r"^\| (`(?:edge|iothub)_\w+` \|.*) \|$", (DOCS / "variables.md").read_text(), re.MULTILINE
    )
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    assert all(len(entry) == len(Row._fields) for entry in cells), cells
    return [Row(entry[0].strip("`"), *entry[1:]) for entry in cells]


ROWS = {row.name: row for row in rows()}


def literal(name: str) -> Any:
    """Return the default in the role public_variables, None where there is none."""
    found = re.search(LITERAL.format(name=name), mapping.TEXT)
    return yaml.safe_load(found[1]) if found else None


def test_every_public_variable_is_one_row_and_no_other_is() -> None:
    assert sorted(row.name for row in rows()) == sorted(VARIABLES)


@pytest.mark.parametrize("name", VARIABLES)
def test_a_row_says_what_the_table_says(name: str) -> None:
    rule, row = VARIABLES[name], ROWS[name]
    assert row.type == ("secret" if rule.secret else rule.kind)
    assert row.place in PLACES
    assert (row.place == "machine") == rule.machine
    assert row.meaning.endswith(".")
    for choice in filter(None, rule.choices):
        assert f"`{choice}`" in row.default + row.meaning
    if rule.supported:
        assert "not in this version" in row.meaning


@pytest.mark.parametrize("name", VARIABLES)
def test_a_default_is_the_one_that_playbooks_use(name: str) -> None:
    told, used = ROWS[name].default, DEFAULTS.get(name, literal(name))
    if used is not None:
        assert re.fullmatch("`[^`]+`", told), told
        assert yaml.safe_load(told.strip("`")) == used
    elif VARIABLES[name].kind == "bool":
        pytest.fail(f"{name} has no default")


def test_the_source_of_k3s_is_the_one_that_machines_use() -> None:
    assert ROWS["edge_k3s_source"].default.strip("`") in mapping.TEXT


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_each_playbook_is_told_in_both_forms(playbook: str) -> None:
    assert f"ansible-playbook -i INVENTORY playbooks/{playbook}.yml" in OPERATIONS
    assert re.search(rf"ansible-playbook -i INVENTORY edgeha\.iotedge\.{playbook}\b", OPERATIONS)


def test_operations_name_no_playbook_and_no_variable_that_is_not_there() -> None:
    told = re.findall(r"(?:playbooks/|edgeha\.iotedge\.)(\w+)", OPERATIONS)
    assert set(told) == set(PLAYBOOKS)
    assert set(re.findall(r"\b(?:edge|iothub)_[a-z0-9_]+", OPERATIONS)) <= set(VARIABLES)


def test_both_can_be_found_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in ("variables", "operations"):
        assert f"](docs/{name}.md)" in readme
