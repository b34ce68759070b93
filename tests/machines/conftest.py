# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab of these tests: made once, prepared once, and looked at before anything runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines import machines as lab
from tests.machines.machines import Machines
from tests.machines.network import Neighbours, neighbours


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    """Bare machines, of which some have what a wrong inventory meets. KEEP_LAB=1 leaves them there."""
    found = lab.up()
    try:
        found.prepare()
        yield found
    finally:
        if not os.environ.get("KEEP_LAB"):
            lab.down()


@pytest.fixture(scope="session")
def near(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    with neighbours(machines.gateway, tmp_path_factory.mktemp("network")) as found:
        yield found


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def untouched(machines: Machines, near: Neighbours) -> dict[str, str]:
    """What stood on the machines before the first run."""
    return machines.state()
