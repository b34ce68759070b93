# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provisioning service's API, driven by Microsoft's azure-iot-deviceprovisioning."""

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

from tests.integration.hub.conftest import Dps, HubFactory, free_address, run_cli
from tests.ports import free_port
from tests.tls import issue

KEY_1 = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
KEY_2 = "YWJjZGVmZ2hpamFiY2RlZmdoaWphYmNkZWZnaGlqYWI="


def symmetric(registration_id: str, **more: Any) -> dict[str, Any]:
    return {"registrationId": registration_id, "attestation": {"type": "symmetricKey"}} | more


def keys_of(client: Any, registration_id: str) -> dict[str, str]:
    keys: dict[str, str] = client.enrollment.get_attestation_mechanism(registration_id)["symmetricKey"]
    return keys


def test_enrollment_lives_from_create_to_delete(dps: Dps) -> None:
    client = dps.client()
    created = client.enrollment.create_or_update("life", symmetric("life"))
    assert created["attestation"] == {
        "type": "symmetricKey",
        "symmetricKey": {"primaryKey": None, "secondaryKey": None},
    }
    assert created["registrationState"]["status"] == "unassigned"
    assert created["provisioningStatus"] == "enabled"
    assert created["capabilities"] == {"iotEdge": False}
    assert created["reprovisionPolicy"] == {"updateHubAssignment": True, "migrateDeviceData": True}
    assert client.enrollment.get("life") == created
    keys = keys_of(client, "life")
    assert {len(base64.b64decode(key)) for key in keys.values()} == {32}

    # Without If-Match a PUT only creates.
    with pytest.raises(ResourceExistsError) as exists:
        client.enrollment.create_or_update("life", symmetric("life"))
    error = exists.value.response.json()
    assert error["errorCode"] // 1000 == 409
    assert error.keys() == {"errorCode", "trackingId", "message", "timestampUtc"}
    assert exists.value.response.headers["x-ms-error-code"] == str(error["errorCode"])

    body = symmetric("life", deviceId="other", capabilities={"iotEdge": True})
    body["attestation"]["symmetricKey"] = {"primaryKey": KEY_1, "secondaryKey": KEY_2}
    updated = client.enrollment.create_or_update("life", body, if_match=created["etag"])
    assert updated["deviceId"] == "other"
    assert updated["capabilities"] == {"iotEdge": True}
    assert updated["etag"] != created["etag"]
    assert updated["createdDateTimeUtc"] == created["createdDateTimeUtc"]
    assert updated["lastUpdatedDateTimeUtc"] > created["lastUpdatedDateTimeUtc"]
    assert keys_of(client, "life") == {"primaryKey": KEY_1, "secondaryKey": KEY_2}

    stale = dps.request("PUT", "/enrollments/life", body=body, headers={"If-Match": created["etag"]})
    assert stale.status_code == 412
    for if_match in (updated["etag"].strip('"'), '"*"', "*"):
        answer = dps.request("PUT", "/enrollments/life", body=body, headers={"If-Match": if_match})
        assert answer.status_code == 200, if_match
        assert answer.headers["ETag"] == answer.json()["etag"]
    assert dps.request("DELETE", "/enrollments/life", headers={"If-Match": '"old"'}).status_code == 412

    client.enrollment.delete("life")
    with pytest.raises(ResourceNotFoundError) as missing:
        client.enrollment.get("life")
    assert missing.value.response.json()["errorCode"] == 404201
    assert dps.request("PUT", "/enrollments/life", body=body, headers={"If-Match": "*"}).status_code == 404


def test_ids_do_not_differ_by_case(dps: Dps) -> None:
    client = dps.client()
    client.enrollment.create_or_update("CaSe", symmetric("CaSe"))
    assert client.enrollment.get("case")["registrationId"] == "CaSe"
    with pytest.raises(ResourceExistsError):
        client.enrollment.create_or_update("case", symmetric("case"))


