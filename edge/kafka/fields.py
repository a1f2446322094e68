"""What all that is read by hand is made of. Pure."""

from __future__ import annotations


class Malformed(Exception):
    """Bytes that are no request: the connection is closed."""


def decode_varint(frame: memoryview, position: int) -> tuple[int, int]:
    """Return an unsigned varint of 32 bits and the position behind it.

    Raises:
        Malformed: it is longer than five bytes.
        IndexError: it passes the end.
    """
    value = 0
    for shift in range(0, 35, 7):
        byte = frame[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise Malformed("a varint of more than five bytes")
