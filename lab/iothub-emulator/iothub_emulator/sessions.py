# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What MQTT keeps between connections of one identity: its subscriptions, and nothing else.

The device client of Microsoft connects with clean session off and does not subscribe again when the
hub says that it knows the session.
"""

import json
import sqlite3


def open_session(
    connection: sqlite3.Connection, device_id: str, module_id: str, *, clean: bool
) -> tuple[bool, dict[str, int]]:
    """Start or resume; returns (session present, topic filter -> granted QoS)."""
    key = (device_id, module_id)
    if clean:
        connection.execute("DELETE FROM mqtt_sessions WHERE device_id = ? AND module_id = ?", key)
        return False, {}
    row = connection.execute(
        "SELECT subscriptions FROM mqtt_sessions WHERE device_id = ? AND module_id = ?", key
    ).fetchone()
    if row is None:
        connection.execute("INSERT INTO mqtt_sessions VALUES (?, ?, '{}')", key)
        return False, {}
    return True, json.loads(row["subscriptions"])


def keep_subscriptions(
    connection: sqlite3.Connection, device_id: str, module_id: str, subscriptions: dict[str, int]
) -> None:
    """Store the subscriptions of a session that `open_session` opened without `clean`."""
    connection.execute(
        "UPDATE mqtt_sessions SET subscriptions = ? WHERE device_id = ? AND module_id = ?",
        (json.dumps(subscriptions), device_id, module_id),
    )
