"""Produce requests, read by hand: records stay views of the frame, counts are checked before anything is made of them.

    v3-v8   transactional_id: nullable string, acks: int16, timeout_ms: int32,
            topics: array of (name: string, partitions: array of (index: int32, records: nullable bytes))
    v9-v10  the same with compact strings, arrays and bytes, and tagged fields behind each structure

Pure. Source: Kafka's ProduceRequest.json.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from edge.kafka.fields import Malformed, decode_varint

PARTITIONS_MAX = 10_000  # in one request
_FLEXIBLE_FROM = 9
_INT16, _INT32 = struct.Struct(">h"), struct.Struct(">i")


class ProducedRecords(NamedTuple):
    """The records for one partition, None where there are none."""

    topic: str
    partition: int
    records: memoryview | None


class ProduceBody(NamedTuple):
    """A Produce request."""

    transactional_id: str | None
    acks: int
    timeout_ms: int
    records: list[ProducedRecords]


def decode_produce(body: memoryview, version: int) -> ProduceBody:
    """Read a Produce request.

    Raises:
        Malformed: the bytes are none, or name more partitions than a request may.
    """
    reader = _Reader(body, flexible=version >= _FLEXIBLE_FROM)
    try:
        return _read(reader)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise Malformed(f"Produce {version}: {error}") from None


def _read(reader: _Reader) -> ProduceBody:
    transactional_id = reader.nullable_string()
    acks, timeout_ms = reader.int16(), reader.int32()
    found: list[ProducedRecords] = []
    for _ in range(reader.count()):
        topic = reader.nullable_string()
        if topic is None:
            raise Malformed("Produce: a topic without a name")
        for _ in range(reader.count()):
            if len(found) >= PARTITIONS_MAX:
                raise Malformed(f"Produce: more than {PARTITIONS_MAX} partitions")
            partition, records = reader.int32(), reader.nullable_bytes()
            reader.tags()
            found.append(ProducedRecords(topic, partition, records))
        reader.tags()
    reader.tags()
    return ProduceBody(transactional_id, acks, timeout_ms, found)


class _Reader:
    """Fields out of a frame, one after another."""

    def __init__(self, frame: memoryview, *, flexible: bool) -> None:
        self._frame = frame
        self._flexible = flexible
        self._position = 0

    def int16(self) -> int:
        (value,) = _INT16.unpack_from(self._frame, self._position)
        self._position += 2
        return int(value)

    def int32(self) -> int:
        (value,) = _INT32.unpack_from(self._frame, self._position)
        self._position += 4
        return int(value)

    def _varint(self) -> int:
        value, self._position = decode_varint(self._frame, self._position)
        return value

    def _take(self, size: int) -> memoryview:
        end = self._position + size
        if end > self._frame.nbytes:
            raise Malformed(f"{size} bytes at byte {self._position} of {self._frame.nbytes}")
        part = self._frame[self._position : end]
        self._position = end
        return part

    def nullable_string(self) -> str | None:
        size = self._varint() - 1 if self._flexible else self.int16()
        return None if size < 0 else bytes(self._take(size)).decode()

    def nullable_bytes(self) -> memoryview | None:
        size = self._varint() - 1 if self._flexible else self.int32()
        return None if size < 0 else self._take(size)

    def count(self) -> int:
        """Return the length of an array; null is as good as empty."""
        count = max(0, self._varint() - 1 if self._flexible else self.int32())
        if count > self._frame.nbytes - self._position:
            raise Malformed(f"an array of {count} in {self._frame.nbytes - self._position} bytes")
        return count

    def tags(self) -> None:
        if self._flexible:
            for _ in range(self._varint()):
                self._varint()
                self._take(self._varint())
