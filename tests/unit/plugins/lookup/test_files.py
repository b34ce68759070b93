# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError
from ansible_collections.edgeha.iotedge.plugins.lookup import deployment, path
from ansible_collections.edgeha.iotedge.plugins.module_utils.inventory_rules import FileMissingError
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import files


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    for name in ("inventory/files", "playbooks/files"):
        (tmp_path / name).mkdir(parents=True)
    return {"inventory_dir": str(tmp_path / "inventory"), "playbook_dir": str(tmp_path / "playbooks")}


def test_inventory_comes_before_playbook_and_folder_before_its_files(
    variables: dict[str, str], tmp_path: Path
) -> None:
    # From the last place to the first: each new file hides the ones before it.
    for place in ("playbooks/files/a", "playbooks/a", "inventory/files/a", "inventory/a"):
        (tmp_path / place).write_text(place)
        assert files.find("a", variables).read_text() == place


def test_absolute_path_is_taken_as_it_is(variables: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "inventory" / "a").write_text("")
    with pytest.raises(FileMissingError) as caught:
        files.find(str(tmp_path / "a"), variables)
    assert caught.value.searched == [str(tmp_path / "a")]


def test_missing_file_names_every_place(variables: dict[str, str]) -> None:
    with pytest.raises(FileMissingError) as caught:
        files.find("files/a", variables)
    assert len(caught.value.searched) == 4


@pytest.mark.parametrize(
    ("text", "fact"), [(None, "does not exist"), ("no certificate", "holds no PEM"), ("", "holds no PEM")]
)
def test_bad_ca_bundle(variables: dict[str, str], tmp_path: Path, text: str | None, fact: str) -> None:
    if text is not None:
        (tmp_path / "inventory" / "ca.pem").write_text(text)
    assert fact in (files.certificate_error("ca.pem", variables) or "")


def test_path_lookup(variables: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "inventory" / "a").write_text("")
    found = path.LookupModule().run(["a", "", "gone"], variables)
    assert found == [str(tmp_path / "inventory" / "a"), "", "gone"]


def test_deployment_lookup_names_file_and_fact(variables: dict[str, str], tmp_path: Path) -> None:
    lookup = deployment.LookupModule()
    with pytest.raises(AnsibleLookupError, match=r"a\.json does not exist"):
        lookup.run(["a.json"], variables)
    (tmp_path / "inventory" / "a.json").write_text("{}")
    with pytest.raises(AnsibleLookupError, match="modulesContent: missing"):
        lookup.run(["a.json"], variables)
    (tmp_path / "inventory" / "a.json").write_bytes(b"\xff")
    with pytest.raises(AnsibleLookupError, match="cannot be read"):
        lookup.run(["a.json"], variables)
