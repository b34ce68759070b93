# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of the hub that bring their own tables, routes and background work.

To add one: write a module with a `Feature` in it and name that in features.py.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from iothub_emulator.auth import Authenticator
from iothub_emulator.clock import HubClock
from iothub_emulator.connections import Connections
from iothub_emulator.mqtt_server import MqttServer
from iothub_emulator.options import ServeOptions
from iothub_emulator.rest import RestApi
from iothub_emulator.state import State
from iothub_emulator.store import SchemaPart, Store


@dataclass(frozen=True)
class Context:
    """What a feature works with."""

    state: State
    options: ServeOptions
    authenticator: Authenticator
    store: Store
    connections: Connections
    clock: HubClock
    rest: RestApi
    mqtt: MqttServer


@dataclass(frozen=True)
class Feature:
    """`run` is entered before the servers listen, to add routes and start work, and left at the end."""

    run: Callable[[Context], AbstractAsyncContextManager[None]]
    schema: tuple[SchemaPart, ...] = ()
