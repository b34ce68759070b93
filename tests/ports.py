# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports for servers that are told where to listen."""

from __future__ import annotations

import itertools
import os
import secrets
import socket

# Below the ports that Linux gives to clients (net.ipv4.ip_local_port_range, 32768 and up): with a hundred
# connections a second one of those would take a port between the look at it and its server's start.
FIRST = 10_000
# For each process of pytest-xdist, so that two of them are never given the same.
SPAN = 2_000

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Not always from the first: another run may be beside this one.
_numbers = itertools.count(secrets.randbelow(SPAN))


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port of `host` that nobody listens on, and that this process did not name lately."""
    for number in itertools.islice(_numbers, SPAN):
        port = FIRST + _worker * SPAN + number % SPAN
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        return port
    raise OSError(f"each of the {SPAN} ports of this process is taken")
