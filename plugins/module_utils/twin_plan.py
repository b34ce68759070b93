# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wanted and actual twins: what differs in tags and desired properties, and the patch for it. Pure.

A patch is sent in both modes: a device is told of what changed only, and the hub's own members stay out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import item_list, module_identity, twin_rules
from ansible_collections.edgeha.iotedge.plugins.module_utils.item_list import Plan

OPTION = "twins"
# The parts of a twin that the service side writes.
SECTIONS = ("tags", "desired")


@dataclass(frozen=True)
class DesiredTwin:
    """A twin as the operator wants it; a section that is None is left as it is.

    exact: what a section does not name goes away. Otherwise it stays, and a key with the value None goes.
    """

    device_id: str
    module_id: str | None = None
    tags: Mapping[str, Any] | None = None
    desired: Mapping[str, Any] | None = None
    exact: bool = False

    @property
    def label(self) -> str:
        return module_identity.label(self.device_id, self.module_id)

    def sections(self) -> dict[str, Mapping[str, Any]]:
        """Return the sections that are given."""
        given = {name: getattr(self, name) for name in SECTIONS}
        return {name: value for name, value in given.items() if value is not None}


def list_errors(twins: Sequence[DesiredTwin]) -> list[str]:
    """Return every error of a list of twins, each naming the item by its index (from 0) and the path."""

    def errors(twin: DesiredTwin) -> list[str]:
        found = module_identity.id_errors(twin.device_id, twin.module_id)
        if not twin.sections():
            found.append("nothing is asked for: give tags, desired, or both")
        for name, section in twin.sections().items():
            found += twin_rules.errors(section, name, nulls=not twin.exact)
        return found

    return item_list.by_item(OPTION, map(errors, twins)) + item_list.repeated(
        OPTION,
        ((twin.device_id, twin.module_id) for twin in twins),
        (f"the twin of {twin.label!r}" for twin in twins),
    )


def sections_of(twin: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return tags and desired properties of a twin as the hub has it, without the hub's own members."""
    properties = ((twin or {}).get("properties") or {}).get("desired") or {}
    return {
        "tags": dict((twin or {}).get("tags") or {}),
        "desired": {key: value for key, value in properties.items() if key not in ("$metadata", "$version")},
    }


def goal(actual: Mapping[str, Any] | None, twin: DesiredTwin) -> dict[str, dict[str, Any]]:
    """Return both sections as they are to be. actual: the hub's twin, None when there is none yet."""
    there = sections_of(actual)
    return there | {
        name: twin_rules.apply_patch({} if twin.exact else there[name], wanted)
        for name, wanted in twin.sections().items()
    }


def plan(actual: Mapping[str, Any] | None, twin: DesiredTwin) -> Plan:
    """Return what to do for the twin to be as wanted; raises item_list.Refused when it would be too large."""
    there, wanted = sections_of(actual), goal(actual, twin)
    patches: dict[str, dict[str, Any]] = {}
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for name, section in twin.sections().items():
        # What is merged may be within the limits where the result is not.
        errors = twin_rules.errors(wanted[name], name, nulls=False)
        if errors:
            raise item_list.Refused(f"with what is there already, {'; '.join(errors)}")
        patch = twin_rules.exact_patch(there[name], wanted[name])
        if patch:
            patches[name] = patch
        before[name] = there[name] if twin.exact else named(there[name], section)
        after[name] = wanted[name] if twin.exact else named(wanted[name], section)
    if not patches:
        return Plan("none", before=before, after=after)
    body: dict[str, Any] = {}
    if "tags" in patches:
        body["tags"] = patches["tags"]
    if "desired" in patches:
        body["properties"] = {"desired": patches["desired"]}
    return Plan("update", body=body, etag=str((actual or {}).get("etag") or ""), before=before, after=after)


def named(document: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a document that another one names: what a merge manages."""
    part: dict[str, Any] = {}
    for key, inner in names.items():
        if key not in document:
            continue
        value = document[key]
        nested = isinstance(value, Mapping) and isinstance(inner, Mapping)
        part[key] = named(value, inner) if nested else value
    return part
