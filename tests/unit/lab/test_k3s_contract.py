# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The contract of the k3s work-alike and its tests name each other."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]


def test_every_line_has_a_test_and_every_test_a_line() -> None:
    lines = (CHECKOUT / "lab" / "k3s" / "CONTRACT.md").read_text()
    named = re.findall(r"`(test_\w+\.py::test_\w+)`", lines)
    written = {
        f"{file.name}::{name}"
        for file in (CHECKOUT / "tests" / "k3s_contract").glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert sorted(named) == sorted(written)
