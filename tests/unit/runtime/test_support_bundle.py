# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The support bundle is a zip that everybody can open, made in small parts, without secrets."""

from __future__ import annotations

import io
import json
import secrets
import time
import zipfile
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest
from edgeha_runtime.daemon import support_bundle


async def log(*lines: str) -> AsyncGenerator[str]:
    for line in lines:
        yield line


async def parts(documents: Mapping[str, Any], logs: Mapping[str, AsyncGenerator[str]]) -> list[bytes]:
    return [part async for part in support_bundle.stream(documents, logs)]


def opened(sent: list[bytes]) -> zipfile.ZipFile:
    archive = zipfile.ZipFile(io.BytesIO(b"".join(sent)))
    assert archive.testzip() is None
    return archive


async def test_the_zip_holds_each_document_and_each_log() -> None:
    documents = {"b.json": [1], "a.json": {"z": "ä", "y": None}}
    logs = {"logs/edgeHub.txt": log("1\n", "2\n"), "logs/$odd*name?.txt": log()}
    archive = opened(await parts(documents, logs))
    assert archive.namelist() == ["b.json", "a.json", "logs/edgeHub.txt", "logs/$odd*name?.txt"]
    assert {name: json.loads(archive.read(name)) for name in documents} == documents
    assert archive.read("logs/edgeHub.txt") == b"1\n2\n"
    assert archive.read("logs/$odd*name?.txt") == b""


async def test_a_bundle_of_nothing_is_a_zip_too() -> None:
    assert opened(await parts({}, {})).namelist() == []


async def test_nobody_but_their_owner_reads_the_files_that_are_unpacked() -> None:
    archive = opened(await parts({"a.json": 1}, {"l.txt": log("x")}))
    assert {entry.external_attr >> 16 & 0o777 for entry in archive.infolist()} == {0o600}


async def test_a_long_log_goes_out_in_parts_while_it_is_read() -> None:
    lines = [secrets.token_hex(500) + "\n" for _number in range(2000)]
    read = 0

    async def source() -> AsyncGenerator[str]:
        nonlocal read
        for line in lines:
            read += 1
            yield line

    sent, first = [], 0
    async for part in support_bundle.stream({}, {"l.txt": source()}):
        first = first or read
        sent.append(part)
    assert first < len(lines) / 4
    assert max(map(len, sent)) < 256 * 1024
    assert opened(sent).read("l.txt") == "".join(lines).encode()


async def test_a_log_that_is_too_long_is_cut_after_a_whole_line_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(support_bundle, "MAX_LOG", 12)
    archive = opened(await parts({}, {"l.txt": log("12345\n", "12345\n", "1\n"), "next.txt": log("a\n")}))
    assert archive.read("l.txt") == b"12345\n12345\n... cut here: the log is longer\n"
    assert archive.read("next.txt") == b"a\n"


async def test_no_more_is_read_of_a_log_than_is_in_the_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support_bundle, "MAX_LOG", 1000)
    done: list[str] = []

    async def endless() -> AsyncGenerator[str]:
        try:
            while True:
                done.append("piece")
                yield "x" * 400
        finally:
            done.append("closed")

    async def after() -> AsyncGenerator[str]:
        done.append("next")
        yield "a\n"

    archive = opened(await parts({}, {"l.txt": endless(), "next.txt": after()}))
    assert done == ["piece", "piece", "piece", "closed", "next"]
    assert archive.read("l.txt") == b"x" * 800 + b"\n... cut here: the log is longer\n"


async def test_a_machine_whose_clock_is_not_set_makes_a_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "gmtime", lambda: time.struct_time((1970, 1, 1, 0, 0, 9, 3, 1, 0)))
    (entry,) = opened(await parts({"a.json": 1}, {})).infolist()
    assert entry.date_time == (1980, 1, 1, 0, 0, 0)


async def test_bytes_that_are_no_utf_8_come_as_they_are() -> None:
    line = b"\xff\xfe\n".decode(errors="surrogateescape")
    assert opened(await parts({}, {"l.txt": log(line)})).read("l.txt") == b"\xff\xfe\n"


SPEC = {
    "name": "m",
    "config": {
        "settings": {
            "image": "r/m:1",
            "auth": {"serveraddress": "r", "username": "robot", "password": "hidden-1"},
            "createOptions": {
                "Env": ["A=hidden-2", "B=", "C=x=hidden-3"],
                "HostConfig": {"Memory": 5},
                "Labels": {"net.azure-devices.edge.env": '{"TOKEN": {"value": "hidden-5"}}'},
            },
        },
        "env": [{"key": "PASSWORD", "value": "hidden-4"}],
    },
}


def test_values_of_variables_and_logins_are_left_out() -> None:
    before = json.dumps(SPEC)
    shown = support_bundle.without_secrets(SPEC)
    assert "hidden" not in json.dumps(shown)
    assert shown["config"]["env"] == [{"key": "PASSWORD", "value": "..."}]
    assert shown["config"]["settings"] == {
        "image": "r/m:1",
        "auth": "...",
        "createOptions": {
            "Env": ["A=...", "B=...", "C=..."],
            "HostConfig": {"Memory": 5},
            "Labels": {"net.azure-devices.edge.env": "..."},
        },
    }
    assert json.dumps(SPEC) == before, "the spec itself stays as it was"


def test_create_options_that_are_a_text_are_left_out_whole() -> None:
    spec = {"config": {"settings": {"image": "i", "createOptions": '{"Env": ["A=hidden"]}'}}}
    assert support_bundle.without_secrets(spec) == {
        "config": {"settings": {"image": "i", "createOptions": "..."}, "env": []}
    }


@pytest.mark.parametrize("config", [{"settings": {"image": "i"}}, {"settings": {"createOptions": None}}])
def test_a_module_without_secrets_stays_as_it_is(config: dict[str, Any]) -> None:
    assert support_bundle.without_secrets({"config": config}) == {"config": config | {"env": []}}
