# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The versions of k3s that can be verified, and an operator's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError
from ansible_collections.edgeha.iotedge.plugins.lookup import k3s_lock as lookup
from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_config
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import k3s_lock

OWN = "v1.99.0+k3s1:\n  k3s: {amd64: " + "a" * 64 + "}\n"


def test_each_entry_of_ours_can_be_installed_on_both_architectures() -> None:
    lock = k3s_lock.load("", {})
    assert k3s_config.newest(lock) in lock
    for version, artifacts in lock.items():
        for architecture in ("x86_64", "aarch64"):
            found = k3s_config.release(lock, version, architecture, source="/srv", data_dir="/data")
            assert found["problem"] == {}, version
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in artifacts["k3s"].values())


def test_an_operator_s_lock_adds_versions(tmp_path: Path) -> None:
    (tmp_path / "lock.yml").write_text(OWN)
    lock = k3s_lock.load("lock.yml", {"inventory_dir": str(tmp_path)})
    assert k3s_config.newest(lock) == "v1.99.0+k3s1"
    assert set(k3s_lock.load("", {})) < set(lock)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "is no YAML"), ("v1.99.0+k3s1: abc", "is not version: artifact"), (None, "does not exist")],
)
def test_what_is_wrong_with_a_lock_is_said(tmp_path: Path, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / "lock.yml").write_text(text)
    with pytest.raises(AnsibleLookupError, match=reason):
        lookup.LookupModule().run(["lock.yml"], {"inventory_dir": str(tmp_path)})
