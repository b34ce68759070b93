# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wanted and actual devices: what differs, and the entries of a bulk call that put it right. Pure.

A device is looked at through its twin, which tells all but the keys: a hub allows sixty times as many reads
of twins as calls of the registry. The hub's rules that shape this file: an update replaces the whole
identity; leaving out ``authentication`` mints new keys; an edge device must echo its ``deviceScope``; the
parent of an edge device stands in ``parentScopes``, that of a leaf in ``deviceScope``; at most five edge
devices are nested.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import twin_rules
from ansible_collections.edgeha.iotedge.plugins.module_utils.authentication import Authentication

# "Understand the identity registry in your IoT hub": up to 128 ASCII characters out of this set.
_DEVICE_ID = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@;$']{1,128}")
_BAD_ID_CHARACTER = re.compile(r"[^A-Za-z0-9\-:.+%_#*?!(),=@;$']")
# "Connect a downstream IoT Edge device": five layers of edge devices.
MAX_EDGE_DEPTH = 5
_SCOPE = re.compile(r"ms-azure-iot-edge://(?P<device>.+)-\d+")


@dataclass(frozen=True)
class DesiredDevice:
    """A device as the operator wants it; None means "leave as it is".

    tags, desired: of the device twin. exact_twin: whether what is not named goes away; otherwise it stays,
                   and a key with the value None is removed.
    parent:        id of the edge device above it; ``""`` for none.
    """

    device_id: str
    present: bool = True
    edge: bool | None = None
    status: str | None = None
    status_reason: str | None = None
    tags: Mapping[str, Any] | None = None
    desired: Mapping[str, Any] | None = None
    exact_twin: bool = False
    parent: str | None = None
    authentication: Authentication | None = None
    replace_authentication: bool = False


@dataclass(frozen=True)
class ActualDevice:
    """A device as the hub has it. etag: of the identity, twin_etag: of the twin.

    authentication has its keys only where the identity was read and not the twin alone.
    """

    device_id: str
    etag: str
    twin_etag: str
    edge: bool
    status: str
    status_reason: str
    authentication: Authentication
    device_scope: str
    parent_scope: str
    tags: Mapping[str, Any]
    desired: Mapping[str, Any]

    @classmethod
    def from_twin(cls, twin: Mapping[str, Any], identity: Mapping[str, Any] | None = None) -> ActualDevice:
        """Read a device twin of the service API, or a row of the query ``SELECT * FROM devices``.

        identity: as the registry has it, where its keys matter.
        """
        properties = (twin.get("properties") or {}).get("desired") or {}
        edge = bool((twin.get("capabilities") or {}).get("iotEdge"))
        device_scope = str(twin.get("deviceScope") or "")
        parents = twin.get("parentScopes") or ([] if edge or not device_scope else [device_scope])
        return cls(
            device_id=str(twin["deviceId"]),
            etag=str(twin.get("deviceEtag") or ""),
            twin_etag=str(twin.get("etag") or ""),
            edge=edge,
            status=str(twin.get("status") or "enabled"),
            status_reason=str(twin.get("statusReason") or ""),
            authentication=(
                Authentication.from_body(identity.get("authentication"))
                if identity
                else Authentication.from_twin(twin)
            ),
            device_scope=device_scope,
            parent_scope=str(parents[0]) if parents else "",
            tags=twin.get("tags") or {},
            desired={key: value for key, value in properties.items() if not key.startswith("$")},
        )

    @property
    def parent(self) -> str:
        """Id of the edge device above it, ``""`` for none."""
        return scope_device(self.parent_scope)


@dataclass(frozen=True)
class Plan:
    """What to do for one device.

    action:     ``none``, ``create``, ``update`` (of the identity) or ``delete``.
    twin_patch: ``{"tags": ..., "properties": {"desired": ...}}`` of what differs, as a merge patch.
    before, after: the device as shown in a diff, without keys; empty when it does not exist.
    """

    action: str
    twin_patch: Mapping[str, Any] = field(default_factory=dict)
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return self.action != "none" or bool(self.twin_patch)


class UnsupportedChange(ValueError):  # noqa: N818 - says what it is
    """The hub, or this version, cannot make this change; the message names the fact and the fix."""


