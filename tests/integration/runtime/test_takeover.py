# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon that has the store is the only one that its Service leads to."""

from __future__ import annotations

from typing import Any

from edgeha_runtime.daemon.manifests import NO_SLOT, SLOT_LABEL, labels

from tests.integration.runtime.parts import SENSOR, Daemon, until


async def test_a_daemon_on_a_machine_without_power_is_led_to_no_more(daemon: Daemon) -> None:
    def pod(slot: str, **metadata: Any) -> dict[str, Any]:
        given = {**labels("gw", "daemon"), SLOT_LABEL: slot}
        return {
            "metadata": {"labels": given, **metadata},
            "spec": {"containers": []},
            "status": {"phase": "Running"},
        }

    going = {"deletionTimestamp": "2026-03-01T10:00:00Z", "deletionGracePeriodSeconds": 10}
    daemon.api.put("pods", "gw-daemon-a-lost", pod("a", **going))
    daemon.api.put("pods", "gw-daemon-a-own", pod("a"))
    daemon.api.put("pods", "gw-daemon-b-lost", pod("b", **going))
    daemon.api.module_set(SENSOR)
    await daemon.start()

    def slots() -> list[str]:
        names = ("gw-daemon-a-lost", "gw-daemon-a-own", "gw-daemon-b-lost")
        return [daemon.api.objects["pods", name]["metadata"]["labels"][SLOT_LABEL] for name in names]

    # The other slot is the other daemon's affair.
    await until("the lost one is given up", lambda: slots() == [NO_SLOT, "a", "b"])
