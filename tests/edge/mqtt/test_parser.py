"""Bytes in, packets out: however they are cut, and whatever they are."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.mqtt.codes import Reason
from edge.mqtt.packets import Connect, Disconnect, PingReq, Publish, PubRel, Subscribe, Unsubscribe, Violation, Will
from edge.mqtt.parser import CONNECT_BYTES_MAX, Parser
from edge.mqtt.properties import Property
from tests.edge.mqtt import client_packets as c

LIMIT = 1 << 20
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
mids = st.integers(1, 65535)
user_properties = st.lists(st.tuples(text, text), min_size=1, max_size=3)
message_properties = st.fixed_dictionaries(
    {},
    optional={
        Property.PAYLOAD_FORMAT_INDICATOR: st.integers(0, 1),
        Property.MESSAGE_EXPIRY_INTERVAL: st.integers(0, 2**32 - 1),
        Property.CONTENT_TYPE: text,
        Property.RESPONSE_TOPIC: text,
        Property.CORRELATION_DATA: st.binary(max_size=20),
        Property.USER_PROPERTY: user_properties,
        Property.TOPIC_ALIAS: st.integers(1, 65535),
    },
)


def opened(version: int, limit: int = LIMIT) -> Parser:
    parser = Parser(limit)
    assert isinstance(parser.feed(c.connect(version=version))[0], Connect)
    assert parser.accept(limit) == []
    return parser


@st.composite
def client_streams(draw: st.DrawFn) -> tuple[int, bytes, list[object]]:
    version = draw(st.sampled_from([4, 5]))
    stream, expected = b"", []
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["publish", "publish", "pubrel", "ping", "subscribe", "unsubscribe"]))
        mid = draw(mids)
        packet_id = mid.to_bytes(2, "big")
        if kind == "publish":
            qos = draw(st.integers(0, 2))
            topic, payload = draw(text), draw(st.binary(max_size=300))
            dup, retain = bool(qos) and draw(st.booleans()), draw(st.booleans())
            properties = draw(message_properties) if version == 5 else {}
            stream += c.publish(
                topic, payload, qos=qos, mid=mid, dup=dup, retain=retain, version=version, properties=properties
            )
            flags = 0x30 | dup << 3 | qos << 1 | retain
            expected.append(
                Publish(flags, topic.encode(), packet_id if qos else b"", payload, dict(properties) or None)
            )
        elif kind == "pubrel":
            stream += c.pubrel(mid)
            expected.append(PubRel(packet_id))
        elif kind == "ping":
            stream += c.PINGREQ
            expected.append(PingReq())
        else:
            filters = draw(st.lists(text, min_size=1, max_size=3))
            encode, value = (c.subscribe, Subscribe) if kind == "subscribe" else (c.unsubscribe, Unsubscribe)
            stream += encode(mid, filters, version=version)
            expected.append(value(packet_id, filters))
    return version, stream, expected


@given(client_streams(), st.lists(st.integers(1, 50), max_size=20))
def test_packets_are_the_same_however_the_stream_is_cut(
    stream: tuple[int, bytes, list[object]], cuts: list[int]
) -> None:
    version, data, expected = stream
    parser = opened(version)
    found: list[object] = []
    for cut in cuts:
        found += parser.feed(data[:cut])
        data = data[cut:]
    found += parser.feed(data)
    assert found == expected
    assert parser.buffered_bytes == 0


@given(
    st.sampled_from([4, 5]),
    text,
    st.booleans(),
    st.integers(0, 65535),
    st.none() | text,
    st.none() | st.binary(max_size=20),
    st.none() | st.builds(Will, text, st.binary(max_size=30), st.integers(0, 2), st.booleans()),
)
def test_connect_round_trip(
    version: int,
    client_id: str,
    clean: bool,
    keep_alive: int,
    user: str | None,
    password: bytes | None,
    will: Will | None,
) -> None:
    if user is None and version == 4:
        password = None
    data = c.connect(
        client_id, version=version, clean=clean, keep_alive=keep_alive, user=user, password=password, will=will
    )
    assert Parser().feed(data) == [Connect(version, client_id, clean, keep_alive, user, password, will, {})]


def test_what_comes_behind_connect_waits_until_the_client_is_let_in() -> None:
    parser = Parser()
    assert len(parser.feed(c.connect() + c.publish("t", b"1", qos=1, mid=1))) == 1
    assert parser.feed(c.publish("t", b"2", qos=1, mid=2)) == []
    assert [packet.payload for packet in parser.accept(LIMIT)] == [b"1", b"2"]  # type: ignore[union-attr]


BROKEN = {
    "first packet is no CONNECT": (0, c.PINGREQ, Reason.PROTOCOL_ERROR),
    "not MQTT": (0, b"GET / HTTP/1.1\r\n", Reason.PROTOCOL_ERROR),
    "another protocol's name": (0, b"\x10\x0a\x00\x04HTTP\x04\x02\x00\x00", Reason.UNSUPPORTED_PROTOCOL_VERSION),
    "reserved connect flag": (0, b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x00\x00\x00", Reason.MALFORMED_PACKET),
    "will QoS without will": (0, b"\x10\x0c\x00\x04MQTT\x04\x0a\x00\x00\x00\x00", Reason.MALFORMED_PACKET),
    "cut CONNECT": (0, b"\x10\x0a\x00\x04MQTT\x04\x02\x00\x00", Reason.MALFORMED_PACKET),
    "CONNECT beyond its limit": (0, b"\x10\xff\xff\xff\x7f", Reason.PACKET_TOO_LARGE),
    "length of five bytes": (4, b"\x30\xff\xff\xff\xff\x01", Reason.MALFORMED_PACKET),
    "length longer than needed": (4, b"\x30\x80\x00", Reason.MALFORMED_PACKET),
    "PUBLISH beyond the limit": (4, b"\x30\xff\xff\xff\x7f", Reason.PACKET_TOO_LARGE),
    "SUBSCRIBE beyond its limit": (4, b"\x82\x81\x80\x08", Reason.PACKET_TOO_LARGE),
    "QoS 3": (4, b"\x36\x07\x00\x01t\x00\x01xx", Reason.MALFORMED_PACKET),
    "DUP with QoS 0": (4, b"\x38\x05\x00\x01txx", Reason.MALFORMED_PACKET),
    "packet identifier 0": (4, b"\x32\x07\x00\x01t\x00\x00xx", Reason.MALFORMED_PACKET),
    "topic longer than its packet": (4, b"\x30\x04\xff\xffxx", Reason.MALFORMED_PACKET),
    "no room for a packet identifier": (4, b"\x32\x03\x00\x01t", Reason.MALFORMED_PACKET),
    "no properties": (5, b"\x32\x05\x00\x01t\x00\x01", Reason.MALFORMED_PACKET),
    "properties longer than the packet": (5, b"\x30\x04\x00\x01t\x7f", Reason.MALFORMED_PACKET),
    "unknown property": (5, b"\x30\x06\x00\x01t\x02\x7e\x00", Reason.MALFORMED_PACKET),
    "a property that belongs elsewhere": (5, b"\x30\x07\x00\x01t\x03\x21\x00\x05", Reason.MALFORMED_PACKET),
    "a property twice": (5, b"\x30\x08\x00\x01t\x04\x01\x00\x01\x00", Reason.PROTOCOL_ERROR),
    "payload format 2": (5, b"\x30\x06\x00\x01t\x02\x01\x02", Reason.PROTOCOL_ERROR),
    "PUBREL with wrong flags": (4, b"\x60\x02\x00\x01", Reason.MALFORMED_PACKET),
    "SUBSCRIBE without filters": (4, b"\x82\x02\x00\x01", Reason.PROTOCOL_ERROR),
    "CONNACK from a client": (4, b"\x20\x02\x00\x00", Reason.PROTOCOL_ERROR),
    "packet type 0": (4, b"\x00\x00", Reason.PROTOCOL_ERROR),
    "AUTH": (5, b"\xf0\x00", Reason.PROTOCOL_ERROR),
    "bytes behind PINGREQ": (4, b"\xc0\x01x", Reason.MALFORMED_PACKET),
    "filter that is not UTF-8": (4, b"\x82\x06\x00\x01\x00\x01\xff\x01", Reason.MALFORMED_PACKET),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_packet_is_answered_with_its_reason_and_nothing_is_read_after_it(name: str) -> None:
    version, data, reason = BROKEN[name]
    parser = opened(version) if version else Parser()
    packets = parser.feed(data + c.PINGREQ)
    assert [type(packet) for packet in packets] == [Violation]
    assert packets[0].reason == reason  # type: ignore[union-attr]
    assert parser.feed(c.PINGREQ) == []


def test_packets_before_a_broken_one_still_count() -> None:
    packets = opened(4).feed(c.publish("t", b"x", qos=1, mid=7) + b"\x00\x00")
    assert [type(packet) for packet in packets] == [Publish, Violation]


def test_disconnect_of_mqtt_5_carries_reason_and_session_expiry() -> None:
    data = c.disconnect(version=5, reason=4, properties={Property.SESSION_EXPIRY_INTERVAL: 9})
    assert opened(5).feed(data + b"\xe0\x00") == [Disconnect(4, 9), Disconnect(0, None)]


@settings(max_examples=300)
@given(st.sampled_from([0, 4, 5]), st.lists(st.binary(max_size=200), max_size=6))
def test_any_bytes_give_packets_or_one_violation(version: int, reads: list[bytes]) -> None:
    parser = opened(version) if version else Parser()
    found = [packet for data in reads for packet in parser.feed(data)]
    assert all(type(packet) is not Violation for packet in found[:-1])


@settings(max_examples=300)
@given(client_streams(), st.data())
def test_changed_packets_give_packets_or_one_violation(
    stream: tuple[int, bytes, list[object]], data: st.DataObject
) -> None:
    version, raw, _ = stream
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    found = opened(version).feed(bytes(changed))
    assert all(type(packet) is not Violation for packet in found[:-1])


@pytest.mark.parametrize("head", [b"\x10\xff\xff\x07", b"\x10\x80\x80\x08"])
def test_a_stranger_makes_the_parser_hold_no_more_than_a_connect(head: bytes) -> None:
    parser = Parser()
    tracemalloc.start()
    try:
        parser.feed(head)
        for _ in range(1000):
            parser.feed(b"x" * 1000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert parser.buffered_bytes <= CONNECT_BYTES_MAX
    assert peak < 4 * CONNECT_BYTES_MAX


def test_a_large_packet_in_tiny_pieces_costs_one_copy_not_one_a_piece() -> None:
    parser = opened(4)
    data = c.publish("t", b"x" * 200_000, qos=1, mid=1)
    found = [packet for at in range(0, len(data), 7) for packet in parser.feed(data[at : at + 7])]
    assert [len(packet.payload) for packet in found] == [200_000]  # type: ignore[union-attr]
