# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that tests inject into calls: which call they meet and what they do to it. No input or output."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from iothub_emulator.errors import argument_invalid
from iothub_emulator.operations import OperationClass

_CODE = re.compile(r"[A-Za-z0-9]+")
_CODES = {
    401: "IotHubUnauthorizedAccess",
    404: "DeviceNotFound",
    412: "PreconditionFailed",
    429: "ThrottlingException",
    500: "ServerError",
    503: "ServiceUnavailable",
}
_BEFORE, _AFTER = "before", "after"


@dataclass
class Fault:
    """Meets calls of `operation`, `method` and `path` (a pattern with * and ?) where given; for
    `count` calls (None is all) of which each is met with `probability`.

    It waits `delay` seconds, then answers `status` with `code` and `headers`, or cuts the connection.
    `when` says whether that happens before the call is carried out or after it, with its answer lost.
    """

    operation: str | None = None
    method: str | None = None
    path: str | None = None
    status: int | None = None
    code: str | None = None
    headers: Mapping[str, str] | None = None
    delay: float = 0.0
    cut: bool = False
    when: str = _BEFORE
    count: int | None = None
    probability: float = 1.0

    @property
    def after(self) -> bool:
        return self.when == _AFTER

    def meets(self, operation: OperationClass, method: str, path: str, chance: Callable[[], float]) -> bool:
        """Whether the fault meets this call; if so it is counted. `chance` returns 0..1."""
        if (
            self.count == 0
            or self.operation not in (None, operation)
            or self.method not in (None, method)
            or (self.path is not None and not fnmatchcase(path, self.path))
            or (self.probability < 1 and chance() >= self.probability)
        ):
            return False
        if self.count is not None:
            self.count -= 1
        return True

    def document(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def parse_fault(body: object) -> Fault:
    """Read a fault. Raises HubError 400."""
    if not isinstance(body, dict):
        raise argument_invalid("the fault is not a JSON object")
    names = {field.name for field in fields(Fault)}
    unknown = body.keys() - names
    if unknown:
        raise argument_invalid(
            f"a fault has no {', '.join(sorted(unknown))}; it has {', '.join(sorted(names))}"
        )
    fault = Fault(**{name: value for name, value in body.items() if value is not None})
    for name, fits in (
        ("operation", fault.operation is None or fault.operation in list(OperationClass)),
        ("method", fault.method is None or isinstance(fault.method, str)),
        ("path", fault.path is None or isinstance(fault.path, str)),
        ("status", fault.status is None or (_is_number(fault.status, int) and 400 <= fault.status <= 599)),
        ("code", fault.code is None or (isinstance(fault.code, str) and bool(_CODE.fullmatch(fault.code)))),
        ("headers", fault.headers is None or _are_headers(fault.headers)),
        ("delay", _is_number(fault.delay, int, float) and 0 <= fault.delay <= 600),
        ("cut", isinstance(fault.cut, bool)),
        ("when", fault.when in (_BEFORE, _AFTER)),
        ("count", fault.count is None or (_is_number(fault.count, int) and fault.count >= 0)),
        ("probability", _is_number(fault.probability, int, float) and 0 <= fault.probability <= 1),
    ):
        if not fits:
            raise argument_invalid(f"the fault's {name} is not valid")
    if fault.status is None and not fault.cut and not fault.delay:
        raise argument_invalid("the fault does nothing: give it a status, a delay or cut")
    if fault.status is not None and fault.code is None:
        fault.code = _CODES.get(fault.status, "InjectedFault")
    return fault


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _are_headers(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(text, str) and text.isascii() and text.isprintable()
        for pair in value.items()
        for text in pair
    )
