# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An IoT Hub that runs on one machine: registry and twins over HTTPS, devices over MQTT.

A part of the lab: it behaves as the hub's documented contract says, so that real clients can be
run against it. It is no service to put data into.
"""
