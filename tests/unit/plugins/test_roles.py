# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What roles promise in one file they keep in the others, and no public variable is lost on the way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.edgeha.iotedge.plugins.module_utils import public_variables

from tests import mapping

ROOT = Path(__file__).resolve().parents[3]
# public_variables has nothing that could be given to it.
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if (path / "tasks").exists())
SECRETS = ("_policy_key", "_secret", "_token", "_registries", "_datastore_endpoint", "_datastore_key")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("role", ROLES)
def test_defaults_specification_and_readme_agree(role: str) -> None:
    folder = ROOT / "roles" / role
    defaults = load(folder / "defaults" / "main.yml")
    for entry in load(folder / "meta" / "argument_specs.yml")["argument_specs"].values():
        options = entry["options"]
        assert {name: option["default"] for name, option in options.items()} == defaults
        secret = {name for name, option in options.items() if option.get("no_log")}
        assert secret == {name for name in options if name.endswith(SECRETS)}
    readme = (folder / "README.md").read_text()
    for name in defaults:
        assert name.startswith(f"{role}_")
        assert f"`{name}`" in readme


@pytest.mark.parametrize("role", ROLES)
def test_private_names_carry_the_name_of_the_role(role: str) -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "roles" / role).rglob("*.yml"))
    registered = re.findall(r"register: (\S+)", text)
    assert all(name.startswith(f"__{role}_") for name in registered), registered


def test_every_role_variable_that_is_mapped_exists() -> None:
    known = {name for role in ROLES for name in load(ROOT / "roles" / role / "defaults" / "main.yml")}
    mapped = {name for name in mapping.mapping() if not name.startswith("__")}
    assert mapped <= known


def test_public_variables_that_are_used_are_known() -> None:
    roles = tuple(f"{role}_" for role in ROLES)
    used = {
        name
        for name in re.findall(r"(?<![\w.])(?:edge|iothub)_\w+", re.sub(r"#.*", "", mapping.TEXT))
        if not name.startswith(roles)
    }
    assert used
    assert used <= set(public_variables.VARIABLES)
