# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MQTT 3.1.1 packets to bytes and back, without any input or output of its own.

Why an own codec: the client libraries at hand have no server side, and the hub's promise ("PUBACK
means stored") needs to decide itself when an acknowledgement goes out. What the hub does not speak
(QoS 2) is decoded and left to the server to refuse.

References in brackets are sections of the OASIS standard "MQTT Version 3.1.1".
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_REMAINING_LENGTH = 268_435_455


class MalformedPacketError(Exception):
    """The bytes break the protocol; the connection has to be closed [4.8]."""


class UnsupportedProtocolError(Exception):
    """A CONNECT of another protocol level; it is answered with return code 1 [3.1.2.2]."""


@dataclass(frozen=True)
class Will:
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True)
class Connect:
    client_id: str
    clean_session: bool = True
    keep_alive: int = 0
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    will: Will | None = None

    def encode(self) -> bytes:
        flags = 0x02 if self.clean_session else 0
        payload = _text(self.client_id)
        if self.will:
            flags |= 0x04 | self.will.qos << 3 | self.will.retain << 5
            payload += _text(self.will.topic) + _binary(self.will.payload)
        if self.username is not None:
            flags |= 0x80
            payload += _text(self.username)
        if self.password is not None:
            flags |= 0x40
            payload += _binary(self.password)
        return _packet(0x10, _text("MQTT") + bytes([4, flags]) + struct.pack("!H", self.keep_alive) + payload)


@dataclass(frozen=True)
class Connack:
    return_code: int
    session_present: bool = False

    def encode(self) -> bytes:
        return _packet(0x20, bytes([self.session_present, self.return_code]))


@dataclass(frozen=True)
class Publish:
    topic: str
    payload: bytes
    qos: int = 0
    packet_id: int | None = None
    retain: bool = False
    dup: bool = False

    def encode(self) -> bytes:
        identifier = b"" if self.packet_id is None else struct.pack("!H", self.packet_id)
        first = 0x30 | self.dup << 3 | self.qos << 1 | self.retain
        return _packet(first, _text(self.topic) + identifier + self.payload)


@dataclass(frozen=True)
class Puback:
    packet_id: int

    def encode(self) -> bytes:
        return _packet(0x40, struct.pack("!H", self.packet_id))


@dataclass(frozen=True)
class Subscribe:
    packet_id: int
    topics: tuple[tuple[str, int], ...]

    def encode(self) -> bytes:
        body = b"".join(_text(topic) + bytes([qos]) for topic, qos in self.topics)
        return _packet(0x82, struct.pack("!H", self.packet_id) + body)


@dataclass(frozen=True)
class Suback:
    packet_id: int
    return_codes: tuple[int, ...]

    def encode(self) -> bytes:
        return _packet(0x90, struct.pack("!H", self.packet_id) + bytes(self.return_codes))


@dataclass(frozen=True)
class Unsubscribe:
    packet_id: int
    topics: tuple[str, ...]

    def encode(self) -> bytes:
        body = b"".join(_text(topic) for topic in self.topics)
        return _packet(0xA2, struct.pack("!H", self.packet_id) + body)


@dataclass(frozen=True)
class Unsuback:
    packet_id: int

    def encode(self) -> bytes:
        return _packet(0xB0, struct.pack("!H", self.packet_id))


@dataclass(frozen=True)
class Pingreq:
    def encode(self) -> bytes:
        return _packet(0xC0, b"")


@dataclass(frozen=True)
class Pingresp:
    def encode(self) -> bytes:
        return _packet(0xD0, b"")


@dataclass(frozen=True)
class Disconnect:
    def encode(self) -> bytes:
        return _packet(0xE0, b"")


Packet = (
    Connect
    | Connack
    | Publish
    | Puback
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
)


class Decoder:
    """Turns a stream of bytes, cut anywhere, into packets.

    `max_size` bounds the remaining length of one packet, so that a peer cannot fill the memory.
    """

    def __init__(self, max_size: int = MAX_REMAINING_LENGTH) -> None:
        self._buffer = bytearray()
        self._max_size = max_size

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Yield the packets that are complete now. Raises the errors of this module."""
        self._buffer += data
        while True:
            frame = self._next_frame()
            if frame is None:
                return
            yield _decode(*frame)

    def _next_frame(self) -> tuple[int, bytes] | None:
        length = 0
        for index in range(1, 5):
            if index >= len(self._buffer):
                return None
            byte = self._buffer[index]
            length |= (byte & 0x7F) << 7 * (index - 1)
            if not byte & 0x80:
                break
        else:
            raise MalformedPacketError("remaining length of more than four bytes")
        if length > self._max_size:
            raise MalformedPacketError(f"packet of {length} bytes; the limit is {self._max_size}")
        end = index + 1 + length
        if len(self._buffer) < end:
            return None
        first, body = self._buffer[0], bytes(self._buffer[index + 1 : end])
        del self._buffer[:end]
        return first, body


def topic_matches(topic_filter: str, topic: str) -> bool:
    """Whether a subscription's filter covers a topic [4.7]."""
    filter_levels, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and filter_levels[0] in ("+", "#"):
        return False
    for index, level in enumerate(filter_levels):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(filter_levels) == len(levels)


