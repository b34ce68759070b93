# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A deployment manifest of IoT Edge that tests begin with."""

from __future__ import annotations

from typing import Any

# What every module has; its settings are the test's own.
MODULE = {"type": "docker", "status": "running", "restartPolicy": "always"}


def manifest(
    modules: dict[str, Any] | None = None,
    *,
    routes: dict[str, Any] | None = None,
    credentials: dict[str, Any] | None = None,
    **twins: Any,
) -> dict[str, Any]:
    """Return one that sets all of a gateway. twins: desired properties by module."""
    settings = {} if credentials is None else {"registryCredentials": credentials}
    return {
        "modulesContent": {
            "$edgeAgent": {
                "properties.desired": {
                    "schemaVersion": "1.1",
                    "runtime": {"type": "docker", "settings": settings},
                    "systemModules": {
                        "edgeAgent": {"type": "docker", "settings": {"image": "example/agent:1.6"}},
                        "edgeHub": {**MODULE, "settings": {"image": "example/hub:1.6"}},
                    },
                    "modules": modules or {},
                }
            },
            "$edgeHub": {
                "properties.desired": {
                    "schemaVersion": "1.1",
                    "routes": routes or {},
                    "storeAndForwardConfiguration": {"timeToLiveSecs": 7200},
                }
            },
            **{name: {"properties.desired": desired} for name, desired in twins.items()},
        }
    }
