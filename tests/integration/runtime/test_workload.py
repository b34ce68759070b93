# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules get of a running daemon besides signatures: encryption, and certificates that TLS believes."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests import tls
from tests.integration.runtime.parts import Daemon, until

VERSION = {"api-version": "2020-07-07"}
OWN = "/modules/Sensor/genid/637"


async def ask(daemon: Daemon, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    """Ask as the sensor does."""
    async with (
        daemon.session("sensor-token") as session,
        session.request(method, path, params=VERSION, json=body) as answer,
    ):
        return answer.status, await answer.json()


def text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def tomorrow() -> str:
    # As .NET writes it: seven digits and Z.
    return (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S.0000000Z")


async def restart(daemon: Daemon, **extra: str) -> None:
    await daemon.stop(signal.SIGKILL)
    (daemon.folder / "daemon.log").write_text("")
    await daemon.start(**extra)

    async def knows_callers() -> bool:
        return "was not seen yet" not in (await daemon.ready())[1]

    await until("it saw its module set", knows_callers)


async def test_what_was_encrypted_opens_after_a_kill_and_for_its_module_only(served: Daemon) -> None:
    plain, vector = os.urandom(40_000), text(b"one vector for all")
    status, sealed = await ask(
        served, "POST", f"{OWN}/encrypt", {"plaintext": text(plain), "initializationVector": vector}
    )
    assert (status, set(sealed)) == (200, {"ciphertext"})
    await restart(served)
    status, opened = await ask(served, "POST", f"{OWN}/decrypt", sealed | {"initializationVector": vector})
    assert (status, opened) == (200, {"plaintext": text(plain)})
    status, refused = await ask(
        served, "POST", f"{OWN}/decrypt", sealed | {"initializationVector": text(b"another")}
    )
    assert status == 400
    assert "cannot be decrypted" in refused["message"]
    async with (
        served.session("other-token") as session,
        session.post(
            "/modules/other/genid/638/decrypt", params=VERSION, json=sealed | {"initializationVector": vector}
        ) as answer,
    ):
        assert answer.status == 400


# In one test: a daemon's start costs more than all the requests.
BAD = [
    ("encrypt", {"plaintext": "AA=="}, "initializationVector is missing"),
    ("encrypt", {"plaintext": "AA==", "initializationVector": ""}, "initializationVector is empty"),
    ("encrypt", {"plaintext": "?", "initializationVector": "AA=="}, "plaintext is not base64"),
    ("decrypt", {"ciphertext": "AA==", "initializationVector": "AA=="}, "cannot be decrypted"),
    ("certificate/server", {"commonName": "gw"}, "expiration is missing"),
    ("certificate/server", {"commonName": "gw", "expiration": "soon"}, "not a date and time"),
    ("certificate/server", {"commonName": "gw", "expiration": "2001-01-01T00:00:00Z"}, "in the past"),
    ("certificate/server", {"commonName": "a b", "expiration": "2999-01-01"}, "neither a DNS name"),
    ("certificate/server", {"expiration": "2999-01-01"}, "commonName is missing"),
]


async def test_a_bad_request_is_told_what_is_wrong(served: Daemon) -> None:
    for name, body, said in BAD:
        status, answer = await ask(served, "POST", f"{OWN}/{name}", body)
        assert status == 400, f"{name} {body}: {answer}"
        assert said in answer["message"]


async def shake_hands(chain: str, key: str, trust: str, folder: Path, name: str) -> str:
    """Serve TLS with a certificate and connect by the trust bundle; returns what the server said."""
    (folder / "chain.pem").write_text(chain)
    (folder / "key.pem").write_text(key)
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(folder / "chain.pem", folder / "key.pem")

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=own)
    async with server:
        port = server.sockets[0].getsockname()[1]
        context = ssl.create_default_context(cadata=trust)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        said = await reader.readline()
        writer.close()
        return said.decode().strip()


async def test_a_server_certificate_serves_those_who_have_the_trust_bundle(
    served: Daemon, tmp_path: Path
) -> None:
    asked = {"commonName": "gw.plant.example", "expiration": tomorrow()}
    status, issued = await ask(served, "POST", f"{OWN}/certificate/server", asked)
    assert status == 201
    assert issued["privateKey"]["type"] == "key"
    assert datetime.fromisoformat(issued["expiration"]) <= datetime.now(UTC) + timedelta(days=1)
    _, trust = await ask(served, "GET", "/trust-bundle")
    key = issued["privateKey"]["bytes"]
    for name in ("gw.plant.example", "sensor"):
        assert await shake_hands(issued["certificate"], key, trust["certificate"], tmp_path, name) == "hello"
    with pytest.raises(ssl.SSLCertVerificationError):
        await shake_hands(issued["certificate"], key, trust["certificate"], tmp_path, "other.example")
    # The same CA after a kill: whoever has the trust bundle of before believes the certificate of now.
    await restart(served)
    _, issued = await ask(served, "POST", f"{OWN}/certificate/server", asked)
    key = issued["privateKey"]["bytes"]
    said = await shake_hands(issued["certificate"], key, trust["certificate"], tmp_path, "gw.plant.example")
    assert said == "hello"
    assert (served.state / "edge-ca.json").stat().st_mode & 0o777 == 0o600
    log = (served.folder / "daemon.log").read_text()
    assert "PRIVATE KEY" not in log


async def test_an_identity_certificate_needs_no_body(served: Daemon) -> None:
    for body in (None, {}, {"expiration": tomorrow()}):
        status, issued = await ask(served, "POST", "/modules/Sensor/certificate/identity", body)
        assert (status, set(issued)) == (201, {"privateKey", "certificate", "expiration"})


async def test_a_module_sees_itself_alone(served: Daemon) -> None:
    status, listed = await ask(served, "GET", "/modules")
    assert status == 200
    assert [module["name"] for module in listed["modules"]] == ["Sensor"]


async def test_no_manifest_trust_is_an_empty_one(served: Daemon, certificates: Path) -> None:
    assert await ask(served, "GET", "/manifest-trust-bundle") == (200, {"certificate": ""})
    await restart(served, EDGEHA_MANIFEST_TRUST_FILE=str(certificates / "ca.crt"))
    _, answer = await ask(served, "GET", "/manifest-trust-bundle")
    assert answer["certificate"].strip() == (certificates / "ca.crt").read_text().strip()


@pytest.mark.parametrize(
    ("above", "said"),
    [(False, "the edge CA CN=plant CA expired at"), (True, "above the edge CA, CN=plant devices expired at")],
    ids=["itself", "the one above it"],
)
async def test_an_expired_ca_is_told_by_readiness_and_signing_goes_on(
    served: Daemon, tmp_path: Path, above: bool, said: str
) -> None:
    over = (-10, -1)
    between = tls.issue("plant devices", tls.issue("plant root", ca=True), ca=True, days=over)
    made = tls.issue("plant CA", between, ca=True) if above else tls.issue("plant CA", ca=True, days=over)
    certificate, key = made.write(tmp_path)
    files = {
        "EDGEHA_EDGE_CA_CERTIFICATE_FILE": str(certificate),
        "EDGEHA_EDGE_CA_KEY_FILE": str(key),
    }
    await restart(served, **files)

    async def told() -> bool:
        status, reasons = await served.ready()
        return status == 503 and said in reasons

    await until("the reason in /readyz", told)
    asked = {"commonName": "gw", "expiration": tomorrow()}
    status, answer = await ask(served, "POST", f"{OWN}/certificate/server", asked)
    assert status == 503
    assert "Replace it" in answer["message"]
    body = {"keyId": "primary", "algo": "HMACSHA256", "data": "AA=="}
    assert (await ask(served, "POST", f"{OWN}/sign", body))[0] == 200
    # A new Secret counts at once, without a restart.
    tls.issue("plant CA", ca=True).write(tmp_path)
    status, _ = await ask(served, "POST", f"{OWN}/certificate/server", asked)
    assert status == 201


async def test_a_full_disk_is_told_and_signing_goes_on(served: Daemon) -> None:
    # The folder cannot take a new file, as on a full volume; root may write all but this.
    (served.state / ".edge-ca.json.new").mkdir()
    status, answer = await ask(served, "GET", "/trust-bundle")
    assert status == 503
    assert "cannot be stored" in answer["message"]
    body = {"keyId": "primary", "algo": "HMACSHA256", "data": "AA=="}
    assert (await ask(served, "POST", f"{OWN}/sign", body))[0] == 200
    (served.state / ".edge-ca.json.new").rmdir()
    assert (await ask(served, "GET", "/trust-bundle"))[0] == 200


async def test_a_body_of_100_mb_is_refused_early(served: Daemon) -> None:
    async def endless() -> Any:
        for _ in range(100):
            yield b"A" * 1_000_000

    async with served.session("sensor-token") as session:
        try:
            async with session.post(f"{OWN}/encrypt", params=VERSION, data=endless()) as answer:
                assert answer.status == 413
                assert "larger than" in json.loads(await answer.text())["message"]
        except aiohttp.ClientOSError:
            pass  # The daemon closed while the rest was still on its way.
    assert (await ask(served, "GET", "/trust-bundle"))[0] == 200
