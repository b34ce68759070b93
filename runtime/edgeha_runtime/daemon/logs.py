# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One JSON object a line on stderr.

Fields are named by the caller, never taken from objects as a whole, so that no key or token gets in by
accident.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Shape `values` for the `extra` argument of a logging call."""
    return {"fields": values}


class JsonFormatter(logging.Formatter):
    """Format a record as one line: time (UTC, ms), level, message, then the fields of the call."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send every log record to `stream` (default stderr) as JSON lines, from `level` upwards."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Request lines of the HTTP client carry URLs only, but one a request is noise.
    for noisy in ("httpx2", "httpcore2", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
