# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket

from ansible_collections.edgeha.iotedge.plugins.modules import machine_check


class Module:
    """A machine that has no programs."""

    def __init__(self) -> None:
        self.params = {"data_dir": "/nowhere", "timeout": 2}

    def get_bin_path(self, *_words: object, **_options: object) -> None:
        return None

    def run_command(self, *_words: object, **_options: object) -> tuple[int, str, str]:
        return 1, "", ""


def test_one_of_several_places_must_take_a_connection() -> None:
    machine = machine_check.Machine(Module())
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        there, away = (f"127.0.0.1:{each.getsockname()[1]}" for each in (listening, closed))
        assert machine._connect([there]) == ""
        assert machine._connect([away, there]) == ""
        assert "refused" in machine._connect([away]).lower()
        assert machine._connect(["127.0.0.1:many"])


def test_a_setting_of_the_kernel_is_told_as_it_stands_there() -> None:
    assert machine_check._sysctl("kernel.ostype") == "Linux"
    assert machine_check._sysctl("kernel.no_such_thing") == ""
