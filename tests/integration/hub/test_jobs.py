# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Scheduled jobs, ordered with Microsoft's azure-iot-hub."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.iot.device import MethodRequest, MethodResponse
from azure.iot.hub import IoTHubJobManager
from azure.iot.hub.models import CloudToDeviceMethod, JobRequest, JobResponse, Twin, TwinProperties
from msrest.exceptions import HttpOperationError

from tests.integration.hub.conftest import Hub, HubFactory, wait_for

ENDED = ("completed", "failed", "cancelled")


def manager(hub: Hub) -> IoTHubJobManager:
    jobs = IoTHubJobManager.from_connection_string(
        f"HostName={hub.host};SharedAccessKeyName=iothubowner;SharedAccessKey={hub.policies['iothubowner']}"
    )
    jobs.protocol.config.connection.verify = str(hub.state / "ca.pem")
    return jobs


def order(hub: Hub, job_id: str, condition: str, **more: Any) -> JobResponse:
    if "cloud_to_device_method" in more:
        kind = "scheduleDeviceMethod"
    else:
        kind = "scheduleUpdateTwin"
        desired = TwinProperties(desired={"job": job_id})
        more = {"update_twin": Twin(etag="*", tags={"job": job_id}, properties=desired)} | more
    request = JobRequest(
        job_id=job_id, type=kind, query_condition=condition, max_execution_time_in_seconds=60, **more
    )
    return manager(hub).create_scheduled_job(job_id, request)


def ended(hub: Hub, job_id: str) -> JobResponse:
    jobs = manager(hub)
    return wait_for(
        f"the end of {job_id}",
        lambda: (job := jobs.get_scheduled_job(job_id)).status in ENDED and job,
        15,
    )


def counts(job: JobResponse) -> tuple[int, int, int]:
    statistics = job.device_job_statistics
    return statistics.device_count, statistics.succeeded_count, statistics.failed_count


def with_tag(hub: Hub, device_id: str, site: str) -> str:
    key = hub.create_device(device_id)
    hub.registry().update_twin(device_id, Twin(tags={"site": site}))
    return key


def test_twins_of_all_that_a_condition_finds(hub: Hub) -> None:
    client = hub.device("t1", with_tag(hub, "t1", "twins"))
    client.connect()
    patches: list[dict[str, Any]] = []
    client.on_twin_desired_properties_patch_received = patches.append
    with_tag(hub, "t2", "twins")
    with_tag(hub, "t3", "elsewhere")
    ordered = order(hub, "twins", "tags.site = 'twins'")
    assert (ordered.job_id, ordered.type) == ("twins", "scheduleUpdateTwin")
    job = ended(hub, "twins")
    assert (job.status, counts(job)) == ("completed", (2, 2, 0))
    for device_id, changed in (("t1", True), ("t2", True), ("t3", False)):
        twin = hub.registry().get_twin(device_id)
        assert (twin.tags.get("job") == "twins", twin.properties.desired.get("job") == "twins") == (
            changed,
            changed,
        )
    wait_for("the push", lambda: any(patch.get("job") == "twins" for patch in patches))


def test_methods_of_all_that_a_condition_finds(hub: Hub) -> None:
    client = hub.device("m1", with_tag(hub, "m1", "methods"))
    client.connect()
    called: list[str] = []

    def answer(request: MethodRequest) -> None:
        called.append(request.name)
        client.send_method_response(MethodResponse.create_from_method_request(request, 200))

    client.on_method_request_received = answer
    with_tag(hub, "m2", "methods")
    method = CloudToDeviceMethod(method_name="restart", response_timeout_in_seconds=10)
    order(hub, "methods", "tags.site = 'methods'", cloud_to_device_method=method)
    job = ended(hub, "methods")
    assert (job.status, counts(job)) == ("failed", (2, 1, 1)), "one device is not online"
    assert called == ["restart"]


def test_a_job_waits_for_its_time_and_can_be_cancelled(hub: Hub) -> None:
    with_tag(hub, "w1", "waits")
    jobs = manager(hub)
    start = datetime.now(UTC) + timedelta(hours=1)
    assert order(hub, "later", "tags.site = 'waits'", start_time=start).status == "scheduled"
    # What is due goes first.
    soon = datetime.now(UTC) + timedelta(seconds=1)
    assert order(hub, "soon", "tags.site = 'waits'", start_time=soon).status == "scheduled"
    job = ended(hub, "soon")
    assert job.status == "completed"
    assert job.end_time >= soon.replace(microsecond=0)
    assert jobs.get_scheduled_job("later").status == "scheduled"
    jobs.cancel_scheduled_job("later")
    assert jobs.get_scheduled_job("later").status == "cancelled"
    with pytest.raises(HttpOperationError) as error:
        jobs.cancel_scheduled_job("later")
    assert error.value.response.status_code == 400


def test_list_of_jobs(hub: Hub) -> None:
    for number in range(3):
        order(hub, f"list-{number}", "deviceId = 'nobody'")
        assert counts(ended(hub, f"list-{number}")) == (0, 0, 0)
    found = hub.request("GET", "/jobs/v2/query").json()
    assert {f"list-{number}" for number in range(3)} <= {job["jobId"] for job in found}
    token = hub.token(policy="iothubowner")
    assert hub.request("GET", "/jobs/v2/query", token=token).headers["x-ms-item-type"] == "JobResponse"


@pytest.mark.parametrize(
    "change",
    [
        {"type": "firmwareUpdate"},
        {"queryCondition": ""},
        {"queryCondition": "tags.site ="},
        {"updateTwin": None},
        {"startTime": "tomorrow"},
        {"maxExecutionTimeInSeconds": 0},
        {"jobId": "other"},
        {"type": "scheduleDeviceMethod", "cloudToDeviceMethod": {"methodName": ""}},
    ],
)
def test_what_is_refused(hub: Hub, change: dict[str, Any]) -> None:
    body = {"jobId": "bad", "type": "scheduleUpdateTwin", "queryCondition": "*", "updateTwin": {"tags": {}}}
    answer = hub.request("PUT", "/jobs/v2/bad", body=body | change)
    assert (answer.status_code, answer.headers["iothub-errorcode"]) == (400, "ArgumentInvalid")
    missing = hub.request("GET", "/jobs/v2/bad")
    assert (missing.status_code, missing.headers["iothub-errorcode"]) == (404, "JobNotFound")


def test_an_id_is_taken_once(hub: Hub) -> None:
    order(hub, "once", "deviceId = 'nobody'")
    with pytest.raises(HttpOperationError) as error:
        order(hub, "once", "deviceId = 'nobody'")
    assert error.value.response.headers["iothub-errorcode"] == "JobAlreadyExists"


def test_scheduled_jobs_outlive_the_server(make_hub: HubFactory) -> None:
    hub = make_hub().start()
    with_tag(hub, "kept", "kept")
    start = datetime.now(UTC) + timedelta(seconds=2)
    assert order(hub, "kept", "*", start_time=start).status == "scheduled"
    assert hub.stop() == 0
    hub.start()
    assert counts(ended(hub, "kept")) == (1, 1, 0)