def scope_device(scope: str) -> str:
    """Return the id of the edge device that a scope belongs to, ``""`` when it is none."""
    match = _SCOPE.fullmatch(scope)
    return match["device"] if match else ""


def device_id_error(device_id: object) -> str | None:
    """Return what is wrong with a device id, None when it is valid."""
    if not isinstance(device_id, str) or not device_id:
        return "a device id must be a text of 1 to 128 characters"
    bad = _BAD_ID_CHARACTER.search(device_id)
    if bad:
        return (
            f"the device id {device_id!r} holds {bad.group()!r}; "
            "allowed are ASCII letters, digits and - : . + % _ # * ? ! ( ) , = @ ; $ '"
        )
    if not _DEVICE_ID.fullmatch(device_id):
        return f"the device id {device_id[:20]!r}... has {len(device_id)} characters; at most 128 are allowed"
    return None


def list_errors(devices: Sequence[DesiredDevice]) -> list[str]:
    """Return every error of a list of devices, each naming the item by its index (from 0)."""
    errors: list[str] = []
    listed = {device.device_id: device for device in reversed(devices)}
    first_seen: dict[str, int] = {}
    for index, device in enumerate(devices):
        where = f"devices[{index}]"
        error = device_id_error(device.device_id)
        if error:
            errors.append(f"{where}: {error}")
        elif device.device_id in first_seen:
            errors.append(
                f"{where}: the device id {device.device_id!r} "
                f"is already in devices[{first_seen[device.device_id]}]; list each device once"
            )
        else:
            first_seen[device.device_id] = index
        errors += [f"{where}: {text}" for text in _item_errors(device)]
        parent = listed.get(device.parent or "")
        if parent is not None and device.present:
            if not parent.present:
                errors.append(f"{where}: the parent {device.parent!r} is to be absent")
            elif parent.edge is False:
                errors.append(f"{where}: the parent {device.parent!r} is to be no edge device")
    errors += _nesting_errors(devices, {})
    return errors


def _item_errors(device: DesiredDevice) -> Iterable[str]:
    if device.status_reason is not None and len(device.status_reason) > 128:
        yield f"status_reason of {device.device_id!r} is longer than 128 characters"
    if device.parent and device_id_error(device.parent):
        yield f"parent: {device_id_error(device.parent)}"
    if device.authentication is not None and device.present:
        yield from device.authentication.errors()
    nulls = not device.exact_twin
    yield from twin_rules.errors(device.tags, "tags", nulls=nulls)
    yield from twin_rules.errors(device.desired, "desired", nulls=nulls)


def nesting_errors(devices: Sequence[DesiredDevice], actual: Mapping[str, ActualDevice]) -> list[str]:
    """Return the errors of the parents of a list, with what the hub has beside it.

    actual: by id, the devices of the list and every device above them that the hub has. A parent that is
    neither in the list nor there is an error, and so are a leaf as parent, a cycle, and more than
    MAX_EDGE_DEPTH edge devices above each other.
    """
    listed = {device.device_id: device for device in devices if device.present}
    errors = []
    for index, device in enumerate(devices):
        if not device.present or not device.parent:
            continue
        parent = listed.get(device.parent)
        there = actual.get(device.parent)
        where = f"devices[{index}]: the parent {device.parent!r} of {device.device_id!r}"
        if parent is None and there is None:
            errors.append(f"{where} is neither in the list nor at the hub: add it to the list, or correct it")
        elif not _will_be_edge(parent, there):
            errors.append(f"{where} is no edge device: give it edge: true")
    return errors + _nesting_errors(devices, actual)


def _will_be_edge(desired: DesiredDevice | None, actual: ActualDevice | None) -> bool:
    if desired is not None and desired.edge is not None:
        return desired.edge
    return actual is not None and actual.edge


