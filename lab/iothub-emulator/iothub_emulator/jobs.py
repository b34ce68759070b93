# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scheduled jobs: one change of twins, or one method, for all devices that a condition finds.

Rules: "Schedule jobs on multiple devices". Jobs run one after the other; devices are looked up when
a job starts.
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from aiohttp import web

from iothub_emulator import registry
from iothub_emulator.auth import Right
from iothub_emulator.clock import twin_time
from iothub_emulator.errors import HubError, argument_invalid
from iothub_emulator.feature import Context, Feature
from iothub_emulator.logs import event
from iothub_emulator.methods import MethodCall, call_device
from iothub_emulator.operations import OperationClass
from iothub_emulator.query import matching_rows, parse
from iothub_emulator.query_language import Query
from iothub_emulator.rest import json_response, read_json
from iothub_emulator.store import SchemaPart
from iothub_emulator.twins import Document, Twin

_TYPES = {"scheduleUpdateTwin": "updateTwin", "scheduleDeviceMethod": "cloudToDeviceMethod"}
_WAITING, _RUNNING = ("queued", "scheduled"), "running"
_EXECUTION_SECONDS = range(1, 172_801)
_CALLS_AT_ONCE = 10
_PAGE = 100

SCHEMA = SchemaPart(
    "jobs",
    (
        """
CREATE TABLE jobs (
    id TEXT NOT NULL PRIMARY KEY,
    type TEXT NOT NULL,
    status TEXT NOT NULL,
    created REAL NOT NULL,
    start REAL NOT NULL,
    ended REAL,
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    devices INTEGER NOT NULL,
    failure_reason TEXT,
    request TEXT NOT NULL               -- JSON
) WITHOUT ROWID;
""",
    ),
)


@dataclass
class Job:
    """One job and how far it is."""

    id: str
    type: str
    status: str
    created: float
    start: float
    ended: float | None
    succeeded: int
    failed: int
    devices: int
    failure_reason: str | None
    request: Document

    @classmethod
    def parse(cls, job_id: str, body: object, now: float) -> "Job":
        """A new job. Raises HubError 400."""
        if not isinstance(body, dict) or body.get("jobId", job_id) != job_id:
            raise argument_invalid("the body is not a job of the id in the address")
        kind = body.get("type")
        if kind not in _TYPES:
            raise argument_invalid(f"type is not one of {', '.join(_TYPES)}")
        work = body.get(_TYPES[kind])
        if not isinstance(work, dict):
            raise argument_invalid(f"a job of type {kind} needs {_TYPES[kind]}")
        if kind == "scheduleDeviceMethod":
            MethodCall.parse(work)
        _parse_condition(body.get("queryCondition"))
        seconds = body.get("maxExecutionTimeInSeconds", 3600)
        if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds not in _EXECUTION_SECONDS:
            raise argument_invalid("maxExecutionTimeInSeconds is not within 1 and 172800")
        start = _parse_time(body.get("startTime"), now)
        kept = {
            "queryCondition": body["queryCondition"],
            "maxExecutionTimeInSeconds": seconds,
            _TYPES[kind]: work,
        }
        status = "scheduled" if start > now else "queued"
        return cls(job_id, kind, status, now, start, None, 0, 0, 0, None, kept)

    @classmethod
    def from_row(cls, row: sqlite3.Row) -> "Job":
        return cls(**dict(row) | {"request": json.loads(row["request"])})

    def save(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.id,
                self.type,
                self.status,
                self.created,
                self.start,
                self.ended,
                self.succeeded,
                self.failed,
                self.devices,
                self.failure_reason,
                json.dumps(self.request),
            ),
        )

    def shown(self) -> Document:
        document: Document = {
            "jobId": self.id,
            "type": self.type,
            "status": self.status,
            "createdTime": twin_time(self.created),
            "startTime": twin_time(self.start),
            **self.request,
            "deviceJobStatistics": {
                "deviceCount": self.devices,
                "failedCount": self.failed,
                "succeededCount": self.succeeded,
                "runningCount": self.devices - self.failed - self.succeeded if self.ended is None else 0,
                "pendingCount": 0,
            },
        }
        if self.ended is not None:
            document["endTime"] = twin_time(self.ended)
        if self.failure_reason is not None:
            document["failureReason"] = self.failure_reason
        return document


