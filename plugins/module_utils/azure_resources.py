# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wanted and actual resources in Azure: group, hub with its policies, provisioning service. Pure.

Azure Resource Manager's rules that shape this file: a PUT replaces a resource, so that an update sends back
what was read; keys are not among that and come from a call of their own; a location never changes; a free hub
stays free; rights are one text such as ``RegistryWrite, ServiceConnect``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils.item_list import Plan, Refused

SKUS = ("F1", "B1", "B2", "B3", "S1", "S2", "S3")
RIGHTS = ("RegistryRead", "RegistryWrite", "ServiceConnect", "DeviceConnect")
_MOST_UNITS = {"F1": 1, "S3": 10, "B3": 10}
_GROUP = re.compile(r"[\w\-.()]{0,89}[\w\-()]")
_HUB = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{1,48}[A-Za-z0-9]")
_DPS = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{1,62}[A-Za-z0-9]")
# What Azure writes itself; the rest of what was read goes back with an update.
_READ_ONLY = ("hostName", "state", "provisioningState", "locations", "privateEndpointConnections")
_DPS_READ_ONLY = (*_READ_ONLY, "serviceOperationsHostName", "deviceProvisioningHostName", "idScope")


@dataclass(frozen=True)
class Wanted:
    """What is to be there; None and empty mean "leave as it is".

    policies: rights by name, of the hub. link_policy: the one that the provisioning service signs with.
    """

    group: str
    location: str = ""
    tags: Mapping[str, str] | None = None
    hub: str = ""
    sku: str | None = None
    units: int | None = None
    policies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    dps: str = ""
    link_policy: str = "iothubowner"


def errors(wanted: Wanted) -> list[str]:
    """Return everything that is wrong with what is wanted, each beginning with the option."""
    found = []
    if not _GROUP.fullmatch(wanted.group):
        found.append(
            f"resource_group {wanted.group!r} must be up to 90 letters, digits and - _ . ( ), without a dot "
            "at the end"
        )
    if wanted.hub and not _HUB.fullmatch(wanted.hub):
        found.append(f"hub {wanted.hub!r} must be 3 to 50 letters, digits and dashes, no dash at the ends")
    if wanted.dps and not _DPS.fullmatch(wanted.dps):
        found.append(f"dps {wanted.dps!r} must be 3 to 64 letters, digits and dashes, no dash at the ends")
    if wanted.dps and not wanted.hub:
        found.append("dps needs hub, which it is linked to")
    most = _MOST_UNITS.get(wanted.sku or "", 200)
    if wanted.units is not None and not 1 <= wanted.units <= most:
        found.append(f"units is {wanted.units}; {wanted.sku or 'a hub'} takes 1 to {most}")
    for name, rights in wanted.policies.items():
        unknown = sorted(set(rights) - set(RIGHTS))
        if unknown or not rights:
            fact = f"has the unknown rights {', '.join(unknown)}" if unknown else "has no rights"
            found.append(f"policy {name!r} {fact}; possible: {', '.join(RIGHTS)}")
    return found


def confirm_error(scope: str, group: str, hub: str, confirm: str) -> str | None:
    """Return why a deletion is not allowed, None when confirm names what is deleted.

    scope: ``resource_group``, or ``resources`` for the hub and the provisioning service alone.
    """
    name = group if scope == "resource_group" else hub
    if not name:
        return "hub is needed, which is to be deleted"
    if confirm == name:
        return None
    what = (
        "the resource group and everything in it" if scope == "resource_group" else "the hub and its devices"
    )
    return f"this deletes {what}: confirm it with the name {name!r}"


def plan_group(wanted: Wanted, actual: Mapping[str, Any] | None) -> Plan:
    """Return what to do for the resource group; raises Refused."""
    body = _placed("resource group", wanted.group, wanted, actual)
    return _plan(body, actual, _view_group)


def plan_hub(
    wanted: Wanted, actual: Mapping[str, Any] | None, policies: Iterable[Mapping[str, Any]] = ()
) -> Plan:
    """Return what to do for the hub. policies: those it has, with their keys. Raises Refused.

    A new hub gets the wanted policies by a second plan, once it is there.
    """
    body = _placed("hub", wanted.hub, wanted, actual)
    old_sku = (actual or {}).get("sku") or {}
    sku = wanted.sku or old_sku.get("name") or "S1"
    if actual and (sku == "F1") != (old_sku.get("name") == "F1"):
        raise Refused(
            f"hub {wanted.hub!r} is {old_sku.get('name')}: a free hub cannot become a paid one, nor a paid "
            "one free; use another name, or delete it first"
        )
    body["sku"] = {"name": sku, "capacity": wanted.units or old_sku.get("capacity") or 1}
    properties = dict((actual or {}).get("properties") or {})
    for name in _READ_ONLY:
        properties.pop(name, None)
    there = {str(policy.get("keyName")): dict(policy) for policy in policies}
    for name, rights in wanted.policies.items():
        old = there.get(name) or {}
        if _rights(str(old.get("rights") or "")) != _rights(", ".join(rights)):
            # Without keys Azure makes them; those that are there stay.
            there[name] = {**old, "keyName": name, "rights": ", ".join(r for r in RIGHTS if r in rights)}
    if actual and there:
        # Left out of an update they may go. A new hub makes its own ones only when it is given none.
        properties["authorizationPolicies"] = list(there.values())
    body["properties"] = properties
    view = dict(_view_hub(actual, policies)) if actual else {}
    after = _view_hub(body, there.values())
    return Plan(_action(actual, view, after), body, str((actual or {}).get("etag") or ""), view, after)


