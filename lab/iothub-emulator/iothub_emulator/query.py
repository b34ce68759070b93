# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""POST /devices/query: runs queries on the twins of the store, page by page.

A continuation token holds where the page ended, so a query needs no state and goes on after a restart.
"""

import json
import sqlite3
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from aiohttp import web

from iothub_emulator import registry
from iothub_emulator.auth import Right
from iothub_emulator.clock import HubClock
from iothub_emulator.errors import HubError, argument_invalid
from iothub_emulator.feature import Context, Feature
from iothub_emulator.identity import WAITING_MESSAGES_COLUMN, Identity
from iothub_emulator.operations import OperationClass
from iothub_emulator.query_language import (
    UNDEFINED,
    Collection,
    Member,
    Path,
    Query,
    QuerySyntaxError,
    UnsupportedQueryError,
    parse_query,
)
from iothub_emulator.rest import json_response, read_json
from iothub_emulator.store import SchemaPart
from iothub_emulator.twins import CONFIGURATIONS_COLUMN, Document, Twin

_DEFAULT_PAGE = 100
_MAX_PAGE = 1000
_ROWS_AT_ONCE = 500

TWIN_ROWS = f"""
    SELECT identities.*, etag_number, version, tags, desired, desired_metadata, desired_version,
        reported, reported_metadata, reported_version, {CONFIGURATIONS_COLUMN}, {WAITING_MESSAGES_COLUMN}
    FROM identities JOIN twins USING (device_id, module_id)
"""  # noqa: S608 - constants only, here and below
"""Rows of which `twin_document` makes twins; a condition can follow."""

_SQL_NOW = "((julianday('now') - 2440587.5) * 86400)"
_ROWS = {
    collection: f"""
    {{source}} WHERE (identities.device_id, identities.module_id) > (:device, :module)
        AND identities.module_id {modules} '' {{lag}}
    ORDER BY identities.device_id, identities.module_id LIMIT {_ROWS_AT_ONCE}
    """
    for collection, modules in ((Collection.DEVICES, "="), (Collection.MODULES, "<>"))
}
_ROWS_NOW = {collection: rows.format(source=TWIN_ROWS, lag="") for collection, rows in _ROWS.items()}
_MADE = "AND CAST(generation_id AS INTEGER) <= :made_before"
_GONE = {"source": "SELECT * FROM gone_twins AS identities", "lag": f"{_MADE} AND deleted_at > :gone_after"}
_ROWS_LATE = {
    collection: f"""
    SELECT *, NULL AS deleted_at FROM ({rows.format(source=TWIN_ROWS, lag=_MADE)})
    UNION ALL SELECT * FROM ({rows.format(**_GONE)})
    ORDER BY device_id, module_id LIMIT {_ROWS_AT_ONCE}
    """  # noqa: S608 - constants only
    for collection, rows in _ROWS.items()
}

# For a hub whose queries lag behind: what was deleted, as it was. Empty unless the lag is set.
# Of the columns of TWIN_ROWS, so each step that changes those appends this once more.
_GONE_TWINS = f"""
DROP TABLE IF EXISTS gone_twins;
DROP TRIGGER IF EXISTS identity_gone;
CREATE TABLE gone_twins AS {TWIN_ROWS} WHERE 0;
ALTER TABLE gone_twins ADD COLUMN deleted_at REAL;
CREATE INDEX gone_twins_by_id ON gone_twins (device_id, module_id);
CREATE TRIGGER identity_gone BEFORE DELETE ON identities
WHEN (SELECT seconds FROM query_lag) > 0
BEGIN
    DELETE FROM gone_twins WHERE deleted_at <= {_SQL_NOW} - (SELECT seconds FROM query_lag);
    INSERT INTO gone_twins SELECT *, {_SQL_NOW} FROM ({TWIN_ROWS}
    WHERE identities.device_id = old.device_id AND identities.module_id = old.module_id);
END;
"""  # noqa: S608 - constants only
_SCHEMA = SchemaPart(
    "query",
    (
        f"""
CREATE TABLE query_lag (seconds REAL NOT NULL);
INSERT INTO query_lag VALUES (0);
{_GONE_TWINS}
""",  # noqa: S608 - constants only
        _GONE_TWINS,
    ),
)


@dataclass(frozen=True)
class Lag:
    """How far queries are behind. `clock` is the hub's, by which identities are made."""

    seconds: float
    clock: HubClock

    def parameters(self) -> dict[str, Any]:
        return {
            "made_before": registry.ticks(self.clock.now() - self.seconds),
            "gone_after": time.time() - self.seconds,
        }


