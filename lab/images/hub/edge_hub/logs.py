# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One JSON line on stdout for each event."""

from __future__ import annotations

import json
import time


def say(event: str, **fields: object) -> None:
    """Print an event. Fields are named by the caller: no key or token gets in by accident."""
    print(json.dumps({"time": round(time.time(), 3), "event": event, **fields}, default=str), flush=True)
