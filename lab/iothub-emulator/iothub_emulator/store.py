# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Durable state in SQLite: one thread does all the work, many requests share one commit.

With WAL and synchronous=FULL a commit is on disk when it returns, and a commit costs a flush of the
disk. So the thread takes every operation that is waiting, runs each in a savepoint of its own
inside one transaction, and answers all of them after the one commit. An operation that raises
undoes only itself.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")

# Layout of the file itself: 1 had no table `parts`, 2 has it.
_LAYOUT = 2


@dataclass(frozen=True)
class SchemaPart:
    """Tables that one part of the hub brings along.

    `steps` are SQL scripts that are only ever appended to: step N leads from version N to N + 1 of the
    part, on a new file and on a kept one. A part whose rows belong to identities removes them with a
    trigger AFTER DELETE ON identities.
    """

    name: str
    steps: tuple[str, ...]


_CORE = SchemaPart(
    "core",
    (
        """
CREATE TABLE identities (
    device_id TEXT NOT NULL,
    module_id TEXT NOT NULL,            -- '' is the device itself
    generation_id TEXT NOT NULL,
    etag TEXT NOT NULL,
    status TEXT NOT NULL,
    status_reason TEXT,
    status_updated REAL NOT NULL,
    connected INTEGER NOT NULL,
    connection_updated REAL NOT NULL,
    last_activity REAL NOT NULL,
    auth_type TEXT NOT NULL,
    primary_key TEXT,
    secondary_key TEXT,
    primary_thumbprint TEXT,
    secondary_thumbprint TEXT,
    edge INTEGER NOT NULL,
    device_scope TEXT,
    parent_scope TEXT,
    managed_by TEXT,
    PRIMARY KEY (device_id, module_id)
) WITHOUT ROWID;
CREATE INDEX identities_by_scope ON identities (device_scope) WHERE edge = 1;
CREATE TABLE twins (
    device_id TEXT NOT NULL,
    module_id TEXT NOT NULL,
    etag_number INTEGER NOT NULL,
    version INTEGER NOT NULL,
    tags TEXT NOT NULL,                 -- JSON objects
    desired TEXT NOT NULL,
    desired_metadata TEXT NOT NULL,
    desired_version INTEGER NOT NULL,
    reported TEXT NOT NULL,
    reported_metadata TEXT NOT NULL,
    reported_version INTEGER NOT NULL,
    PRIMARY KEY (device_id, module_id)
) WITHOUT ROWID;
CREATE TABLE mqtt_sessions (            -- kept for clients that connect with clean session off
    device_id TEXT NOT NULL,
    module_id TEXT NOT NULL,
    subscriptions TEXT NOT NULL,        -- JSON: topic filter -> granted QoS
    PRIMARY KEY (device_id, module_id)
) WITHOUT ROWID;
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    enqueued_ms INTEGER NOT NULL,
    device_id TEXT NOT NULL,
    module_id TEXT NOT NULL,
    message_id TEXT,
    body BLOB NOT NULL,
    system TEXT NOT NULL,               -- JSON objects
    properties TEXT NOT NULL
);
""",
        """
CREATE TABLE configurations (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,     -- in the order of creation
    id TEXT NOT NULL UNIQUE,
    etag_number INTEGER NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    schema_version TEXT NOT NULL,
    priority INTEGER NOT NULL,
    target_condition TEXT NOT NULL,
    labels TEXT NOT NULL,               -- JSON objects
    content TEXT NOT NULL,
    metric_queries TEXT NOT NULL
);
CREATE TABLE configuration_targets (    -- what the last evaluation found, for each twin
    device_id TEXT NOT NULL,
    module_id TEXT NOT NULL,
    configuration_id TEXT NOT NULL,
    status TEXT NOT NULL,               -- Targeted or Applied
    PRIMARY KEY (device_id, module_id, configuration_id)
) WITHOUT ROWID;
CREATE INDEX configuration_targets_by_id ON configuration_targets (configuration_id, status);
CREATE TABLE waiting_content (          -- desired properties for modules that do not exist yet
    device_id TEXT NOT NULL,
    module_id TEXT NOT NULL,
    content TEXT NOT NULL,              -- JSON object, as in modulesContent
    PRIMARY KEY (device_id, module_id)
) WITHOUT ROWID;
CREATE TABLE changed_devices (          -- to be evaluated again
    device_id TEXT PRIMARY KEY
) WITHOUT ROWID;
CREATE TRIGGER identity_saved AFTER INSERT ON identities
WHEN EXISTS (SELECT 1 FROM configurations)
    OR EXISTS (SELECT 1 FROM waiting_content WHERE device_id = new.device_id)
BEGIN INSERT OR IGNORE INTO changed_devices VALUES (new.device_id); END;
CREATE TRIGGER twin_saved AFTER INSERT ON twins
WHEN EXISTS (SELECT 1 FROM configurations)
BEGIN INSERT OR IGNORE INTO changed_devices VALUES (new.device_id); END;
CREATE TRIGGER identity_deleted AFTER DELETE ON identities
BEGIN
    DELETE FROM configuration_targets WHERE device_id = old.device_id AND module_id = old.module_id;
    DELETE FROM waiting_content
    WHERE device_id = old.device_id AND (old.module_id = '' OR module_id = old.module_id);
END;
""",
        """
CREATE TABLE device_messages (          -- from the cloud, until the device has them
    seq INTEGER PRIMARY KEY AUTOINCREMENT,          -- in the order of sending
    device_id TEXT NOT NULL,
    expires REAL NOT NULL,
    bag TEXT NOT NULL,                  -- the properties, as in the topic
    body BLOB NOT NULL
);
CREATE INDEX device_messages_by_device ON device_messages (device_id, seq);
CREATE INDEX device_messages_by_expiry ON device_messages (expires);
CREATE TRIGGER device_deleted AFTER DELETE ON identities
WHEN old.module_id = ''
BEGIN DELETE FROM device_messages WHERE device_id = old.device_id; END;
""",
    ),
)

