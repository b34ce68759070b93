# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub's throttles: how many operations of a class it takes, delays and refuses. No input or output.

Limits: "IoT Hub quotas and throttling". How much the hub takes at once and how long it lets calls wait
is not documented; it was seen to take 250 registry reads in ten seconds where the limit is 100 a minute,
the slowest after 3 seconds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from iothub_emulator.errors import HubError
from iothub_emulator.operations import OperationClass

Limit = Callable[[int], float]
"""Units of the tier -> operations in a second."""


def _per_minute(count: float) -> Limit:
    return lambda units: count * units / 60


def _per_second(count: float) -> Limit:
    return lambda units: count * units


def _at_least(base: float, each: float) -> Limit:
    return lambda units: max(base, each * units)


_SMALL: Mapping[OperationClass, Limit] = {
    OperationClass.IDENTITY: _per_minute(100),
    OperationClass.TWIN_READ: _at_least(100, 0),
    OperationClass.TWIN_WRITE: _at_least(50, 0),
    OperationClass.QUERY: _per_minute(20),
    OperationClass.CONFIGURATION: _per_minute(20),
    OperationClass.JOB: _per_minute(100),
    OperationClass.CLOUD_TO_DEVICE: _per_minute(100),
}
_LIMITS: Mapping[str, Mapping[OperationClass, Limit]] = {
    "F1": _SMALL,
    "S1": _SMALL,
    "S2": {
        **_SMALL,
        OperationClass.TWIN_READ: _at_least(100, 10),
        OperationClass.TWIN_WRITE: _at_least(50, 5),
    },
    "S3": {
        OperationClass.IDENTITY: _per_minute(5000),
        OperationClass.TWIN_READ: _per_second(500),
        OperationClass.TWIN_WRITE: _per_second(250),
        OperationClass.QUERY: _per_minute(1000),
        OperationClass.CONFIGURATION: _per_minute(20),
        OperationClass.JOB: _per_minute(5000),
        OperationClass.CLOUD_TO_DEVICE: _per_minute(5000),
    },
}


def rates(tier: str, units: int) -> dict[OperationClass, float]:
    """Operations in a second for each class that is metered."""
    return {operation: limit(units) for operation, limit in _LIMITS[tier].items()}


@dataclass
class Meter:
    """One class of operations: `burst` seconds' worth of them pass at once, more wait for their turn
    up to `backlog` seconds, and what would wait longer is refused.
    """

    operation: OperationClass
    rate: float
    burst: float
    backlog: float
    # When, at `rate`, everything that was taken so far will be done.
    _done_at: float = field(default=float("-inf"), repr=False)
    _refusing: bool = field(default=False, repr=False)

    def take(self, now: float) -> float:
        """Count one operation; returns the seconds it has to wait.

        Raises HubError 429: ThrottleBacklogLimitExceeded when the backlog has just become full,
        ThrottlingException while it stays so.
        """
        done_at = max(self._done_at, now - self.burst) + 1 / self.rate
        # A caller who calls a little early by rounding has not called too often.
        delay = max(0.0, done_at - now - 1e-9)
        if delay > self.backlog:
            code = "ThrottlingException" if self._refusing else "ThrottleBacklogLimitExceeded"
            self._refusing = True
            raise HubError(
                429,
                code,
                f"Throttled: too many operations of the type {self.operation}, at most "
                f"{self.rate * 60:g} a minute. Wait 10 seconds and try again.",
            )
        self._refusing = False
        self._done_at = done_at
        return delay
