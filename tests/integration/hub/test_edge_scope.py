# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""edgeHub reads its gateway's scope and speaks for it, and for nobody else."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
import requests

from tests.integration.hub.conftest import API_VERSION, Hub

PATH = "/devices/{}/modules/$edgeHub/devicesAndModulesInTargetDeviceScope"


@pytest.fixture(scope="module")
def gateways(hub: Hub) -> dict[str, str]:
    """Two gateways with a child and a module each; the keys of their edgeHubs by device id."""
    keys = {}
    for name in ("one", "two"):
        hub.create_device(name, edge=True)
        scope = hub.request("GET", f"/devices/{name}").json()["deviceScope"]
        child = {"deviceId": f"child-{name}", "status": "enabled", "deviceScope": scope}
        assert hub.request("PUT", f"/devices/child-{name}", body=child).status_code == 200
        module = {"deviceId": name, "moduleId": "m"}
        assert hub.request("PUT", f"/devices/{name}/modules/m", body=module).status_code == 200
        # The gateway's daemon gives it keys; the hub makes it without.
        keys[name] = b64encode(f"key-of-the-hub-of-{name}".encode()).decode()
        pair = {"primaryKey": keys[name], "secondaryKey": keys[name]}
        own = {
            "deviceId": name,
            "moduleId": "$edgeHub",
            "authentication": {"symmetricKey": pair, "type": "sas"},
        }
        put = hub.request("PUT", f"/devices/{name}/modules/$edgeHub", body=own, if_match='"*"')
        assert put.status_code == 200, put.text
    return keys


def look(hub: Hub, device: str, key: str, **more: Any) -> requests.Response:
    token = hub.token(key=key, path=f"/devices/{device}/modules/$edgeHub")
    body = {"authChain": device, "pageSize": 100, "continuationToken": "", **more}
    return hub.request("POST", PATH.format(device), body=body, token=token)


def test_the_scope_is_read_page_by_page(hub: Hub, gateways: dict[str, str]) -> None:
    devices, modules, token = [], [], ""
    while True:
        answer = look(hub, "one", gateways["one"], pageSize=2, continuationToken=token)
        assert answer.status_code == 200, (answer.text, hub.last_event("request"))
        page = answer.json()
        devices += [entry["deviceId"] for entry in page["devices"]]
        modules += [entry["moduleId"] for entry in page["modules"]]
        token = page["continuationLink"].partition("continuationToken=")[2]
        if not token:
            break
    assert devices == ["child-one", "one"]
    assert modules == ["$edgeAgent", "$edgeHub", "m"]


def test_nobody_else_reads_it(hub: Hub, gateways: dict[str, str]) -> None:
    assert look(hub, "one", gateways["two"]).status_code == 401
    token = hub.token(key=gateways["two"], path="/devices/two/modules/$edgeHub")
    body = {"authChain": "one", "pageSize": 100}
    refused = hub.request("POST", PATH.format("one"), body=body, token=token)
    assert refused.status_code == 401
    assert look(hub, "one", gateways["one"], authChain="two;one").status_code == 400
    assert look(hub, "one", gateways["one"], pageSize=2000).status_code == 400
    assert look(hub, "one", gateways["one"], continuationToken="x").status_code == 400


@pytest.mark.parametrize(
    ("client", "code"),
    [("one/m", 0), ("child-one", 0), ("one/$edgeHub", 0), ("two/m", 5), ("child-two", 5), ("one/none", 5)],
)
def test_a_hub_speaks_for_its_own_and_for_nobody_else(
    hub: Hub, gateways: dict[str, str], client: str, code: int
) -> None:
    token = hub.token(key=gateways["one"], path="/devices/one/modules/$edgeHub")
    connected = hub.paho_as(f"{hub.name}/{client}/?api-version={API_VERSION}", client, token)
    assert connected.return_code == code
