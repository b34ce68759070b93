# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import inventory_rules, releases

SETTINGS = {
    "iothub_hostname": "hub.example",
    "image_registry": "registry.example",
    "trust_bundle": "",
    "https_proxy": "",
    "no_proxy": "",
    "toleration_seconds": "30",
    "chart_digest": "abc",
    "credentials": [None],
}
KEY = "a2V5a2V5a2V5a2V5a2V5a2V5"
[RELEASE] = releases.wanted(
    inventory_rules.normalise_gateways([{"name": "gw", "device_id": "dev"}], {}, "nfs"),
    [
        {
            "modules": [{"name": "sensor", "image": "s:1", "env": {}, "imagePullPolicy": "IfNotPresent"}],
            "edge_agent": None,
        }
    ],
    SETTINGS,
)
DEVICE = {"device_id": "dev", "as_wanted": True, "identity_etag": "MTIz"}
GATEWAY = {
    "name": "gw",
    "namespace": "edge-gw",
    "identity_etag": "MTIz",
    "ready": True,
    "release": {"status": "deployed", "revision": 3, "values": RELEASE["values"]},
}


def deployed(**changes: Any) -> dict[str, Any]:
    return {"release": {**GATEWAY["release"], **changes}}  # type: ignore[dict-item]


def test_values_of_the_chart() -> None:
    values = RELEASE["values"]
    assert values["gateway"] == {"name": "gw", "deviceId": "dev", "iothubHostname": "hub.example"}
    assert values["credential"] == {"existingSecret": "gw-device"}
    assert values["storage"] == {"className": "nfs", "size": "1Gi", "accessMode": "ReadWriteMany"}
    assert values["tolerationSeconds"] == 30
    assert [module["name"] for module in values["modules"]] == ["sensor"]


def test_edge_agent_is_a_value_only_where_a_deployment_has_one() -> None:
    gateways = inventory_rules.normalise_gateways([{"name": "gw", "device_id": "dev"}], {}, "nfs")
    agent = {"image": "a:1", "env": {}}
    (release,) = releases.wanted(gateways, [{"modules": [], "edge_agent": agent}], SETTINGS)
    assert release["values"]["edgeAgent"] == agent
    assert "edgeAgent" not in RELEASE["values"]


def test_a_gateway_knows_those_that_reach_the_hub_through_it() -> None:
    entries = [
        {"name": "top", "device_id": "plant-top", "hostname": "top.example"},
        {"name": "by-device", "parent": "plant-top"},
        {"name": "by-host", "dps": {"id_scope": "0ne1"}, "parent_hostname": "top.example"},
        {"name": "by-both", "parent": "plant-top", "parent_hostname": "other.example"},
        {"name": "other"},
    ]
    gateways = inventory_rules.normalise_gateways(entries, {}, "nfs")
    deployment = {"modules": [], "edge_agent": None}
    settings = {**SETTINGS, "credentials": [None] * len(entries)}
    found = {
        release["name"]: release["values"].get("networkPolicy", {}).get("gatewaysBelow")
        for release in releases.wanted(gateways, [deployment] * len(entries), settings)
    }
    assert found == {
        "top": [
            {"name": "by-device", "namespace": "edge-by-device"},
            {"name": "by-host", "namespace": "edge-by-host"},
            {"name": "by-both", "namespace": "edge-by-both"},
        ],
        **dict.fromkeys(["by-device", "by-host", "by-both", "other"]),
    }


def test_gateway_that_is_as_wanted_needs_nothing() -> None:
    assert releases.unsettled([RELEASE], [GATEWAY], [DEVICE]) == []


@pytest.mark.parametrize(
    ("gateway", "device", "unfinished"),
    [
        ({"identity_etag": None}, {}, None),
        ({"ready": False}, {}, None),
        ({"identity_etag": "other"}, {}, None),
        ({"namespace": "other"}, {}, None),
        ({"release": None}, {}, None),
        (deployed(values={}), {}, None),
        (deployed(values=None), {}, None),
        (deployed(status="failed"), {}, 3),
        (deployed(status="failed", values={}), {}, None),
        (deployed(status="pending-install"), {}, 3),
        (deployed(status="pending-upgrade", values={}), {}, 3),
        (deployed(status="uninstalling"), {}, 3),
        ({}, {"as_wanted": False}, None),
        ({}, {"identity_etag": None}, None),
        ({"identity_etag": None}, {"identity_etag": None}, None),
    ],
)
def test_any_difference_asks_for_work(
    gateway: dict[str, Any], device: dict[str, Any], unfinished: int | None
) -> None:
    [todo] = releases.unsettled([RELEASE], [{**GATEWAY, **gateway}], [{**DEVICE, **device}])
    assert todo == {**RELEASE, "unfinished": unfinished}


def test_without_a_look_everything_is_to_be_done() -> None:
    assert [todo["name"] for todo in releases.unsettled([RELEASE], [], [])] == ["gw"]


def release_of(digest: str | None = None, **entry: Any) -> dict[str, Any]:
    gateways = inventory_rules.normalise_gateways([{"name": "gw", "device_id": "dev", **entry}], {}, "nfs")
    settings = {**SETTINGS, "credentials": [digest]}
    (release,) = releases.wanted(gateways, [{"modules": [], "edge_agent": None}], settings)
    return release


