# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parts of the lab's edgeHub: which endpoint a message goes to, and what the store keeps."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from pathlib import Path

import pytest

_LAB = Path(__file__).parents[3] / "lab"
sys.path += [str(_LAB / part) for part in ("images", "images/hub", "iothub-emulator")]

from edge_hub import __main__ as program  # noqa: E402 - found on the path set above
from edge_hub import routes  # noqa: E402 - the same
from edge_hub.store import UPSTREAM, Message, Store, StoreBusyError  # noqa: E402 - the same

INPUT = "modules/b/inputs/in"


@pytest.mark.parametrize(
    ("route", "module", "bag", "taken"),
    [
        ("FROM /messages/* INTO $upstream", "", "", True),
        ("from /messages into $upstream", "a", "%24.on=out", True),
        ("FROM /* INTO $upstream", "a", "", True),
        ("FROM /messages/modules/a/* INTO $upstream", "a", "", True),
        ("FROM /messages/modules/a/* INTO $upstream", "b", "", False),
        ("FROM /messages/modules/a/outputs/out INTO $upstream", "a", "%24.on=out&x=1", True),
        ("FROM /messages/modules/a/outputs/out INTO $upstream", "a", "%24.on=other", False),
        ("FROM /messages/modules/a/outputs/out INTO $upstream", "a", "", False),
        ("FROM /messages/modules/a/outputs/* INTO $upstream", "a", "$.on=out", True),
        ("FROM /messages/*/outputs/out INTO $upstream", "c", "$.on=out", True),
        ("FROM /messages/*/outputs/* INTO $upstream", "c", "", False),
    ],
)
def test_a_route_takes_what_it_says(route: str, module: str, bag: str, taken: bool) -> None:
    assert routes.endpoints([routes.parse(route)], module, bag) == ([UPSTREAM] if taken else [])


def test_a_message_goes_to_each_endpoint_once() -> None:
    found, problems = routes.read(
        {
            "one": "FROM /messages/* INTO $upstream",
            "two": {"route": "FROM /messages/modules/a/* INTO $upstream", "priority": 0},
            "three": 'FROM /messages/* INTO BrokeredEndpoint("/modules/b/inputs/in")',
            "four": "FROM /messages/* WHERE temperature > 5 INTO $upstream",
            "five": "FROM /twinChangeNotifications INTO $upstream",
            "six": "FROM /messages/* INTO somewhere",
        }
    )
    assert routes.endpoints(found, "a", "") == [UPSTREAM, INPUT]
    assert [problem.partition(":")[0] for problem in problems] == ["four", "five", "six"]


def message(payload: str, module: str = "m", stored: float = 1.0) -> Message:
    return Message(UPSTREAM, "gw", module, "", payload.encode(), stored)


async def payloads(store: Store, module: str = "m", after: int = 0) -> list[str]:
    return [found.payload.decode() for found in await store.waiting(UPSTREAM, "gw", module, after, 10)]


async def test_what_was_appended_is_there_for_the_next_and_in_order(tmp_path: Path) -> None:
    store = Store(tmp_path)
    await asyncio.gather(*(store.append([message(str(number))]) for number in range(5)))
    await store.append([message("other", module="n")])
    with pytest.raises(StoreBusyError):
        Store(tmp_path)
    store.close()
    store = Store(tmp_path)
    assert await payloads(store) == ["0", "1", "2", "3", "4"]
    assert await store.senders(UPSTREAM) == {("gw", "m"), ("gw", "n")}
    first, second, *_rest = await store.waiting(UPSTREAM, "gw", "m", 0, 10)
    await store.delete([first.seq])
    assert await payloads(store) == ["1", "2", "3", "4"]
    assert await payloads(store, after=second.seq) == ["2", "3", "4"]
    store.close()


async def test_what_is_too_old_goes_and_a_number_is_never_used_twice(tmp_path: Path) -> None:
    store = Store(tmp_path)
    await store.append([message("old", stored=1), message("new", stored=9)])
    newest = (await store.waiting(UPSTREAM, "gw", "m", 0, 10))[-1].seq
    assert await store.expire(5) == 1
    assert await payloads(store) == ["new"]
    await store.delete([newest])
    await store.append([message("next")])
    (found,) = await store.waiting(UPSTREAM, "gw", "m", 0, 10)
    assert found.seq > newest, "a sender goes on after what it sent last"
    assert await store.count() == 1
    store.close()


async def test_work_that_fails_takes_nothing_else_with_it_that_was_answered(tmp_path: Path) -> None:
    store = Store(tmp_path)
    await store.append([message("kept")])
    with pytest.raises(sqlite3.OperationalError):
        await store.run(lambda database: database.execute("INSERT INTO nowhere VALUES (1)"))
    assert await payloads(store) == ["kept"]
    store.close()


async def test_a_store_that_cannot_be_written_is_not_called_busy(tmp_path: Path) -> None:
    (tmp_path / "hub.sqlite3-journal" / "in the way").mkdir(parents=True)
    with pytest.raises(sqlite3.Error):
        Store(tmp_path)


async def test_everybody_is_told_when_not_even_a_rollback_works(tmp_path: Path) -> None:
    store = Store(tmp_path)

    class Broken:
        """A database whose disk is gone."""

        in_transaction = True

        def execute(self, *_statement: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        close = store._database.close

    store._database = Broken()  # type: ignore[assignment]
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError):
            await asyncio.wait_for(store.append([message("lost?")]), 60)
    store.close()


async def test_a_hub_whose_store_breaks_says_so_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def serve(*errors: Exception) -> None:
        async def failing(_stop: asyncio.Event) -> None:
            raise ExceptionGroup("tasks", errors)

        monkeypatch.setattr(program, "_serve", failing)

    serve(sqlite3.OperationalError("database or disk is full"))
    assert await program._main() == 1
    assert "OperationalError: database or disk is full" in capsys.readouterr().out
    serve(sqlite3.OperationalError("full"), KeyError("a mistake of ours"))
    with pytest.raises(ExceptionGroup):
        await program._main()
