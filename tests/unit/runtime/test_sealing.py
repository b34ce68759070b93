# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module encrypts only that generation of it can decrypt, with the same vector, or nobody."""

from __future__ import annotations

import hmac

import pytest
from edgeha_runtime.daemon import sealing
from hypothesis import given
from hypothesis import strategies as st

KEY = sealing.module_key(b"k" * 32, "m", "1")
VECTOR = st.binary(min_size=1, max_size=40)


@given(text=st.binary(max_size=300), vector=VECTOR)
def test_it_comes_back(text: bytes, vector: bytes) -> None:
    sealed = sealing.seal(KEY, text, vector)
    assert sealing.unseal(KEY, sealed, vector) == text
    assert len(sealed) == len(text) + 18


@given(text=st.binary(max_size=60), vector=VECTOR, data=st.data())
def test_whatever_differs_is_refused(text: bytes, vector: bytes, data: st.DataObject) -> None:
    sealed = sealing.seal(KEY, text, vector)
    at = data.draw(st.integers(0, len(sealed) - 1), "at")
    changed = sealed[:at] + bytes([sealed[at] ^ data.draw(st.integers(1, 255), "bits")]) + sealed[at + 1 :]
    cut = sealed[: data.draw(st.integers(0, len(sealed) - 1), "length")]
    for key, ciphertext, own in (
        (KEY, changed, vector),
        (KEY, cut, vector),
        (KEY, sealed, vector + b"\x00"),
        (sealing.module_key(b"k" * 32, "m", "2"), sealed, vector),
        (sealing.module_key(b"k" * 32, "n", "1"), sealed, vector),
        (sealing.module_key(b"l" * 32, "m", "1"), sealed, vector),
    ):
        with pytest.raises(sealing.SealError):
            sealing.unseal(key, ciphertext, own)


def test_one_vector_for_two_texts_gives_nothing_of_them_away() -> None:
    """As edgeHub uses it. Under a mode of counters the difference of both would be that of the texts."""
    one, other = (sealing.seal(KEY, text * 32, b"same") for text in (b"\x00", b"\xff"))
    difference = bytes(a ^ b for a, b in zip(one[18:], other[18:], strict=True))
    assert difference != b"\xff" * 31


def test_the_key_is_hkdf_of_the_master_key() -> None:
    """RFC 5869, spelled out with HMAC alone: what is encrypted today must open in years."""
    pseudorandom = hmac.digest(b"\x00" * 32, b"k" * 32, "sha256")
    info = b"edgeha encrypt 1\x00m\x001"
    first = hmac.digest(pseudorandom, info + b"\x01", "sha256")
    second = hmac.digest(pseudorandom, first + info + b"\x02", "sha256")
    assert first + second == KEY
    sealed = bytes.fromhex("0109ba1cee0d5e0cfd550eaa2aa3ffa23ffa9772dc2b")
    assert sealing.unseal(KEY, sealed, b"vector") == b"text"
