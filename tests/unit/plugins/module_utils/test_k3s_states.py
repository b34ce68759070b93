# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a machine is where it is wanted, and what is said while it is not."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import k3s_facts, k3s_states
from ansible_collections.edgeha.iotedge.plugins.module_utils.k3s_states import Seen


def unit(active: str = "active", started: float = 100.0) -> dict[str, Any]:
    return {"name": "k3s", "load": "loaded", "active": active, "started": started}


def node(
    ready: str = "True",
    voter: str = "True",
    version: str = "v1.34.4+k3s1",
    told: str = "1970-01-01T00:01:39Z",
) -> dict[str, Any]:
    return {
        "metadata": {"name": "gw1"},
        "status": {
            "nodeInfo": {"kubeletVersion": version},
            "conditions": [
                {
                    "type": "Ready",
                    "status": ready,
                    "reason": "KubeletNotReady",
                    "message": "no network",
                    "lastHeartbeatTime": told,
                },
                {"type": "EtcdIsVoter", "status": voter, "reason": "MemberIsLearner"},
            ],
        },
    }


def missing(*states: str, **seen: Any) -> list[str]:
    return k3s_states.missing(states, Seen(**seen), "k3s", "gw1", "v1.34.5+k3s1")


def test_a_server_and_an_agent_are_ready_by_different_things() -> None:
    assert k3s_states.defaults("k3s", holds_etcd=True) == [
        "unit_active",
        "readyz",
        "node_ready",
        "etcd_voter",
    ]
    assert k3s_states.defaults("k3s", holds_etcd=False) == ["unit_active", "readyz", "node_ready"]
    assert k3s_states.defaults("k3s-agent", holds_etcd=False) == ["unit_active", "node_ready"]


@pytest.mark.parametrize(
    ("state", "seen", "said"),
    [
        ("unit_active", {"unit": unit("activating")}, "unit k3s is activating"),
        ("unit_active", {"unit": None}, "there is no unit k3s"),
        ("readyz", {"api": "HTTP 500 (etcd)"}, "the API is not ready: HTTP 500 (etcd)"),
        ("node_ready", {"problem": "no answer"}, "no answer"),
        ("node_ready", {}, "the cluster has no node gw1"),
        ("node_ready", {"node": node("False")}, "node gw1 is not ready (KubeletNotReady: no network)"),
        ("node_ready", {"node": {}}, "node gw1 is not ready"),
        ("node_ready", {"node": node(), "unit": unit(), "renewed": 99.0},
         "node gw1 has not spoken since its service started"),
        ("etcd_voter", {"node": node(voter="False")}, "node gw1 is no voter of etcd (MemberIsLearner)"),
        ("kubelet_version", {"node": node()}, "node gw1 reports v1.34.4+k3s1 instead of v1.34.5+k3s1"),
        ("node_gone", {"node": node()}, "node gw1 is still there"),
        ("node_gone", {"problem": "no answer"}, "no answer"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said(state: str, seen: dict[str, Any], said: str) -> None:
    assert missing(state, **seen) == [said]


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ("unit_active", {"unit": unit()}),
        ("readyz", {"api": ""}),
        ("node_ready", {"node": node()}),
        ("node_ready", {"node": node(), "unit": unit(), "renewed": 100.0}),
        ("node_ready", {"node": node(), "unit": unit(), "renewed": None}),
        ("node_ready", {"node": node(told="1970-01-01T00:01:40Z"), "unit": unit(), "renewed": 0.0}),
        ("etcd_voter", {"node": node()}),
        ("kubelet_version", {"node": node(version="v1.34.5+k3s1")}),
        ("node_gone", {}),
    ],
)
def test_what_is_as_wanted(state: str, seen: dict[str, Any]) -> None:
    assert missing(state, **seen) == []


def test_one_reason_is_said_once() -> None:
    assert missing("node_ready", "etcd_voter", problem="no answer") == ["no answer"]


def test_what_does_not_run_has_no_more_to_say() -> None:
    said = missing("unit_active", "readyz", "node_ready", unit=unit("activating"), api="no", problem="no")
    assert said == ["unit k3s is activating"]


def test_a_unit_that_was_given_up_is_not_waited_for() -> None:
    assert k3s_states.ended(["unit_active"], Seen(unit("failed")))
    assert k3s_states.ended(["unit_active"], Seen(dict(k3s_facts.NO_UNIT)))
    assert not k3s_states.ended(["unit_active"], Seen(unit("activating")))
    assert not k3s_states.ended(["readyz"], Seen(None))


def test_times_of_kubernetes() -> None:
    assert k3s_states.epoch("1970-01-01T00:01:40.250000Z") == 100.25
    assert k3s_states.epoch("1970-01-01T00:01:40Z") == 100.0
    assert k3s_states.epoch("") is None


JOURNAL = (
    'time="2026-01-01T00:00:00Z" level=info msg="Starting k3s"\n'
    'time="2026-01-01T00:00:01Z" level=error msg="first"\n'
    'time="2026-01-01T00:00:02Z" level=fatal msg="token \\"K10'
    + "a"
    * 64
    + '::server:abc\\" of geheim is wrong"\n'
    "Main process exited\n"
)


def test_the_last_words_of_k3s_without_secrets() -> None:
    words = k3s_states.last_words(JOURNAL, ["geheim", ""])
    assert words.endswith("of (hidden) is wrong")
    assert "abc" not in words
    assert k3s_states.last_words("nothing") == ""
    waits = 'level=info msg="Waiting for API server"\nlevel=info msg="Starting"\n'
    assert k3s_states.last_words(waits) == "Waiting for API server"
