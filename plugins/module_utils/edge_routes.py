# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Routes of edgeHub: ``FROM source WHERE condition INTO sink``. Pure.

Source: "Deploy modules and establish routes in IoT Edge" (Microsoft Learn).
"""

from __future__ import annotations

import re

_ROUTE = re.compile(r"\s*FROM\s+(\S+)(?:\s+WHERE\s+(\S.*?))?\s+INTO\s+(\S.*?)\s*", re.IGNORECASE | re.DOTALL)
_QUOTED = re.compile(r'"[^"]*"|\'[^\']*\'')
_BROKERED = re.compile(r"BrokeredEndpoint\s*\(\s*([\"'])/?modules/([^/\"']+)/inputs/([^/\"']+)\1\s*\)", re.I)
_SOURCE_MODULE = re.compile(r"/messages/modules/([^/]+)(?:/|$)", re.IGNORECASE)
SOURCES = re.compile(
    r"/\*|/messages(/\*)?|/messages/modules/[^/]+(/\*|/outputs/[^/]+)?|/messages/\*/outputs/[^/]+"
    r"|/twinChangeNotifications|/(module|device)LifecycleNotifications|/deviceJobLifecycleEvents"
    r"|/deviceConnectionStateEvents",
    re.IGNORECASE,
)


def _hide_quoted(text: str) -> str:
    """Return the text with what stands in quotes as underscores, so that words in there are no keywords."""
    return _QUOTED.sub(lambda found: "_" * len(found.group()), text)


def _split(text: str) -> tuple[str, str, str] | None:
    found = _ROUTE.fullmatch(_hide_quoted(text))
    if not found:
        return None
    source, condition, sink = (
        text[slice(*found.span(group))] if found.group(group) else "" for group in (1, 2, 3)
    )
    return source, condition, sink.strip()


def error_of(text: str) -> str | None:
    """Return what is wrong with a route, None when it is one."""
    parts = _split(text)
    if parts is None:
        return f"{text!r} is no route: write FROM source [WHERE condition] INTO sink"
    source, condition, sink = parts
    if not source.startswith("/"):
        return f"the source {source!r} must begin with /, such as /messages/*"
    hidden = _hide_quoted(condition)
    if "'" in hidden or '"' in hidden:
        return "a quote in the condition is not closed"
    depth = 0
    for character in hidden:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            break
    if depth:
        return "the parentheses in the condition do not match"
    if sink.lower() != "$upstream" and not _BROKERED.fullmatch(sink):
        return f'the sink {sink!r} must be $upstream or BrokeredEndpoint("/modules/NAME/inputs/INPUT")'
    return None


def parts_of(text: str) -> tuple[str, set[str]]:
    """Return the source, and the modules that source and sink name; for a route without error."""
    source, _condition, sink = _split(text) or ("", "", "")
    names = {found.group(1) for found in [_SOURCE_MODULE.match(source)] if found and found.group(1) != "*"}
    names |= {found.group(2) for found in [_BROKERED.fullmatch(sink)] if found}
    return source, names
