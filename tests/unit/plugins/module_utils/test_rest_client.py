# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client speaks to a real TLS server on loopback whose answers are scripted."""

from __future__ import annotations

import base64
import datetime
import http.server
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import (
    iothub_auth,
    iothub_client,
    iothub_module,
    rest_client,
)

from tests.tls import issue, serving

POLICY = iothub_auth.SasPolicy("iothubowner", base64.b64encode(bytes(32)).decode())


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    # Drop the connection after the answer without saying so, as a load balancer does.
    hang_up: bool = False


@dataclass
class Server:
    hostname: str
    ca_file: str
    answers: list[Answer] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)
    connections: int = 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    cert_file, key_file = issue("127.0.0.1", ca=True, address="127.0.0.1").write(tmp_path)
    state = Server("", str(cert_file))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            state.connections += 1

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            text = self.rfile.read(length).decode()
            state.seen.append((self.command, self.path, dict(self.headers), text))
            answer = state.answers.pop(0) if state.answers else Answer()
            body = b"" if answer.body is None else json.dumps(answer.body).encode()
            self.send_response_only(answer.status)
            for name, value in {"Date": formatdate(usegmt=True), **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = answer.hang_up

        do_GET = do_PUT = do_DELETE = do_PATCH = handle_any  # noqa: N815 - names of the standard library

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with serving(Handler, cert_file, key_file) as port:
        state.hostname = f"127.0.0.1:{port}"
        yield state


@pytest.fixture
def naps() -> list[float]:
    return []


@pytest.fixture
def client(server: Server, naps: list[float]) -> Iterator[iothub_client.HubClient]:
    made = iothub_client.HubClient(
        server.hostname, POLICY, ca_file=server.ca_file, timeout=5, retry_budget=60, sleep=naps.append
    )
    yield made
    made.close()


def test_call_carries_version_signature_and_quoted_etag(
    server: Server, client: iothub_client.HubClient
) -> None:
    server.answers = [Answer(body={"deviceId": "a#1"})]
    assert client.put_device({"deviceId": "a#1"}, etag="MTIz") == {"deviceId": "a#1"}
    method, path, headers, body = server.seen[0]
    assert (method, path, json.loads(body)) == (
        "PUT",
        "/devices/a%231?api-version=2021-04-12",
        {"deviceId": "a#1"},
    )
    assert headers["If-Match"] == '"MTIz"'
    # The port is part of what is signed, or a hub behind another port would be refused.
    assert headers["Authorization"].startswith(
        f"SharedAccessSignature sr={server.hostname.replace(':', '%3A')}&"
    )


def test_one_connection_serves_many_calls(server: Server, client: iothub_client.HubClient) -> None:
    server.answers = [Answer(body={}) for _ in range(5)]
    for _ in range(5):
        client.get_device("a")
    assert server.connections == 1


def test_kept_connection_that_was_closed_is_opened_again(
    server: Server, client: iothub_client.HubClient
) -> None:
    server.answers = [Answer(body={"n": 1}, hang_up=True), Answer(body={"n": 2})]
    assert client.get_device("a") == {"n": 1}
    assert client.get_device("a") == {"n": 2}
    assert server.connections == 2


def test_throttling_is_waited_out_without_retry_after(
    server: Server, client: iothub_client.HubClient, naps: list[float]
) -> None:
    server.answers = [Answer(429, {"Message": "ErrorCode:ThrottlingException;wait"}), Answer(body={"n": 1})]
    assert client.get_device("a") == {"n": 1}
    assert len(naps) == 1
    assert 10 <= naps[0] <= 15


def test_retry_after_is_honoured(server: Server, client: iothub_client.HubClient, naps: list[float]) -> None:
    server.answers = [Answer(503, {}, {"Retry-After": "2"}), Answer(body={})]
    client.get_device("a")
    assert 2 <= naps[0] <= 3


def test_waiting_is_bounded(server: Server, client: iothub_client.HubClient, naps: list[float]) -> None:
    server.answers = [Answer(429, {}) for _ in range(20)]
    with pytest.raises(rest_client.ServiceResponseError) as caught:
        client.get_device("a")
    assert caught.value.status == 429
    assert naps
    assert sum(naps) <= 60


def test_absent_device_is_none_but_any_other_404_is_an_error(
    server: Server, client: iothub_client.HubClient
) -> None:
    server.answers = [
        Answer(404, {"Message": "ErrorCode:DeviceNotFound;no"}),
        Answer(404, {}, {"iothub-errorcode": "DeviceNotFound"}),
        Answer(404, {"Message": "no such page"}),
    ]
    assert client.get_device("a") is None
    assert client.get_device("a") is None
    with pytest.raises(rest_client.ServiceResponseError):
        client.get_device("a")


def test_clock_difference_comes_from_the_date(server: Server, client: iothub_client.HubClient) -> None:
    ahead = datetime.datetime.now(datetime.UTC).timestamp() + 3600
    server.answers = [
        Answer(
            401,
            {"Message": "ErrorCode:IotHubUnauthorizedAccess;no"},
            {"Date": formatdate(ahead, usegmt=True)},
        )
    ]
    with pytest.raises(rest_client.ServiceResponseError) as caught:
        client.get_device("a")
    assert caught.value.clock_offset == pytest.approx(3600, abs=3)
    assert client.clock_offset == pytest.approx(3600, abs=3)
    # Whoever reads the error is sent to the clock and not to the key.
    text = iothub_module.explain(caught.value)
    assert "3600 s behind" in text or "3601 s behind" in text or "3599 s behind" in text
    assert "policy_key" not in text


def test_untrusted_certificate(server: Server) -> None:
    with pytest.raises(rest_client.ServiceUntrusted, match="not trusted"):
        iothub_client.HubClient(server.hostname, POLICY, timeout=5).get_device("a")


def test_certificate_for_another_name(server: Server) -> None:
    port = server.hostname.partition(":")[2]
    hub = iothub_client.HubClient(f"localhost:{port}", POLICY, ca_file=server.ca_file, timeout=5)
    with pytest.raises(rest_client.ServiceUntrusted, match="localhost"):
        hub.get_device("a")


def test_unreachable_hub_names_the_reason(server: Server) -> None:
    with pytest.raises(rest_client.ServiceUnreachable, match="refused"):
        iothub_client.HubClient("127.0.0.1:1", POLICY, timeout=5).get_device("a")
    with pytest.raises(rest_client.ServiceUnreachable, match="cannot be resolved"):
        iothub_client.HubClient("no-such-hub.invalid", POLICY, timeout=5).get_device("a")


def test_something_else_answers(server: Server, client: iothub_client.HubClient) -> None:
    server.answers = [Answer(200)]
    assert client.get_device("a") == {}
    with pytest.raises(rest_client.ServiceUntrusted):
        iothub_client.HubClient("h", POLICY, ca_file=__file__)


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({}, {"Message": "ErrorCode:DeviceNotFound;gone"}, ("DeviceNotFound", "gone")),
        ({"iothub-errorcode": "X"}, {"Message": "ErrorCode:DeviceNotFound;gone"}, ("X", "gone")),
        ({}, {"errorCode": 404103, "message": "offline"}, ("404103", "offline")),
        ({}, {"Message": '{"errorCode": 404103, "message": "inner"}'}, ("404103", "inner")),
        ({}, {}, ("Conflict", "no message")),
        ({}, ["odd"], ("Conflict", "['odd']")),
    ],
)
def test_both_envelopes(headers: dict[str, str], body: Any, expected: tuple[str, str]) -> None:
    assert rest_client.parse_error(409, headers, json.dumps(body).encode()) == expected


def test_error_that_is_not_json() -> None:
    assert rest_client.parse_error(502, {}, b"<html>bad</html>") == ("BadGateway", "<html>bad</html>")


@pytest.mark.parametrize(("etag", "quoted"), [("a", '"a"'), ('"a"', '"a"'), ("*", "*"), ('"', '"""')])
def test_etags_are_quoted_once(etag: str, quoted: str) -> None:
    assert rest_client.quote_etag(etag) == quoted
