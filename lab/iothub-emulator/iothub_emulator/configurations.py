# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configurations and edge deployments: their store, their evaluation and their calls.

A twin or identity that is written marks its device as changed (triggers in store.py), a configuration
that is written marks all. Evaluation takes the changed devices: it finds the configurations that
target them, writes the twins' desired properties where they are not as they should be, and notes who
targets whom. So what somebody else wrote over a deployment stays for a moment only, as on the hub.
"""

import asyncio
import contextlib
import json
import logging
import sqlite3
from base64 import b64encode
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from aiohttp import web

from iothub_emulator import registry
from iothub_emulator.auth import Right
from iothub_emulator.clock import twin_time
from iothub_emulator.configuration_rules import (
    APPLIED,
    Candidate,
    Content,
    Kind,
    Settings,
    check_content_given,
    check_id,
    check_priority,
    check_target_condition,
    check_texts,
    condition_problem,
    lay,
    parse_content,
    query_problem,
    rank,
    target,
)
from iothub_emulator.connections import Key
from iothub_emulator.errors import HubError, argument_invalid, precondition_failed
from iothub_emulator.feature import Context, Feature
from iothub_emulator.identity import Identity
from iothub_emulator.logs import event
from iothub_emulator.operations import OperationClass
from iothub_emulator.query import TWIN_ROWS, count, parse, twin_document
from iothub_emulator.query_language import Collection
from iothub_emulator.rest import json_response, read_json
from iothub_emulator.twins import Document, Twin

Notice = tuple[Key, Document, int]
"""(whom to tell, changed desired properties, their version)"""

_DEVICES_AT_ONCE = 25
_MAX_CONFIGURATIONS = 100
_MAX_CONFIGURATIONS_FREE = 10


# The configurations themselves


def get(connection: sqlite3.Connection, configuration_id: str) -> sqlite3.Row:
    row = _find(connection, configuration_id)
    if row is None:
        raise _not_found(configuration_id)
    return row


def put(
    connection: sqlite3.Connection,
    configuration_id: str,
    body: object,
    if_match: str | None,
    limit: int,
    now: float,
) -> sqlite3.Row:
    """Create (no If-Match that counts) or update (If-Match) a configuration.

    The content of one that exists stays whatever the body says, as on the hub.
    """
    check_id(configuration_id)
    if not isinstance(body, dict):
        raise argument_invalid("the body is not a JSON object")
    if body.get("id", configuration_id) != configuration_id:
        raise argument_invalid("id in the body is not the one in the address")
    existing = _find(connection, configuration_id)
    etag = _quoted(if_match)
    if etag is None and existing:
        raise HubError(
            409, "ConfigurationAlreadyExists", f"A configuration with ID '{configuration_id}' exists already."
        )
    if etag is not None:
        if existing is None:
            raise _not_found(configuration_id)
        _check_etag(etag, existing)
    content = check_content_given(body.get("content"))
    if existing:
        content = json.loads(existing["content"])
    condition = body.get("targetCondition")
    if condition is None:
        condition = ""
    if not isinstance(condition, str):
        raise argument_invalid("targetCondition is not a string")
    check_target_condition(condition, parse_content(content).kind)
    priority = check_priority(body.get("priority"))
    labels = check_texts(body.get("labels"), "labels")
    queries = _check_metrics(body.get("metrics"))
    schema_version = body.get("schemaVersion") or "1.0"
    if not isinstance(schema_version, str):
        raise argument_invalid("schemaVersion is not a string")
    mutable = (now, schema_version, priority, condition, json.dumps(labels), json.dumps(queries))
    if existing:
        connection.execute(
            "UPDATE configurations SET etag_number = etag_number + 1, updated = ?, schema_version = ?, "
            "priority = ?, target_condition = ?, labels = ?, metric_queries = ? WHERE id = ?",
            (*mutable, configuration_id),
        )
    else:
        _check_limit(connection, limit)
        connection.execute(
            "INSERT INTO configurations (id, etag_number, created, updated, schema_version, priority, "
            "target_condition, labels, metric_queries, content) VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?, ?)",
            (configuration_id, now, *mutable, json.dumps(content)),
        )
    connection.execute(
        "INSERT OR IGNORE INTO changed_devices SELECT device_id FROM identities WHERE module_id = ''"
    )
    return get(connection, configuration_id)


def delete(connection: sqlite3.Connection, configuration_id: str, if_match: str | None) -> None:
    """Remove a configuration. What it set in twins stays, unless another one takes its place."""
    row = _find(connection, configuration_id)
    etag = _quoted(if_match)
    if etag is None:
        raise precondition_failed("Precondition failed: DELETE needs If-Match with an etag in quotes or *.")
    if row is None:
        raise _not_found(configuration_id)
    _check_etag(etag, row)
    connection.execute(
        "INSERT OR IGNORE INTO changed_devices "
        "SELECT device_id FROM configuration_targets WHERE configuration_id = ?",
        (configuration_id,),
    )
    connection.execute("DELETE FROM configuration_targets WHERE configuration_id = ?", (configuration_id,))
    connection.execute("DELETE FROM configurations WHERE id = ?", (configuration_id,))


def list_all(connection: sqlite3.Connection) -> list[sqlite3.Row]:
    return connection.execute("SELECT * FROM configurations ORDER BY sequence").fetchall()


def document(connection: sqlite3.Connection, row: sqlite3.Row) -> Document:
    """A configuration as it is shown, with its metrics of this moment."""
    kind = parse_content(json.loads(row["content"])).kind
    queries = json.loads(row["metric_queries"])
    return {
        "id": row["id"],
        "schemaVersion": row["schema_version"],
        "labels": json.loads(row["labels"]),
        "content": json.loads(row["content"]),
        "targetCondition": row["target_condition"],
        "createdTimeUtc": twin_time(row["created"]),
        "lastUpdatedTimeUtc": twin_time(row["updated"]),
        "priority": row["priority"],
        "systemMetrics": {
            "results": system_results(connection, row["id"], kind),
            "queries": system_queries(row["id"], kind),
        },
        "metrics": {
            "results": {name: count(connection, parse(text)) for name, text in queries.items()},
            "queries": queries,
        },
        "etag": _etag(row),
    }


def system_queries(configuration_id: str, kind: Kind) -> dict[str, str]:
    """The metrics that every configuration has, as queries for clients to run."""
    mine = f"configurations.[[{configuration_id}]].status"
    start = "SELECT deviceId FROM devices WHERE"
    if kind is Kind.MODULE:
        start = "SELECT deviceId, moduleId FROM devices.modules WHERE"
    queries = {
        "targetedCount": f"{start} is_defined({mine})",
        "appliedCount": f"{start} {mine} = '{APPLIED}'",
    }
    if kind is Kind.EDGE:
        conditions = (
            "moduleId = '$edgeAgent'",
            f"{mine} = '{APPLIED}'",
            "properties.desired.$version = properties.reported.lastDesiredVersion",
            "properties.reported.lastDesiredStatus.code",
        )
        reported = f"SELECT deviceId FROM devices.modules WHERE {' AND '.join(conditions)}"  # noqa: S608 - the hub's own query language, run by no database
        queries["reportedSuccessfulCount"] = f"{reported} = 200"
        queries["reportedFailedCount"] = f"{reported} != 200"
    return queries


def system_results(connection: sqlite3.Connection, configuration_id: str, kind: Kind) -> dict[str, int]:
    """What `system_queries` give, without a look at every twin."""
    targeted, applied = connection.execute(
        "SELECT count(*), coalesce(sum(status = ?), 0) FROM configuration_targets "
        "WHERE configuration_id = ? AND (module_id <> '') = ?",
        (APPLIED, configuration_id, kind is Kind.MODULE),
    ).fetchone()
    results = {"targetedCount": targeted, "appliedCount": applied}
    if kind is Kind.EDGE:
        successful, failed = connection.execute(
            """
            SELECT coalesce(sum(code = 200), 0), coalesce(sum(code <> 200), 0) FROM (
                SELECT json_extract(reported, '$.lastDesiredStatus.code') AS code
                FROM configuration_targets JOIN twins USING (device_id, module_id)
                WHERE configuration_id = ? AND status = ? AND module_id = '$edgeAgent'
                    AND json_extract(reported, '$.lastDesiredVersion') = desired_version
            )
            """,
            (configuration_id, APPLIED),
        ).fetchone()
        results |= {"reportedSuccessfulCount": successful, "reportedFailedCount": failed}
    return results


def _find(connection: sqlite3.Connection, configuration_id: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM configurations WHERE id = ?", (configuration_id,)
    ).fetchone()
    return row


def _not_found(configuration_id: str) -> HubError:
    return HubError(404, "ConfigurationNotFound", f"The configuration {configuration_id} does not exist.")


def _quoted(if_match: str | None) -> str | None:
    """The etag in If-Match. One without quotes counts as none, as on the hub; `*` needs none."""
    if if_match is None:
        return None
    text = if_match.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    return text if text == "*" else None


def _check_etag(etag: str, row: sqlite3.Row) -> None:
    if etag not in ("*", _etag(row)):
        raise precondition_failed("Precondition failed: the etag in If-Match is not the current one.")


def _etag(row: sqlite3.Row) -> str:
    return b64encode(str(row["etag_number"]).encode()).decode()


def _check_limit(connection: sqlite3.Connection, limit: int) -> None:
    if connection.execute("SELECT count(*) FROM configurations").fetchone()[0] >= limit:
        raise HubError(413, "ConfigurationCountLimitExceeded", f"The hub has {limit} configurations already.")


def _check_metrics(metrics: object) -> dict[str, str]:
    if metrics is None:
        return {}
    if not isinstance(metrics, dict):
        raise argument_invalid("metrics is not a JSON object")
    queries = check_texts(metrics.get("queries"), "metrics.queries")
    for name, text in queries.items():
        problem = query_problem(text)
        if problem:
            raise HubError(
                400,
                "InvalidConfigurationCustomMetricsQuery",
                f"the metric {name!r} cannot be read: {problem}",
            )
    return queries


# Their evaluation


@dataclass(frozen=True)
class _Active:
    """A configuration in force."""

    candidate: Candidate
    condition: str

    def targets(self, twin: Document) -> bool:
        collection, condition = target(self.condition)
        if ("moduleId" in twin) is not (collection is Collection.MODULES):
            return False
        if self.candidate.content.kind is Kind.EDGE and not twin["capabilities"]["iotEdge"]:
            return False
        return condition is None or condition.evaluate(twin) is True


@lru_cache(maxsize=512)
def _parsed(content: str) -> Content:
    return parse_content(json.loads(content))


def evaluate_changed(connection: sqlite3.Connection, now: float) -> tuple[list[Notice], bool]:
    """Evaluate some of the changed devices; returns what to tell live ones and whether more wait."""
    changed = [
        row["device_id"]
        for row in connection.execute(
            "SELECT device_id FROM changed_devices LIMIT ?", (_DEVICES_AT_ONCE + 1,)
        )
    ]
    if not changed:
        return [], False
    active = [
        _Active(
            Candidate(row["id"], row["priority"], row["sequence"], _parsed(row["content"])),
            row["target_condition"],
        )
        for row in list_all(connection)
    ]
    notices: list[Notice] = []
    for device_id in changed[:_DEVICES_AT_ONCE]:
        notices += _evaluate(connection, device_id, active, now)
        # After the writes above, which mark the device again.
        connection.execute("DELETE FROM changed_devices WHERE device_id = ?", (device_id,))
    return notices, len(changed) > _DEVICES_AT_ONCE


def _evaluate(
    connection: sqlite3.Connection, device_id: str, active: Sequence[_Active], now: float
) -> list[Notice]:
    rows = {
        row["module_id"]: row
        for row in connection.execute(f"{TWIN_ROWS} WHERE identities.device_id = ?", (device_id,))
    }
    if "" not in rows:
        return []
    layers: dict[str, list[Settings]] = defaultdict(list)
    statuses: dict[tuple[str, str], str] = {}
    for row in connection.execute(
        "SELECT * FROM waiting_content WHERE device_id = ?", (device_id,)
    ).fetchall():
        if row["module_id"] in rows:
            layers[row["module_id"]].append(_parsed_waiting(row["content"]))
            connection.execute(
                "DELETE FROM waiting_content WHERE device_id = ? AND module_id = ?",
                (device_id, row["module_id"]),
            )
    for module_id, row in rows.items():
        twin = twin_document(row)
        targeting = [configuration.candidate for configuration in active if configuration.targets(twin)]
        for kind in Kind:
            order, found = rank(candidate for candidate in targeting if candidate.content.kind is kind)
            for candidate in order:
                for inner, settings in candidate.content.settings.items():
                    layers[inner or module_id].append(settings)
            for candidate in targeting:
                if candidate.id in found:
                    for inner in {module_id, *(inner or module_id for inner in candidate.content.settings)}:
                        statuses[inner, candidate.id] = found[candidate.id]
    _note_targets(connection, device_id, {key: value for key, value in statuses.items() if key[0] in rows})
    notices = []
    for module_id, module_layers in layers.items():
        if module_id in rows:
            notices += _write(connection, rows[module_id], module_layers, now)
    return notices


def _parsed_waiting(content: str) -> Settings:
    return _parsed(json.dumps({Kind.DEVICE: json.loads(content)})).settings[""]


def _note_targets(
    connection: sqlite3.Connection, device_id: str, statuses: dict[tuple[str, str], str]
) -> None:
    known = {
        (row["module_id"], row["configuration_id"]): row["status"]
        for row in connection.execute("SELECT * FROM configuration_targets WHERE device_id = ?", (device_id,))
    }
    connection.executemany(
        "DELETE FROM configuration_targets WHERE device_id = ? AND module_id = ? AND configuration_id = ?",
        [(device_id, *key) for key in known.keys() - statuses.keys()],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO configuration_targets VALUES (?, ?, ?, ?)",
        [(device_id, *key, status) for key, status in statuses.items() if known.get(key) != status],
    )


def _write(
    connection: sqlite3.Connection, row: sqlite3.Row, layers: Iterable[Settings], now: float
) -> list[Notice]:
    """Bring a twin's desired properties to what the layers make of them."""
    identity, twin = Identity.from_row(row), Twin.from_row(row)
    wanted = lay(twin.desired, layers)
    # Not ==, for which true is 1.
    if json.dumps(wanted, sort_keys=True) == json.dumps(twin.desired, sort_keys=True):
        return []
    try:
        notice = twin.replace_desired(wanted, now)
    except HubError as error:
        event(
            "configuration-refused",
            level=logging.WARNING,
            device=identity.device_id,
            module=identity.module_id or None,
            reason=error.text,
        )
        return []
    twin.save(connection)
    return [((identity.device_id, identity.module_id), notice, twin.desired_version)]


