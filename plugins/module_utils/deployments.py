# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wanted and actual deployments at scale: what differs, and in which order it is put right. Pure.

The hub's rules that shape this file ("Understand IoT Edge automatic deployments"):

- The content of a deployment is fixed when it is created. An update with another one answers 200 and changes
  nothing.
- Of the deployments that target a device the one of the highest priority wins, and of equal ones the newest.
  Layers of equal priority are laid on each other, the newest last.
- Deleting a deployment gives its devices to the next one that targets them.

So a deployment's content is part of its id: ``ID-DIGEST``, and a label says which ID it belongs to. Changed
content makes a new version first, with the priority that the old one has or is to have; being newer it wins,
or else the old one goes on winning. Only then the old one is deleted, and as the new one is there, no device
falls to a third deployment in between. What an interrupted run leaves is recognised by label and id, and
removed by the next run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import edge_manifest, item_list
from ansible_collections.edgeha.iotedge.plugins.module_utils.edge_manifest import Content
from ansible_collections.edgeha.iotedge.plugins.module_utils.manifest_json import ManifestError

OPTION = "deployments"
LABEL = "edgeha_deployment"
# "IoT Hub quotas and throttling": of a paid hub; a free one holds 10, which its own answer tells.
MAX_CONFIGURATIONS = 100
DIGEST_LENGTH = 12
MAX_ID_LENGTH = 128 - 1 - DIGEST_LENGTH
_ID = re.compile(r"[a-z0-9\-+%_*!']+")
_PRIORITIES = range(2**31)
# What a metric's query writes for the id, which is known only once the content is.
_ID_IN_QUERY = "{id}"


@dataclass(frozen=True)
class DesiredDeployment:
    """A deployment as the operator wants it; None means "leave as it is".

    content: checked; None when none was given or it has errors, which stand in errors.
    """

    id: str
    present: bool = True
    content: Content | None = None
    priority: int | None = None
    target_condition: str | None = None
    labels: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] | None = None
    adopt: bool = False
    errors: Sequence[str] = ()

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> DesiredDeployment:
        """Read what an operator wrote; see the module's option."""
        content, errors = None, []
        if item["content"] is not None and item["state"] == "present":
            try:
                content = edge_manifest.parse(item["content"])
            except ManifestError as error:
                errors = error.errors
        return cls(
            id=item["id"],
            present=item["state"] == "present",
            content=content,
            priority=item["priority"],
            target_condition=item["target_condition"],
            labels=item["labels"],
            metrics=item["metrics"],
            adopt=item["adopt"],
            errors=errors,
        )

    @property
    def version_id(self) -> str:
        """The id at the hub of a version with the wanted content."""
        return f"{self.id}-{self.content.digest[:DIGEST_LENGTH]}" if self.content else self.id


@dataclass(frozen=True)
class ActualDeployment:
    """What a hub has of one deployment.

    versions:     its configurations, the newest last.
    in_the_way:   the configuration of its plain id, or of the wanted version's, that is not ours.
    rivals:       ids of other deployments of the same priority that were made by others.
    query_errors: what the hub says against condition and metrics.
    """

    versions: Sequence[Mapping[str, Any]] = ()
    in_the_way: Mapping[str, Any] | None = None
    rivals: Sequence[str] = ()
    query_errors: Sequence[str] = ()


def list_errors(deployments: Sequence[DesiredDeployment]) -> list[str]:
    """Return every error of a list, each naming the item by its index (from 0)."""

    def errors(item: DesiredDeployment) -> list[str]:
        found = [f"content {text}" for text in item.errors]
        if not _ID.fullmatch(item.id):
            found.append(f"the id {item.id!r} must be lower-case letters, digits and - + % _ * ! '")
        elif len(item.id) > MAX_ID_LENGTH:
            found.append(
                f"the id has {len(item.id)} characters; at most {MAX_ID_LENGTH}, as the hub's id has "
                f"{DIGEST_LENGTH + 1} more"
            )
        if item.priority is not None and item.priority not in _PRIORITIES:
            found.append(f"priority is {item.priority}; it must be from 0 to {_PRIORITIES[-1]}")
        for name, texts in (("labels", item.labels), ("metrics", item.metrics)):
            for key, value in (texts or {}).items():
                if not isinstance(key, str) or not key or not isinstance(value, str):
                    found.append(f"{name}.{key} must be a text")
        if LABEL in (item.labels or {}):
            found.append(f"labels.{LABEL} is set by this module")
        return found

    return item_list.by_item(OPTION, map(errors, deployments)) + item_list.repeated(
        OPTION, (item.id for item in deployments), (f"the deployment {item.id!r}" for item in deployments)
    )