def test_all_members_of_an_enrollment_come_back(dps: Dps) -> None:
    body = symmetric(
        "full",
        capabilities={"iotEdge": True},
        provisioningStatus="disabled",
        reprovisionPolicy={"updateHubAssignment": True, "migrateDeviceData": False},
        allocationPolicy="static",
        iotHubs=[dps.hub.name],
        initialTwin={"tags": {"site": "a"}, "properties": {"desired": {"interval": 5}}},
        optionalDeviceInformation={"serial": "x"},
    )
    created = dps.client().enrollment.create_or_update("full", body)
    assert {name: created[name] for name in body if name != "attestation"} == {
        name: value for name, value in body.items() if name != "attestation"
    }


def test_x509_certificates_become_info(dps: Dps) -> None:
    client = dps.client()
    leaf, other = issue("by-cert"), issue("by-cert")
    certificates = {
        "primary": {"certificate": leaf.pem},
        "secondary": {"certificate": base64.b64encode(other.pem.encode()).decode()},
    }
    body = {
        "registrationId": "by-cert",
        "attestation": {"type": "x509", "x509": {"clientCertificates": certificates}},
    }
    created = client.enrollment.create_or_update("by-cert", body)
    shown = created["attestation"]["x509"]["clientCertificates"]
    info = shown["primary"]["info"]
    assert info["sha256Thumbprint"] == leaf.thumbprint.upper()
    assert info["sha1Thumbprint"] == leaf.sha1_thumbprint.upper()
    assert (info["subjectName"], info["issuerName"], info["version"]) == ("CN=by-cert", "CN=by-cert", 3)
    assert shown["secondary"]["info"]["sha256Thumbprint"] == other.thumbprint.upper()
    assert "BEGIN CERTIFICATE" not in json.dumps(created)

    # What was shown may be sent back.
    again = client.enrollment.create_or_update("by-cert", created, if_match=created["etag"])
    assert again["attestation"] == created["attestation"]


def test_group_lives_from_create_to_delete(dps: Dps) -> None:
    client = dps.client()
    root = issue("group root", ca=True)
    body: dict[str, Any] = {
        "enrollmentGroupId": "plant-1",
        "attestation": {
            "type": "x509",
            "x509": {"signingCertificates": {"primary": {"certificate": root.pem}}},
        },
        "capabilities": {"iotEdge": True},
    }
    created = client.enrollment_group.create_or_update("plant-1", body)
    assert "registrationState" not in created
    info = created["attestation"]["x509"]["signingCertificates"]["primary"]["info"]
    assert info["subjectName"] == "CN=group root"
    body["attestation"] = {"type": "x509", "x509": {"caReferences": {"primary": "plant-ca"}}}
    updated = client.enrollment_group.create_or_update("plant-1", body, if_match=created["etag"])
    assert updated["attestation"] == body["attestation"]
    body["attestation"] = {"type": "symmetricKey", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}}
    client.enrollment_group.create_or_update("plant-1", body, if_match="*")
    keys = client.enrollment_group.get_attestation_mechanism("plant-1")["symmetricKey"]
    assert keys["primaryKey"] != keys["secondaryKey"]
    assert list(client.device_registration_state.query("plant-1")) == []
    client.enrollment_group.delete("plant-1")
    with pytest.raises(ResourceNotFoundError):
        client.enrollment_group.get("plant-1")
    with pytest.raises(ResourceNotFoundError):
        client.device_registration_state.get("plant-1")


def test_query_in_pages(dps: Dps) -> None:
    client = dps.client()
    wanted = [f"page-{number:02}" for number in range(5)]
    for registration_id in wanted:
        client.enrollment.create_or_update(registration_id, symmetric(registration_id))
    found: list[str] = []
    headers, sizes = {"x-ms-max-item-count": "2"}, []
    while True:
        answer = dps.request(
            "POST", "/enrollments/query", body={"query": "SELECT * FROM enrollments"}, headers=headers
        )
        assert answer.headers["x-ms-item-type"] == "Enrollment"
        found += [item["registrationId"] for item in answer.json()]
        sizes.append(len(answer.json()))
        if "x-ms-continuation" not in answer.headers:
            break
        headers["x-ms-continuation"] = answer.headers["x-ms-continuation"]
    assert set(sizes[:-1]) == {2}
    assert sizes[-1] in (1, 2)
    assert [name for name in found if name.startswith("page-")] == wanted
    assert len(found) == len(set(found))
    assert wanted == [
        item["registrationId"]
        for item in client.enrollment.query({"query": "SELECT * FROM enrollments"})
        if item["registrationId"].startswith("page-")
    ]
    refused = dps.request("POST", "/enrollments/query", body={"query": "SELECT * WHERE x = 1"})
    assert refused.status_code == 400