def _nesting_errors(devices: Sequence[DesiredDevice], actual: Mapping[str, ActualDevice]) -> list[str]:
    listed = {device.device_id: device for device in devices if device.present}

    def parent_of(device_id: str) -> str:
        device, there = listed.get(device_id), actual.get(device_id)
        if device is not None and device.parent is not None:
            return device.parent
        return there.parent if there else ""

    errors = []
    in_cycle: set[str] = set()
    for index, device in enumerate(devices):
        if not device.present or not parent_of(device.device_id):
            continue
        chain = [device.device_id]
        while (above := parent_of(chain[-1])) and above not in chain:
            chain.append(above)
        if above:
            # Named once, at the first device of the list that is part of it.
            if above == device.device_id and not in_cycle & set(chain):
                in_cycle |= set(chain)
                errors.append(
                    f"devices[{index}]: a cycle of parents: {' below '.join([*chain, device.device_id])}"
                )
            continue
        edges = len(chain) if _will_be_edge(device, actual.get(device.device_id)) else len(chain) - 1
        if edges > MAX_EDGE_DEPTH:
            errors.append(
                f"devices[{index}]: {device.device_id!r} would be part of {edges} edge devices above each "
                f"other ({' below '.join(chain)}); a hub nests at most {MAX_EDGE_DEPTH}"
            )
    return errors


def public_view(actual: ActualDevice | None, desired: DesiredDevice | None = None) -> dict[str, Any]:
    """Return what may be shown of a device: no keys. ``{}`` for one that does not exist.

    desired: shows tags and desired properties only where it manages them; all of them without it.
    """
    if actual is None:
        return {}
    view: dict[str, Any] = {
        "device_id": actual.device_id,
        "edge": actual.edge,
        "status": actual.status,
        "status_reason": actual.status_reason or None,
        "parent": actual.parent or None,
    }
    view |= {"authentication": actual.authentication.type, **actual.authentication.thumbprints()}
    if desired is None or desired.tags is not None:
        view["tags"] = dict(actual.tags)
    if desired is None or desired.desired is not None:
        view["desired"] = dict(actual.desired)
    return view


def plan(actual: ActualDevice | None, desired: DesiredDevice) -> Plan:
    """Return what to do so that the device is as wanted.

    actual has its keys where desired names keys; a twin does not tell them. Raises UnsupportedChange for what
    cannot be changed in place.
    """
    before = public_view(actual, desired)
    if not desired.present:
        return Plan("delete", before=before) if actual else Plan("none")
    if actual is None:
        goal = _created(desired)
        return Plan("create", twin_patch=_twin(goal.tags, goal.desired), after=public_view(goal, desired))
    _refuse(actual, desired)
    goal = _updated(actual, desired)
    twin_patch = _twin(
        twin_rules.exact_patch(actual.tags, goal.tags),
        twin_rules.exact_patch(actual.desired, goal.desired),
    )
    after = public_view(goal, desired)
    if goal.authentication != actual.authentication and goal.authentication.type == "sas":
        # A change that nothing else would show.
        before, after = {**before, "keys": "others"}, {**after, "keys": "as given"}
    same = all(getattr(goal, name) == getattr(actual, name) for name in _IDENTITY_FIELDS)
    return Plan("none" if same else "update", twin_patch, before, after)


_IDENTITY_FIELDS = ("edge", "status", "status_reason", "authentication", "parent")


def _created(desired: DesiredDevice) -> ActualDevice:
    return ActualDevice(
        device_id=desired.device_id,
        etag="",
        twin_etag="",
        edge=bool(desired.edge),
        status=desired.status or "enabled",
        status_reason=desired.status_reason or "",
        authentication=desired.authentication or Authentication(),
        device_scope="",
        parent_scope=_placeholder(desired.parent or ""),
        tags=twin_rules.apply_patch({}, desired.tags or {}),
        desired=twin_rules.apply_patch({}, desired.desired or {}),
    )


