# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""New keys made by the hub, statistics, and the form of every refusal."""

from typing import Any

import pytest

from tests.integration.hub.conftest import Hub

REGENERATE = "2024-03-31"


def regenerate(
    hub: Hub, which: Any, *entries: Any, api_version: str = REGENERATE
) -> tuple[int, dict[str, Any]]:
    answer = hub.request(
        "POST",
        "/devices/keys/regenerate",
        body={"policyKey": which, "devices": list(entries)},
        api_version=api_version,
    )
    return answer.status_code, answer.json()


def keys(hub: Hub, path: str) -> dict[str, str]:
    found: dict[str, str] = hub.request("GET", path).json()["authentication"]["symmetricKey"]
    return found


def test_keys_are_made_for_each_that_can_have_them(hub: Hub) -> None:
    hub.create_device("rotate", edge=True)
    hub.registry().create_module_with_sas("rotate", "part", "", "", "")
    hub.registry().create_device_with_certificate_authority("rotate-ca", "enabled")
    before, part = keys(hub, "/devices/rotate"), keys(hub, "/devices/rotate/modules/part")

    status, answer = regenerate(hub, "primaryKey", {"id": "rotate"}, {"id": "rotate", "moduleId": "part"})
    assert (status, answer["policyKey"], answer["errors"]) == (200, "primaryKey", [])
    after = keys(hub, "/devices/rotate")
    assert after["primaryKey"] != before["primaryKey"]
    assert after["secondaryKey"] == before["secondaryKey"]
    assert keys(hub, "/devices/rotate/modules/part")["primaryKey"] != part["primaryKey"]
    assert [(row["id"], row.get("moduleId")) for row in answer["rotatedKeys"]] == [
        ("rotate", None),
        ("rotate", "part"),
    ]
    assert answer["rotatedKeys"][0]["primaryKey"] == after["primaryKey"]

    status, answer = regenerate(hub, "both", {"id": "rotate"}, {"id": "nobody"}, {"id": "rotate-ca"})
    assert (status, len(answer["rotatedKeys"])) == (207, 1)
    assert [(row["id"], row["errorCode"]) for row in answer["errors"]] == [
        ("nobody", "DeviceNotFound"),
        ("rotate-ca", "InvalidOperation"),
    ]
    both = keys(hub, "/devices/rotate")
    assert not set(both.values()) & set(after.values())
    status, answer = regenerate(hub, "both", {"id": "nobody"})
    assert (status, answer["rotatedKeys"]) == (400, [])


def test_regeneration_refused_whole(hub: Hub) -> None:
    for which, entries in (("third", [{"id": "x"}]), ([], [{"id": "x"}]), ("both", []), ("both", [{}] * 101)):
        status, answer = regenerate(hub, which, *entries)
        assert status == 400
        assert answer["Message"].startswith("ErrorCode:")


def test_service_statistics(hub: Hub) -> None:
    before = hub.registry().get_service_statistics().connected_device_count
    hub.paho("counted", hub.create_device("counted"))
    assert hub.registry().get_service_statistics().connected_device_count == before + 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nothing", None, 404, "NotFound"),
        ("PATCH", "/devices", None, 405, "MethodNotAllowed"),
        ("GET", "/digitaltwins/x", None, 501, "NotImplemented"),
        ("PUT", "/devices/form", b"{", 400, "ArgumentInvalid"),
        ("PUT", "/devices/form", b"[" * 100_000, 400, "ArgumentInvalid"),
        ("PUT", "/devices/form", b'{"statusReason": "\\ud800"}', 400, "ArgumentInvalid"),
        ("PATCH", "/twins/form", b'{"tags": {"a": NaN}}', 400, "ArgumentInvalid"),
        ("PATCH", "/twins/form", b'{"tags": {"a": 1e999}}', 400, "ArgumentInvalid"),
        ("PUT", "/devices/form", b" " * 9_000_000, 413, "RequestEntityTooLarge"),
    ],
)
def test_every_refusal_has_the_hubs_form(
    hub: Hub, method: str, path: str, body: bytes | None, status: int, code: str
) -> None:
    answer = hub.request(method, path, raw_body=body)
    assert (answer.status_code, answer.headers["iothub-errorcode"]) == (status, code)
    envelope = answer.json()
    assert envelope["Message"].startswith(f"ErrorCode:{code};")
    assert envelope["ExceptionMessage"].startswith("Tracking ID:")
    assert answer.headers["Content-Type"].startswith("application/json")
