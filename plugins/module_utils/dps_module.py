# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules for enrollments and for enrollment groups share: options, and the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    dps_client,
    dps_enrollment,
    iothub_module,
    item_list,
    rest_client,
)
from ansible_collections.edgeha.iotedge.plugins.module_utils.dps_enrollment import Desired, Kind

# The record with its symmetric keys where they are needed, None when there is none.
State: TypeAlias = "dict[str, Any] | None"


def client_of(params: Mapping[str, Any]) -> dps_client.DpsClient:
    """Return a client of the service for a module's options; raises CredentialError or ServiceUntrusted."""
    return dps_client.DpsClient(
        *iothub_module.credential(params, "dps"), **iothub_module.connection_options(params)
    )


def argument_spec(kind: Kind) -> dict[str, dict[str, Any]]:
    """Return all options of the module for a kind."""
    own: dict[str, Any] = {kind.name: {"type": "str", "required": True}}
    types = ["symmetric_key", "x509"]
    attestation: dict[str, Any] = {
        "primary_key": {"type": "str", "no_log": True},
        "secondary_key": {"type": "str", "no_log": True},
        "primary_certificate": {"type": "str"},
        "secondary_certificate": {"type": "str"},
        "primary_ca": {"type": "str"},
        "secondary_ca": {"type": "str"},
    }
    if not kind.group:
        own["device_id"] = {"type": "str"}
        types.append("tpm")
        # no_log=False: it is the public half of a key pair.
        attestation["endorsement_key"] = {"type": "str", "no_log": False}
    options = {
        **own,
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "attestation": {
            "type": "dict",
            "options": {"type": {"type": "str", "choices": types, "required": True}, **attestation},
        },
        "edge": {"type": "bool"},
        "status": {"type": "str", "choices": ["enabled", "disabled"]},
        "allocation_policy": {"type": "str", "choices": list(dps_enrollment.ALLOCATIONS)},
        "iot_hubs": {"type": "list", "elements": "str"},
        "webhook": {
            "type": "dict",
            "options": {
                # An Azure function's key is part of its address.
                "url": {"type": "str", "required": True, "no_log": True},
                "api_version": {"type": "str", "default": "2021-10-01"},
            },
        },
        "reprovision_policy": {
            "type": "dict",
            "options": {
                "update_hub_assignment": {"type": "bool"},
                "migrate_device_data": {"type": "bool"},
            },
        },
        "initial_twin": {"type": "dict", "options": {"tags": {"type": "dict"}, "desired": {"type": "dict"}}},
    }
    return {
        **iothub_module.dps_argument_spec(),
        kind.option: {"type": "list", "elements": "dict", "required": True, "options": options},
        # no_log=False: this is a switch and not a key.
        "return_keys": {"type": "bool", "default": False, "no_log": False},
    }


def desired_items(kind: Kind, items: list[dict[str, Any]]) -> list[Desired]:
    """Return the list of the module's options as values."""
    return [_desired(kind, item) for item in items]


def _desired(kind: Kind, item: Mapping[str, Any]) -> Desired:
    attestation, webhook = item["attestation"], item["webhook"]
    policy, twin = item["reprovision_policy"] or {}, item["initial_twin"] or {}
    return Desired(
        name=item[kind.name],
        present=item["state"] == "present",
        attestation=dps_enrollment.Attestation(**attestation) if attestation else None,
        device_id=item.get("device_id"),
        edge=item["edge"],
        status=item["status"],
        allocation=item["allocation_policy"],
        iot_hubs=item["iot_hubs"],
        webhook=(webhook["url"], webhook["api_version"]) if webhook else None,
        update_hub_assignment=policy.get("update_hub_assignment"),
        migrate_device_data=policy.get("migrate_device_data"),
        tags=twin.get("tags"),
        desired=twin.get("desired"),
    )


def make_steps(module: AnsibleModule, kind: Kind) -> item_list.Steps[Desired, State]:
    """Return how one record is treated."""
    client = client_of(module.params)
    return_keys: bool = module.params["return_keys"]

    def with_keys(record: dict[str, Any], name: str) -> dict[str, Any]:
        if not dps_enrollment.lacks_keys(record):
            return record
        return {**record, "attestation": client.attestation(kind.path, name)}

    def read(item: Desired) -> State:
        record = client.get_enrollment(kind.path, item.name)
        wants_keys = return_keys or (item.attestation is not None and item.attestation.primary_key)
        # Every call is billed: keys are read only where they matter.
        return with_keys(record, item.name) if record and item.present and wants_keys else record

    def write(item: Desired, plan: item_list.Plan, _state: State) -> State:
        if plan.action == "delete":
            client.delete_enrollment(kind.path, item.name, plan.etag)
            return None
        body = dict(plan.body)
        if plan.action == "update":
            # Without the keys that are there the service would make others.
            body = with_keys(body, item.name)
        try:
            record = client.put_enrollment(kind.path, item.name, body, plan.etag or None)
        except rest_client.ServiceResponseError as error:
            if error.status != 409 or plan.action == "update":
                raise
            # It came into being since it was read, perhaps by our own call whose answer was lost.
            again = dps_enrollment.plan(kind, read(item), item)
            return write(item, again, None) if again.changed else read(item)
        return with_keys(record, item.name) if return_keys else record

    def entry(item: Desired, plan: item_list.Plan, state: State) -> dict[str, Any]:
        shown = {**plan.after, kind.name: item.name, "state": "present" if item.present else "absent"}
        for note in dps_enrollment.NOTES:
            shown.pop(note, None)
        if state and item.present:
            if not kind.group:
                registration = state.get("registrationState") or {}
                shown["registration_status"] = registration.get("status")
                shown["assigned_hub"] = registration.get("assignedHub")
            if return_keys:
                shown |= dps_enrollment.keys_of(state.get("attestation"))
        return shown

    return item_list.Steps(
        option=kind.option,
        label=lambda item: item.name,
        read=read,
        plan=lambda item, state: dps_enrollment.plan(kind, state, item),
        entry=entry,
        write=write,
    )


def run(kind: Kind) -> None:
    """Run the module for a kind."""
    module = AnsibleModule(argument_spec=argument_spec(kind), **iothub_module.RULES)
    items = desired_items(kind, module.params[kind.option])
    item_list.run(module, items, dps_enrollment.list_errors(kind, items), lambda: make_steps(module, kind))
