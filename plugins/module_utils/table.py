# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plain text tables for the screen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence


def render(headers: Sequence[str], rows: Sequence[Sequence[object]], max_width: int = 60) -> list[str]:
    """Return the lines of a table: one row of headers, one of dashes, then the rows.

    A cell longer than max_width characters goes on in further lines of its column: nothing is cut off. A
    single word stays whole, so that paths and names can be copied.
    """
    wrapper = textwrap.TextWrapper(max_width, break_long_words=False, break_on_hyphens=False)
    cells = [[wrapper.wrap(str(cell)) or [""] for cell in row] for row in rows]
    widths = [len(header) for header in headers]
    for row in cells:
        for column, lines in enumerate(row):
            widths[column] = max(widths[column], *(len(line) for line in lines))
    out = [_join(headers, widths), _join(["-" * width for width in widths], widths)]
    for row in cells:
        for number in range(max(len(lines) for lines in row)):
            out.append(_join([lines[number] if number < len(lines) else "" for lines in row], widths))
    return out


def _join(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)).rstrip()
