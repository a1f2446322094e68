"""The data types that Kafka's group metadata is made of: big-endian, every length checked before it is believed.

A reader is `(data, at) -> (value, at)` and raises ProtocolError where the bytes can't be what they say.
Source: Kafka protocol guide, primitive types; versions without tagged fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from ingest.client.positions import TopicPartition
from ingest.errors import ProtocolError

_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_STRING_BYTES_MIN = 2  # its length
_TOPIC_BYTES_MIN = 6  # length of a name, count of partitions


def read_int16(data: bytes, at: int) -> tuple[int, int]:
    """Read a two byte integer."""
    value: int = _INT16.unpack(_read(data, at, 2))[0]
    return value, at + 2


def read_int32(data: bytes, at: int) -> tuple[int, int]:
    """Read a four byte integer."""
    value: int = _INT32.unpack(_read(data, at, 4))[0]
    return value, at + 4


def read_nullable_bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    """Read bytes after their four byte length; any negative one means null, as in Kafka's readers."""
    size, at = read_int32(data, at)
    return (None, at) if size < 0 else (_read(data, at, size), at + size)


def read_nullable_string(data: bytes, at: int) -> tuple[str | None, int]:
    """Read UTF-8 after its two byte length; any negative one means null."""
    size, at = read_int16(data, at)
    if size < 0:
        return None, at
    try:
        return _read(data, at, size).decode(), at + size
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the string of {size} bytes at {at} is no UTF-8: {error.reason}") from None


def read_string(data: bytes, at: int) -> tuple[str, int]:
    """Read a string that is never null."""
    value, after = read_nullable_string(data, at)
    if value is None:
        raise ProtocolError(f"null at {at}, where a string was expected")
    return value, after


def read_strings(data: bytes, at: int) -> tuple[tuple[str, ...], int]:
    """Read an array of strings."""
    count, at = _read_count(data, at, _STRING_BYTES_MIN)
    values = []
    for _ in range(count):
        value, at = read_string(data, at)
        values.append(value)
    return tuple(values), at


def read_partitions(data: bytes, at: int) -> tuple[tuple[TopicPartition, ...], int]:
    """Read an array of topics, each with an array of its partitions."""
    topics, at = _read_count(data, at, _TOPIC_BYTES_MIN)
    found: list[TopicPartition] = []
    for _ in range(topics):
        topic, at = read_string(data, at)
        count, at = _read_count(data, at, _INT32.size)
        numbers = struct.unpack_from(f">{count}i", data, at)
        at += count * _INT32.size
        if count and min(numbers) < 0:
            raise ProtocolError(f"partition {min(numbers)} of topic {topic!r:.60}")
        found += [TopicPartition(topic, number) for number in numbers]
    return tuple(found), at


def write_int16(value: int) -> bytes:
    """Write a two byte integer."""
    return _INT16.pack(value)


def write_int32(value: int) -> bytes:
    """Write a four byte integer."""
    return _INT32.pack(value)


def write_nullable_bytes(value: bytes | None) -> bytes:
    """Write bytes after their length, or null."""
    return write_int32(-1) if value is None else write_int32(len(value)) + value


def write_nullable_string(value: str | None) -> bytes:
    """Write UTF-8 after its length, or null."""
    if value is None:
        return write_int16(-1)
    raw = value.encode()
    return write_int16(len(raw)) + raw


def write_strings(values: Iterable[str]) -> bytes:
    """Write an array of strings in the order of their names, as Kafka's Java client does."""
    ordered = sorted(values)
    return write_int32(len(ordered)) + b"".join(map(write_nullable_string, ordered))


def write_partitions(partitions: Iterable[TopicPartition]) -> bytes:
    """Write an array of topics, each with an array of its partitions, both in order."""
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        by_topic.setdefault(topic, []).append(partition)
    parts = [write_int32(len(by_topic))]
    for topic, numbers in by_topic.items():
        parts += [write_nullable_string(topic), struct.pack(f">{len(numbers) + 1}i", len(numbers), *numbers)]
    return b"".join(parts)


def _read(data: bytes, at: int, size: int) -> bytes:
    if size > len(data) - at:
        raise ProtocolError(f"{size} bytes are announced at {at}, {len(data) - at} are left")
    return data[at : at + size]


def _read_count(data: bytes, at: int, item_bytes_min: int) -> tuple[int, int]:
    """Read the count of an array; what can't fit in the bytes that are left is a lie."""
    count, at = read_int32(data, at)
    if not 0 <= count <= (len(data) - at) // item_bytes_min:
        raise ProtocolError(f"an array of {count} is announced at {at}, {len(data) - at} bytes are left")
    return count, at