@dataclass(frozen=True)
class Page:
    """Some of a query's results; `continuation` is None with the last of them."""

    items: list[Document]
    raw: bool
    continuation: str | None


def parse(text: object) -> Query:
    """Parse a query. Raises HubError 400 or 501."""
    if not isinstance(text, str) or not text.strip():
        raise argument_invalid("the body is not of the form {query: text}")
    try:
        return parse_query(text)
    except QuerySyntaxError as error:
        raise argument_invalid(f"the query cannot be read: {error}") from None
    except UnsupportedQueryError as error:
        raise HubError(501, "NotImplemented", f"The emulator does not have {error} yet.") from None


def run_page(
    connection: sqlite3.Connection, query: Query, limit: int, continuation: str | None, lag: Lag | None = None
) -> Page:
    """The next `limit` results. Raises HubError 400 for a continuation that is not this query's."""
    place = _read_continuation(query, continuation)
    if query.aggregates:
        return _aggregated_page(connection, query, limit, place, lag)
    given = place.get("given", 0)
    left = limit if query.top is None else min(limit, query.top - given)
    items: list[Document] = []
    last = (place.get("device", ""), place.get("module", ""))
    for row in matching_rows(connection, query, last, lag):
        if len(items) >= left:
            if query.top is not None and given + left >= query.top:
                break
            place = {"device": last[0], "module": last[1], "given": given + len(items)}
            return Page(items, bool(query.columns), _write_continuation(query, place))
        last = (row["device_id"], row["module_id"])
        document = twin_document(row)
        items.append(dict(query.project(document)) if query.columns else document)
    return Page(items, bool(query.columns), None)


def count(connection: sqlite3.Connection, query: Query) -> int:
    """How many results a query has."""
    if query.aggregates:
        return len(_aggregate(connection, query))
    found = sum(1 for _row in matching_rows(connection, query))
    return found if query.top is None else min(found, query.top)


def matching_rows(
    connection: sqlite3.Connection,
    query: Query,
    after: tuple[str, str] = ("", ""),
    lag: Lag | None = None,
) -> Iterator[sqlite3.Row]:
    """Rows whose twins match, in the order of their ids, from the one after `after`."""
    view = _view(query.condition_paths())
    statement = (_ROWS_LATE if lag else _ROWS_NOW)[query.collection]
    parameters = lag.parameters() if lag else {}
    while True:
        place = {"device": after[0], "module": after[1]}
        rows = connection.execute(statement, parameters | place).fetchall()
        for row in rows:
            if query.condition is None or query.matches(view(row)):
                yield row
        if len(rows) < _ROWS_AT_ONCE:
            return
        after = (rows[-1]["device_id"], rows[-1]["module_id"])


def twin_document(row: sqlite3.Row) -> Document:
    return Twin.from_row(row).for_service(Identity.from_row(row))


# Members that are had without building the whole twin, which is most of a query's time.
_CHEAP: dict[str, Callable[[sqlite3.Row], Any]] = {
    "deviceId": lambda row: row["device_id"],
    "moduleId": lambda row: row["module_id"] or UNDEFINED,
    "status": lambda row: row["status"],
    "connectionState": lambda row: "Connected" if row["connected"] else "Disconnected",
    "authenticationType": lambda row: row["auth_type"],
    "capabilities": lambda row: UNDEFINED if row["module_id"] else {"iotEdge": bool(row["edge"])},
    "tags": lambda row: json.loads(row["tags"]),
    "configurations": lambda row: {
        name: {"status": status} for name, status in json.loads(row["configurations"]).items()
    },
}


def _properties(member: str) -> Callable[[sqlite3.Row], Document]:
    return lambda row: json.loads(row[member]) | {"$version": row[f"{member}_version"]}


_CHEAP_PROPERTIES = {member: _properties(member) for member in ("desired", "reported")}


