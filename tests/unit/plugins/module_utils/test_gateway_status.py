# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.edgeha.iotedge.plugins.module_utils import gateway_status
from hypothesis import given
from hypothesis import strategies as st

METRICS = """# HELP edgeha_gateway_info The gateway.
# TYPE edgeha_gateway_info gauge
edgeha_gateway_info{device="gw",hub="h",version="0.1.0"} 1.0
edgeha_module_state{module="a",state="running"} 1.0
edgeha_module_state{module="a",state="failed"} 0.0
edgeha_module_state{module="b \\"x\\"",state="failed"} 1.0
edgeha_edge_ca_not_after_timestamp_seconds 1.7925408e+09
edgeha_state_size_bytes 1000.0
edgeha_device_certificate_not_after_timestamp_seconds 1.792540800e+09
edgeha_state_available_bytes 250.0
not a metric
"""
GATEWAY = {"name": "gw", "namespace": "edge-gw", "device_id": "dev"}
MODULE = {"device_id": "dev", "module_id": "a", "connected": True, "last_activity": "2026-02-01T12:00:00Z"}
AGENT = {
    "device_id": "dev",
    "desired_version": 3,
    "reported_version": 3,
    "code": 200,
    "description": "",
    "waiting_modules": {},
    "ready": True,
}


def running(**more: Any) -> dict[str, Any]:
    pods = [{"name": "gw-daemon-1", "component": "daemon", "module": None, "trouble": None}]
    daemon = gateway_status.of_daemon(METRICS, "ok\n")
    return {"name": "gw", "node": "n1", "pods": pods, "daemon": daemon, "waiting_messages": 4} | more


def test_what_a_daemon_tells() -> None:
    found = gateway_status.of_daemon(METRICS, "module b: no node for it\n")
    assert found == {
        "version": "0.1.0",
        "modules": {"a": "running", 'b \\"x\\"': "failed"},
        "edge_ca_until": "2026-10-21T00:00:00Z",
        "device_certificate_until": "2026-10-21T00:00:00Z",
        "state_available_bytes": 250,
        "state_size_bytes": 1000,
        "reasons": ["module b: no node for it"],
    }


def test_how_many_messages_wait() -> None:
    text = 'edgehub_queue_length{endpoint="$upstream",priority="0"} 3\nedgehub_queue_length{endpoint="x"} 2\n'
    assert gateway_status.queue_length(text) == 5
    assert gateway_status.queue_length("") is None


def test_a_record_and_its_row() -> None:
    (record,) = gateway_status.records([GATEWAY], [running()], [MODULE], [AGENT])
    assert record["problems"] == []
    assert (record["node"], record["last_message"]) == ("n1", "2026-02-01T12:00:00Z")
    header, _line, row = gateway_status.lines([record])
    assert header.split("  ")[0] == "GATEWAY"
    words = row.split()
    assert words[:6] == ["gw", "dev", "n1", "1", "of", "2"]
    assert words[-6:] == ["2026-02-01T12:00:00Z", "4", "2026-10-21", "25", "%", "nothing"]


def test_what_is_wrong_is_said_in_words() -> None:
    agent = AGENT | {
        "code": 500,
        "description": "create b: no",
        "ready": False,
        "waiting_modules": {"b": "failed"},
    }
    module = MODULE | {"connected": False}
    (record,) = gateway_status.records([GATEWAY], [running(daemon=None)], [module], [agent])
    assert record["problems"] == [
        "its daemon does not answer",
        "edgeAgent reports 500: create b: no",
        "module b: failed",
        "module a is not connected",
    ]
    pods = [running()["pods"][0] | {"ready": True}]
    (record,) = gateway_status.records([GATEWAY], [running(daemon=None, pods=pods)], [], [])
    [problem] = record["problems"]
    assert problem.endswith("may get pods/proxy"), "nothing else is wrong with it"
    old = AGENT | {"reported_version": 2, "ready": False}
    (record,) = gateway_status.records([GATEWAY], [running()], [], [old])
    assert record["problems"] == ["edgeAgent has not taken version 3 of the deployment"]
    (record,) = gateway_status.records([GATEWAY], [], [], [])
    assert record["problems"] == ["nothing of it is on the cluster"]
    assert gateway_status.lines([record])[2].endswith("nothing of it is on the cluster")


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    gateway_status.of_daemon(text, text)
    gateway_status.queue_length(text)


def test_what_cannot_be_read_is_said_and_nothing_is_made_of_it() -> None:
    (record,) = gateway_status.records([GATEWAY], [], [MODULE], [AGENT], no_cluster="API refused")
    assert record["problems"] == ["its cluster cannot be read: API refused"]
    assert record["connected"] == {"a": True}
    (record,) = gateway_status.records([GATEWAY], [running()], [], [], no_hub="DNS")
    assert record["problems"] == ["its hub cannot be read: DNS"]
    assert record["node"] == "n1"


def test_the_first_certificate_that_ends_is_shown() -> None:
    ends = {"edge_ca_until": "2026-12-01T00:00:00Z", "device_certificate_until": "2026-11-30T00:00:00Z"}
    (record,) = gateway_status.records([GATEWAY], [running()], [], [])
    assert "2026-11-30" in gateway_status.lines([record | ends])[2]
    assert "2026-12-01" in gateway_status.lines([record | ends | {"device_certificate_until": None}])[2]


def test_what_only_connected_has_sent_nothing() -> None:
    hub = MODULE | {"module_id": "$edgeHub", "last_activity": "2026-03-01T12:00:00Z"}
    (record,) = gateway_status.records([GATEWAY], [running()], [MODULE, hub], [])
    assert record["last_message"] == MODULE["last_activity"]


def test_why_there_is_no_pod() -> None:
    (record,) = gateway_status.records([GATEWAY], [running(pods=[], refused="quota")], [], [])
    assert record["problems"] == ["the cluster makes no pod of it: quota"]