_MAX_BATCH = 256
Operation = Callable[[sqlite3.Connection], T]


@dataclass
class _Job(Generic[T]):
    operation: Operation[T]
    future: "asyncio.Future[T]"
    result: T | None = None
    error: BaseException | None = None


class Store:
    """The hub's database. Operations are plain functions of a connection; they run in order."""

    def __init__(self, path: Path, parts: Iterable[SchemaPart] = ()) -> None:
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        # Opened here, so that a bad file is an error of the start and not of the first request.
        self._connection = open_database(path, parts)
        self._path = path
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation[T]) -> "asyncio.Future[T]":
        """Queue an operation; the future is done after its commit is on disk.

        Operations run in the order of submission. Call it from the event loop's thread.
        """
        if self._closed:
            raise RuntimeError("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(operation, future))
        return future

    async def run(self, operation: Operation[T]) -> T:
        """Run one operation and wait until it is on disk."""
        return await self.submit(operation)

    async def read(self, operation: Operation[T]) -> T:
        """Run an operation that only reads, beside the queue: it sees all that is on disk by now.

        For what takes long, so that nobody's write waits for it.
        """
        return await asyncio.to_thread(self._read, operation)

    def _read(self, operation: Operation[T]) -> T:
        with contextlib.closing(open_for_reading(self._path)) as connection:
            connection.execute("BEGIN")
            return operation(connection)

    async def close(self) -> None:
        """Finish what is queued and close the database."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        stop = False
        while not stop:
            batch: list[_Job[Any]] = []
            job = self._jobs.get()
            while job is not None:
                batch.append(job)
                if len(batch) >= _MAX_BATCH:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            stop = job is None
            if batch:
                self._run_batch(batch)
                # A loop that is gone has nobody left who could wait.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(_settle, batch)
        self._connection.close()

    def _run_batch(self, batch: list[_Job[Any]]) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN")
            for job in batch:
                connection.execute("SAVEPOINT job")
                try:
                    job.result = job.operation(connection)
                except Exception as error:
                    job.error = error
                    connection.execute("ROLLBACK TO job")
                connection.execute("RELEASE job")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            # Disk full and the like: nothing of the batch may be called done.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for job in batch:
                job.error = error


def _settle(batch: list[_Job[Any]]) -> None:
    for job in batch:
        if job.future.cancelled():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)


def open_database(path: Path, parts: Iterable[SchemaPart] = ()) -> sqlite3.Connection:
    """Open (and make, the first time) the database for writing, with the core's tables and `parts`.

    A file of an older version is brought up to date, each step whole or not at all.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        _check_layout(connection, path)
        for part in (_CORE, *parts):
            _bring_up_to_date(connection, path, part)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_layout(connection: sqlite3.Connection, path: Path) -> None:
    layout = connection.execute("PRAGMA user_version").fetchone()[0]
    if layout > _LAYOUT:
        raise sqlite3.DatabaseError(
            f"{path} has layout {layout}, this program knows {_LAYOUT}; use another --state"
        )
    if layout < _LAYOUT:
        known = "INSERT INTO parts VALUES ('core', 1);" if layout == 1 else ""
        connection.executescript(
            "BEGIN IMMEDIATE;"
            "CREATE TABLE parts (name TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;"
            f"{known}PRAGMA user_version={_LAYOUT};COMMIT;"
        )


def _bring_up_to_date(connection: sqlite3.Connection, path: Path, part: SchemaPart) -> None:
    row = connection.execute("SELECT version FROM parts WHERE name = ?", (part.name,)).fetchone()
    version = row["version"] if row else 0
    if version > len(part.steps):
        raise sqlite3.DatabaseError(
            f"{path} has version {version} of {part.name}, this program knows {len(part.steps)}; "
            "use another --state"
        )
    for number, step in enumerate(part.steps[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;{step}")
        connection.execute("INSERT OR REPLACE INTO parts VALUES (?, ?)", (part.name, number))
        connection.execute("COMMIT")


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Open the database beside a running server, without the means to change it."""
    # Not mode=ro: a reader of a WAL database has to be able to make its shared-memory file.
    connection = sqlite3.connect(path, isolation_level=None, timeout=5)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA query_only=1")
    return connection
