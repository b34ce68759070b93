# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the Device Provisioning Service: numbers, and an envelope other than the hub's."""

import secrets

from iothub_emulator.clock import twin_time
from iothub_emulator.errors import HubError, UnauthorizedError

# For errors that come from rules shared with the hub.
_NUMBERS = {
    400: 400004,
    401: 401002,
    404: 404001,
    405: 405001,
    409: 409001,
    412: 412001,
    500: 500001,
    501: 501001,
}


class DpsError(HubError):
    """`number` is the six-digit code; its first three digits are the HTTP status."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(number // 1000, str(number), text)
        self.number = number

    def envelope(self, now: float) -> dict[str, str | int]:  # type: ignore[override]  # numbers too
        return {
            "errorCode": self.number,
            "trackingId": secrets.token_hex(16),
            "message": self.text,
            "timestampUtc": twin_time(now),
        }


def as_dps_error(error: HubError) -> DpsError:
    if isinstance(error, DpsError):
        return error
    text = "Unauthorized" if isinstance(error, UnauthorizedError) else error.text
    return DpsError(_NUMBERS.get(error.status, error.status * 1000), text)


def enrollment_not_found() -> DpsError:
    return DpsError(404201, "Enrollment not found.")


def registration_not_found() -> DpsError:
    return DpsError(404202, "Device registration not found.")


def enrollment_exists() -> DpsError:
    return DpsError(409201, "Enrollment already exists.")


def bad_request(text: str) -> DpsError:
    return DpsError(400004, text)
