# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routes of $edgeHub: from which senders to which endpoints. Pure.

Known: FROM /messages, /*, /messages/*, /messages/modules/NAME[/*], /messages/modules/NAME/outputs/OUT and
/messages/*/outputs/*; INTO $upstream and BrokeredEndpoint("/modules/NAME/inputs/IN"). Conditions (WHERE) are
not known to this stand-in, and such a route is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from edge_hub.store import UPSTREAM

_ROUTE = re.compile(r"\s*FROM\s+(\S+)\s+INTO\s+(.+?)\s*", re.IGNORECASE | re.DOTALL)
_SOURCE = re.compile(
    r"(?:/messages)?(?:/\*)?|/messages/modules/(?P<module>[^/*]+)(?:/\*|/outputs/(?P<output>[^/]+))?"
    r"|/messages/\*/outputs/(?P<any>[^/]+)"
)
_INPUT = re.compile(
    r"BrokeredEndpoint\s*\(\s*[\"']/?(modules/[^/\"']+/inputs/[^/\"']+)[\"']\s*\)", re.IGNORECASE
)
# Until the twin was read once: nothing that was acknowledged may be dropped.
DEFAULT = {"upstream": "FROM /messages/* INTO $upstream"}


class RouteError(Exception):
    """A route is not known; the message says why."""


@dataclass(frozen=True)
class Route:
    """`module` and `output` empty for any."""

    module: str
    output: str
    endpoint: str

    def takes(self, module: str, output: str) -> bool:
        """Whether it takes a message of a module (empty for a device) by an output (empty for none)."""
        return self.module in ("", module) and (
            self.output in ("", output) or (self.output == "*" and bool(output))
        )


def parse(text: str) -> Route:
    """One route. Raises RouteError."""
    found = _ROUTE.fullmatch(text)
    if not found or " WHERE " in f" {found[1]} {found[2]} ".upper():
        raise RouteError(f"{text!r}: only FROM source INTO sink is known here")
    source = _SOURCE.fullmatch(found[1])
    if not source or not found[1]:
        raise RouteError(f"{text!r}: the source {found[1]} is not known here")
    module, output = source["module"] or "", source["output"] or source["any"] or ""
    if found[2].lower() == UPSTREAM:
        return Route(module, output, UPSTREAM)
    sink = _INPUT.fullmatch(found[2])
    if not sink:
        raise RouteError(f"{text!r}: the sink {found[2]} is not known here")
    return Route(module, output, sink[1])


def read(routes: object) -> tuple[list[Route], list[str]]:
    """All routes of a twin (schema 1.0: texts, 1.1: objects), and what is wrong with some."""
    if not isinstance(routes, Mapping):
        return [], [f"routes: {routes!r} is no object"]
    found, problems = [], []
    for name, value in routes.items():
        text = value.get("route") if isinstance(value, Mapping) else value
        try:
            found.append(parse(str(text)))
        except RouteError as error:
            problems.append(f"{name}: {error}")
    return found, problems


def endpoints(routes: list[Route], module: str, bag: str) -> list[str]:
    """Where a message goes, each endpoint once."""
    pairs = (part.partition("=") for part in bag.split("&"))
    output = next((unquote(value) for key, _equals, value in pairs if unquote(key) == "$.on"), "")
    return list(dict.fromkeys(route.endpoint for route in routes if route.takes(module, output)))
