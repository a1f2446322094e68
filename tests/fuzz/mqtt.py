"""The MQTT parser: a stream of bytes from a device, cut into reads anywhere."""

from __future__ import annotations

from collections.abc import Iterable

from edge.mqtt.packets import Connect, Packet, Violation
from edge.mqtt.parser import Parser
from tests.fuzz.decoder import MIB, Decoder

PACKET_BYTES_MAX = 2 * MIB


def _text(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def _packet(first: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    length, size = b"", len(body)
    while True:
        length += bytes([size & 0x7F | (0x80 if size > 0x7F else 0)])
        size >>= 7
        if not size:
            return bytes([first]) + length + body


def _stream_311() -> bytes:
    will = _text(b"will/topic") + _text(b"gone")
    return b"".join(
        [
            _packet(
                0x10, _text(b"MQTT"), b"\x04\xce\x00\x3c", _text(b"dev-17"), will, _text(b"user"), _text(b"secret")
            ),
            _packet(0x30, _text(b"plant/7/temperature"), b"21.5"),
            _packet(0x32, _text(b"plant/7/temperature"), b"\x00\x01", b"21.5"),
            _packet(0x3D, _text(b"plant/7/vibration"), b"\x00\x02", b"x" * 300),
            _packet(0x62, b"\x00\x02"),
            _packet(0x82, b"\x00\x03", _text(b"a/+/#"), b"\x01"),
            _packet(0xA2, b"\x00\x04", _text(b"a/+/#")),
            b"\xc0\x00\xe0\x00",
        ]
    )


def _stream_5() -> bytes:
    user_property = b"\x26" + _text(b"site") + _text(b"A")
    expiry = b"\x11\x00\x00\x00\x3c"
    alias = b"\x23\x00\x01"
    return b"".join(
        [
            _packet(0x10, _text(b"MQTT"), b"\x05\x02\x00\x3c", b"\x05" + expiry, _text(b"dev-17")),
            _packet(
                0x32, _text(b"a/b"), b"\x00\x01", bytes([len(user_property + alias)]), user_property, alias, b"21.5"
            ),
            _packet(0x34, _text(b""), b"\x00\x02", bytes([len(alias)]), alias, b"21.6"),
            _packet(0x62, b"\x00\x02\x00\x00"),
            _packet(0x82, b"\x00\x03\x00", _text(b"a/#"), b"\x01"),
            _packet(0xE0, b"\x04\x05" + expiry),
        ]
    )


def _read_stream(data: bytes) -> list[Packet]:
    """Feed a stream in pieces whose sizes the first byte chooses; the limits are those of a real connection."""
    step = data[0] * 4 + 1 if data else 1
    parser = Parser()
    packets: list[Packet] = []
    for start in range(1, len(data), step):
        for packet in parser.feed(data[start : start + step]):
            packets.append(packet)
            if isinstance(packet, Connect) and packet.version in (4, 5):
                packets += parser.accept(PACKET_BYTES_MAX)
        assert parser.buffered_bytes <= PACKET_BYTES_MAX + 1024, "it holds more than a packet"
        if packets and isinstance(packets[-1], Violation):
            assert parser.feed(data) == [], "nothing is read after a violation"
            break
    return packets


def _bombs() -> list[bytes]:
    connect = _stream_5()[: _stream_5().index(b"dev-17") + 6]
    tiny = _packet(0x30, _text(b""), b"\x00") * 300_000
    filters = _packet(0x82, b"\x00\x03\x00", *[b"\x00\x01a\x00"] * 15_000)
    properties = b"\x26\x00\x00\x00\x00" * 100_000
    huge = b"\x30\xff\xff\xff\x7f" + bytes(1 << 20)
    return [
        b"\xff" + connect + tiny,
        b"\xff" + connect + filters * 20,
        b"\xff" + connect + _packet(0x30, _text(b"t"), b"\xa0\xc2\x1e", properties),
        b"\xff" + connect + huge,
        b"\x00" + connect + huge[:100_000],
    ]


def decoders() -> Iterable[Decoder]:
    """Return the parser, which raises nothing at all: a violation is a value."""
    streams = [bytes([step]) + stream for step in (0, 3, 255) for stream in (_stream_311(), _stream_5())]
    yield Decoder("mqtt", streams, _read_stream, bombs=_bombs, errors=())