def _updated(actual: ActualDevice, desired: DesiredDevice) -> ActualDevice:
    """Return the device as it is to be."""

    def properties(there: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> Mapping[str, Any]:
        if wanted is None:
            return there
        return twin_rules.apply_patch({} if desired.exact_twin else there, wanted)

    authentication = actual.authentication
    if desired.authentication is not None and desired.authentication.differs(authentication):
        authentication = desired.authentication
    return ActualDevice(
        device_id=actual.device_id,
        etag=actual.etag,
        twin_etag=actual.twin_etag,
        edge=actual.edge if desired.edge is None else desired.edge,
        status=desired.status or actual.status,
        status_reason=actual.status_reason if desired.status_reason is None else desired.status_reason,
        authentication=authentication,
        device_scope=actual.device_scope,
        parent_scope=actual.parent_scope if desired.parent is None else _placeholder(desired.parent),
        tags=properties(actual.tags, desired.tags),
        desired=properties(actual.desired, desired.desired),
    )


def _placeholder(parent: str) -> str:
    """Return a scope that stands for a parent whose own is not known yet; only `parent` is read from it."""
    return f"ms-azure-iot-edge://{parent}-0" if parent else ""


def _refuse(actual: ActualDevice, desired: DesiredDevice) -> None:
    if actual.edge and desired.edge is False:
        raise UnsupportedChange(
            f"device {actual.device_id!r} is an edge device and cannot become a leaf device in place: "
            "delete it first (state: absent), or ask for edge: true"
        )
    wanted, there = desired.authentication, actual.authentication.type
    if wanted and wanted.type != there and not desired.replace_authentication:
        raise UnsupportedChange(
            f"device {actual.device_id!r} authenticates by {there} and the list wants {wanted.type}: that "
            "cuts it off until it has the new credentials; set replace_authentication: true if it is meant"
        )


def _twin(tags: Mapping[str, Any], desired: Mapping[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {}
    if tags:
        patch["tags"] = dict(tags)
    if desired:
        patch["properties"] = {"desired": dict(desired)}
    return patch


def levels(plans: Mapping[str, Plan], devices: Sequence[DesiredDevice]) -> list[list[DesiredDevice]]:
    """Return the devices to be created or updated in steps: a parent's step is before its children's.

    Cycles are refused before by `nesting_errors`.
    """
    waiting = {
        device.device_id: device
        for device in devices
        if plans[device.device_id].action in ("create", "update")
    }
    steps: list[list[DesiredDevice]] = []
    while waiting:
        step = [device for device in waiting.values() if (device.parent or "") not in waiting]
        if not step:
            raise ValueError("a cycle of parents")
        for device in step:
            del waiting[device.device_id]
        steps.append(step)
    return steps


def needs_second_update(actual: ActualDevice | None, desired: DesiredDevice) -> bool:
    """Return whether a parent can be set only after the update that makes a leaf an edge device."""
    return actual is not None and not actual.edge and bool(desired.edge) and bool(desired.parent)


def create_entry(desired: DesiredDevice, plan_: Plan, parent_scope: str) -> dict[str, Any]:
    """Return the entry of a bulk call that creates the device with its twin. parent_scope: "" for none."""
    entry: dict[str, Any] = {
        "id": desired.device_id,
        "importMode": "create",
        "status": desired.status or "enabled",
        "authentication": (desired.authentication or Authentication()).body(),
        "capabilities": {"iotEdge": bool(desired.edge)},
        **plan_.twin_patch,
    }
    if desired.status_reason:
        entry["statusReason"] = desired.status_reason
    if parent_scope:
        entry |= {"parentScopes": [parent_scope]} if desired.edge else {"deviceScope": parent_scope}
    return entry


def update_entry(
    identity: Mapping[str, Any], actual: ActualDevice, desired: DesiredDevice, parent_scope: str
) -> dict[str, Any]:
    """Return the entry of a bulk call that updates the identity and keeps what it does not change.

    identity: as the registry has it, with its keys. actual: what the plan was made for; its etag guards the
    update. parent_scope: of desired.parent, "" for none.
    """
    goal = _updated(actual, desired)
    entry: dict[str, Any] = {
        "id": actual.device_id,
        "eTag": actual.etag,
        "importMode": "updateIfMatchETag",
        "status": goal.status,
        "statusReason": goal.status_reason,
        "authentication": identity.get("authentication"),
        "capabilities": {**(identity.get("capabilities") or {}), "iotEdge": goal.edge},
    }
    if goal.authentication != actual.authentication:
        entry["authentication"] = goal.authentication.body()
    parent = actual.parent_scope if desired.parent is None else parent_scope
    if not goal.edge:
        entry["deviceScope"] = parent
    elif actual.edge:
        entry |= {"deviceScope": actual.device_scope, "parentScopes": [parent] if parent else []}
    else:
        # A leaf's scope is its parent's; emptied, the hub gives the device one of its own. The parent
        # follows in a second update.
        entry["deviceScope"] = ""
    return entry
