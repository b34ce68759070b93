# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads a bucket of a bbolt database, the file in which etcd keeps its state, without etcd.

Nobody answers for a server that is down, but its file knows who its peers are. The layout of a file stands in
go.etcd.io/bbolt, internal/common/page.go, bucket.go and meta.go. It runs on the machine itself, so it keeps
to what Python 3.9 knows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

_MAGIC = 0xED0CDAED
_VERSION = 2
_PAGE_HEADER = struct.Struct("<QHHI")
_BRANCH_ELEMENT = struct.Struct("<IIQ")
_LEAF_ELEMENT = struct.Struct("<IIII")
# magic, version, page size, flags, root page and sequence, freelist, pages, transaction, checksum
_META = struct.Struct("<IIIIQQQQQQ")
_BUCKET = struct.Struct("<QQ")
_IS_BRANCH = 0x01
_IS_LEAF = 0x02
_IS_BUCKET = 0x01
# Deeper than any tree of pages can be; a file that was torn must not send the reader round in circles.
_DEEPEST = 32
_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3


class BoltError(Exception):
    """The file is no bbolt database, or is torn."""


class Buffer(Protocol):
    """bytes or mmap."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: slice, /) -> bytes: ...


@dataclass(frozen=True)
class _Meta:
    page_size: int
    root: int
    transaction: int


def bucket(data: Buffer, name: bytes) -> dict[bytes, bytes]:
    """Return keys and values of a bucket of the root, empty when there is no such bucket.

    Raises BoltError when the file cannot be read. One that is being written may be torn: ask again.
    """
    try:
        meta = _newest_meta(data)
        for key, value, flags in _walk(data, meta, meta.root, _DEEPEST):
            if key == name and flags & _IS_BUCKET:
                return {
                    found: content
                    for found, content, kind in _bucket_entries(data, meta, value)
                    if not kind & _IS_BUCKET
                }
    except (struct.error, IndexError, ValueError) as error:
        raise BoltError(f"the file is torn: {error}") from error
    return {}


def checksum(content: bytes) -> int:
    """Return the 64 bits of FNV-1a."""
    value = _FNV_OFFSET
    for byte in content:
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return value


def _newest_meta(data: Buffer) -> _Meta:
    """Return the newer of the two descriptions that are whole; the second stands on the second page."""
    found = []
    sizes = {4096, 8192, 16384, 65536}
    first = _meta_at(data, 0)
    if first is not None:
        found.append(first)
        sizes = {first.page_size}
    for size in sorted(sizes):
        second = _meta_at(data, size)
        if second is not None and second.page_size == size:
            found.append(second)
    if not found:
        raise BoltError("the file is no bbolt database")
    return max(found, key=lambda meta: meta.transaction)


def _meta_at(data: Buffer, offset: int) -> _Meta | None:
    start = offset + _PAGE_HEADER.size
    raw = data[start : start + _META.size]
    if len(raw) < _META.size:
        return None
    magic, version, page_size, _flags, root, _sequence, _free, _pages, transaction, digest = _META.unpack(raw)
    if magic != _MAGIC or version != _VERSION or digest != checksum(raw[:-8]):
        return None
    return _Meta(page_size, root, transaction)


def _bucket_entries(data: Buffer, meta: _Meta, value: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    root, _sequence = _BUCKET.unpack_from(value)
    if root:
        yield from _walk(data, meta, root, _DEEPEST)
    else:
        # A small bucket lies in the value itself, as one page.
        yield from _leaf(value[_BUCKET.size :])


def _walk(data: Buffer, meta: _Meta, number: int, depth: int) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield key, value and flags of all entries below a page, in the order of their keys."""
    if depth == 0:
        raise ValueError("pages point at each other")
    start = number * meta.page_size
    header = data[start : start + _PAGE_HEADER.size]
    identity, flags, count, overflow = _PAGE_HEADER.unpack(header)
    if identity != number:
        raise ValueError(f"page {number} says that it is page {identity}")
    page = data[start : start + (overflow + 1) * meta.page_size]
    if flags & _IS_LEAF:
        yield from _leaf(page)
    elif flags & _IS_BRANCH:
        for index in range(count):
            position = _PAGE_HEADER.size + index * _BRANCH_ELEMENT.size
            _offset, _key_size, child = _BRANCH_ELEMENT.unpack_from(page, position)
            yield from _walk(data, meta, child, depth - 1)
    else:
        raise ValueError(f"page {number} is of kind {flags}")


def _leaf(page: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    _identity, _flags, count, _overflow = _PAGE_HEADER.unpack_from(page)
    for index in range(count):
        position = _PAGE_HEADER.size + index * _LEAF_ELEMENT.size
        flags, offset, key_size, value_size = _LEAF_ELEMENT.unpack_from(page, position)
        # An entry's place is counted from where the entry is described.
        key = position + offset
        if key + key_size + value_size > len(page):
            raise ValueError("an entry ends after its page")
        yield page[key : key + key_size], page[key + key_size : key + key_size + value_size], flags
