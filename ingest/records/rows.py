"""The rows body: exactly the bytes of the `records` field of Kafka's record batch v2, uncompressed.

    record = length varint, attributes int8, timestamp delta varlong, offset delta varint,
             key length varint (-1: null), key, value length varint (-1: null), value,
             header count varint, headers
    header = name length varint, name in UTF-8, value length varint (-1: null), value

Varints are zigzag. The timestamp delta counts from the batch's base timestamp, the offset delta from its base offset.
The codec is aiokafka's compiled one, which wants a whole batch: 61 bytes of Kafka's header are built around the body.

Source: docs/format/rows.md; Kafka's `DefaultRecord` and `DefaultRecordBatch`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ingest.errors import CorruptBatch
from ingest.limits import KIB, LIMITS, MIB
from ingest.records.columns import Headers
from ingest.records.header import BatchHeader
from ingest.records.plain_rows import BASE_MAX, look_at_plain_rows

if TYPE_CHECKING:
    from aiokafka.record.default_records import DefaultRecord, DefaultRecordBatch, DefaultRecordBatchBuilder
    from typing_extensions import Buffer

KAFKA_HEADER_SIZE = 61
_KAFKA_MAGIC = 2
_KAFKA_LENGTH_FROM = 12  # `length` counts the bytes after itself
# base offset, length, leader epoch, magic, crc, attributes, last offset delta, base and max timestamp, producer id,
# producer epoch, base sequence, count
_KAFKA_HEADER = struct.Struct(">qiibIhiqqqhii")
assert _KAFKA_HEADER.size == KAFKA_HEADER_SIZE

RECORD_SIZE_MIN = 7  # of a record without key, value and headers: seven varints of one byte each
_SIZE_MAX = 2**31 - 1
_PLAIN_COUNT_MIN = 128  # fewer records are sooner taken one by one
_UNCHECKED_BODY_BYTES = 1 * MIB  # a body up to here can't hold more than 512 Ki headers: 50 MB of objects at worst
_UNCHECKED_RECORD_BYTES = 32 * KIB


class Row(msgspec.Struct, frozen=True, gc=False):
    """One record of a rows body; its offset is the batch's base offset + `offset_delta`."""

    offset_delta: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def encode_rows(rows: Iterable[Row]) -> bytes:
    """Encode records as a rows body, relative to the timestamp of the first: the header's base timestamp must be that.

    Cost: 0.4 µs a record, two copies.
    """
    _, builder_type = _codec()
    builder = builder_type(_KAFKA_MAGIC, 0, 0, -1, -1, -1, _SIZE_MAX)
    append = builder.append
    for row in rows:
        appended = append(row.offset_delta, row.timestamp_ms, row.key, row.value, list(row.headers))
        assert appended is not None, "a batch is smaller than 2 GiB"
    return bytes(memoryview(builder.build())[KAFKA_HEADER_SIZE:])


def decode_rows(body: Buffer, header: BatchHeader) -> list[Row]:
    """Decode an uncompressed rows body of `header.record_count` records.

    Args:
        body: The body after decompression.
        header: Of the batch; its base timestamp, record count and last offset delta are used.
    Raises:
        CorruptBatch: the records contradict themselves or the header.
    Cost: one copy of the body, about 0.5 µs a record.
    """
    rows: list[Row] = []
    previous = -1
    for record in _walk(body, header):
        headers = tuple(record.headers) if record.headers else ()
        if record.offset <= previous:
            raise CorruptBatch(f"record with offset delta {record.offset} after {previous}")
        previous = record.offset
        rows.append(Row(previous, record.timestamp, record.key, record.value, headers))
    if previous > header.last_offset_delta:
        raise CorruptBatch(f"offset delta {previous} beyond the last, {header.last_offset_delta}")
    return rows


class CheckedRows(NamedTuple):
    """What a look at all records of a producer's rows body tells."""

    max_timestamp_ms: int
    keyless: int