class _Reader:
    """Takes fields from the front of one packet's body."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._position = 0

    def take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._body):
            raise MalformedPacketError("packet ends inside a field")
        part = self._body[self._position : end]
        self._position = end
        return part

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def packet_id(self) -> int:
        number = self.number()
        if number == 0:
            raise MalformedPacketError("packet identifier 0")
        return number

    def binary(self) -> bytes:
        return self.take(self.number())

    def text(self) -> str:
        try:
            text = self.binary().decode()
        except UnicodeDecodeError:
            raise MalformedPacketError("text that is no UTF-8") from None
        if "\0" in text:
            raise MalformedPacketError("text with U+0000")
        return text

    def topic(self) -> str:
        topic = self.text()
        if not topic or "#" in topic or "+" in topic:
            raise MalformedPacketError("topic name that is empty or has wildcards")
        return topic

    def rest(self) -> bytes:
        return self.take(len(self._body) - self._position)

    @property
    def empty(self) -> bool:
        return self._position == len(self._body)


def _decode(first: int, body: bytes) -> Packet:
    kind, flags = first >> 4, first & 0x0F
    if kind == 3:
        return _decode_publish(flags, _Reader(body))
    if flags != (0x02 if kind in (6, 8, 10) else 0):
        raise MalformedPacketError(f"reserved flags {flags:#x} on packet type {kind}")
    reader = _Reader(body)
    packet = _decode_other(kind, reader)
    if not reader.empty:
        raise MalformedPacketError(f"bytes left over in packet type {kind}")
    return packet


def _decode_publish(flags: int, reader: _Reader) -> Publish:
    qos = flags >> 1 & 0x03
    if qos == 3 or (qos == 0 and flags & 0x08):
        raise MalformedPacketError("PUBLISH with QoS 3, or a duplicate of QoS 0")
    topic = reader.topic()
    packet_id = reader.packet_id() if qos else None
    return Publish(topic, reader.rest(), qos, packet_id, retain=bool(flags & 0x01), dup=bool(flags & 0x08))


def _decode_other(kind: int, reader: _Reader) -> Packet:
    match kind:
        case 1:
            return _decode_connect(reader)
        case 2:
            flags, code = reader.byte(), reader.byte()
            if flags > 1:
                raise MalformedPacketError("CONNACK with reserved flags")
            return Connack(code, bool(flags))
        case 4:
            return Puback(reader.packet_id())
        case 8:
            packet_id = reader.packet_id()
            topics = []
            while not reader.empty:
                topic, qos = _topic_filter(reader.text()), reader.byte()
                if qos > 2:
                    raise MalformedPacketError("SUBSCRIBE with an unknown QoS")
                topics.append((topic, qos))
            if not topics:
                raise MalformedPacketError("SUBSCRIBE without a topic filter")
            return Subscribe(packet_id, tuple(topics))
        case 9:
            return Suback(reader.packet_id(), tuple(reader.rest()))
        case 10:
            packet_id = reader.packet_id()
            filters = []
            while not reader.empty:
                filters.append(_topic_filter(reader.text()))
            if not filters:
                raise MalformedPacketError("UNSUBSCRIBE without a topic filter")
            return Unsubscribe(packet_id, tuple(filters))
        case 11:
            return Unsuback(reader.packet_id())
        case 12:
            return Pingreq()
        case 13:
            return Pingresp()
        case 14:
            return Disconnect()
        case _:
            raise MalformedPacketError(f"packet type {kind}, which the hub does not speak")


def _decode_connect(reader: _Reader) -> Connect:
    if reader.text() != "MQTT" or reader.byte() != 4:
        raise UnsupportedProtocolError("only MQTT 3.1.1")
    flags = reader.byte()
    keep_alive = reader.number()
    will_flag, will_qos, will_retain = flags & 0x04, flags >> 3 & 0x03, flags & 0x20
    if flags & 0x01 or will_qos == 3 or (not will_flag and (will_qos or will_retain)):
        raise MalformedPacketError("CONNECT with contradictory flags")
    if flags & 0x40 and not flags & 0x80:
        raise MalformedPacketError("CONNECT with a password but no user name")
    client_id = reader.text()
    will = Will(reader.topic(), reader.binary(), will_qos, bool(will_retain)) if will_flag else None
    username = reader.text() if flags & 0x80 else None
    password = reader.binary() if flags & 0x40 else None
    return Connect(client_id, bool(flags & 0x02), keep_alive, username, password, will)


def _topic_filter(text: str) -> str:
    levels = text.split("/")
    if (
        not text
        or "#" in levels[:-1]
        or any(len(level) > 1 and ("#" in level or "+" in level) for level in levels)
    ):
        raise MalformedPacketError("topic filter that is empty or has misplaced wildcards")
    return text


def _text(value: str) -> bytes:
    return _binary(value.encode())


def _binary(value: bytes) -> bytes:
    if len(value) > 0xFFFF:
        raise ValueError("a field of MQTT holds at most 65535 bytes")
    return struct.pack("!H", len(value)) + value


def _packet(first: int, body: bytes) -> bytes:
    length = len(body)
    if length > MAX_REMAINING_LENGTH:
        raise ValueError("a packet of MQTT holds at most 268435455 bytes")
    encoded = bytearray([first])
    while True:
        length, low = divmod(length, 128)
        encoded.append(low | (0x80 if length else 0))
        if not length:
            return bytes(encoded) + body
