# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The run of a module that takes a list: check all, read all, plan all, then write; each failure named.

A module says how one item is read, planned and written (`Steps`); what all of them promise stands here:
nothing is changed while an item is wrong, one item that fails does not keep the others from being done, and
check mode promises what a run then does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_auth, iothub_module, rest_client

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

Item = TypeVar("Item")
State = TypeVar("State")


class Refused(ValueError):  # noqa: N818 - says what it is
    """An item cannot be had as it is wanted; the message names the fact and the fix."""


# What may keep one item from being done.
_FAILURES = (rest_client.ServiceError, iothub_auth.CredentialError, Refused)


@dataclass(frozen=True)
class Plan:
    """What to do for one item.

    action: ``none``, ``create``, ``update`` or ``delete``.
    body:   what is sent, secrets in it.  etag: version that it was made for, empty for a creation.
    before, after: the item as shown in a diff, without secrets; empty when it does not exist.
    """

    action: str
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)
    etag: str = ""
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return self.action != "none"


@dataclass(frozen=True)
class Steps(Generic[Item, State]):
    """How one item is treated.

    option: name of the option that holds the list, and of the result.
    label:  the item's name in the diff and in errors.
    read:   the item as the service has it.
    plan:   see Plan; raises Refused.
    entry:  what the module returns of an item, beside action.
    write:  carries out a plan that changes something; returns the state as it is then.
    write_many: in place of write, where the service takes many at once: returns for each of the plans that
            change something the state as it is then, or the error that kept it from being done.
    """

    option: str
    label: Callable[[Item], str]
    read: Callable[[Item], State]
    plan: Callable[[Item, State], Plan]
    entry: Callable[[Item, Plan, State], Mapping[str, Any]]
    write: Callable[[Item, Plan, State], State] | None = None
    write_many: Callable[[Sequence[tuple[Item, Plan, State]]], Sequence[State | Exception]] | None = None


def repeated(option: str, keys: Iterable[Hashable], labels: Iterable[str]) -> list[str]:
    """Return an error for every item whose key another item before it has."""
    first: dict[Hashable, int] = {}
    errors = []
    for index, (key, label) in enumerate(zip(keys, labels, strict=True)):
        if key in first:
            errors.append(
                f"{option}[{index}]: {label} is already in {option}[{first[key]}]; list each of them once"
            )
        else:
            first[key] = index
    return errors


def by_item(option: str, errors: Iterable[Iterable[str]]) -> list[str]:
    """Return the errors of all items, each naming its item."""
    return [f"{option}[{index}]: {text}" for index, found in enumerate(errors) for text in found]


def run(
    module: AnsibleModule,
    items: Sequence[Item],
    errors: Sequence[str],
    steps: Callable[[], Steps[Item, State]],
) -> None:
    """Run a module and leave it. errors: of the list, found before anything is asked of a service.

    steps: makes the steps, and what they need such as a client.
    """
    if errors:
        _nothing_changed(module, errors)
    with iothub_module.failing(module):
        how = steps()
    states, errors = _gather(how, items, how.read)
    if errors:
        _nothing_changed(module, errors)
    plans, errors = _plans(how, items, states)
    if errors:
        _nothing_changed(module, errors)
    if not module.check_mode:
        states = _write(module, how, items, plans, states)
    # The many that stay as they are would hide the few that do not.
    changes = {how.label(item): plan for item, plan in zip(items, plans, strict=True) if plan.changed}
    module.exit_json(
        changed=bool(changes),
        diff={
            "before": {label: dict(plan.before) for label, plan in changes.items()},
            "after": {label: dict(plan.after) for label, plan in changes.items()},
        },
        **{
            how.option: [
                {**how.entry(item, plan, state), "action": plan.action}
                for item, plan, state in zip(items, plans, states, strict=True)
            ]
        },
    )


def _nothing_changed(module: AnsibleModule, errors: Sequence[str]) -> None:
    module.fail_json(msg=f"Nothing was changed. {'; '.join(errors)}", errors=list(errors))


def _gather(
    how: Steps[Item, State], items: Sequence[Item], read: Callable[[Item], State]
) -> tuple[list[State], list[str]]:
    """Return the states of all items, or none and the first error: what fails once mostly fails always."""

    def one(index: int, item: Item) -> State:
        try:
            return read(item)
        except _FAILURES as error:
            raise Refused(
                f"{how.option}[{index}] {how.label(item)}: {iothub_module.explain(error)}"
            ) from error

    try:
        return iothub_module.each(one, range(len(items)), items), []
    except Refused as error:
        return [], [str(error)]


def _plans(
    how: Steps[Item, State], items: Sequence[Item], states: Sequence[State]
) -> tuple[list[Plan], list[str]]:
    plans, errors = [], []
    for index, (item, state) in enumerate(zip(items, states, strict=True)):
        try:
            plans.append(how.plan(item, state))
        except Refused as error:
            errors.append(f"{how.option}[{index}] {how.label(item)}: {error}")
    return plans, errors


def _write(
    module: AnsibleModule,
    how: Steps[Item, State],
    items: Sequence[Item],
    plans: Sequence[Plan],
    states: Sequence[State],
) -> list[State]:
    """Carry out all plans and return the states; fail with every error after all others are done."""

    work = [row for row in enumerate(zip(items, plans, states, strict=True)) if row[1][1].changed]

    def one(row: tuple[Item, Plan, State]) -> State | Exception:
        if how.write is None:
            raise TypeError("steps need write or write_many")
        try:
            return how.write(*row)
        except _FAILURES as error:
            return error

    rows = [row for _index, row in work]
    outcomes = how.write_many(rows) if how.write_many else iothub_module.each(one, rows)
    after = list(states)
    errors = []
    for (index, (item, _plan, _state)), outcome in zip(work, outcomes, strict=True):
        if isinstance(outcome, Exception):
            errors.append(f"{how.option}[{index}] {how.label(item)}: {iothub_module.explain(outcome)}")
        else:
            after[index] = outcome
    if errors:
        done = len(work) - len(errors)
        module.fail_json(
            msg=f"{'; '.join(errors)}. Changed all the same: {done} of {how.option}; run again to finish.",
            errors=errors,
            changed=done > 0,
        )
    return after
