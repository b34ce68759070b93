# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each wrong inventory gives one clear error for each mistake, and leaves the machines as they were.

Each run is a whole site.yml, so one that went on would leave something on the machines.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.machines import mistakes
from tests.machines.machines import ROOT, Machines
from tests.machines.network import Neighbours
from tests.machines.runs import Row, Run, play

# Two cores: more at a time take as long.
AT_A_TIME = 2
NAMES = mistakes.names()


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest,
    machines: Machines,
    near: Neighbours,
    folder: Path,
    untouched: dict[str, str],
) -> Iterator[dict[str, tuple[mistakes.Mistake, Future[Run]]]]:
    """The runs of all tests that were chosen, some at a time and ahead of the tests."""
    chosen = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and "name" in item.callspec.params
    }
    files = folder / "files"
    files.mkdir()
    good = mistakes.good_inventory(machines, near)
    pool = ThreadPoolExecutor(AT_A_TIME)
    found = {
        mistake.name: (
            mistake,
            pool.submit(play, folder / f"run{number}", mistake.inventory(good), *mistake.options),
        )
        for number, mistake in enumerate(mistakes.all_mistakes(machines, near, files))
        if mistake.name in chosen
    }
    yield found
    pool.shutdown(cancel_futures=True)


def test_right_inventory_has_no_problem(
    machines: Machines, near: Neighbours, folder: Path, untouched: dict[str, str]
) -> None:
    inventory = mistakes.good_inventory(machines, near)
    run = play(folder / "good", inventory, playbook="playbooks/preflight.yml")
    assert run.code == 0, run.text
    assert run.changed == 0
    assert not run.failed
    assert_untouched(machines, untouched)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_inventory(
    name: str,
    runs: dict[str, tuple[mistakes.Mistake, Future[Run]]],
    machines: Machines,
    untouched: dict[str, str],
) -> None:
    mistake, future = runs[name]
    run = future.result()
    assert run.code != 0, run.text
    assert run.changed == 0, run.text
    assert run.failed == set(mistake.failed), run.text
    assert "Traceback" not in run.text
    assert mistakes.SECRET not in run.text
    left = compare(run.rows(), mistake.rows)
    assert not left, f"{left}\n{run.text}"
    assert_untouched(machines, untouched)


def test_other_clusters_go_on(
    machines: Machines, near: Neighbours, folder: Path, untouched: dict[str, str]
) -> None:
    """One cluster has a machine that is not well; what comes after preflight runs on the other one."""
    [mistake] = [
        mistake
        for mistake in mistakes.all_mistakes(machines, near, folder / "nothing")
        if mistake.name == mistakes.ONE_OF_TWO
    ]
    stages = folder / "stages.yml"
    stages.write_text(
        f"- ansible.builtin.import_playbook: {ROOT}/playbooks/preflight.yml\n"
        "- {hosts: 'edge_servers:edge_clusters', gather_facts: false,"
        " tasks: [{ansible.builtin.debug: {msg: it goes on}}]}\n"
    )
    inventory = mistake.inventory(mistakes.good_inventory(machines, near))
    run = play(folder / "two", inventory, playbook=str(stages))
    assert run.failed == {"depot09", "agent1"}
    assert run.text.count("it goes on") == 4, run.text
    assert_untouched(machines, untouched)


def test_there_are_enough_of_them() -> None:
    assert len(NAMES) == len(set(NAMES))
    assert len(NAMES) >= 50


def compare(rows: list[Row], wanted: list[Row] | tuple[Row, ...] | object) -> str:
    """Return what of the table was not expected, and what was expected and is not in it."""
    assert isinstance(wanted, list | tuple)
    missing = list(wanted)
    surplus = []
    for row in rows:
        fitting = [pattern for pattern in missing if row.fits(pattern)]
        if fitting:
            missing.remove(fitting[0])
        else:
            surplus.append(row)
    lines = [f"not expected: {row}" for row in surplus] + [f"missing: {row}" for row in missing]
    return "\n".join(lines)


def assert_untouched(machines: Machines, before: dict[str, str]) -> None:
    """Runs go on side by side, so this one or the one beside it may be the one that changed something."""
    after = machines.state()
    for name, text in after.items():
        if text != before[name]:
            changes = difflib.unified_diff(before[name].splitlines(), text.splitlines(), lineterm="", n=0)
            pytest.fail(f"{name} was changed:\n" + "\n".join(list(changes)[:40]))
