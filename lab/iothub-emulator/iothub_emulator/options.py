# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a server is run. Free of the servers' libraries, because the command line reads it first."""

from argparse import Namespace
from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """The options of `serve`, one field for each argument of that name."""

    listen: str
    https_port: int = 443
    mqtt_port: int = 8883
    clock_offset: float = 0.0
    dps_port: int | None = None
    azure_port: int | None = None
    evaluation_interval: float = 1.0
    tier: str | None = None
    units: int = 1
    throttle_burst: float = 150.0
    throttle_backlog: float = 10.0
    query_lag: float = 0.0

    @classmethod
    def from_arguments(cls, arguments: Namespace) -> "ServeOptions":
        return cls(**{field.name: getattr(arguments, field.name) for field in fields(cls)})