def plan_dps(
    wanted: Wanted, actual: Mapping[str, Any] | None, hub_hostname: str, connection_string: str
) -> Plan:
    """Return what to do for the provisioning service, so that it is linked to the hub; raises Refused.

    connection_string: of the hub, with its key; empty as long as there is no hub.
    """
    body = _placed("dps", wanted.dps, wanted, actual)
    body["sku"] = (actual or {}).get("sku") or {"name": "S1", "capacity": 1}
    properties = dict((actual or {}).get("properties") or {})
    for name in _DPS_READ_ONLY:
        properties.pop(name, None)
    # Links that are there are sent back as they were read, without their keys.
    links = [dict(link) for link in properties.get("iotHubs") or []]
    if hub_hostname.lower() not in {str(link.get("name", "")).lower() for link in links}:
        location = wanted.location or str((actual or {}).get("location") or "")
        links.append(
            {"name": hub_hostname, "connectionString": connection_string, "location": _place(location)}
        )
    sent = [
        {key: value for key, value in link.items() if key != "name" or "connectionString" not in link}
        for link in links
    ]
    body["properties"] = {**properties, "iotHubs": sent}
    before = _view_dps(actual) if actual else {}
    after = _view_dps({**body, "properties": {"iotHubs": links}})
    return Plan(_action(actual, before, after), body, str((actual or {}).get("etag") or ""), before, after)


def pending(what: str, name: str, actual: Mapping[str, Any] | None) -> str:
    """Return what is still worked on, empty when it is done; raises Refused when it failed."""
    if actual is None:
        return f"{what} {name}: not there yet"
    properties = actual.get("properties") or {}
    state = str(properties.get("provisioningState") or "Succeeded")
    if state in ("Failed", "Canceled", "Suspended"):
        raise Refused(f"{what} {name!r}: Azure says {state}; its activity log in the portal tells why")
    return "" if state == "Succeeded" else f"{what} {name}: {state}"


def hub_connection_string(hostname: str, policy_name: str, policies: Iterable[Mapping[str, Any]]) -> str:
    """Return the connection string of a hub's policy; raises Refused when it has none of that name."""
    known = {str(policy.get("keyName")): str(policy.get("primaryKey") or "") for policy in policies}
    if not known.get(policy_name):
        raise Refused(f"the hub has no policy {policy_name!r}; it has {', '.join(sorted(known))}")
    return f"HostName={hostname};SharedAccessKeyName={policy_name};SharedAccessKey={known[policy_name]}"


def _placed(what: str, name: str, wanted: Wanted, actual: Mapping[str, Any] | None) -> dict[str, Any]:
    location = _place(str((actual or {}).get("location") or ""))
    if not actual and not wanted.location:
        raise Refused(f"{what} {name!r} is not there yet, so it needs location")
    # The members of a group may be elsewhere than their group.
    if actual and what == "resource group" and wanted.location and _place(wanted.location) != location:
        raise Refused(
            f"{what} {name!r} is in {location} and cannot move to {wanted.location}: correct location"
        )
    tags = (actual or {}).get("tags") or {}
    return {
        "location": location or _place(wanted.location),
        "tags": {**tags, **(wanted.tags or {})},
    }


def _place(location: str) -> str:
    return location.replace(" ", "").lower()


def _action(actual: Mapping[str, Any] | None, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    if not actual:
        return "create"
    return "none" if before == after else "update"


def _plan(body: Mapping[str, Any], actual: Mapping[str, Any] | None, view: Any) -> Plan:
    before, after = view(actual) if actual else {}, view(body)
    return Plan(_action(actual, before, after), body, "", before, after)


def _view_group(resource: Mapping[str, Any]) -> dict[str, Any]:
    return {"location": _place(str(resource.get("location") or "")), "tags": resource.get("tags") or {}}


def _view_hub(resource: Mapping[str, Any], policies: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    sku = resource.get("sku") or {}
    return {
        **_view_group(resource),
        "sku": sku.get("name"),
        "units": sku.get("capacity"),
        "policies": {
            str(policy.get("keyName")): _rights(str(policy.get("rights") or "")) for policy in policies
        },
    }


def _view_dps(resource: Mapping[str, Any]) -> dict[str, Any]:
    links = (resource.get("properties") or {}).get("iotHubs") or []
    return {
        **_view_group(resource),
        "linked_hubs": sorted(str(link.get("name") or "").lower() for link in links),
    }


def _rights(text: str) -> list[str]:
    """Return rights in one order; who may write the registry may read it."""
    found = {part.strip() for part in text.split(",") if part.strip()}
    if "RegistryWrite" in found:
        found.discard("RegistryRead")
    return sorted(found)
