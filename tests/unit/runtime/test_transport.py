# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon's own certificate is the same wherever its store is opened, and no clock ends it."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime

import pytest
from cryptography import x509
from edgeha_runtime.daemon import transport


def test_it_follows_from_the_master_key_alone() -> None:
    assert transport.derive(b"k" * 32) == transport.derive(b"k" * 32)
    assert transport.derive(b"k" * 32)[1] != transport.derive(b"l" * 32)[1]


def test_no_clock_ends_it() -> None:
    certificate = x509.load_pem_x509_certificate(transport.derive(b"k" * 32)[1].encode())
    assert certificate.not_valid_before_utc == datetime(2000, 1, 1, tzinfo=UTC)
    assert certificate.not_valid_after_utc == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    certificate.verify_directly_issued_by(certificate)


async def shake_hands(pinned: str, **limits: ssl.TLSVersion) -> str:
    """Connect to a daemon as a sidecar does that pins a certificate; returns the version of TLS."""
    own = transport.server_context(*transport.derive(b"k" * 32))

    async def served(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(served, "127.0.0.1", 0, ssl=own) as server:
        port = server.sockets[0].getsockname()[1]
        context = ssl.create_default_context(cadata=pinned)
        for name, value in limits.items():
            setattr(context, name, value)
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=transport.SERVER_NAME
        )
        version: str = writer.get_extra_info("ssl_object").version()
        writer.close()
        return version


async def test_who_pins_it_gets_tls_1_3_and_nothing_older() -> None:
    pinned = transport.derive(b"k" * 32)[1]
    assert await shake_hands(pinned) == "TLSv1.3"
    # Refused with an alert, or by a closed connection, whichever comes first.
    with pytest.raises(OSError, match=r"(?i)alert|reset|^$"):
        await shake_hands(pinned, maximum_version=ssl.TLSVersion.TLSv1_2)


async def test_a_daemon_with_another_store_is_not_believed() -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await shake_hands(transport.derive(b"l" * 32)[1])
