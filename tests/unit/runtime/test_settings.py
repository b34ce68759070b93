# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings: all problems at once, and the proxy only where it is wanted."""

from __future__ import annotations

import re

import pytest
from edgeha_runtime.daemon import settings

GOOD = {
    "EDGEHA_RELEASE": "gw",
    "EDGEHA_NAMESPACE": "edge-gw",
    "EDGEHA_POD_NAME": "gw-daemon-1",
    "EDGEHA_NODE_NAME": "node-a",
    "EDGEHA_DEVICE_ID": "gw",
    "EDGEHA_IOTHUB_HOSTNAME": "hub.example.net",
    "EDGEHA_DEVICE_KEY_FILE": "/k",
    "EDGEHA_STATE_DIR": "/s",
    "EDGEHA_TRUST_BUNDLE_FILE": "/t",
    "EDGEHA_WORKLOAD_PROXY_IMAGE": "r/workload-proxy:1",
}


def test_gateway_host_is_the_hub_until_one_is_named() -> None:
    assert settings.from_environment(GOOD).gateway_hostname == "hub.example.net"
    named = settings.from_environment({**GOOD, "EDGEHA_GATEWAY_HOSTNAME": "gw.plant"})
    assert named.gateway_hostname == "gw.plant"


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(settings.SettingsError) as refused:
        settings.from_environment(
            {
                "EDGEHA_RELEASE": "Gw",
                "EDGEHA_IOTHUB_HOSTNAME": "https://hub",
                "EDGEHA_TOLERATION_SECONDS": "soon",
                "EDGEHA_EDGE_CA_KEY_FILE": "/ca.key",
            }
        )
    for part in (
        "EDGEHA_RELEASE is 'Gw'",
        "without https://",
        "EDGEHA_TOLERATION_SECONDS",
        "EDGEHA_DEVICE_ID is not set",
        "go together: give both",
    ):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("host", "direct"),
    [
        ("hub.example.net", False),
        ("hub.plant.local", True),
        ("plant.local", True),
        ("xplant.local", False),
        ("10.7.0.1", True),
        ("10.8.0.1", False),
        ("HUB.exact.org", True),
        ("a.hub.exact.org", True),
    ],
)
def test_no_proxy_rules(host: str, direct: bool) -> None:
    found = settings.from_environment(
        {
            **GOOD,
            "EDGEHA_HTTPS_PROXY": "http://proxy:3128",
            "EDGEHA_NO_PROXY": ".plant.local, 10.7.0.0/16,hub.exact.org",
        }
    )
    assert found.proxy_for(host) == (None if direct else "http://proxy:3128")


DPS = {
    "EDGEHA_DPS_ID_SCOPE": "0ne00AA",
    "EDGEHA_DPS_REGISTRATION_ID": "plant07-gw",
    "EDGEHA_DEVICE_ID": "",
    "EDGEHA_IOTHUB_HOSTNAME": "",
    "EDGEHA_GATEWAY_HOSTNAME": "",
}


def test_with_a_provisioning_service_device_and_hub_are_told_later() -> None:
    found = settings.from_environment(GOOD | DPS)
    assert found.dps is not None
    assert (found.dps.endpoint, found.dps.group) == ("global.azure-devices-provisioning.net", False)
    assert (found.device_id, found.iothub_hostname) == ("", "")
    given = found.assigned("dev", "hub.example")
    assert (given.device_id, given.iothub_hostname) == ("dev", "hub.example")
    assert given.gateway_hostname == "hub.example"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"EDGEHA_DEVICE_ID": "dev"}, "stands beside EDGEHA_DEVICE_ID"),
        ({"EDGEHA_DPS_REGISTRATION_ID": ""}, "EDGEHA_DPS_REGISTRATION_ID is ''"),
        ({"EDGEHA_DPS_REGISTRATION_ID": "-gw"}, "not a registration id"),
        ({"EDGEHA_DPS_KEY": "tpm"}, "give individual or group"),
        ({"EDGEHA_DPS_ENDPOINT": "https://dps"}, "give the host name alone"),
    ],
)
def test_what_is_wrong_with_a_registration_is_named(change: dict[str, str], problem: str) -> None:
    with pytest.raises(settings.SettingsError, match=re.escape(problem)):
        settings.from_environment(GOOD | DPS | change)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"EDGEHA_DEVICE_KEY_FILE": ""}, "give EDGEHA_DEVICE_KEY_FILE or EDGEHA_DEVICE_CERTIFICATE_FILE"),
        (
            {"EDGEHA_DEVICE_CERTIFICATE_FILE": "/c", "EDGEHA_DEVICE_PRIVATE_KEY_FILE": "/k"},
            "a device proves itself in one way",
        ),
        ({"EDGEHA_DEVICE_KEY_FILE": "", "EDGEHA_DEVICE_CERTIFICATE_FILE": "/c"}, "go together: give both"),
    ],
)
def test_a_device_has_one_proof(given: dict[str, str], said: str) -> None:
    with pytest.raises(settings.SettingsError, match=said):
        settings.from_environment(GOOD | given)


@pytest.mark.parametrize(
    ("slots", "slot"), [("b", "b"), ("b,a", "a"), ("a,b,c", "a"), ("a", "b"), ("a,b", "c")]
)
def test_slots_that_there_are_not_are_refused(slots: str, slot: str) -> None:
    with pytest.raises(settings.SettingsError, match=f"EDGEHA_SLOTS is '{slots}' and EDGEHA_SLOT '{slot}'"):
        settings.from_environment(GOOD | {"EDGEHA_SLOTS": slots, "EDGEHA_SLOT": slot})
