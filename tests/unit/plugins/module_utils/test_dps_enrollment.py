# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import dps_enrollment, dps_keys, item_list
from ansible_collections.edgeha.iotedge.plugins.module_utils.dps_enrollment import (
    ENROLLMENTS,
    GROUPS,
    Attestation,
    Desired,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.tls import issue

KEY, OTHER = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
HUB = "contoso.azure-devices.net"
# HMAC-SHA256 of "sensor" with KEY, by openssl dgst -mac HMAC.
DEVICE_KEY = "pLCOTChbVvopSOq+sYTWs7Vj4Lp4WLcsgDIX8hEQrPA="


OWN = issue("gw")
PEM, PRINT, PRIVATE = OWN.pem, OWN.thumbprint.upper(), OWN.key_pem
SYMMETRIC: dict[str, Any] = {
    "type": "symmetricKey",
    "symmetricKey": {"primaryKey": KEY, "secondaryKey": OTHER},
}
# As a service answers a GET, with the quotes of the header in the etag.
ACTUAL: dict[str, Any] = {
    "registrationId": "gw-1",
    "deviceId": "plant07-gw",
    "attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": None, "secondaryKey": None}},
    "capabilities": {"iotEdge": True},
    "provisioningStatus": "enabled",
    "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": True},
    "allocationPolicy": "static",
    "iotHubs": [HUB],
    "initialTwin": {"tags": {"site": "a"}, "properties": {"desired": {"n": 1}}},
    "optionalDeviceInformation": {"kept": True},
    "createdDateTimeUtc": "2026-01-31T08:15:00.1230000Z",
    "lastUpdatedDateTimeUtc": "2026-01-31T08:15:00.1230000Z",
    "etag": '"0000-11"',
    "registrationState": {"registrationId": "gw-1", "status": "unassigned"},
}
SHOWN: dict[str, Any] = {
    "type": "x509",
    "x509": {
        "clientCertificates": {
            "primary": {"info": {"sha1Thumbprint": "AB" * 20, "sha256Thumbprint": PRINT, "version": 3}}
        }
    },
}


def test_new_one_lets_the_service_make_the_keys() -> None:
    item = Desired("gw-1", attestation=Attestation("symmetric_key"), edge=True, device_id="d")
    plan = dps_enrollment.plan(ENROLLMENTS, None, item)
    assert (plan.action, plan.etag) == ("create", "")
    assert plan.body == {
        "registrationId": "gw-1",
        "deviceId": "d",
        "attestation": {"type": "symmetricKey", "symmetricKey": {}},
        "capabilities": {"iotEdge": True},
        "provisioningStatus": "enabled",
        "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": True},
    }
    assert plan.before == {}
    assert plan.after["status"] == "enabled"
    group = dps_enrollment.plan(GROUPS, None, Desired("g", attestation=Attestation("symmetric_key")))
    assert group.body["enrollmentGroupId"] == "g"
    assert "device_id" not in group.after


def test_new_one_needs_an_attestation() -> None:
    with pytest.raises(item_list.Refused, match="attestation is needed"):
        dps_enrollment.plan(ENROLLMENTS, None, Desired("gw-1"))


def test_one_as_wanted_is_left_alone() -> None:
    item = Desired(
        "gw-1",
        attestation=Attestation("symmetric_key"),
        device_id="plant07-gw",
        edge=True,
        status="enabled",
        allocation="static",
        iot_hubs=[HUB],
        update_hub_assignment=True,
        tags={"site": "a"},
        desired={"n": 1},
    )
    for wanted in (item, Desired("gw-1")):
        plan = dps_enrollment.plan(ENROLLMENTS, ACTUAL, wanted)
        assert not plan.changed
        assert plan.before == plan.after


def test_update_keeps_what_is_left_out_and_asks_for_the_keys() -> None:
    plan = dps_enrollment.plan(ENROLLMENTS, ACTUAL, Desired("gw-1", status="disabled", tags={"b": 2}))
    assert (plan.action, plan.etag) == ("update", '"0000-11"')
    assert plan.body["provisioningStatus"] == "disabled"
    # Tags are replaced, the other part of the twin stays.
    assert plan.body["initialTwin"] == {"tags": {"b": 2}, "properties": {"desired": {"n": 1}}}
    for name in ("deviceId", "capabilities", "allocationPolicy", "iotHubs", "optionalDeviceInformation"):
        assert plan.body[name] == ACTUAL[name]
    assert not set(plan.body) & {"etag", "createdDateTimeUtc", "lastUpdatedDateTimeUtc", "registrationState"}
    assert dps_enrollment.lacks_keys(plan.body)
    assert not dps_enrollment.lacks_keys({**plan.body, "attestation": SYMMETRIC})


