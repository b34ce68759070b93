# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-ins of edgeAgent and edgeHub make of `UpstreamProtocol`; the stock ones know AMQP too."""

from __future__ import annotations


class ProtocolError(Exception):
    """`UpstreamProtocol` names none that is spoken here."""


def over_websockets(wanted: str) -> bool:
    """Whether `UpstreamProtocol` means MQTT over WebSockets. Raises ProtocolError."""
    name = wanted.strip().lower()
    if name not in ("", "mqtt", "mqttws"):
        raise ProtocolError(
            f"UpstreamProtocol is {wanted!r}: this stand-in speaks no AMQP, set Mqtt or MqttWs"
        )
    return name == "mqttws"
