# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In which order content is replaced, and what happens when the hub is slow or an answer was lost."""

from __future__ import annotations

from typing import Any, cast

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import iothub_client, item_list, rest_client
from ansible_collections.edgeha.iotedge.plugins.modules import iothub_deployments


class Hub:
    """Stands in for a client: keeps configurations, and the calls that change something."""

    def __init__(self, *ids: str) -> None:
        self.all = {name: self.entry(name, 2) for name in ids}
        self.calls: list[tuple[str, str, str | None]] = []
        # How many devices a new configuration targets at each look.
        self.counts = [2]
        self.lose_answer = False

    def entry(self, name: str, count: int) -> dict[str, Any]:
        return {
            "id": name,
            "etag": f"etag of {name}",
            "targetCondition": "*",
            "labels": {"edgeha_deployment": "plant"},
            "systemMetrics": {"results": {"targetedCount": count}},
        }

    def request(
        self, method: str, path: str, *, body: Any = None, if_match: str | None = None
    ) -> rest_client.Response:
        name = path.rpartition("/")[2]
        if method == "GET":
            count = self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]
            for entry in self.all.values():
                if entry["id"].startswith("new"):
                    entry["systemMetrics"] = {"results": {"targetedCount": count}}
            return rest_client.Response(200, list(self.all.values()))
        self.calls.append((method, name, if_match))
        if method == "PUT":
            if name in self.all and if_match is None:
                raise rest_client.ServiceResponseError("hub", 409, "ConfigurationAlreadyExists", "there")
            self.all[name] = self.entry(name, 0)
            if self.lose_answer:
                self.lose_answer = False
                raise rest_client.ServiceResponseError("hub", 409, "ConfigurationAlreadyExists", "there")
        else:
            del self.all[name]
        return rest_client.Response(200, body)


def replace(hub: Hub, timeout: float = 30.0) -> None:
    body = {
        "put": {"id": "new", "labels": {"edgeha_deployment": "plant"}},
        "delete": [hub.all["old"]],
        "ids": ["new"],
    }
    iothub_deployments.replace(cast(iothub_client.HubClient, hub), body, "", timeout)


def test_the_old_version_is_deleted_once_the_new_one_targets_as_many() -> None:
    hub = Hub("old")
    hub.counts = [0, 1, 2]
    replace(hub)
    assert hub.calls == [("PUT", "new", None), ("DELETE", "old", "etag of old")]
    assert hub.counts == [2]


def test_the_old_version_is_kept_when_the_hub_is_too_slow() -> None:
    hub = Hub("old")
    hub.counts = [1]
    with pytest.raises(item_list.Refused, match="new targets fewer devices than old"):
        replace(hub, 0.1)
    assert set(hub.all) == {"old", "new"}


def test_without_a_time_to_wait_nobody_waits() -> None:
    hub = Hub("old")
    hub.counts = [0]
    replace(hub, 0)
    assert set(hub.all) == {"new"}


def test_a_creation_whose_answer_was_lost_is_taken_as_ours() -> None:
    hub = Hub("old")
    hub.lose_answer = True
    replace(hub)
    assert hub.calls == [
        ("PUT", "new", None),
        ("PUT", "new", "etag of new"),
        ("DELETE", "old", "etag of old"),
    ]


def test_somebody_elses_configuration_of_that_id_is_never_overwritten() -> None:
    hub = Hub("old", "new")
    hub.all["new"]["labels"] = {}
    with pytest.raises(rest_client.ServiceResponseError, match="there"):
        replace(hub)
    assert set(hub.all) == {"old", "new"}
