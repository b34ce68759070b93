# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What edgeHub may do for others: read who is in its gateway's scope, and speak for them. Rules only.

In the scope of an edge device are its own modules and the devices whose parent it is. edgeHub connects for
them with a token of its own. Gateways below gateways are not followed: the chain has one link here.
"""

import sqlite3
from urllib.parse import unquote

from iothub_emulator import registry
from iothub_emulator.auth import SasToken
from iothub_emulator.errors import unauthorized
from iothub_emulator.identity import IDENTITY_ROWS, Identity, find

ACTOR = "$edgeHub"


def actor_of(token: SasToken) -> str | None:
    """The edge device whose edgeHub a token is for; None for any other token."""
    segments = unquote(token.resource).split("/")[1:]
    if len(segments) != 4 or segments[0] != "devices" or segments[2] != "modules":
        return None
    return segments[1] if unquote(segments[3]) == ACTOR else None


def require_actor(database: sqlite3.Connection, edge_id: str, token: SasToken) -> Identity:
    """The edge device, when its edgeHub signed the token. Raises UnauthorizedError."""
    edge = registry.require_enabled_device(database, edge_id)
    actor = find(database, edge_id, ACTOR)
    if actor is None or not edge.edge:
        raise unauthorized(f"{edge_id!r} is no edge device")
    if not token.signed_by([actor.authentication.primary_key, actor.authentication.secondary_key]):
        raise unauthorized(f"wrong key for edgeHub of {edge_id!r}")
    return edge


def in_scope(edge: Identity, device: Identity) -> bool:
    """Whether a gateway may speak for a device and its modules."""
    return device.device_id == edge.device_id or (
        bool(edge.device_scope) and edge.device_scope in (device.parent_scope, device.device_scope)
    )


def children(database: sqlite3.Connection, edge: Identity) -> tuple[list[Identity], list[Identity]]:
    """Devices and modules in a gateway's scope, by id."""
    rows = database.execute(f"{IDENTITY_ROWS} WHERE module_id = '' ORDER BY device_id")
    devices = [device for device in map(Identity.from_row, rows) if in_scope(edge, device)]
    modules = [module for device in devices for module in registry.list_modules(database, device.device_id)]
    return devices, modules
