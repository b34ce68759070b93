# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The management API against its published contract: made-up calls of every operation, answers checked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from edgeha_runtime.daemon.callers import Callers, Review
from edgeha_runtime.daemon.hub import Identity
from edgeha_runtime.daemon.keystore import KeyStore, Owner
from edgeha_runtime.daemon.management import ManagementApi
from edgeha_runtime.daemon.modules import Modules
from edgeha_runtime.daemon.settings import from_environment

from tests.contracts import Contract, Server
from tests.integration.runtime.parts import in_a_thread

CONTRACT = Contract("edgelet-management-2022-08-03.yaml", "EDGEHA_MANAGEMENT_CONTRACT")
if CONTRACT.operations:
    # The contract writes `type` where it means a reference, which no reader of schemas takes.
    _info = CONTRACT.document["definitions"]["SystemInfo"]["properties"]
    assert _info["provisioning"] == {"type": "#/definitions/Provisioning"}
    _info["provisioning"] = {"$ref": "#/definitions/Provisioning"}
AGENT = {"name": "edgeAgent", "image": "r/agent:1"}
SPEC = {"name": "m", "type": "docker", "config": {"settings": {"image": "r/m:1"}}}


def test_the_contract_is_there() -> None:
    CONTRACT.require(18)


class _Hub:
    """A hub that has every identity it is asked for."""

    async def get_module(self, module: str) -> Identity:
        return Identity(module, "1", "", "")

    async def set_keys(self, module: str, _primary: bytes, _secondary: bytes) -> Identity:
        return Identity(module, "1", "", "")

    async def delete_module(self, module: str) -> None:
        """It is gone."""


async def _review(token: str, audience: str) -> Review:
    """Every token is edgeAgent's."""
    return Review(bool(token), "system:serviceaccount:ns:gw-edgeagent", (audience,))


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The API on a port, in a thread of its own: schemathesis calls it as any client does."""
    environment = {
        "EDGEHA_RELEASE": "gw",
        "EDGEHA_NAMESPACE": "ns",
        "EDGEHA_POD_NAME": "p",
        "EDGEHA_NODE_NAME": "n",
        "EDGEHA_DEVICE_ID": "d",
        "EDGEHA_IOTHUB_HOSTNAME": "h.example",
        "EDGEHA_DEVICE_KEY_FILE": "/none",
        "EDGEHA_STATE_DIR": str(tmp_path),
        "EDGEHA_TRUST_BUNDLE_FILE": "/none",
        "EDGEHA_WORKLOAD_PROXY_IMAGE": "i",
    }

    def application() -> web.Application:
        store = KeyStore.open(tmp_path, Owner("d", "h.example"))
        store.remember("m", "1")
        store.keep_deployment({"modules": {"m": {"spec": SPEC}}, "identities": ["m"]})
        hub: Any = _Hub()
        cluster: Any = None  # no pod is there, so no log is asked for
        modules = Modules(from_environment(environment), store, hub, cluster)
        modules.take({"modules.json": json.dumps([AGENT])})
        callers = Callers(_review, namespace="ns", audience="edgeha-gw", modules=lambda: modules.accounts)
        api = ManagementApi(callers, modules, cluster, state=tmp_path, provisioning="manual.sas")
        return api.application()

    with in_a_thread(application) as found:
        yield found


@pytest.mark.parametrize(("method", "path"), CONTRACT.operations)
def test_operation(url: str, method: str, path: str) -> None:
    server = Server(
        url,
        query={"api-version": "2022-08-03"},
        headers={"Authorization": "Bearer t"},
        known={"name": "m"},
        refusals=frozenset({400, 404, 409, 413}),
        examples=25,
    )
    CONTRACT.hold(server, method, path)
