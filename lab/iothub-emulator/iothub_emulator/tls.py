# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every listener needs: the server's certificate and a clear word when it cannot listen."""

import ssl
from collections.abc import Awaitable
from typing import TypeVar

from iothub_emulator.state import State, StateError

T = TypeVar("T")


def server_context(state: State) -> ssl.SSLContext:
    """TLS 1.2 and later with the hub's certificate. Raises StateError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(state.server_certificate, state.server_key)
    except (OSError, ssl.SSLError) as error:
        raise unusable_certificate(state, error) from error
    return context


def unusable_certificate(state: State, error: Exception) -> StateError:
    return StateError(
        f"{state.server_certificate} and {state.server_key} cannot be used ({error}); "
        f"run init --state {state.directory} again"
    )


async def listen(start: Awaitable[T], address: str, port: int) -> T:
    """Await the start of a listener. Raises StateError."""
    try:
        return await start
    except OSError as error:
        raise StateError(
            f"cannot listen on {address}:{port}: {error.strerror or error}; is the address this machine's, "
            "is the port free, may this user open it?"
        ) from error
