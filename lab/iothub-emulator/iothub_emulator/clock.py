# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub's own clock, and the ways the hub writes time down."""

import time
from datetime import UTC, datetime
from email.utils import formatdate

# What the hub answers for "never": the smallest .NET DateTime.
NEVER = 0.0
_NEVER_TEXT = "0001-01-01T00:00:00"


class HubClock:
    """Seconds since the epoch as the hub sees them; `offset` seconds ahead of (or behind) this machine.

    Every decision on time (token expiry, stamps, the `Date` header) goes through one instance, so
    that a client with a wrong clock can be tested by moving the hub's clock instead of the client's.
    """

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def now(self) -> float:
        return time.time() + self.offset


def identity_time(seconds: float) -> str:
    """As identities carry time: UTC, seven decimals, no zone letter; `NEVER` is year 1."""
    if seconds <= NEVER:
        return _NEVER_TEXT
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "0"


def twin_time(seconds: float) -> str:
    """As twins carry time: like identities, but with the zone letter."""
    return identity_time(seconds) + "Z"


def message_time(milliseconds: int) -> str:
    """ISO 8601 in UTC with milliseconds."""
    return (
        datetime.fromtimestamp(milliseconds / 1000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def http_date(seconds: float) -> str:
    """The value of an HTTP `Date` header (RFC 9110, 5.6.7)."""
    return formatdate(seconds, usegmt=True)


def error_time(seconds: float) -> str:
    """As the hub stamps its error texts."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%m/%d/%Y %H:%M:%S")
