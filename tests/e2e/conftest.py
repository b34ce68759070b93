# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One lab that is up, and one gateway in it that all files share.

The lab is named by EDGEHA_LAB_STATE. It is used as it is: what the tests make is removed before and after.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.evidence import Watch
from tests.e2e.lab import Gateway, Lab, find_lab
from tests.e2e.playbook import Playbooks, Run

# The order in which the cluster is used: bare, then with the gateway, then what disturbs it.
FILES = (
    "test_first_run.py",
    "test_secrets.py",
    "test_three_ways.py",
    "test_edge_agent.py",
    "test_adoption.py",
    "test_credentials.py",
    "test_address.py",
    "test_nested.py",
    "test_many.py",
    "test_network_policy.py",
    "test_lifecycle.py",
    "test_fifty_modules.py",
    "test_refusals.py",
    "test_interrupted.py",
    "test_power_cut.py",
)
DEPLOYMENT = "files/demo.json"
_MEASURED = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--run-slow", action="store_true", help="also what takes minutes each, such as power cuts"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes minutes; left out without --run-slow")
    config.stash[_MEASURED] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    places = {here / name: number for number, name in enumerate(FILES)}
    items.sort(key=lambda item: places.get(item.path, -1))
    if not config.getoption("--run-slow"):
        slow = [item for item in items if item.path.parent == here and item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[_MEASURED]:
        terminalreporter.section("measured")
        for line in config.stash[_MEASURED]:
            terminalreporter.write_line(line)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a function that takes one line for the end of the report."""
    return request.config.stash[_MEASURED].append


@pytest.fixture(scope="session")
def lab() -> Lab:
    found = find_lab()
    if isinstance(found, str):
        pytest.exit(found, returncode=1)
    return found


@pytest.fixture(scope="session")
def playbooks(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Playbooks:
    return Playbooks(lab, tmp_path_factory.mktemp("runs"))


@dataclass(frozen=True)
class Observed:
    """A run, and what there was at the hub and in the cluster before and after it."""

    run: Run
    before: dict[str, str]
    after: dict[str, str]

    @property
    def differences(self) -> list[str]:
        """Names of what appeared, went or changed."""
        names = self.before.keys() | self.after.keys()
        return sorted(name for name in names if self.before.get(name) != self.after.get(name))


def everything(lab: Lab) -> dict[str, str]:
    """Versions of all devices and all objects."""
    return {f"Device//{name}": etag for name, etag in lab.devices().items()} | lab.objects()


def observed(lab: Lab, run: Callable[[], Run]) -> Observed:
    before = everything(lab)
    return Observed(run(), before, everything(lab))


def site_of(gateway: Gateway) -> dict[str, Any]:
    """Variables that make a site out of this gateway alone."""
    return {"edge_gateways": [{"name": gateway.name, "deployment": DEPLOYMENT}]}


@pytest.fixture(scope="session")
def new_gateway(lab: Lab) -> Iterator[Callable[[str], Gateway]]:
    """Return a function that names a gateway which is not there yet, and goes with the session."""
    made: list[Gateway] = []

    def name(text: str) -> Gateway:
        made.append(Gateway(text))
        lab.remove(made[-1])
        return made[-1]

    yield name
    if made and not os.environ.get("KEEP_LAB"):
        lab.remove(*made)


@pytest.fixture(scope="session")
def gateway(new_gateway: Callable[[str], Gateway]) -> Gateway:
    """The gateway of the whole session; before the first run it is not there."""
    return new_gateway("e2e-gw")


@dataclass(frozen=True)
class FirstRun:
    """The first real run, with all that Ansible can print, and what was seen meanwhile.

    last_message: the hub's number of the last message before it; the hub keeps messages for ever.
    """

    run: Run
    watch: Watch
    last_message: int


@pytest.fixture(scope="session")
def first_run(lab: Lab, playbooks: Playbooks, gateway: Gateway) -> FirstRun:
    last = max((message.seq for message in lab.messages(gateway.name)), default=0)
    with Watch([playbooks.folder / "tmp", playbooks.folder / "home"]) as watch:
        run = playbooks.run("site.yml", "-vvv", "--diff", variables=site_of(gateway))
    return FirstRun(run.finished(), watch, last)


@pytest.fixture(scope="session")
def second_run(lab: Lab, playbooks: Playbooks, gateway: Gateway, first_run: FirstRun) -> Observed:
    """The same again, which is also the plain checkout's run of the three ways."""
    return observed(lab, lambda: playbooks.run("site.yml", "-vvv", variables=site_of(gateway)).finished())
