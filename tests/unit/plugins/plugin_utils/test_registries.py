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


@pytest.mark.parametrize(
    ("registry", "url"),
    [
        ("registry.example.org/edgeha", "https://registry.example.org/v2/"),
        ("10.7.0.9:5000", "https://10.7.0.9:5000/v2/"),
        ("[fd00::9]:5000/edgeha", "https://[fd00::9]:5000/v2/"),
        ("edgeha", "https://registry-1.docker.io/v2/"),
        ("docker.io/edgeha", "https://registry-1.docker.io/v2/"),
    ],
)
def test_where_images_come_from(registry: str, url: str) -> None:
    assert registries.source(registry, "") == {
        "name": "variable edge_image_registry", "url": url, "always": True, "verify": True
    }  # fmt: skip


@pytest.mark.parametrize("registry", ["", "localhost:5000/edgeha", "127.0.0.1:5000", "[::1]:5000", "a b.c/d"])
def test_what_is_no_registry_on_the_network(registry: str) -> None:
    assert registries.source(registry, "") is None


def test_a_registry_with_a_mirror_or_an_authority_of_its_own() -> None:
    assert registries.source("registry.example.org/edgeha", GOOD) is None
    mirror = "mirrors: {docker.io: {endpoint: ['https://10.7.0.9']}}"
    assert registries.source("edgeha", mirror) is None
    assert registries.source("registry.example.org", mirror) is not None
    own = "configs: {registry.example.org: {tls: {ca_file: /etc/ca.pem}}}"
    found = registries.source("registry.example.org", own)
    assert found is not None
    assert found["verify"] is False