def test_given_keys_replace_others_unseen() -> None:
    actual = {**ACTUAL, "attestation": SYMMETRIC}
    same = Desired("gw-1", attestation=Attestation("symmetric_key", KEY, f"{OTHER}\n"))
    assert not dps_enrollment.plan(ENROLLMENTS, actual, same).changed
    other = Desired("gw-1", attestation=Attestation("symmetric_key", OTHER, KEY))
    plan = dps_enrollment.plan(ENROLLMENTS, actual, other)
    assert plan.body["attestation"]["symmetricKey"] == {"primaryKey": OTHER, "secondaryKey": KEY}
    assert (plan.before["keys"], plan.after["keys"]) == ("others", "as given")
    assert KEY not in f"{plan!r} {other!r}"


def test_certificate_is_compared_by_its_fingerprint() -> None:
    actual = {**ACTUAL, "attestation": SHOWN}
    same = Desired("gw-1", attestation=Attestation("x509", primary_certificate=PEM), status="disabled")
    plan = dps_enrollment.plan(ENROLLMENTS, actual, same)
    # What is there is sent back, not the certificate anew.
    assert plan.body["attestation"] == SHOWN
    assert plan.after["attestation"]["primary_sha256"] == PRINT
    assert not dps_enrollment.plan(
        ENROLLMENTS, actual, Desired("gw-1", attestation=Attestation("x509", primary_certificate=PEM))
    ).changed
    both = Attestation("x509", primary_certificate=issue("gw").pem, secondary_certificate=PEM)
    plan = dps_enrollment.plan(ENROLLMENTS, actual, Desired("gw-1", attestation=both))
    assert plan.changed
    assert plan.after["attestation"]["secondary_sha256"] == PRINT
    group = dps_enrollment.plan(GROUPS, None, Desired("g", attestation=both)).body
    assert set(group["attestation"]["x509"]) == {"signingCertificates"}


def test_authorities_by_name() -> None:
    wanted = Attestation("x509", primary_ca="plant-ca")
    body = dps_enrollment.plan(GROUPS, None, Desired("g", attestation=wanted)).body
    assert body["attestation"] == {"type": "x509", "x509": {"caReferences": {"primary": "plant-ca"}}}
    there = {**body, "etag": '"1"'}
    assert not dps_enrollment.plan(GROUPS, there, Desired("g", attestation=wanted)).changed


def test_type_of_attestation_is_not_changed_in_place() -> None:
    wanted = Attestation("tpm", endorsement_key=KEY)
    with pytest.raises(item_list.Refused, match="symmetricKey and the list wants tpm"):
        dps_enrollment.plan(ENROLLMENTS, ACTUAL, Desired("gw-1", attestation=wanted))


def test_allocation_has_what_it_needs() -> None:
    for item, fact in (
        (Desired("gw-1", allocation="custom"), "needs webhook"),
        (Desired("gw-1", iot_hubs=[HUB, "b.net"]), "exactly one"),
        (Desired("gw-1", webhook=("https://f.example/api", "2021-10-01")), "it has static"),
    ):
        with pytest.raises(item_list.Refused, match=fact):
            dps_enrollment.plan(ENROLLMENTS, ACTUAL, item)
    hashed = dps_enrollment.plan(
        ENROLLMENTS, ACTUAL, Desired("gw-1", allocation="geo_latency", iot_hubs=["b.net", "a.net"])
    )
    assert hashed.body["allocationPolicy"] == "geoLatency"
    assert hashed.after["iot_hubs"] == ["a.net", "b.net"]
    old = {**ACTUAL, "iotHubHostName": HUB}
    assert (
        "iotHubHostName"
        not in dps_enrollment.plan(ENROLLMENTS, old, Desired("gw-1", iot_hubs=["b.net"])).body
    )
    assert "iotHubHostName" in dps_enrollment.plan(ENROLLMENTS, old, Desired("gw-1", edge=False)).body


def test_secret_of_a_webhook_is_compared_and_never_shown() -> None:
    def wish(code: str) -> Desired:
        webhook = (f"https://f.example/api/pick?code={code}", "2021-10-01")
        return Desired("gw-1", allocation="custom", webhook=webhook)

    plan = dps_enrollment.plan(ENROLLMENTS, ACTUAL, wish("FIRST"))
    assert plan.after["webhook"] == {"url": "https://f.example/api/pick", "api_version": "2021-10-01"}
    there = {**plan.body, "etag": '"1"'}
    assert not dps_enrollment.plan(ENROLLMENTS, there, wish("FIRST")).changed
    other = dps_enrollment.plan(ENROLLMENTS, there, wish("SECOND"))
    assert other.changed
    assert other.after["webhook_secret"] == "as given"
    assert "FIRST" not in f"{plan!r} {other!r}"
    # Another policy has no use for it.
    left = dps_enrollment.plan(ENROLLMENTS, there, Desired("gw-1", allocation="hashed"))
    assert "customAllocationDefinition" not in left.body


