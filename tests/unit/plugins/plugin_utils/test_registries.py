# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.edgeha.iotedge.plugins.plugin_utils import registries

GOOD = """
mirrors:
  docker.io:
    endpoint: [https://registry.example.org, http://10.7.0.9:5000]
  "*":
    endpoint: ["https://edge:hunter2@registry.example.org"]
configs:
  registry.example.org:
    auth: {username: edge, password: hunter2}
"""


def test_good_text() -> None:
    assert registries.check(GOOD) == []
    assert registries.endpoints(GOOD) == ["http://10.7.0.9:5000", "https://registry.example.org"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("auth: {password: hunter2", "is not YAML (line 1)"),
        ("hunter2", "is not a mapping"),
        ("mirors: {}", "the key mirors is not known"),
        ("configs: hunter2", "configs is not a mapping"),
        ("mirrors: {docker.io: {endpoint: https://hunter2}}", "the endpoint of the mirror docker.io"),
    ],
)
def test_each_mistake_is_told_without_the_text(text: str, words: str) -> None:
    [(fact, fix)] = registries.check(text)
    assert words in fact
    assert "hunter2" not in fact + fix
    assert registries.endpoints(text) == []
