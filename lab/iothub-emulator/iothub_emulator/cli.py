# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line: init, serve, log."""

import argparse
import contextlib
import json
import os
import sqlite3
import sys
import time
from pathlib import Path

from iothub_emulator import logs, messages
from iothub_emulator.certificates import ensure_certificates
from iothub_emulator.operations import TIERS
from iothub_emulator.options import ServeOptions
from iothub_emulator.state import State, StateError
from iothub_emulator.store import open_for_reading

_FOLLOW_SECONDS = 0.2


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 1 cannot, 2 wrong usage)."""
    options = _parser().parse_args(arguments)
    state = State(options.state.absolute())
    try:
        match options.command:
            case "init":
                _init(state, options.name)
            case "serve":
                # Here, because the servers' libraries take a while to load and `log` needs none.
                from iothub_emulator.server import serve

                logs.configure()
                serve(state, ServeOptions.from_arguments(options))
            case "log":
                _log(state, options)
            case "ca":
                # Here for the same reason.
                from iothub_emulator.trust import run_command

                run_command(state, options)
    except StateError as error:
        print(f"iothub_emulator: {error}", file=sys.stderr)
        return 1
    except (OSError, sqlite3.Error) as error:
        print(f"iothub_emulator: {state.directory}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="iothub_emulator", description="An IoT Hub on one machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    init = commands.add_parser("init", help="make keys and certificates; again: add names, keep the rest")
    init.add_argument("--name", action="append", default=[], help="host name or IP address of the hub")
    serve = commands.add_parser("serve", help="serve HTTPS and MQTT in the foreground")
    # Each is a field of ServeOptions too.
    serve.add_argument("--listen", required=True, metavar="IP", help="address to listen on")
    serve.add_argument("--https-port", type=int, default=443)
    serve.add_argument("--mqtt-port", type=int, default=8883)
    serve.add_argument(
        "--clock-offset", type=float, default=0.0, metavar="SECONDS", help="how far the hub's clock is ahead"
    )
    serve.add_argument("--dps-port", type=int, metavar="PORT", help="serve a provisioning service here too")
    serve.add_argument(
        "--azure-port", type=int, metavar="PORT", help="serve Entra and ARM stand-ins here too"
    )
    serve.add_argument(
        "--evaluation-interval",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="how often configurations are held against changed twins",
    )
    serve.add_argument("--tier", choices=TIERS, help="throttle as a hub of this tier (default: not at all)")
    serve.add_argument("--units", type=_units, default=1, metavar="N", help="units of the tier")
    serve.add_argument(
        "--throttle-burst",
        type=_seconds,
        default=150.0,
        metavar="SECONDS",
        help="how many seconds' worth of calls pass at once",
    )
    serve.add_argument(
        "--throttle-backlog",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long throttled calls wait at most",
    )
    serve.add_argument(
        "--query-lag",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="how long queries do not know of new and still know of deleted identities",
    )
    log = commands.add_parser("log", help="print the messages in order of arrival")
    log.add_argument("--json", action="store_true", help="one JSON object per line")
    log.add_argument("--follow", action="store_true", help="go on as messages arrive")
    log.add_argument("--device", help="of this device and its modules only")
    log.add_argument("--after", type=int, default=0, metavar="SEQ", help="from the message after this number")
    ca = commands.add_parser("ca", help="authorities whose certificates prove devices")
    ca.add_argument("action", choices=("add", "list", "remove"))
    ca.add_argument("file", nargs="?", type=Path, help="add: PEM file of the authority's certificate")
    ca.add_argument("--name", help="add, remove: what the authority is called")
    for command in (init, serve, log, ca):
        command.add_argument(
            "--state", type=Path, required=True, metavar="DIR", help="the hub's state directory"
        )
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError("it is not between 0 and 86400")
    return value


def _units(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 200:
        raise argparse.ArgumentTypeError("it is not between 1 and 200")
    return value


def _init(state: State, names: list[str]) -> None:
    os.umask(0o077)
    state.create()
    all_names = state.add_names(names)
    state.ensure_policies()
    state.id_scope()
    written = ensure_certificates(state, all_names)
    print(f"{state.directory}: hub {', '.join(all_names)}; wrote {', '.join(written) or 'nothing new'}")


def _log(state: State, options: argparse.Namespace) -> None:
    if not state.hub_file.exists():
        raise StateError(
            f"{state.directory} is not set up; run init --state {state.directory} --name NAME first"
        )
    after: int = options.after
    # A reader that goes away (head, a closed terminal) is the ordinary end of a followed log.
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        while not state.database.exists():
            # Nothing was ever served from here.
            if not options.follow:
                return
            time.sleep(_FOLLOW_SECONDS)
        with contextlib.closing(open_for_reading(state.database)) as connection:
            while True:
                for message in messages.read(connection, after=after, device_id=options.device):
                    after = message["seq"]
                    line = (
                        json.dumps(message, ensure_ascii=False) if options.json else messages.as_line(message)
                    )
                    print(line)
                sys.stdout.flush()
                if not options.follow:
                    return
                time.sleep(_FOLLOW_SECONDS)