def check_rows(body: Buffer, header: BatchHeader) -> CheckedRows:
    """Look at every record of an uncompressed rows body as a producer sends it: offsets without holes.

    Args:
        body, header: As for `decode_rows`.
    Raises:
        CorruptBatch: the records contradict themselves or the header.
    Cost: 0.1 µs a record; with headers one copy of the body, and about 0.4 µs.
    """
    count, base_ms = header.record_count, header.base_timestamp_ms
    room = min(memoryview(body).nbytes // RECORD_SIZE_MIN, LIMITS.batch_records_max)
    if _PLAIN_COUNT_MIN <= count <= room and abs(base_ms) < BASE_MAX:
        plain = look_at_plain_rows(body, count)
        if plain is not None:
            return CheckedRows(max(-1, base_ms + plain.largest_delta), plain.keyless)
    latest, keyless = -1, 0
    for expected, record in enumerate(_walk(body, header)):
        if record.offset != expected:
            raise CorruptBatch(f"record with offset delta {record.offset}, expected {expected}")
        latest = max(latest, record.timestamp)
        keyless += record.key is None
    return CheckedRows(latest, keyless)


def _walk(body: Buffer, header: BatchHeader) -> Iterator[DefaultRecord]:
    """Give the records of an uncompressed rows body, within the limits."""
    view = memoryview(body).cast("B")
    count = header.record_count
    if count > LIMITS.batch_records_max or count * RECORD_SIZE_MIN > view.nbytes:
        raise CorruptBatch(f"{count} records in a rows body of {view.nbytes} bytes")
    if view.nbytes > _UNCHECKED_BODY_BYTES:
        _check_header_counts(view, count)
    batch_type, _ = _codec()
    batch = batch_type(b"%s%s" % (_kafka_header(view.nbytes, header), view))
    headers_left = LIMITS.batch_headers_max
    try:
        for record in batch:
            if record.headers:
                headers_left -= len(record.headers)
                if headers_left < 0:
                    raise CorruptBatch(f"more than {LIMITS.batch_headers_max} headers in a batch")
                if len(record.headers) > LIMITS.record_headers_max:
                    raise CorruptBatch(f"record with offset delta {record.offset} and {len(record.headers)} headers")
            yield record
    except (_kafka_errors(), ValueError, OverflowError, MemoryError) as error:
        # MemoryError: a length near 2^63 wraps around in the codec's check of bounds; nothing was allocated
        raise CorruptBatch(f"rows body: {error or 'a length beyond the end'}") from None


def _codec() -> tuple[type[DefaultRecordBatch], type[DefaultRecordBatchBuilder]]:
    """Import the record codec now: only readers and writers of rows pay for it."""
    from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

    return DefaultRecordBatch, DefaultRecordBatchBuilder


def _kafka_errors() -> type[Exception]:
    from aiokafka.errors import CorruptRecordException

    error: type[Exception] = CorruptRecordException
    return error


def _kafka_header(body_size: int, header: BatchHeader) -> bytes:
    """Build Kafka's batch header around a plain body, its base offset 0 and its CRC empty."""
    return _KAFKA_HEADER.pack(
        0,
        KAFKA_HEADER_SIZE - _KAFKA_LENGTH_FROM + body_size,
        header.leader_epoch,
        _KAFKA_MAGIC,
        0,
        0,
        header.last_offset_delta,
        header.base_timestamp_ms,
        header.max_timestamp_ms,
        -1,
        -1,
        -1,
        header.record_count,
    )


def _check_header_counts(view: memoryview, count: int) -> None:
    """Refuse a large record with too many headers before objects are made of them.

    Two bytes of body make a header of a hundred bytes in memory. Cost: 0.3 µs a record.
    """
    position = 0
    for _ in range(count):
        length, start = _varint(view, position)
        position = start + length
        if length < 0 or position > view.nbytes:
            raise CorruptBatch(f"record of {length} bytes at byte {start} of {view.nbytes}")
        if length <= _UNCHECKED_RECORD_BYTES:
            continue
        field = start + 1  # after the attributes
        _, field = _varint(view, field)
        _, field = _varint(view, field)
        for _ in ("key", "value"):
            size, field = _varint(view, field)
            field += max(size, 0)
        headers, _ = _varint(view, field)
        if headers > LIMITS.record_headers_max:
            raise CorruptBatch(f"{headers} headers on a record > {LIMITS.record_headers_max}")


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """Return a zigzag varint and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if not 0 <= position < view.nbytes:
            raise CorruptBatch(f"varint passes the end {view.nbytes}")
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value >> 1 ^ -(value & 1), position
    raise CorruptBatch(f"varint of more than 10 bytes before byte {position}")