def _view(paths: set[Path]) -> Callable[[sqlite3.Row], Document]:
    """What makes, of a row, as much of the twin as a condition on these members has to see."""
    roots = {str(path[0]) for path in paths}
    properties = {str(path[1]) if len(path) > 1 else "" for path in paths if path[0] == "properties"}
    if (
        not roots <= _CHEAP.keys() | {"properties"}
        or not properties <= _CHEAP_PROPERTIES.keys()
        or any(step == "$metadata" for path in paths for step in path)
        or any(path[0] == "properties" and len(path) == 2 for path in paths)
    ):
        return twin_document
    members = [(root, _CHEAP[root]) for root in roots if root != "properties"]
    inner = [(name, _CHEAP_PROPERTIES[name]) for name in properties]

    def view(row: sqlite3.Row) -> Document:
        document = {name: value for name, make in members if (value := make(row)) is not UNDEFINED}
        if inner:
            document["properties"] = {name: make(row) for name, make in inner}
        return document

    return view


def _aggregated_page(
    connection: sqlite3.Connection, query: Query, limit: int, place: dict[str, Any], lag: Lag | None
) -> Page:
    rows = _aggregate(connection, query, lag)
    start = place.get("given", 0)
    end = start + limit
    more = _write_continuation(query, {"given": end}) if end < len(rows) else None
    return Page(rows[start:end], True, more)


def _aggregate(connection: sqlite3.Connection, query: Query, lag: Lag | None = None) -> list[Document]:
    """One row for each group; one for all when nothing is grouped."""
    groups: dict[str, tuple[Document, int]] = {}
    view = _view(set(query.group_by) | query.condition_paths())
    for row in matching_rows(connection, query, lag=lag):
        document = view(row)
        values = [Member(path).evaluate(document) for path in query.group_by]
        key = json.dumps([None if value is UNDEFINED else [value] for value in values], sort_keys=True)
        known = groups.get(key)
        groups[key] = (known[0], known[1] + 1) if known else (document, 1)
    if not query.group_by and not groups:
        groups[""] = ({}, 0)
    rows = []
    for document, count in groups.values():
        item = {}
        for column in query.columns:
            value = count if column.path is None else Member(column.path).evaluate(document)
            if value is not UNDEFINED:
                item[column.name] = value
        rows.append(item)
    return rows[: query.top]


def _digest(query: Query) -> str:
    return sha256(query.text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _write_continuation(query: Query, place: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(place | {"query": _digest(query)}).encode()).decode()


def _read_continuation(query: Query, continuation: str | None) -> dict[str, Any]:
    if not continuation:
        return {}
    try:
        place = json.loads(urlsafe_b64decode(continuation))
        whole = (
            place["query"] == _digest(query)
            and isinstance(place.get("given", 0), int)
            and all(isinstance(place.get(member, ""), str) for member in ("device", "module"))
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise argument_invalid("x-ms-continuation is not one of this query")
    return dict(place)


def _page_size(header: str | None) -> int:
    if header is None:
        return _DEFAULT_PAGE
    try:
        wanted = int(header)
    except ValueError:
        raise argument_invalid("x-ms-max-item-count is not a number") from None
    return min(wanted, _MAX_PAGE) if wanted > 0 else _DEFAULT_PAGE


def _handler(context: Context) -> Callable[[web.Request], Any]:
    lag = Lag(context.options.query_lag, context.clock) if context.options.query_lag else None

    async def handle(request: web.Request) -> web.Response:
        body = await read_json(request)
        query = parse(body.get("query") if isinstance(body, dict) else None)
        limit = _page_size(request.headers.get("x-ms-max-item-count"))
        continuation = request.headers.get("x-ms-continuation")
        page = await context.store.read(lambda database: run_page(database, query, limit, continuation, lag))
        response = json_response(page.items)
        response.headers["x-ms-item-type"] = "Raw" if page.raw else "Twin"
        if page.continuation is not None:
            response.headers["x-ms-continuation"] = page.continuation
        return response

    return handle


def _set_lag(connection: sqlite3.Connection, seconds: float) -> None:
    connection.execute("UPDATE query_lag SET seconds = ?", (seconds,))
    if not seconds:
        connection.execute("DELETE FROM gone_twins")


@asynccontextmanager
async def _run(context: Context) -> AsyncIterator[None]:
    await context.store.run(lambda database: _set_lag(database, context.options.query_lag))
    context.rest.add_route(
        "POST", "/devices/query", Right.SERVICE_CONNECT, _handler(context), operation=OperationClass.QUERY
    )
    yield


FEATURE = Feature(_run, (_SCHEMA,))