def test_bulk(dps: Dps) -> None:
    client = dps.client()
    items = [symmetric(f"bulk-{number}") for number in range(3)]
    run = client.enrollment.run_bulk_operation
    assert run({"mode": "create", "enrollments": items}) == {"isSuccessful": True, "errors": []}
    result = run({"mode": "create", "enrollments": [*items[:1], symmetric("bulk-new")]})
    assert not result["isSuccessful"]
    assert [(error["registrationId"], error["errorCode"]) for error in result["errors"]] == [
        ("bulk-0", 409201)
    ]
    etag = client.enrollment.get("bulk-new")["etag"]
    update = [symmetric("bulk-new", etag=etag, provisioningStatus="disabled"), symmetric("bulk-1", etag="x")]
    result = run({"mode": "updateIfMatchETag", "enrollments": update})
    assert [error["registrationId"] for error in result["errors"]] == ["bulk-1"]
    assert client.enrollment.get("bulk-new")["provisioningStatus"] == "disabled"
    assert run({"mode": "update", "enrollments": update[1:]})["isSuccessful"]
    everything = [*items, symmetric("bulk-new")]
    assert run({"mode": "delete", "enrollments": everything})["isSuccessful"]
    assert dps.request("GET", "/enrollments/bulk-0").status_code == 404
    too_many = [symmetric(f"many-{number}") for number in range(11)]
    with pytest.raises(HttpResponseError) as error:
        run({"mode": "create", "enrollments": too_many})
    assert error.value.status_code == 400


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"attestation": None}, "attestation"),
        ({"attestation": {"type": "none"}}, "attestation.type"),
        ({"attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY_1}}}, "both"),
        (
            {
                "attestation": {
                    "type": "symmetricKey",
                    "symmetricKey": {"primaryKey": "x", "secondaryKey": "y"},
                }
            },
            "base64",
        ),
        ({"attestation": {"type": "symmetricKey", "tpm": {"endorsementKey": "eA=="}}}, "tpm"),
        ({"attestation": {"type": "tpm", "tpm": {"endorsementKey": "not base64"}}}, "endorsementKey"),
        ({"attestation": {"type": "x509", "x509": {}}}, "clientCertificates"),
        (
            {"attestation": {"type": "x509", "x509": {"signingCertificates": {"primary": {}}}}},
            "signingCertificates",
        ),
        (
            {
                "attestation": {
                    "type": "x509",
                    "x509": {"clientCertificates": {"primary": {"certificate": "eA=="}}},
                }
            },
            "certificate",
        ),
        ({"allocationPolicy": "random"}, "allocationPolicy"),
        ({"allocationPolicy": "static"}, "static"),
        ({"allocationPolicy": "custom"}, "customAllocationDefinition"),
        ({"iotHubs": ["elsewhere.example"]}, "not linked"),
        ({"provisioningStatus": "off"}, "provisioningStatus"),
        ({"capabilities": {"iotEdge": "yes"}}, "capabilities"),
        ({"reprovisionPolicy": {"updateHubAssignment": 1}}, "reprovisionPolicy"),
        ({"initialTwin": {"tags": {"a.b": 1}}}, "initialTwin.tags"),
        ({"registrationId": "other"}, "registrationId"),
    ],
)
def test_what_is_refused(dps: Dps, change: dict[str, Any], named: str) -> None:
    answer = dps.request("PUT", "/enrollments/bad", body=symmetric("bad") | change)
    assert answer.status_code == 400, answer.text
    assert named in answer.json()["message"]
    assert dps.request("GET", "/enrollments/bad").status_code == 404


