# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Azure Resource Manager as far as IoT needs it: resource groups, hubs, provisioning services.

A resource is a JSON document of the store. One hub, and one provisioning service where that is
served, stand for this emulator: both are called `emulator` and there from the start. Others are
records only. An address is looked up without its case, as in Azure.
"""

import json
import re
import secrets
import sqlite3
import uuid
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from iothub_emulator.store import SchemaPart

Document = dict[str, Any]

EMULATOR = "emulator"
HUB_TYPE = "Microsoft.Devices/IotHubs"
DPS_TYPE = "Microsoft.Devices/provisioningServices"
LOCATION = "westeurope"
_NAMES = {
    HUB_TYPE: re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9\-]{1,48}[A-Za-z0-9])"),
    DPS_TYPE: re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9\-]{1,62}[A-Za-z0-9])"),
}
_GROUP_NAME = re.compile(r"[\w\-.()]{0,89}[\w\-()]")
_TIERS = {
    "F1": "Free",
    **dict.fromkeys(("S1", "S2", "S3"), "Standard"),
    **dict.fromkeys(("B1", "B2", "B3"), "Basic"),
}
_MOST_UNITS = {"F1": 1, "S3": 10, "B3": 10}
# As the hub's default policies are called in ARM.
RIGHTS = {
    "iothubowner": "RegistryWrite, ServiceConnect, DeviceConnect",
    "service": "ServiceConnect",
    "device": "DeviceConnect",
    "registryRead": "RegistryRead",
    "registryReadWrite": "RegistryWrite",
    "provisioningserviceowner": "ServiceConfig, DeviceConnect, EnrollmentWrite",
}
HUB_POLICIES = ("iothubowner", "service", "device", "registryRead", "registryReadWrite")
DPS_POLICIES = ("provisioningserviceowner",)

SCHEMA = SchemaPart(
    "arm",
    (
        """
