# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What preflight finds: a problem names the host, the subject, the fact and the fix."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import table


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong.

    host:    the inventory's name of the cluster or machine.
    subject: what it is about: ``gateway NAME``, ``iothub NAME``, ``cluster``, ``variable NAME``.
    fact:    what is the case.
    fix:     what the operator does about it.
    """

    host: str
    subject: str
    fact: str
    fix: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def problem(host: str, subject: str, fact: str, fix: str) -> dict[str, str]:
    """Return a problem as filters and modules return it."""
    return Problem(host, subject, fact, fix).as_dict()


def from_dict(data: Mapping[str, Any]) -> Problem:
    return Problem(*(str(data.get(name, "")) for name in ("host", "subject", "fact", "fix")))


def ping(host: str, sources: Any) -> str:
    """Return the command that tries a connection by hand.

    sources: of the run's inventory, as Ansible names them.
    """
    given = [sources] if isinstance(sources, str) else list(sources or [])
    options = " ".join(f"-i {shlex.quote(str(source))}" for source in given if source) or "-i INVENTORY"
    return f"ansible {options} {shlex.quote(host)} -m ping"


def render(problems: Iterable[Problem]) -> list[str]:
    """Return the lines of a table of problems, each problem once, sorted by host and subject."""
    rows = [(p.host, p.subject, p.fact, p.fix) for p in sorted(set(problems))]
    return table.render(("HOST", "SUBJECT", "FACT", "FIX"), rows)