def test_absent() -> None:
    gone = Desired("gw-1", present=False)
    assert not dps_enrollment.plan(ENROLLMENTS, None, gone).changed
    plan = dps_enrollment.plan(ENROLLMENTS, ACTUAL, gone)
    assert (plan.action, plan.etag, plan.after) == ("delete", '"0000-11"', {})


BAD: list[tuple[Desired, str]] = [
    (Desired("a b"), "'a b' is not 1 to 128"),
    (Desired("dot."), "end in a letter"),
    (Desired("x" * 129), "is not 1 to 128"),
    (Desired("a", device_id="d/d"), "device id 'd/d'"),
    (Desired("a", attestation=Attestation("symmetric_key", KEY)), "primary_key stands alone"),
    (
        Desired("a", attestation=Attestation("symmetric_key", "%%", KEY)),
        "attestation.primary_key: the shared",
    ),
    (Desired("a", attestation=Attestation("symmetric_key", endorsement_key=KEY)), "takes no endorsement_key"),
    (Desired("a", attestation=Attestation("tpm")), "endorsement_key is not base64"),
    (Desired("a", attestation=Attestation("x509")), "needs primary_certificate or primary_ca"),
    (Desired("a", attestation=Attestation("x509", primary_certificate="AB" * 20)), "holds 0 PEM"),
    (Desired("a", attestation=Attestation("x509", primary_certificate=PEM + PEM)), "holds 2 PEM"),
    (Desired("a", attestation=Attestation("x509", primary_certificate=PEM + PRIVATE)), "a private key"),
    (Desired("a", attestation=Attestation("x509", primary_certificate=PEM, primary_ca="x")), "exclude each"),
    (Desired("a", iot_hubs=["https://contoso"]), "is no host name"),
    (Desired("a", allocation="static", iot_hubs=[]), "exactly one of iot_hubs, not 0"),
    (Desired("a", webhook=("http://x.example", "1")), "https://"),
    (
        Desired("a", allocation="hashed", webhook=("https://x.example", "1")),
        "is for allocation_policy custom",
    ),
    (Desired("a", tags={"x.y": 1}), "initial_twin.tags: the key 'x.y'"),
    (Desired("a", desired={"x": None}), "initial_twin.desired.x: null"),
]


@pytest.mark.parametrize(("item", "fact"), BAD)
def test_one_mistake_is_one_error_that_names_the_item(item: Desired, fact: str) -> None:
    [error] = dps_enrollment.list_errors(ENROLLMENTS, [Desired("good"), item])
    assert error.startswith("enrollments[1]: ")
    assert fact in error
    assert KEY not in error
    assert PRIVATE[30:60] not in error


def test_ids_are_one_whatever_their_case_and_groups_take_no_tpm() -> None:
    [error] = dps_enrollment.list_errors(ENROLLMENTS, [Desired("GW"), Desired("b"), Desired("gw")])
    assert "enrollments[2]" in error
    assert "enrollments[0]" in error
    tpm = Attestation("tpm", endorsement_key=KEY)
    assert dps_enrollment.list_errors(ENROLLMENTS, [Desired("a", attestation=tpm)]) == []
    assert dps_enrollment.list_errors(GROUPS, [Desired("a", attestation=tpm)]) == [
        "groups[0]: attestation of type tpm is not for groups"
    ]


TEXT = st.none() | st.sampled_from(["a", "b"])
WISHES = st.builds(
    Desired,
    name=st.just("gw-1"),
    device_id=TEXT,
    edge=st.none() | st.booleans(),
    status=st.none() | st.sampled_from(["enabled", "disabled"]),
    allocation=st.none() | st.sampled_from(["hashed", "geo_latency", "static"]),
    iot_hubs=st.none() | st.just([HUB]),
    update_hub_assignment=st.none() | st.booleans(),
    migrate_device_data=st.none() | st.booleans(),
    tags=st.none() | st.dictionaries(st.sampled_from("pq"), st.integers(0, 2)),
    desired=st.none() | st.dictionaries(st.sampled_from("pq"), st.integers(0, 2)),
)


@given(WISHES)
def test_second_run_changes_nothing_and_the_diff_tells_every_change(item: Desired) -> None:
    plan = dps_enrollment.plan(ENROLLMENTS, ACTUAL, item)
    assert plan.changed is (plan.before != plan.after)
    if plan.changed:
        again = dps_enrollment.plan(ENROLLMENTS, {**plan.body, "etag": '"2"'}, item)
        assert not again.changed
        assert again.before == plan.after


def test_device_key_of_a_group() -> None:
    assert dps_keys.derive_device_key(KEY, "sensor") == DEVICE_KEY
    assert dps_keys.derive_device_key(OTHER, "sensor") != DEVICE_KEY
    for key, name in (("c2hvcnQ=", "sensor"), ("%%", "sensor"), (KEY, "")):
        with pytest.raises(ValueError, match=r"shared access key|registration id"):
            dps_keys.derive_device_key(key, name)