def is_settled(release: dict[str, Any], **gateway: Any) -> bool:
    there = {**GATEWAY, "release": {**GATEWAY["release"], "values": release["values"]}, **gateway}  # type: ignore[dict-item]
    return releases.unsettled([release], [there], [DEVICE]) == []


def test_credential_of_files_counts_by_what_is_in_them() -> None:
    files = {"type": "x509", "certificate_file": "a.pem", "key_file": "a.key"}
    release = release_of("0123", credential=files)
    assert release["values"]["credential"] == {"existingSecret": "gw-device", "type": "x509"}
    assert is_settled(release, key_digest="0123", identity_etag=None)
    assert not is_settled(release, key_digest="4567", identity_etag=None)
    assert not is_settled({**release, "digest": None}, key_digest=None, identity_etag=None)


def test_a_secret_of_somebody_else_is_theirs_to_change() -> None:
    release = release_of(credential={"secret": "own"})
    assert release["values"]["credential"] == {"existingSecret": "own"}
    assert is_settled(release, key_digest=None, identity_etag=None)


def test_a_device_of_the_provisioning_service_is_told_by_it() -> None:
    release = release_of("0123", dps={"id_scope": "0ne1", "group": True}, credential={"key_file": "g.key"})
    values = release["values"]
    assert release["provisioned"] is True
    assert values["gateway"] == {"name": "gw"}
    assert values["dps"] == {
        "endpoint": "global.azure-devices-provisioning.net", "idScope": "0ne1", "registrationId": "dev",
    }  # fmt: skip
    # The key of the group is in a Secret of somebody's: the daemon derives the device's.
    values = release_of(dps={"id_scope": "0ne1", "group": True}, credential={"secret": "own"})["values"]
    assert values["dps"]["key"] == "group"


def test_values_for_the_chart_are_laid_over_those_of_the_role() -> None:
    values = release_of(chart_values={"edgeCa": {"existingSecret": "ca"}, "image": {"tag": "2"}})["values"]
    assert values["edgeCa"] == {"existingSecret": "ca"}
    assert values["image"] == {"registry": "registry.example", "tag": "2"}


def test_fingerprint_of_a_certificate_is_that_of_both_files() -> None:
    def data(certificate: str, key: str) -> dict[str, str]:
        given = {"tls.crt": certificate, "tls.key": key}
        return {name: base64.b64encode(text.encode()).decode() for name, text in given.items()}

    one = releases.data_digest(data("a", "b"))
    assert one is not None
    assert one != releases.data_digest(data("a", "c"))
    assert one != releases.data_digest(data("c", "b"))
    assert releases.data_digest({"tls.crt": "YQ=="}) is None
    assert releases.data_digest(data("a", "")) is None


def helm_secret(revision: int, status: str, config: Any) -> dict[str, Any]:
    packed = base64.b64encode(gzip.compress(json.dumps({"config": config}).encode()))
    return {
        "metadata": {"labels": {"version": str(revision), "status": status}},
        "data": {"release": base64.b64encode(packed).decode()},
    }


def test_newest_revision_counts_and_not_the_last_in_the_list() -> None:
    secrets = [
        helm_secret(10, "deployed", {"a": 1}),
        helm_secret(9, "superseded", {}),
        helm_secret(2, "failed", {}),
    ]
    assert releases.latest_release(secrets) == {"status": "deployed", "revision": 10, "values": {"a": 1}}
    assert releases.latest_release([]) is None


@pytest.mark.parametrize("data", ["", "!", base64.b64encode(b"no gzip").decode()])
def test_revision_that_cannot_be_read_has_no_values(data: str) -> None:
    secret = {**helm_secret(1, "deployed", {}), "data": {"release": data}}
    found = releases.latest_release([secret])
    assert found is not None
    assert found["values"] is None


def test_fingerprint_of_a_secret_is_that_of_its_key_and_not_the_key() -> None:
    secret = {"data": {"device-key": base64.b64encode(KEY.encode()).decode()}}
    digest = releases.secret_digest(secret)
    assert digest == releases.key_digest(KEY)
    assert KEY not in digest
    assert releases.secret_digest(None) is None
    assert releases.secret_digest({"data": {"device-key": "!"}}) is None


@pytest.mark.parametrize(
    ("annotations", "etag"),
    [
        ({releases.IDENTITY_ETAG: "MTIz", releases.KEY_DIGEST: releases.key_digest(KEY)}, "MTIz"),
        # Somebody put another key there since.
        ({releases.IDENTITY_ETAG: "MTIz", releases.KEY_DIGEST: "other"}, None),
        ({releases.IDENTITY_ETAG: "MTIz"}, None),
        (None, None),
    ],
)
def test_secret_tells_which_identity_its_key_is_of(
    annotations: dict[str, str] | None, etag: str | None
) -> None:
    secret = {
        "metadata": {"annotations": annotations},
        "data": {"device-key": base64.b64encode(KEY.encode()).decode()},
    }
    assert releases.secret_identity_etag(secret) == etag
