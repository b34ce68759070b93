# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import inventory_rules, value_formats
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import k3s_source

# Newer than all that the collection itself knows.
VERSION = "v9.99.9+k3s1"
DIGEST = hashlib.sha256(b"program").hexdigest()


def load(folder: Path, lock: str | None = None, **values: Any) -> k3s_source.Source:
    if lock is not None:
        (folder / "lock.yml").write_text(lock)
        values["edge_k3s_lock"] = str(folder / "lock.yml")

    def get(name: str) -> Any:
        found = inventory_rules.usable(name, values.get(name))
        return None if value_formats.check(name, found) else found

    return k3s_source.load(get, lambda name: bool(values.get(name)), {})


def lock_of(*architectures: str) -> str:
    return f"{VERSION}: {{k3s: {{{', '.join(f'{name}: {DIGEST}' for name in architectures)}}}}}"


def test_machines_download_from_the_given_address(tmp_path: Path) -> None:
    source = load(tmp_path, lock_of("amd64", "arm64"), edge_k3s_source="https://mirror.example.org/k3s/")
    assert source.problems == []
    assert source.version == VERSION
    assert {entry["architecture"]: entry["url"] for entry in source.addresses()} == {
        "x86_64": "https://mirror.example.org/k3s/v9.99.9%2Bk3s1/k3s",
        "aarch64": "https://mirror.example.org/k3s/v9.99.9%2Bk3s1/k3s-arm64",
    }
    assert source.artifact("x86_64") is None


def test_folder_of_the_controller(tmp_path: Path) -> None:
    place = tmp_path / "k3s" / VERSION
    place.mkdir(parents=True)
    source = load(tmp_path, lock_of("amd64"), edge_k3s_source=str(tmp_path / "k3s"))
    assert source.addresses() == []
    assert "is not on the controller" in str(source.artifact("x86_64"))
    (place / "k3s").write_text("another program")
    assert "another SHA-256" in str(source.artifact("x86_64"))
    (place / "k3s").write_text("program")
    assert source.artifact("x86_64") is None
    assert "no SHA-256 of k3s" in str(source.artifact("aarch64"))
    assert "is not made for it" in str(source.artifact("riscv64"))


@pytest.mark.parametrize(
    ("lock", "values", "variable", "words"),
    [
        ("hunter2: [", {}, "edge_k3s_lock", "no YAML"),
        ("v1.34.4+k3s1: none", {}, "edge_k3s_lock", "is not version: artifact"),
        (None, {"edge_k3s_lock": "/nowhere/lock.yml"}, "edge_k3s_lock", "does not exist"),
        (None, {"edge_k3s_version": "v1.2.3+k3s4"}, "edge_k3s_version", "v1.2.3+k3s4 is not in the lock"),
        (None, {"edge_k3s_source": "k3s"}, "edge_k3s_source", "neither an address nor a whole path"),
        (None, {"edge_k3s_source": "/nowhere/k3s"}, "edge_k3s_source", "is no folder of the controller"),
    ],
)
def test_each_mistake(
    tmp_path: Path, lock: str | None, values: dict[str, Any], variable: str, words: str
) -> None:
    [(found, fact, fix)] = load(tmp_path, lock, **values).problems
    assert found == variable
    assert words in fact
    assert fix


def test_versions_of_the_operators_lock_are_offered_first(tmp_path: Path) -> None:
    digest = f"{{k3s: {{amd64: {DIGEST}}}}}"
    lock = f"v1.34.9+k3s1: {digest}\nv1.34.3+k3s1: {digest}\nv1.34.10+k3s1: {digest}\n"
    [(_variable, _fact, fix)] = load(tmp_path, lock, edge_k3s_version="v1.2.3+k3s4").problems
    offered = fix.partition("(")[2].partition(")")[0].split(", ")
    assert offered[:4] == ["v1.34.10+k3s1", "v1.34.9+k3s1", "v1.34.3+k3s1", "v1.34.2+k3s1"]
    assert len(offered) == len(set(offered))
    [(_variable, _fact, fix)] = load(tmp_path, edge_k3s_version="v1.2.3+k3s4").problems
    assert "(v1.34.3+k3s1, v1.34.2+k3s1, " in fix


@pytest.mark.parametrize("values", [{"edge_k3s_version": "1.34.4"}, {"edge_k3s_source": "ftp://mirror"}])
def test_values_with_a_wrong_form_are_not_relied_on(tmp_path: Path, values: dict[str, Any]) -> None:
    source = load(tmp_path, **values)
    assert source.problems == []
    assert not source.known
    assert load(tmp_path).known


def test_without_variables_the_collections_own_lock_and_source_count(tmp_path: Path) -> None:
    source = load(tmp_path)
    assert source.problems == []
    assert source.version in source.lock
    assert source.place.startswith("https://")
