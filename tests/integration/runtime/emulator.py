# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's hub emulator as a process on an address of its own.

It is named by an IP address, as in the lab: REST on a free port, MQTT over TLS on 8883 as the SDK wants.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from edgeha_runtime.daemon.credential import sas_token
from edgeha_runtime.daemon.trust import TrustBundle
from yarl import URL

from tests.integration.runtime.parts import until

REPOSITORY = Path(__file__).parents[3]
# An address of loopback of its own: 8883 cannot be chosen, and others may use it on 127.0.0.1.
HUB_IP = f"127.{os.getpid() % 200 + 20}.0.1"
DEVICE_KEY = "ZGV2aWNlLWtleS1vZi10aGUtdGVzdHM="


@dataclass
class Hub:
    """The emulator as a process."""

    state: Path
    port: int
    process: asyncio.subprocess.Process | None = None

    @property
    def host(self) -> str:
        return f"{HUB_IP}:{self.port}"

    @property
    def ca(self) -> str:
        return (self.state / "ca.pem").read_text()

    async def cli(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "iothub_emulator", *arguments,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "lab/iothub-emulator")},
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0
        return output.decode()

    async def start(self, **options: str) -> None:
        flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
        (self.state / "serve.pid").unlink(missing_ok=True)
        with (self.state.parent / "hub.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "iothub_emulator", "serve", "--state", str(self.state),
                "--listen", HUB_IP, "--https-port", str(self.port), *flags,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY / "lab/iothub-emulator")},
                stderr=log,
            )  # fmt: skip
        await until("the hub listens", (self.state / "serve.pid").exists)

    async def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
            self.process = None

    async def service(self, method: str, path: str, body: object = None, *, change: bool = False) -> Any:
        """Call the service's REST as its owner; `change`: what is there already. Answers the document."""
        policies = json.loads((self.state / "policies.json").read_text())
        owner = base64.b64decode(policies["iothubowner"])
        token = sas_token(self.host, owner, int(time.time()) + 600) + "&skn=iothubowner"
        connector = aiohttp.TCPConnector(ssl=TrustBundle(self.ca).context())
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(
                method,
                # Encoded already: $ stands in names of modules.
                URL(f"https://{self.host}{path}?api-version=2021-04-12", encoded=True),
                json=body,
                headers={"Authorization": token} | ({"If-Match": '"*"'} if change else {}),
            ) as answer,
        ):
            text = await answer.text()
            assert answer.status in (200, 201, 204), text
            return json.loads(text) if text else None

    async def register(self, device: str, key: str) -> None:
        document = {
            "deviceId": device,
            "status": "enabled",
            "capabilities": {"iotEdge": True},
            "authentication": {"type": "sas", "symmetricKey": {"primaryKey": key, "secondaryKey": key}},
        }
        await self.service("PUT", f"/devices/{device}", document)

    async def messages(self) -> list[dict[str, Any]]:
        text = await self.cli("log", "--state", str(self.state), "--json")
        return [json.loads(line) for line in text.splitlines()]


class Dps:
    """The emulator with its provisioning service."""

    def __init__(self, hub: Hub, port: int) -> None:
        self.hub = hub
        self.host = f"{HUB_IP}:{port}"
        self.port = port
        self.id_scope: str = json.loads((hub.state / "dps.json").read_text())["idScope"]

    async def enroll(self, path: str, document: dict[str, Any]) -> None:
        await self._service("PUT", path, 200, document)

    async def forget(self, path: str) -> None:
        """Delete an enrollment, and with it what was registered by it."""
        await self._service("DELETE", path, 204)

    async def _service(self, method: str, path: str, status: int, document: object = None) -> None:
        policies = json.loads((self.hub.state / "policies.json").read_text())
        key = base64.b64decode(policies["provisioningserviceowner"])
        token = sas_token(self.host, key, int(time.time()) + 600) + "&skn=provisioningserviceowner"
        connector = aiohttp.TCPConnector(ssl=TrustBundle(self.hub.ca).context())
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(
                method,
                f"https://{self.host}{path}",
                params={"api-version": "2021-10-01"},
                json=document,
                headers={"Authorization": token},
            ) as answer,
        ):
            assert answer.status == status, await answer.text()

    def settings(self, registration: str, **more: str) -> dict[str, str]:
        """What the chart tells the daemon."""
        return {
            "EDGEHA_DEVICE_ID": "",
            "EDGEHA_IOTHUB_HOSTNAME": "",
            "EDGEHA_DPS_ENDPOINT": self.host,
            "EDGEHA_DPS_ID_SCOPE": self.id_scope,
            "EDGEHA_DPS_REGISTRATION_ID": registration,
            **more,
        }