@pytest.mark.parametrize("bad_id", ["-start", "end.", "a b", "x" * 129])
def test_ids_that_are_refused(dps: Dps, bad_id: str) -> None:
    assert dps.request("PUT", f"/enrollments/{bad_id}", body=symmetric(bad_id)).status_code == 400


def test_tpm_is_kept(dps: Dps) -> None:
    attestation = {"type": "tpm", "tpm": {"endorsementKey": KEY_1}}
    created = dps.client().enrollment.create_or_update(
        "tpm", {"registrationId": "tpm", "attestation": attestation}
    )
    assert created["attestation"] == attestation
    group = {"enrollmentGroupId": "tpm", "attestation": attestation}
    assert dps.request("PUT", "/enrollmentGroups/tpm", body=group).status_code == 400


def test_access_and_api_versions(dps: Dps) -> None:
    for key, policy in (
        (KEY_1, "provisioningserviceowner"),
        (dps.hub.policies["iothubowner"], "iothubowner"),
    ):
        with pytest.raises(HttpResponseError) as error:
            dps.client(key, policy).enrollment.get("any")
        assert error.value.status_code == 401
        body = error.value.response.json()
        assert (body["errorCode"], body["message"]) == (401002, "Unauthorized")
    # The hub does not know the service's policy.
    token = dps.hub.token(policy="provisioningserviceowner", key=dps.key)
    assert dps.hub.request("GET", "/devices", token=token).status_code == 401
    for version in ("2019-03-31", "2021-06-01", "2021-10-01", "2026-04-01"):
        answer = dps.request(
            "POST", "/enrollmentGroups/query", body={"query": "SELECT *"}, api_version=version
        )
        assert answer.status_code == 200
    assert dps.request("GET", "/enrollments/any", api_version="2016-01-01").status_code == 400
    assert dps.request("PATCH", "/enrollments/any").status_code == 405
    log = (dps.hub.state / "serve.log").read_text()
    assert dps.key not in log


def test_kept_over_a_restart_and_off_without_its_port(make_hub: HubFactory) -> None:
    address = free_address()
    port = free_port(address)
    hub = make_hub(address=address, serve_options=["--dps-port", str(port)]).start()
    dps = Dps(hub, port)
    dps.client().enrollment.create_or_update("kept", symmetric("kept"))
    keys = keys_of(dps.client(), "kept")
    assert hub.stop() == 0
    hub.start()
    assert keys_of(dps.client(), "kept") == keys
    assert hub.last_event("dps-listening")["idScope"] == dps.id_scope
    assert hub.stop() == 0
    hub.serve_options = ()
    hub.start()
    with pytest.raises(requests.ConnectionError):
        dps.request("GET", "/enrollments/kept")


def test_a_state_from_before_gets_what_it_lacks(tmp_path: Path) -> None:
    state = tmp_path / "state"
    init = ("init", "--state", str(state), "--name", "localhost")
    assert run_cli(*init).returncode == 0
    policies = json.loads((state / "policies.json").read_text())
    del policies["provisioningserviceowner"]
    (state / "policies.json").write_text(json.dumps(policies))
    (state / "dps.json").unlink()
    refused = run_cli(
        *("serve", "--state", str(state), "--listen", "127.0.0.1", "--https-port", "0"),
        *("--mqtt-port", "0", "--dps-port", "0"),
    )
    assert refused.returncode == 1
    assert "lacks the policies provisioningserviceowner" in refused.stderr
    assert run_cli(*init).returncode == 0
    completed = json.loads((state / "policies.json").read_text())
    assert policies.items() < completed.items()
    assert completed.keys() - policies.keys() == {"provisioningserviceowner"}
    assert stat.S_IMODE((state / "policies.json").stat().st_mode) == 0o600
    assert json.loads((state / "dps.json").read_text())["idScope"].startswith("0ne")
