# Copyright (c) 2026, edgeha developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MQTT codec: any packet survives the wire however it is cut, and no bytes can break it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iothub_emulator import mqtt_codec as mqtt

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
topic = text.filter(lambda value: value and not set(value) & set("+#"))
topic_filter = st.one_of(
    topic, topic.map(lambda value: f"{value}/#"), st.sampled_from(["#", "+", "a/+/b", "+/#"])
)
packet_id = st.integers(1, 0xFFFF)
wills = st.builds(mqtt.Will, topic, st.binary(max_size=40), st.integers(0, 2), st.booleans())


@st.composite
def connects(draw: st.DrawFn) -> mqtt.Connect:
    username = draw(st.none() | text)
    # [3.1.2.9] no password without a user name
    password = draw(st.none() | st.binary(max_size=40)) if username is not None else None
    return mqtt.Connect(
        draw(text),
        draw(st.booleans()),
        draw(st.integers(0, 0xFFFF)),
        username,
        password,
        draw(st.none() | wills),
    )


@st.composite
def publishes(draw: st.DrawFn) -> mqtt.Publish:
    qos = draw(st.integers(0, 2))
    return mqtt.Publish(
        draw(topic),
        draw(st.binary(max_size=300)),
        qos,
        draw(packet_id) if qos else None,
        draw(st.booleans()),
        draw(st.booleans()) if qos else False,
    )


packets: st.SearchStrategy[mqtt.Packet] = st.one_of(
    connects(),
    publishes(),
    st.builds(mqtt.Connack, st.integers(0, 255), st.booleans()),
    st.builds(mqtt.Puback, packet_id),
    st.builds(
        mqtt.Subscribe,
        packet_id,
        st.lists(st.tuples(topic_filter, st.integers(0, 2)), min_size=1, max_size=4).map(tuple),
    ),
    st.builds(mqtt.Suback, packet_id, st.lists(st.integers(0, 255), max_size=4).map(tuple)),
    st.builds(mqtt.Unsubscribe, packet_id, st.lists(topic_filter, min_size=1, max_size=4).map(tuple)),
    st.builds(mqtt.Unsuback, packet_id),
    st.sampled_from([mqtt.Pingreq(), mqtt.Pingresp(), mqtt.Disconnect()]),
)


@given(st.lists(packets, max_size=5), st.lists(st.integers(0, 2000)))
def test_packets_survive_any_cut_of_the_stream(sent: list[mqtt.Packet], cuts: list[int]) -> None:
    stream = b"".join(packet.encode() for packet in sent)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    decoder = mqtt.Decoder()
    received = [
        packet for start, end in itertools.pairwise(edges) for packet in decoder.feed(stream[start:end])
    ]
    assert received == sent


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_garbage_raises_only_the_codecs_errors(chunks: list[bytes]) -> None:
    decoder = mqtt.Decoder(max_size=1000)
    try:
        for chunk in chunks:
            for packet in decoder.feed(chunk):
                assert packet.encode()
    except (mqtt.MalformedPacketError, mqtt.UnsupportedProtocolError):
        pass


@given(packets, st.data())
def test_damaged_packet_raises_only_the_codecs_errors(packet: mqtt.Packet, data: st.DataObject) -> None:
    encoded = bytearray(packet.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        for decoded in mqtt.Decoder().feed(bytes(encoded)):
            assert decoded.encode()
    except (mqtt.MalformedPacketError, mqtt.UnsupportedProtocolError):
        pass


def test_packet_over_the_limit_is_refused_before_it_has_come() -> None:
    encoded = mqtt.Publish("t", bytes(2000)).encode()
    with pytest.raises(mqtt.MalformedPacketError, match="limit is 1000"):
        list(mqtt.Decoder(max_size=1000).feed(encoded[:10]))


@pytest.mark.parametrize("length", [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_remaining_length_at_its_edges(length: int) -> None:
    body = bytes(max(0, length - 3))
    if length < 3:
        assert mqtt.Pingreq().encode() == b"\xc0\x00"
        return
    packet = mqtt.Publish("t", body)
    encoded = packet.encode()
    assert len(encoded) - length == 1 + (
        1 if length < 128 else 2 if length < 16_384 else 3 if length < 2_097_152 else 4
    )
    assert list(mqtt.Decoder().feed(encoded)) == [packet]


@pytest.mark.parametrize(
    "packet",
    [
        "3000",  # PUBLISH without a topic
        "30020000",  # PUBLISH with an empty topic
        "3003000123",  # PUBLISH to '#'
        "36050001740001",  # PUBLISH with QoS 3
        "3803000174",  # duplicate of QoS 0
        "32050001740000",  # PUBLISH with packet identifier 0
        "8006000100016100",  # SUBSCRIBE with reserved flags
        "82020001",  # SUBSCRIBE to nothing
        "8206000100016103",  # SUBSCRIBE with QoS 3
        "8208000100032f232f00",  # SUBSCRIBE to '/#/'
        "c100",  # PINGREQ with flags
        "c00100",  # PINGREQ with a body
        "0000",  # type 0
        "50020001",  # PUBREC, of QoS 2
        "c08080808000",  # remaining length of five bytes
        "30030001ff",  # topic that is no UTF-8
        "3003000100",  # topic with U+0000
    ],
)
def test_violations_of_the_protocol(packet: str) -> None:
    with pytest.raises(mqtt.MalformedPacketError):
        list(mqtt.Decoder().feed(bytes.fromhex(packet)))


@pytest.mark.parametrize("head", ["00064d514973647003", "00044d51545405", "00044d5154540302"])
def test_other_protocol_levels(head: str) -> None:
    body = bytes.fromhex(head) + bytes(6)
    with pytest.raises(mqtt.UnsupportedProtocolError):
        list(mqtt.Decoder().feed(bytes([0x10, len(body)]) + body))


@pytest.mark.parametrize("flags", [0x01, 0x08, 0x20, 0x1C, 0x40])
def test_contradictory_connect_flags(flags: int) -> None:
    body = bytes.fromhex("00044d51545404") + bytes([flags, 0, 0]) + bytes(20)
    with pytest.raises(mqtt.MalformedPacketError, match="CONNECT"):
        list(mqtt.Decoder().feed(bytes([0x10, len(body)]) + body))


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/+", "a", False),
        ("a", "a/b", False),
        ("#", "$iothub/twin", False),
        ("+/twin", "$iothub/twin", False),
        ("$iothub/twin/res/#", "$iothub/twin/res/200/?$rid=1", True),
    ],
)
def test_topic_filters(pattern: str, name: str, matches: bool) -> None:
    assert mqtt.topic_matches(pattern, name) is matches


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(mqtt.Connect("id", username="u", password=b"secret"))
