# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import kubernetes
from ansible_collections.edgeha.iotedge.plugins.module_utils import gateway_objects

GATEWAY = {"namespace": "edge-gw", "pods": [{"name": "gw-daemon-1", "component": "daemon", "module": None}]}
# What the API server says of a pod that does not answer it.
AWAY = json.dumps({"kind": "Status", "message": "error trying to reach service: refused", "code": 503})


def told(**answers: str | tuple[int, str]) -> dict[str, Any]:
    """What pods tell, by path; with a status it is an error."""

    def call(_method: str, url: str, **_options: Any) -> SimpleNamespace:
        answer = answers[url.rpartition("/")[2]]
        if isinstance(answer, str):
            return SimpleNamespace(data=answer.encode())
        error = kubernetes.client.ApiException(status=answer[0])
        error.body = answer[1].encode()
        raise error

    client = SimpleNamespace(request=call)
    return gateway_objects.told_by_pods(client, GATEWAY)


def test_a_daemon_that_is_not_ready_tells_why() -> None:
    metrics = 'edgeha_gateway_info{version="0.1.0"} 1.0\n'
    daemon = told(metrics=metrics, readyz=(503, "module b: no node for it\n"))["daemon"]
    assert (daemon["version"], daemon["reasons"]) == ("0.1.0", ["module b: no node for it"])


def test_a_daemon_that_is_away_tells_nothing() -> None:
    assert told(metrics=(503, AWAY), readyz=(503, AWAY)) == {"daemon": None, "waiting_messages": None}
    assert told(metrics=(403, AWAY), readyz=(403, AWAY))["daemon"] is None
    assert told(metrics="", readyz=(503, AWAY))["daemon"]["reasons"] == []