def find(desired: DesiredDeployment, configurations: Iterable[Mapping[str, Any]]) -> ActualDeployment:
    """Return what of all configurations of a hub belongs to a deployment.

    A version carries our label and an id that is the deployment's own or made from it: a copy that somebody
    made in the portal has the label too, and is not ours. With adopt the plain id is ours without the label.
    """
    versions, in_the_way, rivals = [], None, []
    pattern = re.compile(rf"{re.escape(desired.id)}(-[0-9a-f]{{{DIGEST_LENGTH}}})?")
    for configuration in configurations:
        name = str(configuration.get("id"))
        label = (configuration.get("labels") or {}).get(LABEL)
        labelled = label == desired.id or (desired.adopt and name == desired.id and label is None)
        if labelled and pattern.fullmatch(name):
            versions.append(configuration)
        elif name in (desired.id, desired.version_id):
            in_the_way = configuration
        elif _is_base(configuration) and label is None:
            rivals.append(configuration)
    versions.sort(key=_age)
    priority = _wanted(desired, versions[-1] if versions else {})["priority"]
    is_base = _is_base({"content": {"modulesContent": _modules(desired)}}) if desired.content else False
    is_base = is_base or (desired.content is None and bool(versions) and _is_base(versions[-1]))
    return ActualDeployment(
        versions,
        in_the_way,
        sorted(str(rival["id"]) for rival in rivals if is_base and rival.get("priority") == priority),
    )


def plan(desired: DesiredDeployment, actual: ActualDeployment) -> item_list.Plan:
    """Return what to do. Its body is ``{"put": body or None, "delete": [configuration], "ids": [id]}``.

    put is carried out first, with the plan's etag (empty: create). ids are those of the hub afterwards.
    Raises item_list.Refused.
    """
    _check_ours(desired, actual)
    if actual.query_errors and desired.present:
        raise item_list.Refused("; ".join(actual.query_errors))
    newest = actual.versions[-1] if actual.versions else None
    before = _view(newest)
    if not desired.present:
        if newest is None:
            return item_list.Plan("none")
        return item_list.Plan(
            "delete",
            body={"put": None, "delete": list(actual.versions), "ids": []},
            before=edge_manifest.hide_secrets(before, {})[0],
        )
    if newest is None and desired.content is None:
        raise item_list.Refused("there is no such deployment yet, so it needs content")

    current = _current(desired, actual.versions)
    others = [version for version in actual.versions if version is not current]
    wanted = _wanted(desired, newest or {})
    if current is None:
        body = _body(desired.version_id, desired.id, wanted, {"modulesContent": _modules(desired)})
        etag = ""
    else:
        name = str(current["id"])
        body = _body(name, desired.id, wanted, current["content"], str(current.get("schemaVersion") or "1.0"))
        etag = str(current.get("etag") or "*")
        if _mutable(body) == _mutable(current):
            body = {}
    changed = bool(body or others)
    after = _view(body or current)
    before_shown, after_shown = edge_manifest.hide_secrets(before, after)
    if not changed:
        return item_list.Plan("none", body=_steps(None, [], current), before=before_shown, after=after_shown)
    return item_list.Plan(
        "create" if newest is None else "update",
        body=_steps(body or None, others, current),
        etag=etag if body else "",
        before=before_shown,
        after=after_shown,
    )


def _steps(
    put: Mapping[str, Any] | None, delete: Sequence[Mapping[str, Any]], current: Mapping[str, Any] | None
) -> dict[str, Any]:
    kept = put or current or {}
    return {"put": put, "delete": list(delete), "ids": [str(kept["id"])]}


def room_errors(plans: Sequence[item_list.Plan], count: int) -> list[str]:
    """Return an error when a hub that has count configurations has no room for what plans create on the way.

    Replacements are made one after the other, so all of them together need one place.
    """
    creations = sum(plan.action == "create" for plan in plans)
    replacements = any(
        plan.action == "update" and plan.body["put"] is not None and not plan.etag for plan in plans
    )
    needed = count + creations + replacements
    if needed <= MAX_CONFIGURATIONS:
        return []
    return [
        f"the hub has {count} configurations and can hold {MAX_CONFIGURATIONS}; {creations} new ones"
        f"{' and one place to replace others' if replacements else ''} do not fit: remove some before"
    ]


def targets_enough(put_id: str, old: Iterable[str], configurations: Iterable[Mapping[str, Any]]) -> bool:
    """Say whether the new version targets as many devices as each old one of the same condition.

    True too where the hub gives no numbers.
    """
    known = {str(entry.get("id")): entry for entry in configurations}
    if put_id not in known:
        return False
    new = known[put_id]
    for name in old:
        if name not in known or known[name].get("targetCondition") != new.get("targetCondition"):
            continue
        counts = [_targeted(entry) for entry in (new, known[name])]
        if None not in counts and counts[0] < counts[1]:  # type: ignore[operator]  # None is excluded
            return False
    return True


def needs_query_test(desired: DesiredDeployment, actual: ActualDeployment) -> bool:
    """Say whether condition or metrics are not the ones that the hub took already."""
    if not desired.present:
        return False
    newest = actual.versions[-1] if actual.versions else {}
    name = str(newest.get("id") or "")
    return (
        desired.target_condition is not None and desired.target_condition != newest.get("targetCondition")
    ) or (desired.metrics is not None and metric_queries(desired.metrics, name) != _queries(newest))


