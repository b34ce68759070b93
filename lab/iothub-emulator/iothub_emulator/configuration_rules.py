# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configurations: what their content may be, which ones win, and what twins become. No input or output.

Rules: "Understand IoT Edge automatic deployments" and "Automatic device and module management".
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from iothub_emulator.errors import HubError, argument_invalid
from iothub_emulator.query_language import (
    Collection,
    Expression,
    QuerySyntaxError,
    UnsupportedQueryError,
    parse_condition,
    parse_query,
)
from iothub_emulator.twins import Document, check_document

_ID = re.compile(r"[a-z0-9\-+%_*!']{1,128}")
_SETTINGS = re.compile(r"properties\.desired(?:\.(.+))?", re.DOTALL)
_MAX_MODULES = 50
_PRIORITIES = range(2**31)
_EDGE_AGENT = "$edgeAgent"

TARGETED, APPLIED = "Targeted", "Applied"

Path = tuple[str, ...]
Settings = Mapping[Path, Any]
"""Path inside of the desired properties -> value; the path () is all of them."""


class Kind(StrEnum):
    """What a configuration sets: a device's twin, an edge device's modules, or modules' twins."""

    DEVICE = "deviceContent"
    EDGE = "modulesContent"
    MODULE = "moduleContent"


@dataclass(frozen=True)
class Content:
    """Parsed content. `settings` is by module id; '' for the twin that is targeted itself."""

    kind: Kind
    settings: Mapping[str, Settings]

    @property
    def is_base(self) -> bool:
        """Whether it is a whole deployment and no layer."""
        return self.kind is Kind.EDGE and () in self.settings.get(_EDGE_AGENT, {})


@dataclass(frozen=True)
class Candidate:
    """A configuration whose condition a device or module fulfils; `sequence` grows with its creation."""

    id: str
    priority: int
    sequence: int
    content: Content

    @property
    def rank(self) -> tuple[int, int]:
        return self.priority, self.sequence


def invalid_content(text: str) -> HubError:
    return HubError(400, "InvalidConfigurationContent", text)


def check_id(configuration_id: str) -> None:
    if not _ID.fullmatch(configuration_id):
        raise argument_invalid(
            f"the configuration id {configuration_id!r} is not 1 to 128 of a-z, digits and -+%_*!'"
        )


def check_content_given(document: object) -> Document:
    if not isinstance(document, dict):
        raise argument_invalid("content is missing or not a JSON object")
    return document


def parse_content(document: Mapping[str, Any]) -> Content:
    """Read a configuration's content. Raises HubError 400."""
    given = [kind for kind in Kind if document.get(kind) is not None]
    if len(given) != 1:
        raise invalid_content(f"content needs one of {', '.join(Kind)}, and one only")
    kind = given[0]
    value = document[kind]
    if not isinstance(value, dict) or not value:
        raise invalid_content(f"{kind} is not a JSON object with content")
    if kind is not Kind.EDGE:
        return Content(kind, {"": _parse_settings(kind, value)})
    if len(value) > _MAX_MODULES:
        raise invalid_content(f"{len(value)} modules; the limit is {_MAX_MODULES}")
    content = Content(kind, {module: _parse_settings(module, inner) for module, inner in value.items()})
    if not content.is_base and not any(path for inner in content.settings.values() for path in inner):
        raise invalid_content(
            f"modulesContent has neither properties.desired of {_EDGE_AGENT}, as a deployment, nor "
            "properties.desired.<member> of some module, as a layered deployment"
        )
    return content


def _parse_settings(name: str, document: object) -> Settings:
    if not isinstance(document, dict) or not document:
        raise invalid_content(f"the content of {name} is not a JSON object with content")
    settings: dict[Path, Any] = {}
    for key, value in document.items():
        match = _SETTINGS.fullmatch(key)
        if match is None:
            raise invalid_content(f"{key!r} in the content of {name} is not below properties.desired")
        path = tuple(match[1].split(".")) if match[1] else ()
        # As it will stand in the twin, so that twins' rules judge it.
        whole = value
        for step in reversed(path):
            whole = {step: whole}
        try:
            check_document(whole, f"{key} of {name}", nulls=False)
        except HubError as error:
            raise invalid_content(error.text) from None
        settings[path] = value
    return settings


