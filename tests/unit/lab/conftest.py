# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import sys
from pathlib import Path

import pytest

LAB = Path(__file__).resolve().parents[3] / "lab"
sys.path.insert(0, str(LAB))


@pytest.fixture(autouse=True)
def lab_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test touches the lab of the person who runs it."""
    monkeypatch.setenv("EDGEHA_LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
