# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the daemon makes of answers of a hub that are odd, or come in pieces."""

from __future__ import annotations

import asyncio
import http.server
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from edgeha_runtime.daemon import hub
from edgeha_runtime.daemon.credential import Credential
from edgeha_runtime.daemon.hub import HubClient, HubError, HubUnavailableError
from edgeha_runtime.daemon.settings import from_environment
from edgeha_runtime.daemon.trust import TrustBundle

from tests.integration.runtime.emulator import DEVICE_KEY
from tests.tls import issue, serving

IDENTITY = {"deviceId": "gw-1", "moduleId": "m", "generationId": "637"}


class Odd(http.server.BaseHTTPRequestHandler):
    """Answers with `status`, with `date` and with `parts`, one after the other; first 429 `busy` times."""

    busy: ClassVar[int] = 0
    slow: ClassVar[float] = 0.0
    status: ClassVar[int] = 200
    date: ClassVar[str] = ""
    parts: ClassVar[list[bytes]] = []

    def do_GET(self) -> None:
        time.sleep(self.slow)
        busy, Odd.busy = Odd.busy, max(0, Odd.busy - 1)
        self.send_response_only(429 if busy else self.status)
        if self.date:
            self.send_header("Date", self.date)
        self.send_header("Content-Length", str(sum(map(len, self.parts))))
        self.end_headers()
        for part in self.parts:
            self.wfile.write(part)
            self.wfile.flush()
            time.sleep(0.1)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    certificate, key = issue("127.0.0.1", ca=True, address="127.0.0.1").write(tmp_path)
    with serving(Odd, certificate, key) as number:
        yield number


@pytest.fixture
async def client(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubClient:
    monkeypatch.setattr(hub, "REQUEST_TIMEOUT", 2.0)
    (tmp_path / "device-key").write_text(DEVICE_KEY)
    config = from_environment(
        {
            "EDGEHA_RELEASE": "gw",
            "EDGEHA_NAMESPACE": "edge-gw",
            "EDGEHA_POD_NAME": "p",
            "EDGEHA_NODE_NAME": "n",
            "EDGEHA_DEVICE_ID": "gw-1",
            "EDGEHA_IOTHUB_HOSTNAME": f"127.0.0.1:{port}",
            "EDGEHA_DEVICE_KEY_FILE": str(tmp_path / "device-key"),
            "EDGEHA_STATE_DIR": str(tmp_path),
            "EDGEHA_TRUST_BUNDLE_FILE": str(tmp_path / "own.crt"),
            "EDGEHA_WORKLOAD_PROXY_IMAGE": "i",
        }
    )
    return HubClient(
        config, Credential(config, TrustBundle((tmp_path / "own.crt").read_text()).context()), pause=0.01
    )


async def test_an_answer_in_pieces_is_read_whole(client: HubClient, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(IDENTITY).encode()
    monkeypatch.setattr(Odd, "parts", [text[:20], text[20:40], text[40:]])
    try:
        found = await client.get_module("m")
    finally:
        await client.close()
    assert found is not None
    assert (found.module_id, found.generation_id) == ("m", "637")


async def test_nobody_is_asked_for_a_name_that_leads_upwards(client: HubClient) -> None:
    try:
        for name in (".", "..", ""):
            with pytest.raises(HubError, match="is no module id"):
                await client.delete_module(name)
    finally:
        await client.close()


async def test_a_refusal_with_a_date_that_is_none_is_a_refusal(
    client: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Odd, "status", 401)
    monkeypatch.setattr(Odd, "date", "yesterday")
    try:
        with pytest.raises(HubError, match="wrong device key") as caught:
            await client.get_module("m")
    finally:
        await client.close()
    assert not isinstance(caught.value, HubUnavailableError)


async def test_a_hub_that_is_busy_is_asked_longer_than_one_that_is_away(
    client: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Odd, "busy", 6)
    monkeypatch.setattr(Odd, "parts", [json.dumps(IDENTITY).encode()])
    try:
        found = await client.get_module("m")
        assert found is not None
        Odd.busy = 7
        with pytest.raises(HubUnavailableError, match="answered 429"):
            await client.get_module("m")
    finally:
        await client.close()
    assert Odd.busy == 0


async def test_many_calls_at_once_wait_for_each_other_and_do_not_fail(
    client: HubClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Odd, "slow", 0.3)
    monkeypatch.setattr(Odd, "parts", [json.dumps(IDENTITY).encode()])
    caplog.set_level("INFO", "edgeha_runtime.daemon.hub")
    try:
        found = await asyncio.gather(*(client.get_module("m") for _ in range(24)))
    finally:
        await client.close()
    assert all(found)
    assert "hub request failed" not in caplog.messages
