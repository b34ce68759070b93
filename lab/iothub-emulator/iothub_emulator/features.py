# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All parts of the hub, in the order in which they start."""

from iothub_emulator import (
    azure_standins,
    bulk,
    c2d,
    configurations,
    dps,
    edge_scope_rest,
    jobs,
    key_rotation,
    methods,
    mqtt_websocket,
    query,
    traffic,
)
from iothub_emulator.feature import Feature

FEATURES: tuple[Feature, ...] = (
    traffic.FEATURE,
    bulk.FEATURE,
    key_rotation.FEATURE,
    query.FEATURE,
    configurations.FEATURE,
    dps.FEATURE,
    edge_scope_rest.FEATURE,
    mqtt_websocket.FEATURE,
    methods.FEATURE,
    c2d.FEATURE,
    jobs.FEATURE,
    azure_standins.FEATURE,
)
