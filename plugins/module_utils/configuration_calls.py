# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hub's calls for configurations: deployments at scale, and content for one edge device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import rest_client
from ansible_collections.edgeha.iotedge.plugins.module_utils.rest_client import RestClient


def apply_content(client: RestClient, device_id: str, modules: Mapping[str, Any]) -> None:
    """Set the modules of one edge device. modules: a whole ``modulesContent``."""
    path = f"/devices/{rest_client.segment(device_id)}/applyConfigurationContent"
    client.request("POST", path, body={"modulesContent": dict(modules)})


def read_all(client: RestClient) -> list[dict[str, Any]]:
    """Return all configurations; a hub holds 100 at most and gives them in one answer."""
    body = client.request("GET", "/configurations").body
    return [dict(entry) for entry in body] if isinstance(body, list) else []


def put(client: RestClient, body: Mapping[str, Any], etag: str | None) -> dict[str, Any]:
    """Create (etag None) or update (etag of the version that was read) a configuration.

    An update changes everything but the content: the hub ignores another content in silence.
    """
    path = f"/configurations/{rest_client.segment(str(body['id']))}"
    return rest_client.as_object(client.request("PUT", path, body=dict(body), if_match=etag).body)


def delete(client: RestClient, configuration_id: str, etag: str) -> None:
    """Delete a configuration. One that is gone already is no error."""
    try:
        client.request("DELETE", f"/configurations/{rest_client.segment(configuration_id)}", if_match=etag)
    except rest_client.ServiceResponseError as error:
        if error.status != 404 or not error.code.startswith(("ConfigurationNotFound", "404")):
            raise


def query_errors(client: RestClient, target_condition: str, metrics: Mapping[str, str]) -> list[str]:
    """Return what the hub has to say against a target condition and the queries of metrics.

    An empty condition and ``*`` are good and not asked about: the test refuses ``*``, which a PUT takes.
    """
    condition = "" if target_condition.strip() == "*" else target_condition
    if not condition and not metrics:
        return []
    body = {"targetCondition": condition, "customMetricQueries": dict(metrics)}
    if not condition:
        del body["targetCondition"]
    answer = rest_client.as_object(client.request("POST", "/configurations/testQueries", body=body).body)
    found = []
    if answer.get("targetConditionError"):
        found.append(f"target_condition {target_condition!r}: {answer['targetConditionError']}")
    errors = answer.get("customMetricQueryErrors")
    for name, text in sorted((errors if isinstance(errors, Mapping) else {}).items()):
        if text:
            found.append(f"metrics.{name}: {text}")
    return found