class Jobs:
    """The calls of the service API, and the one who runs what they leave."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._wake = asyncio.Event()

    def add_routes(self) -> None:
        for method, path, handler in (
            ("GET", "/jobs/v2/query", self._query),
            ("PUT", "/jobs/v2/{id}", self._put),
            ("GET", "/jobs/v2/{id}", self._get),
            ("POST", "/jobs/v2/{id}/cancel", self._cancel),
        ):
            self._context.rest.add_route(
                method, path, Right.SERVICE_CONNECT, handler, operation=OperationClass.JOB
            )

    async def _put(self, request: web.Request) -> web.Response:
        job = Job.parse(request.match_info["id"], await read_json(request), self._context.clock.now())

        def operation(database: sqlite3.Connection) -> None:
            if _find(database, job.id) is not None:
                raise HubError(409, "JobAlreadyExists", f"A job with ID '{job.id}' already exists.")
            job.save(database)

        await self._context.store.run(operation)
        self._wake.set()
        return json_response(job.shown())

    async def _get(self, request: web.Request) -> web.Response:
        job_id = request.match_info["id"]
        return json_response(
            (await self._context.store.run(lambda database: _require(database, job_id))).shown()
        )

    async def _cancel(self, request: web.Request) -> web.Response:
        job_id, now = request.match_info["id"], self._context.clock.now()

        def operation(database: sqlite3.Connection) -> Job:
            job = _require(database, job_id)
            if job.status not in (*_WAITING, _RUNNING):
                raise HubError(400, "JobAlreadyEnded", f"The job '{job_id}' has ended as {job.status}.")
            job.status, job.ended = "cancelled", now
            job.save(database)
            return job

        return json_response((await self._context.store.run(operation)).shown())

    async def _query(self, request: web.Request) -> web.Response:
        kind, status = request.query.get("jobType"), request.query.get("jobStatus")
        after = request.headers.get("x-ms-continuation", "")
        try:
            size = int(request.headers.get("x-ms-max-item-count") or _PAGE)
        except ValueError:
            raise argument_invalid("x-ms-max-item-count is not a number") from None
        size = size if 1 <= size <= _PAGE else _PAGE

        def operation(database: sqlite3.Connection) -> list[Job]:
            rows = database.execute(
                "SELECT * FROM jobs WHERE id > ?1 AND (?2 IS NULL OR type = ?2) "
                "AND (?3 IS NULL OR status = ?3) ORDER BY id LIMIT ?4",
                (after, kind, status, size + 1),
            )
            return [Job.from_row(row) for row in rows]

        jobs = await self._context.store.run(operation)
        response = json_response([job.shown() for job in jobs[:size]])
        response.headers["x-ms-item-type"] = "JobResponse"
        if len(jobs) > size:
            response.headers["x-ms-continuation"] = jobs[size - 1].id
        return response

    async def work(self) -> None:
        """Run jobs whose time has come, for ever."""
        while True:
            self._wake.clear()
            taken, next_start = await self._context.store.run(self._take)
            if taken is None:
                seconds = None if next_start is None else max(0.0, next_start - self._context.clock.now())
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._wake.wait()
                continue
            job, devices = taken
            try:
                async with asyncio.timeout(job.request["maxExecutionTimeInSeconds"]):
                    await self._run(job, devices)
            except TimeoutError:
                job.failure_reason = "The job ran longer than it may."
            except Exception as error:
                event("job-failed", level=logging.ERROR, error=error, job=job.id)
                job.failure_reason = "The emulator failed; its log says how."
            await self._context.store.run(partial(_finish, job=job, now=self._context.clock.now()))

    def _take(self, database: sqlite3.Connection) -> tuple[tuple[Job, list[str]] | None, float | None]:
        """Mark the next job as running; returns it with its devices, or when the next one starts."""
        row = database.execute(
            "SELECT * FROM jobs WHERE status IN ('queued', 'scheduled') ORDER BY start LIMIT 1"
        ).fetchone()
        if row is None:
            return None, None
        job = Job.from_row(row)
        if job.start > self._context.clock.now():
            return None, job.start
        found = matching_rows(database, _parse_condition(job.request["queryCondition"]))
        devices = [str(device["device_id"]) for device in found]
        job.status, job.devices = _RUNNING, len(devices)
        job.save(database)
        return (job, devices), None

    async def _run(self, job: Job, devices: Sequence[str]) -> None:
        places = asyncio.Semaphore(_CALLS_AT_ONCE)

        async def one(device_id: str) -> None:
            async with places:
                if not await self._context.store.run(lambda database: _is_running(database, job.id)):
                    return
                try:
                    if job.type == "scheduleUpdateTwin":
                        await self._write_twin(device_id, job.request["updateTwin"])
                    else:
                        call = MethodCall.parse(job.request["cloudToDeviceMethod"])
                        await call_device(self._context, (device_id, ""), call)
                except HubError:
                    job.failed += 1
                else:
                    job.succeeded += 1

        await asyncio.gather(*(one(device_id) for device_id in devices))

    async def _write_twin(self, device_id: str, change: Mapping[str, Any]) -> None:
        now = self._context.clock.now()

        def operation(database: sqlite3.Connection) -> tuple[Document | None, int]:
            twin = Twin.load(database, registry.get_device(database, device_id))
            notice = twin.write(dict(change), replace=False, if_match=change.get("etag") or "*", now=now)
            twin.save(database)
            return notice, twin.desired_version

        notice, version = await self._context.store.run(operation)
        if notice is not None:
            self._context.connections.push_desired((device_id, ""), notice, version)


def _parse_condition(text: object) -> Query:
    if not isinstance(text, str) or not text.strip():
        raise argument_invalid("queryCondition is missing")
    if text.strip() == "*":
        return parse("SELECT * FROM devices")
    if text.strip().lower().startswith("from "):
        raise argument_invalid("the emulator runs jobs on devices only, not on modules")
    return parse(f"SELECT * FROM devices WHERE {text}")  # noqa: S608 - the hub's own query language


def _parse_time(value: object, now: float) -> float:
    if value is None or value == "":
        return now
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise argument_invalid("startTime is not a time of ISO 8601") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _find(database: sqlite3.Connection, job_id: str) -> Job | None:
    row = database.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return None if row is None else Job.from_row(row)


def _require(database: sqlite3.Connection, job_id: str) -> Job:
    job = _find(database, job_id)
    if job is None:
        raise HubError(404, "JobNotFound", f"The job '{job_id}' does not exist.")
    return job


def _is_running(database: sqlite3.Connection, job_id: str) -> bool:
    job = _find(database, job_id)
    return job is not None and job.status == _RUNNING


def _finish(database: sqlite3.Connection, job: Job, now: float) -> None:
    if not _is_running(database, job.id):
        return  # cancelled meanwhile
    job.status = "failed" if job.failure_reason or job.failed else "completed"
    job.ended = now
    job.save(database)
    event("job-ended", job=job.id, status=job.status, succeeded=job.succeeded, failed=job.failed)


def _end_interrupted(database: sqlite3.Connection, now: float) -> None:
    """At the start: a job that ran when the server ended is not taken up in its middle."""
    database.execute(
        "UPDATE jobs SET status = 'failed', ended = ?, failure_reason = 'The hub stopped while it ran.' "
        "WHERE status = 'running'",
        (now,),
    )


@asynccontextmanager
async def _run(context: Context) -> AsyncIterator[None]:
    await context.store.run(lambda database: _end_interrupted(database, context.clock.now()))
    jobs = Jobs(context)
    jobs.add_routes()
    task = asyncio.create_task(jobs.work())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


FEATURE = Feature(_run, (SCHEMA,))
