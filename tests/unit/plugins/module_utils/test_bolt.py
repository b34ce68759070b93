# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The file of a real etcd, files built by the book, and files that are torn."""

from __future__ import annotations

import base64
import lzma
import struct

import pytest
from ansible_collections.edgeha.iotedge.plugins.module_utils import bolt, k3s_facts
from hypothesis import given
from hypothesis import strategies as st

# What etcd 3.6 had on its disk when it was killed a second after a learner was added.
ETCD = (
    "/Td6WFoAAATm1rRGAgAhARwAAAAQz1jM4E//AoFdAABqf3sSWaXhUJuTm/kgJvegdfIvIUKGAgb8hi1aDLxJwqSPJK9aErPAd7mg"
    "OxBRoP/CY04JsC1CKZ7jSoqXWHjIJ7BZeuCVYpq25u+muosRCuPK3s4Ph50U9PMt0CHn1c1mxhRHH0Ct4/ybhlgEulppH5H4lCBE"
    "tvL8BbIAvx1nYa4WzPl9oVzToWbnvFELGwkh/jVb18oltkyPoPJSWYMA67Q/UhxLec3IrZnT7dIcTpNDSP3hzFdDdNcWRyFBdPHH"
    "L5Nfghnim5P60Mr21ZEBZGi05w0nX4RnUA9q5QsuXZfHgIEbEnnx8YYfiqhwUwIPPIUH9t2fcKPLRw2GQ68jz46ydF0i+bgX1bUM"
    "mvyeWZxDAjug+wkCSUOWX1FcCaFT8wLaqeW0gc3hq8EvrCqFbBSwxkTbkjEV3J911WKEsx5HtTrNVrpLJbag/vfRjn6WbC8DrxvR"
    "PAeRGtCxZgAWfwbxd1SZgSU895SLOxJr1G+Vxl9aXOtSa1AluGycJe2GkqLoYFswc1NZY58WWNHSKfFy69yFBT4A3XtxQzBLYPkT"
    "OXQCYcxPoLsUOcLhAPN2FnJRPZLrCRcF1D9w/qH1JnlILJpYK3/BJc5ljMtnvR0CSkt1H1DliN05OX3tKschUDibiREEll7hzIIM"
    "+YJ810UpG7oT84DY9dWxlMWVBCcprwaW/Hm5EgTKEjV3GsSLx3EY3cgmtpJwnQiBDLkyjz0P/7peYRru+8OEeiQau0+tpmv/YQCB"
    "rNbLb10KpN/xCGQgRBD5aHu9U3z/SgtSIqwkQPB7td/f859tlj6hbzkmokwRsQRYdej2NaanpziGxuFm2gk8N6a+VQl1fCoAAAAA"
    "AJQMyo7EeWt8AAGdBYCgAQAqhHeHscRn+wIAAAAABFla"
)
PAGE = 4096


def etcd_file() -> bytes:
    return lzma.decompress(base64.b64decode(ETCD))


def leaf(number: int, entries: list[tuple[bytes, bytes]], flags: int = 0) -> bytes:
    described, content = b"", b""
    start = 16 * len(entries)
    for index, (key, value) in enumerate(entries):
        described += struct.pack("<IIII", flags, start - 16 * index + len(content), len(key), len(value))
        content += key + value
    return struct.pack("<QHHI", number, 2, len(entries), 0) + described + content


def branch(number: int, children: list[int]) -> bytes:
    elements = b"".join(struct.pack("<IIQ", 0, 0, child) for child in children)
    return struct.pack("<QHHI", number, 1, len(children), 0) + elements


def meta(number: int, root: int, transaction: int) -> bytes:
    raw = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, PAGE, 0, root, 0, 0, 99, transaction)
    return struct.pack("<QHHI", number, 4, 0, 0) + raw + struct.pack("<Q", bolt.checksum(raw))


def database(*pages: bytes) -> bytes:
    return b"".join(page.ljust(PAGE, b"\0") for page in pages)


def test_members_in_the_file_of_a_real_etcd() -> None:
    found = k3s_facts.members(bolt.bucket(etcd_file(), b"members"))
    assert found == [
        {"name": "", "peer": "http://10.7.0.12:2380", "learner": True},
        {"name": "gw1-1a2b3c4d", "peer": "http://127.0.0.1:23800", "learner": False},
    ]
    assert bolt.bucket(etcd_file(), b"nobody") == {}


@given(st.lists(st.dictionaries(st.binary(max_size=20), st.binary(max_size=60), max_size=8), max_size=4))
def test_a_bucket_of_several_pages(parts: list[dict[bytes, bytes]]) -> None:
    pages = [leaf(4 + index, list(part.items())) for index, part in enumerate(parts)]
    root = leaf(2, [(b"members", struct.pack("<QQ", 3, 0))], flags=1)
    children = branch(3, [4 + index for index in range(len(parts))])
    expected = {key: value for part in parts for key, value in part.items()}
    assert bolt.bucket(database(meta(0, 2, 7), b"", root, children, *pages), b"members") == expected


@given(st.dictionaries(st.binary(max_size=20), st.binary(max_size=40), max_size=5))
def test_a_bucket_inside_of_its_entry(content: dict[bytes, bytes]) -> None:
    value = struct.pack("<QQ", 0, 0) + leaf(0, list(content.items()))
    root = leaf(2, [(b"members", value)], flags=1)
    assert bolt.bucket(database(meta(0, 2, 7), b"", root), b"members") == content


def test_the_newer_of_two_states_counts_and_a_torn_one_does_not() -> None:
    old, new = (
        leaf(number, [(b"members", struct.pack("<QQ", 0, 0) + leaf(0, [(word, b"")]))], flags=1)
        for number, word in ((2, b"old"), (3, b"new"))
    )
    for first, second in (((2, 7), (3, 8)), ((3, 8), (2, 7))):
        data = database(meta(0, *first), meta(1, *second), old, new)
        assert bolt.bucket(data, b"members") == {b"new": b""}
    torn = bytearray(database(meta(0, 2, 7), meta(1, 3, 8), old, new))
    torn[PAGE + 40] ^= 1
    assert bolt.bucket(bytes(torn), b"members") == {b"old": b""}
    # With the first description torn, the second says how large a page is.
    torn = bytearray(database(meta(0, 2, 7), meta(1, 3, 8), old, new))
    torn[40] ^= 1
    assert bolt.bucket(bytes(torn), b"members") == {b"new": b""}


def test_pages_that_point_at_each_other_are_torn() -> None:
    with pytest.raises(bolt.BoltError, match="point at each other"):
        bolt.bucket(database(meta(0, 2, 7), b"", branch(2, [2])), b"members")
    with pytest.raises(bolt.BoltError, match="says that it is page 9"):
        bolt.bucket(database(meta(0, 2, 7), b"", leaf(9, [])), b"members")


@given(st.integers(min_value=0, max_value=20000), st.binary(min_size=1, max_size=300))
def test_a_torn_file_is_an_error_or_a_bucket_and_nothing_else(place: int, garbage: bytes) -> None:
    data = bytearray(etcd_file())
    data[place : place + len(garbage)] = garbage
    try:
        found = bolt.bucket(bytes(data), b"members")
    except bolt.BoltError:
        return
    assert all(isinstance(value, bytes) for value in found.values())
    k3s_facts.members(found)


@pytest.mark.parametrize("content", [b"", b"x", bytes(PAGE), b"x" * 3 * PAGE])
def test_what_is_no_database(content: bytes) -> None:
    with pytest.raises(bolt.BoltError):
        bolt.bucket(content, b"members")
