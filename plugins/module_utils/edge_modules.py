# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wanted and actual modules of single edge devices: what differs, and what puts it right. Pure.

The hub's rules that shape this file: content for one device replaces the desired properties of each module it
names and leaves the others alone; a deployment that targets the device overwrites all of it when it is
evaluated again; the twin of the device or of $edgeAgent tells which those are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import edge_manifest, iothub_device, item_list
from ansible_collections.edgeha.iotedge.plugins.module_utils.edge_manifest import Content
from ansible_collections.edgeha.iotedge.plugins.module_utils.manifest_json import ManifestError

OPTION = "devices"


@dataclass(frozen=True)
class DesiredModules:
    """What is to run on a device. content: None when it has errors, which stand in errors."""

    device_id: str
    content: Content | None
    errors: Sequence[str] = ()

    @classmethod
    def of(cls, device_id: str, content: Any) -> DesiredModules:
        """Read what an operator wrote; content as in edge_manifest.parse."""
        try:
            found = edge_manifest.parse(content)
        except ManifestError as error:
            return cls(device_id, None, error.errors)
        if found.layered:
            return cls(device_id, None, ["$: is a layer; layers belong to deployments (iothub_deployments)"])
        return cls(device_id, found)

    @property
    def modules(self) -> Mapping[str, Mapping[str, Any]]:
        return self.content.modules if self.content else {}

    @property
    def twins(self) -> list[str]:
        """Names of the modules whose twins tell whether the device is as wanted."""
        return sorted({*self.modules, *(self.content.names if self.content else ())})


@dataclass(frozen=True)
class ActualModules:
    """What a hub has.

    device:      twin of the device.
    modules:     twins by name, without those that are missing.
    deployments: ids of the deployments at scale that target the device.
    """

    device: Mapping[str, Any] = field(default_factory=dict)
    modules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    deployments: Sequence[str] = ()

    @property
    def configurations(self) -> list[str]:
        """Ids of the configurations that target the device, some of which may set no modules."""
        twins = (self.device, self.modules.get(edge_manifest.AGENT) or {})
        return sorted({str(name) for twin in twins for name in twin.get("configurations") or {}})


def deployments_of(actual: ActualModules, configurations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the ids of the deployments that target the device. configurations: all of the hub.

    A configuration of the device's own twin stands beside them in that twin, and changes no module.
    """
    others = {
        str(entry.get("id"))
        for entry in configurations
        if "modulesContent" not in (entry.get("content") or {})
    }
    return [name for name in actual.configurations if name not in others]


def list_errors(devices: Sequence[DesiredModules]) -> list[str]:
    """Return every error of a list, each naming the item by its index (from 0) and its JSON path."""

    def errors(device: DesiredModules) -> list[str]:
        found = iothub_device.device_id_error(device.device_id)
        return ([found] if found else []) + [f"content {text}" for text in device.errors]

    return item_list.by_item(OPTION, map(errors, devices)) + item_list.repeated(
        OPTION,
        (device.device_id for device in devices),
        (f"the device {device.device_id!r}" for device in devices),
    )


def check_device(device_id: str, twin: Mapping[str, Any] | None) -> None:
    """Raise item_list.Refused unless a device's twin is that of an edge device."""
    if twin is None:
        raise item_list.Refused(
            f"the device {device_id!r} is not registered: register it first (iothub_devices, edge: true)"
        )
    if not (twin.get("capabilities") or {}).get("iotEdge"):
        raise item_list.Refused(
            f"the device {device_id!r} is no edge device, so it runs no modules: make it one "
            "(iothub_devices, edge: true), or correct device_id"
        )


def differing(desired: DesiredModules, actual: ActualModules) -> list[str]:
    """Return the names of the modules that are not as wanted, sorted; `waiting` are left out."""
    found = []
    for name in desired.twins:
        twin = actual.modules.get(name)
        wanted = _wanted(desired, name)
        if twin is None:
            # The hub makes these two with the device; the others come when the edge agent first runs them.
            differs = name in (edge_manifest.AGENT, edge_manifest.HUB)
        else:
            differs = wanted is not None and not edge_manifest.same(name, _desired(twin), wanted)
        if differs:
            found.append(name)
    return found


def waiting(desired: DesiredModules, actual: ActualModules) -> list[str]:
    """Return the names of the modules whose properties cannot be compared: they have no identity yet."""
    return [
        name
        for name in desired.twins
        if name not in actual.modules
        and name not in (edge_manifest.AGENT, edge_manifest.HUB)
        and _wanted(desired, name) is not None
    ]


def plan(desired: DesiredModules, actual: ActualModules) -> item_list.Plan:
    """Return what to do so that the device runs what is wanted.

    What only `waiting` modules lack is no change: the hub was given it together with what $edgeAgent has.
    """
    names = differing(desired, actual)
    before = {
        name: edge_manifest.meaning(name, _desired(twin))
        for name in desired.twins
        if (twin := actual.modules.get(name)) is not None
    }
    after = dict(before)
    for name in [*names, *waiting(desired, actual)] if names else ():
        after[name] = edge_manifest.meaning(name, _wanted(desired, name))
    before, after = edge_manifest.hide_secrets(before, after)
    return item_list.Plan(
        "update" if names else "none",
        body=desired.modules if names else {},
        before=before,
        after=after,
    )


def _wanted(desired: DesiredModules, name: str) -> Any:
    """Return the desired properties that content gives a module, None when it gives none."""
    return (desired.modules.get(name) or {}).get(edge_manifest.DESIRED)


def _desired(twin: Mapping[str, Any]) -> Mapping[str, Any]:
    return (twin.get("properties") or {}).get("desired") or {}