def with_query_errors(actual: ActualDeployment, errors: Sequence[str]) -> ActualDeployment:
    """Return the same with what the hub says against condition and metrics."""
    return replace(actual, query_errors=tuple(errors))


def metric_queries(metrics: Mapping[str, Any], configuration_id: str) -> dict[str, str]:
    """Return the queries with the id in place of ``{id}``."""
    return {str(name): str(text).replace(_ID_IN_QUERY, configuration_id) for name, text in metrics.items()}


def _check_ours(desired: DesiredDeployment, actual: ActualDeployment) -> None:
    if actual.in_the_way is not None:
        name = actual.in_the_way.get("id")
        owner = (actual.in_the_way.get("labels") or {}).get(LABEL)
        if owner:
            fact = f"belongs to the deployment {owner!r}: choose another id"
        elif name == desired.id:
            fact = "was made by somebody else: set adopt: true to take it over, or choose another id"
        else:
            fact = "is in the way and was made by somebody else: delete it, or choose another id"
        # Where nothing of ours is wanted, only a deployment of that very name is worth a question.
        if desired.present or not owner:
            raise item_list.Refused(f"the configuration {name!r} of the hub {fact}")
    for version in actual.versions:
        if "modulesContent" not in (version.get("content") or {}):
            raise item_list.Refused(
                f"the configuration {version.get('id')!r} is not for edge devices: choose another id"
            )


def _current(desired: DesiredDeployment, versions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the version that has the wanted content, the newest of several; the newest without a wish."""
    if desired.content is None:
        return versions[-1] if versions else None
    for version in versions[::-1]:
        modules = (version.get("content") or {}).get("modulesContent") or {}
        if edge_manifest.content_digest(modules) == desired.content.digest:
            return version
    return None


def _modules(desired: DesiredDeployment) -> Mapping[str, Any]:
    modules: Mapping[str, Any] = desired.content.modules if desired.content else {}
    return modules


def _wanted(desired: DesiredDeployment, newest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what can be changed, as wanted; what the operator leaves out comes from the newest version."""
    old_labels = {key: text for key, text in (newest.get("labels") or {}).items() if key != LABEL}
    old_id = str(newest.get("id") or "")
    # A query that names its own deployment names the next version in the next one.
    old_metrics = {
        name: text.replace(f"[[{old_id}]]", f"[[{_ID_IN_QUERY}]]") if old_id else text
        for name, text in _queries(newest).items()
    }
    return {
        "priority": newest.get("priority", 0) if desired.priority is None else desired.priority,
        "targetCondition": newest.get("targetCondition") or ""
        if desired.target_condition is None
        else desired.target_condition,
        "labels": old_labels if desired.labels is None else dict(desired.labels),
        "metrics": old_metrics if desired.metrics is None else dict(desired.metrics),
    }


def _body(
    configuration_id: str,
    deployment_id: str,
    wanted: Mapping[str, Any],
    content: Mapping[str, Any],
    schema_version: str = "1.0",
) -> dict[str, Any]:
    return {
        "id": configuration_id,
        "schemaVersion": schema_version,
        "labels": {**wanted["labels"], LABEL: deployment_id},
        "content": content,
        "targetCondition": wanted["targetCondition"],
        "priority": wanted["priority"],
        "metrics": {"queries": metric_queries(wanted["metrics"], configuration_id)},
    }


def _mutable(configuration: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        dict(configuration.get("labels") or {}),
        configuration.get("targetCondition") or "",
        configuration.get("priority") or 0,
        _queries(configuration),
    )


def _queries(configuration: Mapping[str, Any]) -> dict[str, str]:
    return dict((configuration.get("metrics") or {}).get("queries") or {})


def _view(configuration: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a configuration as shown, content by its meaning. ``{}`` for none."""
    if not configuration:
        return {}
    labels = {key: text for key, text in (configuration.get("labels") or {}).items() if key != LABEL}
    modules = (configuration.get("content") or {}).get("modulesContent") or {}
    return {
        "configuration_id": configuration.get("id"),
        "priority": configuration.get("priority") or 0,
        "target_condition": configuration.get("targetCondition") or "",
        "labels": labels,
        "metrics": _queries(configuration),
        "content": edge_manifest.content_meaning(modules),
    }


def _is_base(configuration: Mapping[str, Any]) -> bool:
    modules = (configuration.get("content") or {}).get("modulesContent") or {}
    return edge_manifest.DESIRED in (modules.get(edge_manifest.AGENT) or {})


def _age(configuration: Mapping[str, Any]) -> str:
    # Without the Z a whole second sorts before its fractions.
    return str(configuration.get("createdTimeUtc") or "").rstrip("Z")


def _targeted(configuration: Mapping[str, Any]) -> int | None:
    count = ((configuration.get("systemMetrics") or {}).get("results") or {}).get("targetedCount")
    return count if isinstance(count, int) else None