CREATE TABLE arm_resources (
    id TEXT NOT NULL PRIMARY KEY,       -- in lower case
    group_id TEXT NOT NULL,             -- id of its resource group, '' for such a group itself
    type TEXT NOT NULL,
    document TEXT NOT NULL,             -- JSON as it is shown, save what the emulator works out
    keys TEXT NOT NULL                  -- JSON: policy -> key, of hubs and services that are records only
) WITHOUT ROWID;
CREATE TABLE arm_seeded (id TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID;
""",
    ),
)


class ArmError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(f"{status} {code}: {text}")
        self.status = status
        self.code = code
        self.text = text

    def envelope(self) -> Document:
        return {"error": {"code": self.code, "message": self.text}}


@dataclass(frozen=True)
class Place:
    """What stands for this emulator: where its services are, and the keys to them."""

    name: str
    hub_host: str
    hub_keys: Mapping[str, str]
    dps_host: str | None
    dps_keys: Mapping[str, str]
    id_scope: str


def group_id(subscription: str, group: str) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/{group}"


def resource_id(subscription: str, group: str, kind: str, name: str) -> str:
    return f"{group_id(subscription, group)}/providers/{kind}/{name}"


def seed(connection: sqlite3.Connection, subscription: str, *, dps: bool) -> None:
    """Make the group, the hub and the service that stand for the emulator, once."""
    group = group_id(subscription, EMULATOR)
    wanted = {group: "group", resource_id(subscription, EMULATOR, HUB_TYPE, EMULATOR): HUB_TYPE}
    if dps:
        wanted[resource_id(subscription, EMULATOR, DPS_TYPE, EMULATOR)] = DPS_TYPE
    for address, kind in wanted.items():
        if connection.execute("SELECT 1 FROM arm_seeded WHERE id = ?", (address,)).fetchone():
            continue
        connection.execute("INSERT INTO arm_seeded VALUES (?)", (address,))
        if kind == "group":
            put_group(connection, subscription, EMULATOR, {"location": LOCATION})
        elif find(connection, group) is not None:
            body = {"location": LOCATION, "sku": {"name": "S1", "capacity": 1}, "properties": {}}
            put_resource(connection, subscription, EMULATOR, kind, EMULATOR, body, None)


def find(connection: sqlite3.Connection, address: str) -> Document | None:
    row = connection.execute("SELECT document FROM arm_resources WHERE id = ?", (address.lower(),)).fetchone()
    return None if row is None else json.loads(row["document"])


def get_group(connection: sqlite3.Connection, subscription: str, name: str) -> Document:
    group = find(connection, group_id(subscription, name))
    if group is None:
        raise ArmError(404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found.")
    return group


def list_groups(connection: sqlite3.Connection) -> list[Document]:
    rows = connection.execute("SELECT document FROM arm_resources WHERE group_id = '' ORDER BY id")
    return [json.loads(row["document"]) for row in rows]


def put_group(
    connection: sqlite3.Connection, subscription: str, name: str, body: object
) -> tuple[Document, bool]:
    """Create or replace; returns the group and whether it is new."""
    if not _GROUP_NAME.fullmatch(name):
        raise ArmError(400, "InvalidResourceGroup", f"The resource group name '{name}' is not allowed.")
    document = _object(body)
    address = group_id(subscription, name)
    existing = find(connection, address)
    location = _location(document, existing)
    group = {
        "id": existing["id"] if existing else address,
        "name": existing["name"] if existing else name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": location,
        "tags": _tags(document),
        "properties": {"provisioningState": "Succeeded"},
    }
    _save(connection, address, "", "group", group, {})
    return group, existing is None


def patch_tags(connection: sqlite3.Connection, address: str, body: object) -> Document:
    """Replace the tags of a group or a resource."""
    row = connection.execute("SELECT * FROM arm_resources WHERE id = ?", (address.lower(),)).fetchone()
    if row is None:
        raise not_found(address)
    document: Document = json.loads(row["document"])
    patch = _object(body)
    if "tags" in patch:
        document["tags"] = _tags(patch)
        document = document | ({"etag": _etag()} if "etag" in document else {})
    _save(connection, address, row["group_id"], row["type"], document, json.loads(row["keys"]))
    return document


def delete_group(connection: sqlite3.Connection, subscription: str, name: str) -> None:
    get_group(connection, subscription, name)
    address = group_id(subscription, name).lower()
    connection.execute("DELETE FROM arm_resources WHERE id = ? OR group_id = ?", (address, address))


def get_resource(connection: sqlite3.Connection, address: str) -> Document:
    resource = find(connection, address)
    if resource is None:
        raise not_found(address)
    return resource


def list_resources(
    connection: sqlite3.Connection, kind: str | None, group: str | None = None
) -> list[Document]:
    """All of a kind, or of all kinds, in one group (by id) or everywhere."""
    rows = connection.execute(
        "SELECT document FROM arm_resources WHERE group_id <> '' AND (?1 IS NULL OR type = ?1) "
        "AND (?2 IS NULL OR group_id = ?2) ORDER BY id",
        (kind, group.lower() if group else None),
    )
    return [json.loads(row["document"]) for row in rows]


def put_resource(
    connection: sqlite3.Connection,
    subscription: str,
    group: str,
    kind: str,
    name: str,
    body: object,
    if_match: str | None,
) -> tuple[Document, bool]:
    """Create or replace a hub or a provisioning service; returns it and whether it is new."""
    get_group(connection, subscription, group)
    document = _object(body)
    address = resource_id(subscription, group, kind, name)
    existing = find(connection, address)
    if if_match is not None and if_match.strip('"') not in ("*", existing["etag"] if existing else None):
        raise ArmError(412, "PreconditionFailed", "The etag in If-Match is not the current one.")
    if existing is None:
        check_name(connection, kind, name)
    sku = _sku(document, kind, existing)
    properties = document.get("properties") or {}
    if not isinstance(properties, dict):
        raise ArmError(400, "InvalidRequestContent", "properties is not an object.")
    resource = {
        "id": existing["id"] if existing else address,
        "name": existing["name"] if existing else name,
        "type": kind,
        "location": _location(document, existing),
        "tags": _tags(document),
        "etag": _etag(),
        "sku": sku,
        "properties": properties,
    }
    row = connection.execute("SELECT keys FROM arm_resources WHERE id = ?", (address.lower(),)).fetchone()
    policies = HUB_POLICIES if kind == HUB_TYPE else DPS_POLICIES
    keys = json.loads(row["keys"]) if row else {policy: _new_key() for policy in policies}
    if properties.get("authorizationPolicies"):
        keys = _given_keys(properties["authorizationPolicies"], keys)
    elif existing and "authorizationPolicies" in existing["properties"]:
        properties["authorizationPolicies"] = existing["properties"]["authorizationPolicies"]
    _save(connection, address, group_id(subscription, group), kind, resource, keys)
    return resource, existing is None


def delete_resource(connection: sqlite3.Connection, address: str) -> bool:
    """Remove it; False when it was not there."""
    deleted = connection.execute("DELETE FROM arm_resources WHERE id = ?", (address.lower(),))
    return deleted.rowcount > 0


def check_name(connection: sqlite3.Connection, kind: str, name: str) -> None:
    """Raise ArmError unless the name is allowed and free; it is the same for all of Azure."""
    if not _NAMES[kind].fullmatch(name):
        raise ArmError(400, "InvalidName", f"The name '{name}' is not allowed.")
    for resource in list_resources(connection, kind):
        if resource["name"].lower() == name.lower():
            raise ArmError(409, "NameAlreadyExists", f"The name '{name}' is already in use.")


def keys_of(connection: sqlite3.Connection, address: str, kind: str, place: Place) -> dict[str, Document]:
    """Policy -> its keys and rights, of a hub or a service."""
    resource = get_resource(connection, address)
    if resource["name"].lower() == EMULATOR:
        own = place.hub_keys if kind == HUB_TYPE else place.dps_keys
        return {policy: _key_document(policy, key, RIGHTS[policy]) for policy, key in own.items()}
    row = connection.execute("SELECT keys FROM arm_resources WHERE id = ?", (address.lower(),)).fetchone()
    given = resource["properties"].get("authorizationPolicies") or []
    rights = RIGHTS | {policy["keyName"]: policy["rights"] for policy in given}
    return {
        policy: _key_document(policy, key, rights[policy]) for policy, key in json.loads(row["keys"]).items()
    }


def shown(resource: Document, place: Place, state: str) -> Document:
    """A resource with what the service itself fills in."""
    own = resource["name"].lower() == EMULATOR
    properties: Document = dict(resource["properties"])
    if resource["type"] == HUB_TYPE:
        host = place.hub_host if own else f"{resource['name']}.azure-devices.net"
        properties |= {"hostName": host, "state": "Active" if state == "Succeeded" else state}
        properties["locations"] = [{"location": resource["location"], "role": "primary"}]
        properties.setdefault("features", "None")
        # Keys are listed by a call of their own.
        properties.pop("authorizationPolicies", None)
    elif resource["type"] == DPS_TYPE:
        host = f"{resource['name']}.azure-devices-provisioning.net"
        if own and place.dps_host:
            host = place.dps_host
        scope = str(uuid.uuid5(uuid.NAMESPACE_URL, resource["id"]).int)[:8]
        properties |= {
            "state": "Active" if state == "Succeeded" else state,
            "serviceOperationsHostName": host,
            # By this devices register over MQTT, on the hub's port.
            "deviceProvisioningHostName": place.name if own else host,
            "idScope": place.id_scope if own else f"0ne{scope}",
            "allocationPolicy": properties.get("allocationPolicy", "Hashed"),
            "iotHubs": [_linked(hub) for hub in properties.get("iotHubs") or [] if isinstance(hub, dict)],
        }
        if own and not properties["iotHubs"]:
            connection_string = f"HostName={place.hub_host};SharedAccessKeyName=iothubowner"
            properties["iotHubs"] = [_linked({"connectionString": connection_string, "location": LOCATION})]
        properties.pop("authorizationPolicies", None)
    return resource | {"properties": properties | {"provisioningState": state}}


def _key_document(policy: str, key: str, rights: str) -> Document:
    """The emulator has one key for each policy, shown in both places."""
    return {"keyName": policy, "primaryKey": key, "secondaryKey": key, "rights": rights}


def _given_keys(policies: object, keys: Mapping[str, str]) -> dict[str, str]:
    """The keys after a PUT that names policies: those and no others; one without a key gets a new one."""
    found: dict[str, str] = {}
    for policy in policies if isinstance(policies, list) else [None]:
        document = _object(policy)
        name, rights = document.get("keyName"), document.get("rights")
        if not isinstance(name, str) or not name or not isinstance(rights, str):
            raise ArmError(400, "InvalidRequestContent", "A policy needs keyName and rights.")
        found[name] = document.get("primaryKey") or keys.get(name) or _new_key()
    return found


def not_found(address: str) -> ArmError:
    return ArmError(404, "ResourceNotFound", f"The resource '{address}' was not found.")


def _linked(hub: Mapping[str, Any]) -> Document:
    """A linked hub without its key."""
    text = str(hub.get("connectionString", ""))
    text = re.sub(r"SharedAccessKey=[^;]*", "SharedAccessKey=****", text)
    host = re.search(r"HostName=([^;]*)", text)
    return dict(hub) | {"connectionString": text, "name": host[1] if host else ""}


def _save(
    connection: sqlite3.Connection, address: str, group: str, kind: str, document: Document, keys: Document
) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO arm_resources VALUES (?, ?, ?, ?, ?)",
        (address.lower(), group.lower(), kind, json.dumps(document), json.dumps(keys)),
    )


def _object(body: object) -> Document:
    if not isinstance(body, dict):
        raise ArmError(400, "InvalidRequestContent", "The body is not a JSON object.")
    return body


def _location(document: Document, existing: Document | None) -> str:
    location = document.get("location")
    if not isinstance(location, str) or not location:
        raise ArmError(400, "LocationRequired", "The location property is required.")
    location = location.replace(" ", "").lower()
    if existing and existing["location"] != location:
        raise ArmError(
            409,
            "InvalidResourceLocation",
            f"It is in '{existing['location']}' and cannot move.",
        )
    return location


def _tags(document: Document) -> Document:
    tags = document.get("tags") or {}
    if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
        raise ArmError(400, "InvalidTags", "tags is not an object of strings.")
    return tags


def _sku(document: Document, kind: str, existing: Document | None) -> Document:
    sku = document.get("sku")
    name = sku.get("name") if isinstance(sku, dict) else None
    tiers = _TIERS if kind == HUB_TYPE else {"S1": "Standard"}
    if name not in tiers:
        raise ArmError(400, "InvalidSku", f"sku.name is not one of {', '.join(tiers)}.")
    capacity, most = sku.get("capacity", 1) if isinstance(sku, dict) else 1, _MOST_UNITS.get(name, 200)
    if not isinstance(capacity, int) or isinstance(capacity, bool) or not 1 <= capacity <= most:
        raise ArmError(400, "InvalidSkuCapacity", f"sku.capacity of {name} is not within 1 and {most}.")
    if existing and (existing["sku"]["name"] == "F1") != (name == "F1"):
        raise ArmError(400, "InvalidSkuChange", "A free hub cannot become a paid one, nor a paid one free.")
    return {"name": name, "tier": tiers[name], "capacity": capacity}


def _etag() -> str:
    return b64encode(secrets.token_bytes(9)).decode()


def _new_key() -> str:
    return b64encode(secrets.token_bytes(32)).decode()
