"""The data types MQTT packets are made of, read within the bytes of one packet.

A reader is `(buffer, offset) -> (value, offset)`; a length is checked against the bytes there are before it is used.
Source: MQTT 5.0 section 1.5.
"""

from __future__ import annotations

from edge.mqtt.codes import Reason
from ingest.errors import ProtocolError


class Violated(ProtocolError):
    """The device broke MQTT's rules; `reason` tells it which."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def malformed(message: str) -> Violated:
    """Return the error for bytes that are no packet."""
    return Violated(Reason.MALFORMED_PACKET, message)


def read_byte(data: bytes, at: int) -> tuple[int, int]:
    """Read one byte."""
    if at >= len(data):
        raise malformed(f"the packet ends at byte {at}, where one more was expected")
    return data[at], at + 1


def read_uint16(data: bytes, at: int) -> tuple[int, int]:
    """Read a two byte integer."""
    if at + 2 > len(data):
        raise malformed(f"the packet ends within the two byte integer at {at}")
    return data[at] << 8 | data[at + 1], at + 2


def read_uint32(data: bytes, at: int) -> tuple[int, int]:
    """Read a four byte integer."""
    if at + 4 > len(data):
        raise malformed(f"the packet ends within the four byte integer at {at}")
    return int.from_bytes(data[at : at + 4], "big"), at + 4


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a variable byte integer: at most four bytes, no longer than needed."""
    value = 0
    for count in range(4):
        byte, at = read_byte(data, at)
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if count and byte == 0:
                raise malformed("a variable byte integer is longer than needed")  # MQTT-1.5.5-1
            return value, at
    raise malformed("a variable byte integer of more than four bytes")


def read_binary(data: bytes, at: int) -> tuple[bytes, int]:
    """Read binary data with its two byte length."""
    length, at = read_uint16(data, at)
    if at + length > len(data):
        raise malformed(f"{length} bytes are announced at {at}, {len(data) - at} are left")
    return data[at : at + length], at + length


def read_string(data: bytes, at: int) -> tuple[str, int]:
    """Read a UTF-8 string with its two byte length."""
    raw, at = read_binary(data, at)
    return decode_utf8(raw), at


def decode_utf8(raw: bytes) -> str:
    """Decode a UTF-8 string as MQTT wants it: no surrogates, no NUL.

    Raises:
        Violated: 0x81.
    Source: MQTT-1.5.4-1, MQTT-1.5.4-2.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise malformed(f"{raw[:40]!r} is not UTF-8") from None
    if "\0" in text:
        raise malformed("a string holds NUL")
    return text


def encode_varint(value: int) -> bytes:
    """Encode a variable byte integer."""
    assert 0 <= value < 1 << 28
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_binary(raw: bytes) -> bytes:
    """Encode binary data with its two byte length."""
    assert len(raw) <= 0xFFFF
    return len(raw).to_bytes(2, "big") + raw


def encode_string(text: str) -> bytes:
    """Encode a UTF-8 string with its two byte length."""
    return encode_binary(text.encode())


def encode_packet(first: int, body: bytes) -> bytes:
    """Put the fixed header before a packet's body."""
    return bytes((first,)) + encode_varint(len(body)) + body
