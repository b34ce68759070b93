# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the runtime package importable; it is no installed one."""

from __future__ import annotations

import sys
from pathlib import Path

RUNTIME = Path(__file__).parents[3] / "runtime"
sys.path.insert(0, str(RUNTIME))