def check_priority(value: object) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value not in _PRIORITIES:
        raise argument_invalid("priority is not an integer from 0 to 2147483647")
    return value


def check_texts(value: object, name: str) -> dict[str, str]:
    """A JSON object of strings, absent or null being an empty one. Raises HubError 400."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise argument_invalid(f"{name} is not a JSON object of strings")
    return value


def check_target_condition(text: str, kind: Kind) -> None:
    """Raise HubError 400 unless `text` is a condition for what the content sets. '' targets nothing."""
    try:
        collection, _condition = target(text)
    except (QuerySyntaxError, UnsupportedQueryError) as error:
        raise HubError(
            400, "InvalidConfigurationTargetCondition", f"the targetCondition cannot be read: {error}"
        ) from None
    if text and collection is not (Collection.MODULES if kind is Kind.MODULE else Collection.DEVICES):
        raise HubError(
            400,
            "InvalidConfigurationTargetCondition",
            f"{kind} needs a condition {'FROM devices.modules' if kind is Kind.MODULE else 'on devices'}",
        )


@lru_cache(maxsize=512)
def target(text: str) -> tuple[Collection, Expression | None]:
    """parse_condition, remembered, with false for ''."""
    return parse_condition(text or "false")


def query_problem(text: str) -> str | None:
    """What is wrong with a metric's query, None when nothing is."""
    try:
        parse_query(text)
    except (QuerySyntaxError, UnsupportedQueryError) as error:
        return str(error)
    return None


def condition_problem(text: str) -> str | None:
    """What testQueries says of a condition, None when it is good. `*` is not, unlike in a configuration."""
    if text.strip() == "*":
        return "* is not a condition that can be tested"
    try:
        parse_condition(text)
    except (QuerySyntaxError, UnsupportedQueryError) as error:
        return str(error)
    return None


def rank(candidates: Iterable[Candidate]) -> tuple[list[Candidate], dict[str, str]]:
    """Which configurations of one kind take effect, in the order in which they are laid on each
    other, and the status of each one that targets.

    Of deployments the base of the highest priority (the newest of those) wins and layers go on top.
    Other configurations all go on each other; one is only targeted when nothing of it shows.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.rank)
    statuses = {candidate.id: APPLIED for candidate in ordered}
    bases = [candidate for candidate in ordered if candidate.content.is_base]
    for loser in bases[:-1]:
        statuses[loser.id] = TARGETED
    if bases:
        ordered = [bases[-1], *(candidate for candidate in ordered if not candidate.content.is_base)]
    for position, candidate in enumerate(ordered):
        if candidate.content.kind is not Kind.EDGE and _is_hidden(candidate, ordered[position + 1 :]):
            statuses[candidate.id] = TARGETED
    return [candidate for candidate in ordered if statuses[candidate.id] == APPLIED], statuses


def _is_hidden(candidate: Candidate, above: Sequence[Candidate]) -> bool:
    covers = [path for other in above for path in other.content.settings[""]]
    return all(
        any(path[: len(cover)] == cover for cover in covers) for path in candidate.content.settings[""]
    )


def lay(desired: Mapping[str, Any], layers: Iterable[Settings]) -> Document:
    """The desired properties after each layer has set what it sets."""
    document: Document = dict(desired)
    for layer in layers:
        for path in sorted(layer, key=len):
            document = _set(document, path, layer[path])
    return document


def _set(document: Mapping[str, Any], path: Path, value: Any) -> Any:
    if not path:
        return value
    inner = document.get(path[0])
    changed = dict(document)
    changed[path[0]] = _set(inner if isinstance(inner, dict) else {}, path[1:], value)
    return changed
