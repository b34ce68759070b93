# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same site from a checkout, from an installed collection, and from an operator's own repository.

All three act on the gateway of the first run, so each has to find nothing to change: a name or a path
that resolved to something else would show. The digest of the chart's files is part of that comparison.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import FirstRun, Observed, observed
from tests.e2e.lab import ROOT, Gateway, Lab
from tests.e2e.playbook import BIN, Playbooks

NAME = ("ansible_collections", "edgeha", "iotedge")
BUILD_LIMIT_SECONDS = 120


@pytest.fixture(scope="module")
def archive(playbooks: Playbooks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection as it is published."""
    folder = tmp_path_factory.mktemp("build")
    _galaxy(playbooks, ROOT, "collection", "build", "--output-path", str(folder))
    (made,) = folder.glob("edgeha-iotedge-*.tar.gz")
    return made


@pytest.fixture(scope="module")
def installed(archive: Path, playbooks: Playbooks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the collection and nothing else; kubernetes.core comes from the ansible package."""
    folder = tmp_path_factory.mktemp("collections")
    options = ["--offline", "--no-deps", "--collections-path", str(folder)]
    _galaxy(playbooks, folder, "collection", "install", *options, str(archive))
    return folder


def _galaxy(playbooks: Playbooks, cwd: Path, *words: str) -> None:
    done = subprocess.run(
        [str(BIN / "ansible-galaxy"), *words],
        cwd=cwd,
        env=playbooks.environment(),
        capture_output=True,
        text=True,
        timeout=BUILD_LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def inventory(gateway: Gateway, tmp_path: Path) -> Path:
    """The lab's inventory as an operator would take it over: copied, with a gateway of their own."""
    folder = tmp_path / "inventory"
    shutil.copytree(ROOT / "inventories" / "local", folder)
    hosts = yaml.safe_load((folder / "hosts.yml").read_text())
    (entry,) = hosts["all"]["vars"]["edge_gateways"]
    entry["name"] = gateway.name
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts, sort_keys=False))
    return folder / "hosts.yml"


def only_from(seen: Observed, place: Path, elsewhere: Path) -> None:
    """Check that a run (-vvv) changed nothing and took every file of the collection from one place."""
    assert seen.run.changed == 0, seen.run.changed_tasks()
    assert seen.differences == []
    used = re.findall(r"^(?:task path: |Using module file )(.+)$", seen.run.text, re.MULTILINE)
    ours = [path for path in used if "kubernetes/core" not in path and "/site-packages/ansible/" not in path]
    for part in ("roles/preflight", "plugins/modules", "playbooks"):
        assert [path for path in ours if f"/{part}" in path], f"-vvv names no file of {part}"
    assert [path for path in ours if not path.startswith(f"{place}/")] == []
    # The virtual environment is the one thing that all ways share.
    assert f"{elsewhere}/" not in seen.run.text.replace(f"{BIN.parent}/", "")


def test_what_is_published_is_the_product_alone(archive: Path) -> None:
    with tarfile.open(archive) as opened:
        names = opened.getnames()
    tops = {name.partition("/")[0] for name in names}
    assert not tops & {"lab", "molecule", "tools", "build", ".venv", ".git", ".ci", ".collections"}
    # ansible-test wants its settings with the collection; no other test is the product's.
    assert {name.split("/")[1] for name in names if name.startswith("tests/")} <= {"sanity", "config.yml"}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".log"))]
    for needed in ("playbooks/site.yml", "charts/edge-runtime/templates/_helpers.tpl", "meta/runtime.yml"):
        assert needed in names
    roles = {name.split("/")[1] for name in names if name.startswith("roles/") and name.count("/") == 1}
    assert roles == {folder.name for folder in (ROOT / "roles").iterdir()}


def test_plain_checkout(second_run: Observed, tmp_path: Path) -> None:
    only_from(second_run, ROOT, tmp_path)


def test_installed_collection(
    lab: Lab, playbooks: Playbooks, first_run: FirstRun, installed: Path, inventory: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
    words = ("-vvv", "-i", str(inventory), "edgeha.iotedge.site")
    seen = observed(lab, lambda: playbooks.run(*words, cwd=empty, environment=environment).finished())
    only_from(seen, installed / Path(*NAME), ROOT)


def test_operators_own_repository(
    lab: Lab, playbooks: Playbooks, first_run: FirstRun, installed: Path, inventory: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "site.yml").write_text("- import_playbook: edgeha.iotedge.site\n")
    # Settings and collections as a repository carries them; the deployments stand beside its playbook.
    (own / "ansible.cfg").write_text("[defaults]\ncollections_path = collections\ninventory = hosts.yml\n")
    shutil.copytree(installed, own / "collections")
    shutil.move(inventory, own / "hosts.yml")
    shutil.move(inventory.parent / "files", own / "files")
    seen = observed(lab, lambda: playbooks.run("-vvv", "site.yml", cwd=own).finished())
    only_from(seen, own / "collections" / Path(*NAME), ROOT)
