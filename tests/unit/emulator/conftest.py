# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulator stands alone in the lab; its package is found there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "lab" / "iothub-emulator"))
