# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking at a fleet of devices with few calls, and writing it in bulk.

The calls that a hub allows are what bounds a fleet ("IoT Hub quotas and throttling"): on one unit of S1 a
hundred reads of twins a second, but a hundred calls of the registry a minute. So twins are read to see what
differs, by query pages when there are many, and the registry is called only for what is written and for keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    iothub_client,
    iothub_device,
    iothub_module,
    rest_client,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.iothub_device import (
    ActualDevice,
    DesiredDevice,
    Plan,
)

# "IoT Hub query language": characters of one query; some are left for the text around the list.
_MAX_QUERY_LIST = 8000
T = TypeVar("T")


class Fleet:
    """The devices of a list at one hub.

    actual: by id, what the hub has of the devices that were looked at, and of those above them.
    """

    def __init__(self, client: iothub_client.HubClient, devices: Sequence[DesiredDevice]) -> None:
        self.devices = devices
        self.actual: dict[str, ActualDevice] = {}
        self._client = client

    def look(self, query_above: int) -> None:
        """Look at all devices of the list, and at the parents that it names.

        With more than query_above devices a query tells first which of them are as wanted. A query is late,
        so that everything else is read again one by one: nothing is created or deleted by a query's word.
        """
        unsure = list(self.devices)
        if len(self.devices) > query_above:
            rows = {str(row["deviceId"]): row for row in self._rows()}
            unsure = []
            for device in self.devices:
                row = rows.get(device.device_id)
                seen = ActualDevice.from_twin(row) if row else None
                if seen is None or not _is_as_wanted(seen, device):
                    unsure.append(device)
                else:
                    self.actual[device.device_id] = seen
        self.read(unsure)
        self._look_above()

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        """Return the rows of the list by the way that takes fewer calls: a page of all, or lists of ids."""
        lists = _id_lists([device.device_id for device in self.devices])
        if math.ceil(self._client.count_devices() / iothub_client.MAX_PAGE) <= len(lists):
            yield from self._client.query("SELECT * FROM devices")
            return
        for ids in lists:
            yield from self._client.query(f"SELECT * FROM devices WHERE deviceId IN [{ids}]")  # noqa: S608 - valid ids only

    def read(self, devices: Iterable[DesiredDevice]) -> None:
        """Read the devices one by one; with their keys where the list gives keys."""

        def one(device: DesiredDevice) -> ActualDevice | None:
            twin = self._client.get_twin(device.device_id)
            if twin is None:
                return None
            wanted = device.authentication
            identity = None
            if wanted is not None and wanted.has_keys and device.present:
                identity = self._client.get_device(device.device_id)
            return ActualDevice.from_twin(twin, identity)

        devices = list(devices)
        for device, found in zip(devices, iothub_module.each(one, devices), strict=True):
            if found is None:
                self.actual.pop(device.device_id, None)
            else:
                self.actual[device.device_id] = found

    def _look_above(self) -> None:
        """Read the devices above those that get a parent, as far up as edge devices may be nested."""
        above = {device.parent for device in self.devices if device.present and device.parent}
        for _level in range(iothub_device.MAX_EDGE_DEPTH + 1):
            unknown = [device_id for device_id in above if device_id and device_id not in self.actual]
            if not unknown:
                return
            self.read([DesiredDevice(device_id) for device_id in sorted(unknown)])
            above = {self.actual[device_id].parent for device_id in unknown if device_id in self.actual}

    def plans(self) -> tuple[dict[str, Plan], list[str]]:
        """Return the plans by device id, and the errors of devices that cannot be changed as asked."""
        plans: dict[str, Plan] = {}
        errors = iothub_device.nesting_errors(self.devices, self.actual)
        for index, device in enumerate(self.devices):
            try:
                plans[device.device_id] = iothub_device.plan(self.actual.get(device.device_id), device)
            except iothub_device.UnsupportedChange as error:
                errors.append(f"devices[{index}]: {error}")
        return plans, errors

    def write(self, plans: Mapping[str, Plan]) -> dict[str, str]:
        """Carry out the plans; return the errors by device id. One that fails keeps no other from its own."""
        failed = self._bulk(
            {"id": name, "importMode": "deleteIfMatchETag", "eTag": self.actual[name].etag}
            for name, plan in plans.items()
            if plan.action == "delete"
        )
        again = []
        for step in iothub_device.levels(plans, self.devices):
            ready = []
            for device in step:
                if device.parent in failed:
                    failed[device.device_id] = f"left alone, because its parent {device.parent!r} failed"
                else:
                    ready.append(device)
            entries = self._entries(ready, plans, failed)
            answers = self._bulk(entries)
            # It came into being since it was read, perhaps by our own call whose answer was lost.
            there = [device for device in ready if "AlreadyExists" in answers.get(device.device_id, "")]
            failed |= {name: text for name, text in answers.items() if "AlreadyExists" not in text}
            again += there
            again += [
                device
                for device in ready
                if device.device_id not in failed
                and iothub_device.needs_second_update(self.actual.get(device.device_id), device)
            ]
        failed |= self._patch_twins(plans, [*failed, *(device.device_id for device in again)])
        return failed | self._write_again(again)

    def _write_again(self, devices: Sequence[DesiredDevice]) -> dict[str, str]:
        """Look once more at devices that need a second write, and do it."""
        if not devices:
            return {}
        rest = Fleet(self._client, devices)
        try:
            rest.look(query_above=len(devices))
        except rest_client.ServiceError as error:
            return {device.device_id: iothub_module.explain(error) for device in devices}
        plans, errors = rest.plans()
        if errors:
            return {device.device_id: "; ".join(errors) for device in devices}
        return rest.write(plans)

    def _entries(
        self, devices: Sequence[DesiredDevice], plans: Mapping[str, Plan], failed: dict[str, str]
    ) -> list[dict[str, Any]]:
        """Return the entries of the bulk call for one step; what cannot be read is added to failed."""
        parents = sorted({device.parent for device in devices if device.parent})
        unknown = [name for name in parents if name not in self.actual or not self.actual[name].edge]
        self.read([DesiredDevice(name) for name in unknown])
        scopes = {name: self.actual[name].device_scope for name in parents if name in self.actual}

        def one(device: DesiredDevice) -> dict[str, Any]:
            scope = scopes.get(device.parent, "") if device.parent else ""
            if device.parent and not scope:
                # Without this a parent that was deleted a moment ago would be taken for none.
                raise iothub_device.UnsupportedChange(
                    f"the parent {device.parent!r} is no longer there: run again"
                )
            plan, actual = plans[device.device_id], self.actual.get(device.device_id)
            if plan.action == "create" or actual is None:
                return iothub_device.create_entry(device, plan, scope)
            identity = self._client.get_device(device.device_id) or {}
            return iothub_device.update_entry(identity, actual, device, scope)

        found = guarded(one, devices)
        failed |= {name: text for name, (_entry, text) in found.items() if text}
        return [entry for entry, text in found.values() if entry is not None and not text]

    def _bulk(self, entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        all_entries = list(entries)
        chunks = [
            all_entries[start : start + iothub_client.MAX_BULK]
            for start in range(0, len(all_entries), iothub_client.MAX_BULK)
        ]

        def one(chunk: Sequence[Mapping[str, Any]]) -> dict[str, str]:
            try:
                answers = self._client.bulk(chunk)
            except rest_client.ServiceError as error:
                return {str(entry["id"]): iothub_module.explain(error) for entry in chunk}
            return {
                name: f"{text}. Somebody else changed it meanwhile: run again"
                if "Precondition" in text
                else text
                for name, text in answers.items()
            }

        failed: dict[str, str] = {}
        for answers in iothub_module.each(one, chunks):
            failed |= answers
        return failed

    def _patch_twins(self, plans: Mapping[str, Plan], leave: Iterable[str]) -> dict[str, str]:
        """Patch the twins of devices that were there before; a new one got its twin when it was created."""
        left_alone = set(leave)
        devices = [
            device
            for device in self.devices
            if plans[device.device_id].twin_patch
            and plans[device.device_id].action != "create"
            and device.device_id not in left_alone
        ]

        def one(device: DesiredDevice) -> None:
            name = device.device_id
            # A query's etag is as late as the query, but what is planned here was read on its own.
            self._client.patch_twin(name, plans[name].twin_patch, self.actual[name].twin_etag)

        return {name: text for name, (_none, text) in guarded(one, devices).items() if text}


def guarded(
    function: Callable[[DesiredDevice], T], devices: Sequence[DesiredDevice]
) -> dict[str, tuple[T | None, str]]:
    """Call function for every device; return by id (result, "") or (None, what went wrong and the fix)."""

    def one(device: DesiredDevice) -> tuple[T | None, str]:
        try:
            return function(device), ""
        except (rest_client.ServiceError, iothub_device.UnsupportedChange) as error:
            return None, iothub_module.explain(error)

    results = iothub_module.each(one, devices)
    return {device.device_id: result for device, result in zip(devices, results, strict=True)}


def _is_as_wanted(actual: ActualDevice, desired: DesiredDevice) -> bool:
    if desired.authentication is not None and desired.authentication.has_keys:
        return False
    try:
        return desired.present and not iothub_device.plan(actual, desired).changed
    except iothub_device.UnsupportedChange:
        return False


def _id_lists(ids: Sequence[str]) -> list[str]:
    """Return the ids as lists of the query language, each short enough for one query."""
    lists: list[str] = []
    for device_id in ids:
        # An id may hold an apostrophe and never a double quote.
        literal = f'"{device_id}"' if "'" in device_id else f"'{device_id}'"
        if lists and len(lists[-1]) + len(literal) + 2 <= _MAX_QUERY_LIST:
            lists[-1] += f", {literal}"
        else:
            lists.append(literal)
    return lists
