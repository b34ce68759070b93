# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages on disk until somebody took them. What `append` answered is there after a power cut.

One connection in one thread; changes that wait together share a commit. No write-ahead log: it needs shared
memory, which a file system of the network does not have. The lock on the file is held for life, so a second
hub on the same store ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
UPSTREAM = "$upstream"
_TABLES = """
CREATE TABLE IF NOT EXISTS messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, endpoint TEXT NOT NULL, device TEXT NOT NULL, module TEXT NOT NULL,
    bag TEXT NOT NULL, payload BLOB NOT NULL, stored REAL NOT NULL);
CREATE INDEX IF NOT EXISTS by_endpoint ON messages (endpoint, device, module, seq);
CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class StoreBusyError(Exception):
    """Another hub holds the store."""


@dataclass(frozen=True)
class Message:
    """A message on its way to `endpoint`; `seq` is 0 before it is stored."""

    endpoint: str
    device: str
    module: str
    bag: str
    payload: bytes
    stored: float
    seq: int = 0


@dataclass
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None


class Store:
    """The store of one hub. Raises StoreBusyError when another has it, sqlite3.Error when it is broken."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._database = sqlite3.connect(
            folder / "hub.sqlite3", timeout=2, isolation_level=None, check_same_thread=False
        )
        try:
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = TRUNCATE")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(f"BEGIN EXCLUSIVE; {_TABLES} COMMIT;")
        except sqlite3.OperationalError as error:
            self._database.close()
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise  # a full or broken disk is nobody's fault but its own
            raise StoreBusyError(f"{folder} is used by another hub: {error}") from error
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what waits and let the store go."""
        self._jobs.put(None)
        self._thread.join()
        self._database.close()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in a transaction; answers once it is on disk."""
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        self._jobs.put(job)
        result: T = await job.future
        return result

    def _work(self) -> None:
        ends = False
        while not ends:
            jobs = [self._jobs.get()]
            while not self._jobs.empty():
                jobs.append(self._jobs.get())
            ends = None in jobs
            self._together([job for job in jobs if job is not None])

    def _together(self, jobs: list[_Job]) -> None:
        error: Exception | None = None
        try:
            self._database.execute("BEGIN")
            for job in jobs:
                result = job.work(self._database)
                # A cursor that lives on would keep the file locked after `close`.
                job.result = None if isinstance(result, sqlite3.Cursor) else result
            self._database.execute("COMMIT")
        except Exception as raised:
            error = raised
            if self._database.in_transaction:
                # When this fails, too, whatever follows does; each has to be told, or it would wait for ever.
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
        for job in jobs:
            job.loop.call_soon_threadsafe(_settle, job, error)

    async def append(self, messages: Iterable[Message]) -> None:
        """Store messages."""
        rows = [(m.endpoint, m.device, m.module, m.bag, m.payload, m.stored) for m in messages]
        await self.run(
            lambda database: database.executemany(
                "INSERT INTO messages (endpoint, device, module, bag, payload, stored) VALUES (?,?,?,?,?,?)",
                rows,
            )
        )

    async def waiting(self, endpoint: str, device: str, module: str, after: int, limit: int) -> list[Message]:
        """The oldest messages of one sender for an endpoint, after `after`."""

        def read(database: sqlite3.Connection) -> list[Message]:
            found = database.execute(
                "SELECT endpoint, device, module, bag, payload, stored, seq FROM messages"
                " WHERE endpoint = ? AND device = ? AND module = ? AND seq > ? ORDER BY seq LIMIT ?",
                (endpoint, device, module, after, limit),
            )
            return [Message(*row) for row in found]

        return await self.run(read)

    async def senders(self, endpoint: str) -> set[tuple[str, str]]:
        """Who has messages that wait for an endpoint."""
        return await self.run(
            lambda database: set(
                database.execute(
                    "SELECT DISTINCT device, module FROM messages WHERE endpoint = ?", (endpoint,)
                )
            )
        )

    async def delete(self, seqs: Iterable[int]) -> None:
        """Forget messages that were taken."""
        rows = [(seq,) for seq in seqs]
        await self.run(lambda database: database.executemany("DELETE FROM messages WHERE seq = ?", rows))

    async def expire(self, before: float) -> int:
        """Forget messages that were stored before a moment; answers how many."""
        return await self.run(
            lambda database: database.execute("DELETE FROM messages WHERE stored < ?", (before,)).rowcount
        )

    async def lengths(self) -> dict[str, int]:
        """How many messages wait, by endpoint."""
        return await self.run(
            lambda database: dict(
                database.execute("SELECT endpoint, count(*) FROM messages GROUP BY endpoint").fetchall()
            )
        )

    async def count(self) -> int:
        """How many messages wait."""
        return await self.run(
            lambda database: int(database.execute("SELECT count(*) FROM messages").fetchone()[0])
        )

    async def keep(self, name: str, value: str) -> None:
        """Keep a text under a name."""
        await self.run(
            lambda database: database.execute("INSERT OR REPLACE INTO kept VALUES (?, ?)", (name, value))
        )

    async def kept(self, name: str) -> str | None:
        """The text under a name."""

        def read(database: sqlite3.Connection) -> str | None:
            found = database.execute("SELECT value FROM kept WHERE name = ?", (name,)).fetchone()
            return str(found[0]) if found else None

        return await self.run(read)


def _settle(job: _Job, error: Exception | None) -> None:
    if job.future.done():
        return
    if error is None:
        job.future.set_result(job.result)
    else:
        job.future.set_exception(error)