def apply_content(connection: sqlite3.Connection, device_id: str, body: object, now: float) -> list[Notice]:
    """Set the modules of one edge device, once. What a module that does not exist shall have waits."""
    device = registry.get_device(connection, device_id)
    if not device.edge:
        raise argument_invalid(f"the device {device_id!r} is no IoT Edge device")
    given = check_content_given(body)
    content = parse_content({Kind.EDGE: given.get(Kind.EDGE)})
    notices: list[Notice] = []
    connection.execute("DELETE FROM waiting_content WHERE device_id = ?", (device_id,))
    for module_id, settings in content.settings.items():
        row = connection.execute(
            f"{TWIN_ROWS} WHERE identities.device_id = ? AND identities.module_id = ?", (device_id, module_id)
        ).fetchone()
        if row is not None:
            notices += _write(connection, row, [settings], now)
        else:
            connection.execute(
                "INSERT INTO waiting_content VALUES (?, ?, ?)",
                (device_id, module_id, json.dumps(given[Kind.EDGE][module_id])),
            )
    return notices


# Their calls


class _Service:
    """Request handlers, and the evaluation in the background."""

    def __init__(self, context: Context) -> None:
        self._store = context.store
        self._connections = context.connections
        self._clock = context.clock
        self._interval = max(0.01, context.options.evaluation_interval)
        self._limit = _MAX_CONFIGURATIONS_FREE if context.options.tier == "F1" else _MAX_CONFIGURATIONS
        self._wake = asyncio.Event()
        add = context.rest.add_route
        configuration = OperationClass.CONFIGURATION
        read, write = Right.REGISTRY_READ, Right.REGISTRY_WRITE
        add("GET", "/configurations", read, self._list, operation=configuration)
        add("POST", "/configurations/testQueries", read, self._test_queries, operation=configuration)
        add("GET", "/configurations/{id}", read, self._get, operation=configuration)
        add("PUT", "/configurations/{id}", write, self._put, operation=configuration)
        add("DELETE", "/configurations/{id}", write, self._delete, operation=configuration)
        add("POST", "/devices/{id}/applyConfigurationContent", write, self._apply, operation=configuration)

    async def evaluate_for_ever(self) -> None:
        while True:
            # Woken by writes of configurations; other writes are found by looking.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._evaluate()
            except Exception as error:
                # Also after a fault of its own it has to go on, or no configuration is applied any more.
                event("evaluation-failed", level=logging.ERROR, error=error)

    async def _evaluate(self) -> None:
        more = True
        while more:
            notices, more = await self._store.run(
                lambda database: evaluate_changed(database, self._clock.now())
            )
            self._tell(notices)

    def _tell(self, notices: Iterable[Notice]) -> None:
        for key, notice, version in notices:
            self._connections.push_desired(key, notice, version)

    async def _list(self, _request: web.Request) -> web.Response:
        # `top` is not honoured, as on the hub.
        return json_response(
            await self._store.read(lambda database: [document(database, row) for row in list_all(database)])
        )

    async def _get(self, request: web.Request) -> web.Response:
        configuration_id = request.match_info["id"]
        return _configuration(
            await self._store.read(lambda database: document(database, get(database, configuration_id)))
        )

    async def _put(self, request: web.Request) -> web.Response:
        configuration_id, if_match = request.match_info["id"], request.headers.get("If-Match")
        body = await read_json(request)
        row = await self._store.run(
            lambda database: put(database, configuration_id, body, if_match, self._limit, self._clock.now())
        )
        self._wake.set()
        return _configuration(await self._store.read(lambda database: document(database, row)))

    async def _delete(self, request: web.Request) -> web.Response:
        configuration_id, if_match = request.match_info["id"], request.headers.get("If-Match")
        await self._store.run(lambda database: delete(database, configuration_id, if_match))
        self._wake.set()
        return web.Response(status=204)

    async def _test_queries(self, request: web.Request) -> web.Response:
        body = await read_json(request)
        if not isinstance(body, dict):
            raise argument_invalid("the body is not a JSON object")
        condition = body.get("targetCondition")
        if condition is not None and not isinstance(condition, str):
            raise argument_invalid("targetCondition is not a string")
        queries = check_texts(body.get("customMetricQueries"), "customMetricQueries")
        problems = {name: problem for name, text in queries.items() if (problem := query_problem(text))}
        answer: dict[str, Any] = {"customMetricQueryErrors": problems}
        if condition and (problem := condition_problem(condition)):
            answer["targetConditionError"] = problem
        return json_response(answer)

    async def _apply(self, request: web.Request) -> web.Response:
        device_id = request.match_info["id"]
        body = await read_json(request)
        self._tell(
            await self._store.run(
                lambda database: apply_content(database, device_id, body, self._clock.now())
            )
        )
        return web.Response(status=204)


def _configuration(shown: Document) -> web.Response:
    response = json_response(shown)
    response.headers["ETag"] = f'"{shown["etag"]}"'
    return response


@asynccontextmanager
async def _run(context: Context) -> AsyncIterator[None]:
    task = asyncio.create_task(_Service(context).evaluate_for_ever())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


FEATURE = Feature(_run)
