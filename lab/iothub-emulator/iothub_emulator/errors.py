# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the hub's contract."""

import secrets
from collections.abc import Mapping

from iothub_emulator.clock import error_time


class HubError(Exception):
    """An answer that is an error.

    `status` is the HTTP status, `code` the name in the `iothub-errorcode` header (the most reliable
    sign on a real hub), `text` what a person reads, `headers` what the answer carries besides.
    """

    def __init__(self, status: int, code: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status} {code}: {text}")
        self.headers = headers or {}
        self.status = status
        self.code = code
        self.text = text

    def envelope(self, now: float) -> dict[str, str]:
        """The body used for identities and twins: {"Message", "ExceptionMessage"}."""
        tracking = f"{secrets.token_hex(16)}-G:0-TimeStamp:{error_time(now)}"
        return {
            "Message": f"ErrorCode:{self.code};{self.text}",
            "ExceptionMessage": f"Tracking ID:{tracking}",
        }


def argument_invalid(text: str) -> HubError:
    return HubError(400, "ArgumentInvalid", text)


def unauthorized(reason: str) -> "UnauthorizedError":
    return UnauthorizedError(reason)


class UnauthorizedError(HubError):
    """401 says nothing of the cause to the client, as on the hub; `reason` goes to the hub's own log."""

    def __init__(self, reason: str) -> None:
        super().__init__(401, "IotHubUnauthorizedAccess", "Unauthorized")
        self.reason = reason


def device_not_found(device_id: str) -> HubError:
    return HubError(404, "DeviceNotFound", f"The device {device_id} is not registered.")


def module_not_found(device_id: str, module_id: str) -> HubError:
    return HubError(
        404, "ModuleNotFound", f"The module {module_id} on the device {device_id} is not registered."
    )


def precondition_failed(text: str) -> HubError:
    return HubError(412, "PreconditionFailed", text)
